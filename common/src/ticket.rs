//! Admission tickets: what one member shows another before anything else (design §5).
//!
//! TLS proves that a peer holds a key; the ticket proves that the key belongs to a member of a group. It is signed
//! by a ticket key, which the deployment's identity endorses for a time, so a member who knows the deployment's
//! key can judge a ticket without asking anybody.

use crate::hash::GroupId;
use crate::names::UserName;
use crate::tls::{Fingerprint, Identity, PublicKey, Signature};
use serde::{Deserialize, Serialize};

/// Longest ticket on the wire in bytes.
pub const MAX_TICKET_LENGTH: usize = 1024;
/// How long a ticket is valid, in milliseconds: 24 hours. It is renewed at half of it.
pub const TICKET_LIFE_MS: u64 = 24 * 3600 * 1000;
/// How far two clocks may be apart, in milliseconds: 60 s.
pub const CLOCK_TOLERANCE_MS: u64 = 60 * 1000;

/// The format that this build writes and reads.
const VERSION: u8 = 1;
/// What a signature over a ticket begins with, so that it can be taken for nothing else.
const TICKET_DOMAIN: &[u8] = b"mini-torrent admission ticket 1\0";
/// What a signature over an endorsement begins with.
const ENDORSEMENT_DOMAIN: &[u8] = b"mini-torrent ticket key endorsement 1\0";

/// The number of an account. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AccountId(pub u64);

/// What a ticket says. Times are the trackers', in milliseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// The deployment that it holds in.
    pub deployment: Fingerprint,
    /// The group whose files it opens.
    pub group: GroupId,
    /// Grows with each membership of the group: who comes back has a greater one.
    pub member_epoch: u64,
    /// Who is the member.
    pub account: AccountId,
    /// Grows whenever everything is revoked that the account had.
    pub account_epoch: u64,
    /// The account's name, for people.
    pub user: UserName,
    /// The only key that may show it.
    pub holder: PublicKey,
    /// From when on it is valid.
    pub issued_ms: u64,
    /// Until when.
    pub expires_ms: u64,
}

/// The deployment's word that a key signs tickets for a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endorsement {
    key: PublicKey,
    from_ms: u64,
    until_ms: u64,
    signature: Signature,
}

impl Endorsement {
    /// Endorses `key` for tickets that are valid within this time.
    ///
    /// # Errors
    /// When the cryptographic library refuses.
    pub fn sign(deployment: &Identity, key: PublicKey, from_ms: u64, until_ms: u64) -> Result<Self, rustls::Error> {
        let signature = deployment.sign(&endorsed_bytes(key, from_ms, until_ms))?;
        Ok(Self { key, from_ms, until_ms, signature })
    }

    /// The endorsed key.
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// Until when its tickets may be valid, in milliseconds since the Unix epoch.
    pub fn until_ms(&self) -> u64 {
        self.until_ms
    }

    /// The bytes to keep.
    ///
    /// # Errors
    /// Never in practice; the serializer's type has them.
    pub fn to_bytes(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_stdvec(self)
    }

    /// Reads what [`Endorsement::to_bytes`] wrote; `None` for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        read_exactly(bytes)
    }
}

/// The bytes that an endorsement's signature covers: all of fixed length.
fn endorsed_bytes(key: PublicKey, from_ms: u64, until_ms: u64) -> Vec<u8> {
    [ENDORSEMENT_DOMAIN, &key.0, &from_ms.to_be_bytes(), &until_ms.to_be_bytes()].concat()
}

/// A key that signs tickets, with its endorsement.
#[derive(Debug, Clone)]
pub struct TicketKey {
    /// The key itself.
    pub identity: Identity,
    /// The deployment's word for it.
    pub endorsement: Endorsement,
}

impl TicketKey {
    /// Signs a ticket.
    ///
    /// # Errors
    /// When the cryptographic library refuses.
    pub fn sign(&self, ticket: &Ticket) -> Result<SignedTicket, rustls::Error> {
        let failed = |error: postcard::Error| rustls::Error::General(error.to_string());
        let body = postcard::to_stdvec(ticket).map_err(failed)?;
        let signature = self.identity.sign(&[TICKET_DOMAIN, &body].concat())?;
        let sealed = Sealed { version: VERSION, endorsement: self.endorsement.clone(), signature, body };
        postcard::to_stdvec(&sealed).map(SignedTicket).map_err(failed)
    }
}

/// A ticket as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SignedTicket(#[serde(with = "serde_bytes")] Vec<u8>);

