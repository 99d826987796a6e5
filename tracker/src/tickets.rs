//! The keys that sign admission tickets. They live in the store, where all trackers of the deployment find them,
//! and each of them is replaced after a week.

use crate::limits;
use crate::store::{Store, StoreError, StoredTicketKey};
use mini_torrent_common::ticket::{CLOCK_TOLERANCE_MS, Endorsement, SignedTicket, TICKET_LIFE_MS, Ticket, TicketKey};
use mini_torrent_common::tls::{Fingerprint, Identity, SEED_LENGTH};
use rand::RngExt;
use std::sync::{Arc, Mutex, PoisonError};
use zeroize::Zeroizing;

/// Why there is no key to sign with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TicketKeyError {
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The cryptographic library refused.
    #[error("no ticket key: {0}")]
    Cryptography(#[from] rustls::Error),
    /// What the store holds is no key, or an endorsement cannot be written down.
    #[error("the ticket key is malformed")]
    Malformed,
}

/// Signs tickets for a deployment.
pub(crate) struct Tickets {
    deployment: Identity,
    in_use: Mutex<Option<InUse>>,
}

#[derive(Clone)]
struct InUse {
    key: Arc<TicketKey>,
    from_ms: u64,
    until_ms: u64,
}

impl InUse {
    /// Not before its time either: a clock may have been set back, and members refuse such tickets.
    fn signs_at(&self, now_ms: u64) -> bool {
        self.from_ms <= now_ms.saturating_add(CLOCK_TOLERANCE_MS) && now_ms < self.until_ms
    }
}

impl Tickets {
    /// With no key yet.
    pub(crate) fn new(deployment: Identity) -> Self {
        Self { deployment, in_use: Mutex::default() }
    }

    /// Whose tickets these are.
    pub(crate) fn deployment(&self) -> Fingerprint {
        self.deployment.public().fingerprint()
    }

    /// The key to sign with at `now_ms`. Usually it is at hand; else it is another tracker's or a new one.
    ///
    /// # Errors
    /// When the store or the cryptographic library fails.
    pub(crate) async fn key(&self, store: &Store, now_ms: u64) -> Result<Arc<TicketKey>, TicketKeyError> {
        let known = self.in_use.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(known) = known.filter(|known| known.signs_at(now_ms)) {
            return Ok(known.key);
        }
        let stored = store.ticket_key(self.draw(now_ms)?, now_ms).await?;
        let endorsement = Endorsement::from_bytes(&stored.endorsement).ok_or(TicketKeyError::Malformed)?;
        let key = Arc::new(TicketKey { identity: Identity::from_seed(&stored.seed)?, endorsement });
        let in_use = InUse { key: Arc::clone(&key), from_ms: stored.from_ms, until_ms: stored.use_until_ms };
        *self.in_use.lock().unwrap_or_else(PoisonError::into_inner) = Some(in_use);
        tracing::info!(key = %stored.key.fingerprint(), "signing tickets with this key");
        Ok(key)
    }

    /// A new key, endorsed until the last of its tickets has certainly expired.
    fn draw(&self, now_ms: u64) -> Result<StoredTicketKey, TicketKeyError> {
        let seed: Zeroizing<[u8; SEED_LENGTH]> = Zeroizing::new(rand::rng().random());
        let key = Identity::from_seed(&seed)?.public();
        let use_until_ms = now_ms + limits::TICKET_KEY_USE_MS;
        let until_ms = use_until_ms + TICKET_LIFE_MS + limits::ENDORSEMENT_RESERVE_MS;
        let endorsement = Endorsement::sign(&self.deployment, key, now_ms, until_ms)?;
        let endorsement = endorsement.to_bytes().map_err(|_| TicketKeyError::Malformed)?;
        Ok(StoredTicketKey { key, seed, from_ms: now_ms, use_until_ms, until_ms, endorsement })
    }

    /// Signs a ticket with the key for the time of its issue.
    ///
    /// # Errors
    /// As [`Self::key`].
    pub(crate) async fn sign(&self, store: &Store, ticket: &Ticket) -> Result<SignedTicket, TicketKeyError> {
        Ok(self.key(store, ticket.issued_ms).await?.sign(ticket)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mini_torrent_common::hash::GroupId;
    use mini_torrent_common::ticket::AccountId;

    fn identity(byte: u8) -> Identity {
        Identity::from_seed(&[byte; SEED_LENGTH]).unwrap()
    }

    fn ticket(issued_ms: u64) -> Ticket {
        Ticket {
            deployment: identity(1).public().fingerprint(),
            group: GroupId([1; 16]),
            member_epoch: 1,
            account: AccountId(1),
            account_epoch: 1,
            user: "alice".parse().unwrap(),
            holder: identity(2).public(),
            issued_ms,
            expires_ms: issued_ms + TICKET_LIFE_MS,
        }
    }

    const START: u64 = 1_000_000;

    #[tokio::test]
    async fn trackers_of_one_store_sign_with_one_key_and_replace_it_after_a_week() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::within(directory.path()).await;
        let other_store = Store::within(directory.path()).await;
        let (one, other) = (Tickets::new(identity(1)), Tickets::new(identity(1)));
        let public = |key: Arc<TicketKey>| key.identity.public();
        let first = public(one.key(&store, START).await.unwrap());
        assert_eq!(public(other.key(&other_store, START + 5).await.unwrap()), first);
        let last_use = START + limits::TICKET_KEY_USE_MS - 1;
        assert_eq!(public(one.key(&store, last_use).await.unwrap()), first);
        let second = public(other.key(&other_store, last_use + 1).await.unwrap());
        assert_ne!(second, first);
        assert_eq!(public(one.key(&store, last_use + 1).await.unwrap()), second);
        other_store.close().await;
        store.close().await;
    }

    #[tokio::test]
    async fn a_clock_that_is_set_back_gets_a_key_whose_tickets_are_good_then() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::within(directory.path()).await;
        let tickets = Tickets::new(identity(1));
        let later = START + 2 * CLOCK_TOLERANCE_MS;
        tickets.key(&store, later).await.unwrap();
        let first = ticket(START);
        let signed = tickets.sign(&store, &first).await.unwrap();
        assert_eq!(signed.open(identity(1).public(), identity(2).public(), START), Ok(first));
        store.close().await;
    }

    #[tokio::test]
    async fn the_last_ticket_of_a_key_stays_good_for_its_whole_life() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::within(directory.path()).await;
        let tickets = Tickets::new(identity(1));
        tickets.key(&store, START).await.unwrap();
        let last = ticket(START + limits::TICKET_KEY_USE_MS - 1);
        let signed = tickets.sign(&store, &last).await.unwrap();
        let opened = signed.open(identity(1).public(), identity(2).public(), last.expires_ms);
        assert_eq!(opened, Ok(last));
        store.close().await;
    }
}
