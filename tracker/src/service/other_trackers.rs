//! Keeping step with the other trackers on the same store: what changes here is written for them in batches, and what
//! they wrote is taken into the memory, so that each tracker answers for the clients of all.
//!
//! Whether another tracker lives is seen by its heartbeat alone, on the own monotonic clock: no clock is compared with
//! another one. A tracker that is first seen is believed when its heart has beaten once, so nothing is ever taken over
//! from one that died before. A tracker without company writes its heartbeat and nothing else.
//!
//! A tracker that cannot look is dead to the others, and does not know what they ended. After the same time it is dead to
//! itself, too: ordinary clients, whose keys are looked up in memory, are told nothing until it has looked again. That goes
//! for a lonely one as well, for it cannot see whether another one has been started in its place.

use super::Service;
use crate::clock::{Clock, Moment};
use crate::limits;
use crate::presence::{Changes, News};
use crate::store::{OnlineChanges, OnlinePage, OtherTracker, ReadSoFar, Run, RunId, StoreError, TrackerNumber, UserId};
use mini_torrent_common::control::{Event, ListingId};
use rand::RngExt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// What this tracker knows of the others, and what they know of it.
pub(super) struct OtherTrackers {
    run: Run,
    /// When the last look at the others that succeeded ended.
    looked: Mutex<Moment>,
    /// Whether the last look failed.
    is_blind: AtomicBool,
    /// Rung by each look, also one that fails.
    has_looked: Notify,
    /// Rung when somebody waits for a look.
    look: Notify,
    following: tokio::sync::Mutex<Following>,
}

struct Following {
    others: BTreeMap<TrackerNumber, Seen>,
    /// Whether the store could not be read last time.
    was_blind: bool,
    /// Whether others are there to write for.
    has_company: bool,
    /// Whether what was written is void.
    anew: bool,
    last_beat: Option<Moment>,
    last_change: u64,
    /// A change, when it was the last one, and up to where rows of what is gone were dropped.
    mark: (u64, Moment),
    forgotten: u64,
}

/// Another tracker.
struct Seen {
    read: ReadSoFar,
    /// When its heart was last seen to have beaten.
    beaten: Moment,
    /// Whether it has been seen to beat, and was not dead since.
    is_believed: bool,
}

impl Seen {
    fn has_stood_still(&self, now: Moment) -> bool {
        now.since(self.beaten) >= limits::DEAD_AFTER
    }
}

impl OtherTrackers {
    pub(super) fn new(number: TrackerNumber, clock: &Clock) -> Self {
        let following = Following {
            others: BTreeMap::new(),
            was_blind: false,
            has_company: false,
            anew: false,
            last_beat: None,
            last_change: 0,
            mark: (0, clock.now()),
            forgotten: 0,
        };
        let run = Run { tracker: number, id: RunId(rand::rng().random()) };
        Self {
            run,
            looked: clock.now().into(),
            is_blind: AtomicBool::new(false),
            has_looked: Notify::new(),
            look: Notify::new(),
            following: following.into(),
        }
    }

    fn looked(&self) -> MutexGuard<'_, Moment> {
        self.looked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this tracker has not looked for so long that the others take it for dead.
    pub(super) fn is_dead(&self, now: Moment) -> bool {
        now.since(*self.looked()) >= limits::DEAD_AFTER
    }

    /// Whether this tracker has not looked for so long that it was stopped, or could not.
    fn stood_still(&self, now: Moment) -> bool {
        now.since(*self.looked()) >= limits::STOPPED_AFTER
    }
}

#[cfg(test)]
impl OtherTrackers {
    pub(super) async fn last_change(&self) -> u64 {
        self.following.lock().await.last_change
    }
}

impl Service {
    /// Whether the heart of a tracker with this one's number beats. It takes a while to see, unless the last one with
    /// this number has ended orderly.
    ///
    /// # Errors
    /// `Unavailable`.
    pub(crate) async fn number_is_alive(&self) -> Result<bool, StoreError> {
        let nobody = TrackerNumber(0);
        let mut first = None;
        for _ in 0..limits::LOOKS_FOR_OWN_NUMBER {
            let all = self.store.other_trackers(nobody, BTreeMap::new()).await?;
            let own = all.iter().find(|found| found.tracker == self.others.run.tracker);
            let Some(beat) = own.map(|own| (own.read.run, own.read.heartbeat)) else { return Ok(false) };
            if *first.get_or_insert(beat) != beat {
                return Ok(true);
            }
            self.clock.sleep(limits::FOLLOW_INTERVAL).await;
        }
        Ok(false)
    }