/// The signature covers the exact bytes of the body; nothing is encoded anew to be checked.
#[derive(Serialize, Deserialize)]
struct Sealed {
    version: u8,
    endorsement: Endorsement,
    signature: Signature,
    #[serde(with = "serde_bytes")]
    body: Vec<u8>,
}

/// Why a ticket does not open a door. The peer that showed it is told nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Longer than [`MAX_TICKET_LENGTH`].
    #[error("the ticket is oversized")]
    Oversized,
    /// The bytes are no ticket: cut short, or of another kind.
    #[error("the ticket is malformed")]
    Malformed,
    /// Of a format that this build does not know.
    #[error("the ticket is of an unknown version")]
    UnknownVersion,
    /// The deployment did not endorse the key that signed it.
    #[error("the ticket's key is not endorsed by this deployment")]
    NotEndorsed,
    /// The endorsement does not cover the ticket's time.
    #[error("the ticket's key was not in use at its time")]
    KeyNotInUse,
    /// The signature does not fit: it was altered.
    #[error("the ticket's signature does not fit")]
    BadSignature,
    /// It was issued in another deployment.
    #[error("the ticket is of another deployment")]
    OtherDeployment,
    /// It was issued to another key than the connection proved.
    #[error("the ticket belongs to another key")]
    OtherHolder,
    /// Its time has not come.
    #[error("the ticket is not valid yet")]
    NotYetValid,
    /// Its time is over.
    #[error("the ticket has expired")]
    Expired,
}

impl SignedTicket {
    /// Takes bytes from the wire.
    ///
    /// # Errors
    /// [`TicketError::Oversized`].
    pub fn new(bytes: Vec<u8>) -> Result<Self, TicketError> {
        if bytes.len() > MAX_TICKET_LENGTH { Err(TicketError::Oversized) } else { Ok(Self(bytes)) }
    }

    /// The bytes for the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Checks everything that can be known without a tracker: that this deployment vouches for it, that the
    /// connection's key may show it, and that it is valid at `now_ms`. Not here: membership that has ended since
    /// ([`crate::revocation::Revocations`]), and which files belong to the group.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn open(&self, deployment: PublicKey, holder: PublicKey, now_ms: u64) -> Result<Ticket, TicketError> {
        let ticket = self.verify(deployment, holder)?;
        if now_ms.saturating_add(CLOCK_TOLERANCE_MS) < ticket.issued_ms {
            return Err(TicketError::NotYetValid);
        }
        if ticket.is_over(now_ms) { Err(TicketError::Expired) } else { Ok(ticket) }
    }

    /// As [`SignedTicket::open`], but for the time.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn verify(&self, deployment: PublicKey, holder: PublicKey) -> Result<Ticket, TicketError> {
        if self.0.len() > MAX_TICKET_LENGTH {
            return Err(TicketError::Oversized);
        }
        if self.0.first().is_some_and(|version| *version != VERSION) {
            return Err(TicketError::UnknownVersion);
        }
        let Sealed { endorsement, signature, body, .. } = read_exactly(&self.0).ok_or(TicketError::Malformed)?;
        let endorsed = endorsed_bytes(endorsement.key, endorsement.from_ms, endorsement.until_ms);
        if !deployment.verify(&endorsed, &endorsement.signature) {
            return Err(TicketError::NotEndorsed);
        }
        if !endorsement.key.verify(&[TICKET_DOMAIN, &body].concat(), &signature) {
            return Err(TicketError::BadSignature);
        }
        let ticket: Ticket = read_exactly(&body).ok_or(TicketError::Malformed)?;
        let tolerated = |later: u64| later.saturating_add(CLOCK_TOLERANCE_MS);
        if ticket.deployment != deployment.fingerprint() {
            return Err(TicketError::OtherDeployment);
        }
        if tolerated(ticket.issued_ms) < endorsement.from_ms || ticket.expires_ms > tolerated(endorsement.until_ms) {
            return Err(TicketError::KeyNotInUse);
        }
        if ticket.holder == holder { Ok(ticket) } else { Err(TicketError::OtherHolder) }
    }
}

impl Ticket {
    /// Whether its time is over, with the tolerance for clocks that differ.
    pub fn is_over(&self, now_ms: u64) -> bool {
        now_ms > self.expires_ms.saturating_add(CLOCK_TOLERANCE_MS)
    }
}

/// Reads a value and refuses trailing bytes.
fn read_exactly<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    let (value, rest) = postcard::take_from_bytes(bytes).ok()?;
    rest.is_empty().then_some(value)
}

#[cfg(test)]
mod tests;
