//! From where a key is used: a leaked one shows itself by its many places.

use crate::limits::{KEY_PLACES_WINDOW, MAX_KEY_PLACES};
use mini_torrent_common::address;
use std::net::{IpAddr, SocketAddr};

/// The use of one key since the tracker started. Times are seconds of the monotonic clock.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    /// Those of the last hour, each once.
    places: Vec<Place>,
    last: Option<Used>,
    /// Whether `last` was taken to the store.
    is_stored: bool,
    /// Whether there were too many places.
    suspended: bool,
}

/// An address and when the key was used there last. Small, for every announce looks through those of its key.
#[derive(Debug, Clone, Copy)]
struct Place {
    block: Block,
    at_s: u32,
}

/// An address, or for IPv6 its /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    V4([u8; 4]),
    V6([u8; 8]),
}

impl Block {
    fn of(ip: IpAddr) -> Self {
        match address::block_of(ip) {
            IpAddr::V4(v4) => Self::V4(v4.octets()),
            IpAddr::V6(v6) => Self::V6(v6.octets().first_chunk().copied().unwrap_or_default()),
        }
    }
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
        let block = Block::of(used.address.ip());
        let at_s = u32::try_from(used.at_s).unwrap_or(u32::MAX);
        match self.places.iter_mut().find(|place| place.block == block) {
            Some(place) => place.at_s = at_s,
            None => {
                let window_s = KEY_PLACES_WINDOW.as_secs();
                self.places.retain(|place| u64::from(at_s.saturating_sub(place.at_s)) < window_s);
                if self.places.len() >= MAX_KEY_PLACES {
                    self.suspended = true;
                    return Err(TooManyPlaces::Now);
                }
                self.places.push(Place { block, at_s });
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