    /// Begins this tracker's life in the store; an earlier one's rows are gone.
    ///
    /// # Errors
    /// `Unavailable`.
    pub(crate) async fn begin_run(&self) -> Result<(), StoreError> {
        let mut following = self.others.following.lock().await;
        *self.others.looked() = self.clock.now();
        // Before they see this one: that they beat for it is seen then.
        self.follow_others(&mut following).await?;
        self.store.begin_run(self.others.run).await
    }

    /// Ends it: the others see at once that its clients are gone.
    pub(crate) async fn end_run(&self) {
        if let Err(error) = self.store.end_run(self.others.run).await {
            tracing::warn!(%error, "the other trackers could not be told of the end");
        }
    }

    /// Keeps step until another process with this tracker's number has taken its place in the store.
    pub(crate) async fn follow_other_trackers(&self) {
        loop {
            match self.keep_step().await {
                Ok(()) => {}
                Err(StoreError::NotFound) => return,
                Err(error) => tracing::warn!(%error, "the other trackers cannot be followed"),
            }
            // News is in memory alone until it is written, and what it tells of is acknowledged: it waits for no more
            // than the next of a burst. Who has to look before anybody is answered waits for nothing.
            let pause = async {
                self.clock.sleep(limits::NEWS_INTERVAL).await;
                tokio::select! {
                    () = self.clock.sleep(limits::FOLLOW_INTERVAL) => {}
                    () = self.presence.has_news() => {}
                }
            };
            tokio::select! {
                () = pause => {}
                () = self.others.look.notified() => {}
            }
        }
    }

    /// One round: what the others wrote is taken, what changed here is written.
    ///
    /// # Errors
    /// `NotFound` when another process has taken this tracker's number; `Unavailable`.
    pub(crate) async fn keep_step(&self) -> Result<(), StoreError> {
        let mut following = self.others.following.lock().await;
        let now = self.clock.now();
        // To the others it was dead, and its clients may be anywhere by now.
        let stood_still = self.others.stood_still(now);
        if stood_still && !std::mem::replace(&mut following.anew, true) {
            tracing::warn!("this tracker stood still; what it wrote for the others is void");
        }
        let looked = self.look(&mut following, stood_still).await;
        if looked.is_ok() {
            *self.others.looked() = self.clock.now();
        }
        self.others.is_blind.store(looked.is_err(), Ordering::Relaxed);
        self.others.has_looked.notify_waiters();
        looked?;
        self.write_for_others(&mut following).await
    }

    async fn look(&self, following: &mut Following, stood_still: bool) -> Result<(), StoreError> {
        self.follow_others(following).await?;
        // What they ended meanwhile are keys, too.
        if stood_still { self.read_keys().await } else { Ok(()) }
    }

    /// Who was stopped looks what happened meanwhile before it answers anybody. While looks fail there is nothing to wait
    /// for: what needs the store is refused by itself, and ordinary clients are once the tracker is dead to the others.
    pub(crate) async fn catch_up(&self) {
        let looks = self.others.has_looked.notified();
        if self.others.stood_still(self.clock.now()) && !self.others.is_blind.load(Ordering::Relaxed) {
            self.others.look.notify_one();
            self.clock.within(limits::CATCH_UP, looks).await;
        }
    }

    async fn follow_others(&self, following: &mut Following) -> Result<(), StoreError> {
        let read = following.others.iter().map(|(tracker, seen)| (*tracker, seen.read)).collect();
        let found = self.store.other_trackers(self.others.run.tracker, read).await;
        let found = found.inspect_err(|_| following.was_blind = true)?;
        let now = self.clock.now();
        if std::mem::take(&mut following.was_blind) {
            // Nobody could be seen to beat meanwhile, and perhaps nobody could beat.
            following.others.values_mut().for_each(|seen| seen.beaten = now);
        }
        self.forget_orphans();
        let mut somebody_went = self.forget_ended(following, &found);
        for OtherTracker { tracker, read, page } in found {
            let first_seen = Seen { read, beaten: now, is_believed: false };
            let seen = following.others.entry(tracker).or_insert(first_seen);
            if seen.read.run != read.run {
                // The one before did not end in order, or its row would have been gone.
                self.orphan_stock_of(tracker);
            }
            let has_beaten = (seen.read.run, seen.read.heartbeat) != (read.run, read.heartbeat);
            seen.read = read;
            if has_beaten {
                seen.beaten = now;
                if !std::mem::replace(&mut seen.is_believed, true) {
                    tracing::info!(tracker = tracker.0, "another tracker is there");
                }
            } else if seen.is_believed && seen.has_stood_still(now) {
                tracing::warn!(tracker = tracker.0, "another tracker is dead");
                (seen.is_believed, seen.read.anew, seen.read.more) = (false, true, false);
                self.presence.forget_tracker(tracker);
                self.orphan_stock_of(tracker);
                somebody_went = true;
            }
            if let Some(page) = page {
                somebody_went |= page.anew;
                self.take_page(tracker, &page).await;
            }
        }
        // What was told when nobody listened, or should have been told, is found out.
        if somebody_went { self.end_gone_listings().await } else { Ok(()) }
    }

