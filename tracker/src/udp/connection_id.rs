//! Connection ids (BEP 15): who shows one has received a packet at its address a moment ago.

use rand::RngExt;
use sha2::{Digest, Sha256};
use std::net::IpAddr;

/// Seconds of one time slot. An id is good in its slot and in the next one, so for 2 to 4 minutes.
const SLOT_S: u64 = 120;

/// Makes and checks connection ids, without remembering any.
pub(super) struct ConnectionIds {
    secret: [u8; 24],
}

impl ConnectionIds {
    pub(super) fn new() -> Self {
        Self { secret: rand::rng().random() }
    }

    /// The id of a source now; `now_s` is in seconds of the monotonic clock.
    pub(super) fn issue(&self, source: IpAddr, now_s: u64) -> u64 {
        self.of_slot(source, now_s / SLOT_S)
    }

    /// Whether a source got this id in this slot or the one before.
    pub(super) fn is_valid(&self, id: u64, source: IpAddr, now_s: u64) -> bool {
        let slot = now_s / SLOT_S;
        id == self.of_slot(source, slot) || slot.checked_sub(1).is_some_and(|before| id == self.of_slot(source, before))
    }

    /// The digest is cut to 64 bits, so nobody can continue it, and what it is made of has a fixed length.
    fn of_slot(&self, source: IpAddr, slot: u64) -> u64 {
        let source = match source.to_canonical() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        // Short enough for one block of the digest.
        let mut input = [0; 48];
        for (to, from) in input.iter_mut().zip(self.secret.iter().chain(&slot.to_be_bytes()).chain(&source.octets())) {
            *to = *from;
        }
        let digest: [u8; 32] = Sha256::digest(input).into();
        digest.first_chunk().copied().map_or(0, u64::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_good_for_its_address_and_a_few_minutes() {
        let ids = ConnectionIds::new();
        let (one, other): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let id = ids.issue(one, 130);
        assert!(ids.is_valid(id, one, 130) && ids.is_valid(id, one, 359));
        assert!(!ids.is_valid(id, one, 360), "two slots later");
        assert!(!ids.is_valid(id, one, 119), "before it was given");
        assert!(!ids.is_valid(id, other, 130) && !ids.is_valid(id ^ 1, one, 130));
        assert!(!ConnectionIds::new().is_valid(id, one, 130), "of another tracker");
        assert!(ids.is_valid(id, "::ffff:10.0.0.1".parse().unwrap(), 130));
    }
}
