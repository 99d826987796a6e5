//! From where a key is used: a leaked one shows itself by its many places.

use crate::limits::{KEY_PLACES_WINDOW, MAX_KEY_PLACES};
use mini_torrent_common::address;
use std::net::{IpAddr, SocketAddr};

/// The use of one key since the tracker started. Times are seconds of the monotonic clock.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    /// Each address (IPv6: /64) of the last hour once, with the time of its last use.
    places: Vec<(IpAddr, u64)>,
    last: Option<Used>,
    /// Whether `last` was taken to the store.
    is_stored: bool,
    /// Whether there were too many places.
    suspended: bool,
}

/// One use of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Used {
    /// From where, with the port that was declared.
    pub address: SocketAddr,
    /// When, in seconds of the monotonic clock.
    pub at_s: u64,
}

/// The key was used from too many places within the hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TooManyPlaces {
    /// It is to be suspended now.
    Now,
    /// It was found out before.
    Before,
}

impl Usage {
    /// Notes a use.
    ///
    /// # Errors
    /// When the key is used from too many places; from then on always.
    pub(crate) fn note(&mut self, used: Used) -> Result<(), TooManyPlaces> {
        if self.suspended {
            return Err(TooManyPlaces::Before);
        }
        let block = address::block_of(used.address.ip());
        match self.places.iter_mut().find(|(place, _)| *place == block) {
            Some((_, at_s)) => *at_s = used.at_s,
            None => {
                let window_s = KEY_PLACES_WINDOW.as_secs();
                self.places.retain(|(_, at_s)| used.at_s.saturating_sub(*at_s) < window_s);
                if self.places.len() >= MAX_KEY_PLACES {
                    self.suspended = true;
                    return Err(TooManyPlaces::Now);
                }
                self.places.push((block, used.at_s));
            }
        }
        self.last = Some(used);
        self.is_stored = false;
        Ok(())
    }

    /// Whether it was found out that there are too many places.
    pub(crate) fn is_suspended(&self) -> bool {
        self.suspended
    }

    /// The suspension could not be stored: the next use says it again.
    pub(crate) fn take_back_suspension(&mut self) {
        self.suspended = false;
    }

    /// The last use, if it has not been taken before.
    pub(crate) fn take_last(&mut self) -> Option<Used> {
        if std::mem::replace(&mut self.is_stored, true) { None } else { self.last }
    }
}