    /// Forgets trackers that have ended orderly; says whether there were any.
    fn forget_ended(&self, following: &mut Following, found: &[OtherTracker]) -> bool {
        let named: BTreeSet<_> = found.iter().map(|other| other.tracker).collect();
        let n_before = following.others.len();
        following.others.retain(|tracker, _| {
            let is_there = named.contains(tracker);
            if !is_there {
                tracing::info!(tracker = tracker.0, "another tracker has ended");
                self.presence.forget_tracker(*tracker);
                self.forget_stock_of(*tracker);
            }
            is_there
        });
        following.others.len() < n_before
    }

    async fn take_page(&self, tracker: TrackerNumber, page: &OnlinePage) {
        self.presence.follow(tracker, page);
        self.follow_stock(tracker, page).await;
        for body in &page.news {
            match serde_json::from_str(body) {
                Ok(news) => self.hear(news),
                Err(error) => tracing::warn!(%error, tracker = tracker.0, "news of another tracker is not understood"),
            }
        }
    }

    fn hear(&self, news: News) {
        match news {
            News::Tell { users, event } => drop(self.presence.notify(&users, &event)),
            News::ListingsEnded(listings) => self.presence.end_listings(&listings),
            News::SessionEnded { user, session, reason } => self.presence.end_session(user, Some(session), &reason),
            News::StockStopped { listing, address } => self.stop_stock_client(listing, address),
        }
    }

    async fn end_gone_listings(&self) -> Result<(), StoreError> {
        let gone = self.store.gone_listings(self.presence.listings()).await?;
        if !gone.is_empty() {
            self.presence.end_listings(&gone);
        }
        Ok(())
    }

    async fn write_for_others(&self, following: &mut Following) -> Result<(), StoreError> {
        let now = self.clock.now();
        let has_company = following.others.values().any(|seen| seen.is_believed || !seen.has_stood_still(now));
        if std::mem::replace(&mut following.has_company, has_company) != has_company {
            following.anew = true;
        }
        following.anew |= self.stock_has_run_over();
        if following.anew && has_company {
            self.presence.open_outbox();
            self.open_stock_outbox();
        } else if following.anew {
            self.presence.close_outbox();
            self.close_stock_outbox();
        }
        let own = self.presence.take_changes();
        let changes = OnlineChanges {
            anew: following.anew,
            forget_until: following.due_to_forget(now),
            sessions: own.sessions.clone(),
            peers: own.peers.clone(),
            stock: self.take_stock_changes(),
            news: in_words(&own),
        };
        let has_beaten = following.last_beat.is_some_and(|last| now.since(last) < limits::HEARTBEAT);
        if has_beaten && changes.is_empty() {
            return Ok(());
        }
        let (forgets, stock) = (changes.forget_until, changes.stock.clone());
        match self.store.write_online(self.others.run, changes).await {
            Ok(change) => {
                (following.last_beat, following.last_change, following.anew) = (Some(now), change, false);
                following.forgotten = following.forgotten.max(forgets);
                Ok(())
            }
            Err(error) => {
                self.presence.put_back(own);
                self.put_stock_back(&stock);
                Err(error)
            }
        }
    }

    /// Tells users wherever they are connected.
    pub(super) fn notify(&self, users: &[UserId], event: &Event) {
        let missed = self.presence.notify(users, event);
        for users in missed.chunks(limits::MAX_NAMED_IN_NEWS) {
            self.presence.tell_elsewhere(News::Tell { users: users.into(), event: event.clone() });
        }
    }

    /// Listings are gone, on every tracker.
    pub(super) fn end_listings(&self, ended: &[ListingId]) {
        self.presence.end_listings(ended);
        for ended in ended.chunks(limits::MAX_NAMED_IN_NEWS) {
            self.presence.tell_elsewhere(News::ListingsEnded(ended.into()));
        }
    }
}

impl Following {
    /// Up to which change rows of what is gone are to be dropped now; 0 for none.
    fn due_to_forget(&mut self, now: Moment) -> u64 {
        let (change, at) = self.mark;
        if now.since(at) >= limits::GONE_ROWS_LIFE {
            self.mark = (self.last_change, now);
            return if change > self.forgotten { change } else { 0 };
        }
        0
    }
}

fn in_words(changes: &Changes) -> Vec<String> {
    let words = changes.news.iter().filter_map(|news| match serde_json::to_string(news) {
        Ok(body) => Some(body),
        Err(error) => {
            tracing::error!(%error, "news cannot be written");
            None
        }
    });
    words.collect()
}
