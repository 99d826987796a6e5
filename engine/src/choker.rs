//! The choker: whom to serve when more peers want than there are upload slots.

use crate::event::ConnectionId;
use std::collections::BTreeSet;
use std::time::Instant;

/// What the choice looks at: one peer that is interested.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Contender {
    pub(crate) connection: ConnectionId,
    pub(crate) is_unchoked: bool,
    /// What it brings us, or, when we need nothing, what it takes from us.
    pub(crate) merit_bytes_per_s: u64,
    /// When it was last choked or unchoked.
    pub(crate) since: Instant,
}

/// The peers that are served in the coming round: the best by merit among those served now, and in the optimistic
/// slots those that have waited longest. With no more contenders than slots it is everyone.
pub(crate) fn choose(mut contenders: Vec<Contender>, n_slots: usize, n_optimistic: usize) -> BTreeSet<ConnectionId> {
    if contenders.len() <= n_slots {
        return contenders.iter().map(|contender| contender.connection).collect();
    }
    let n_waiting = contenders.iter().filter(|contender| !contender.is_unchoked).count();
    let n_rotating = n_optimistic.min(n_waiting).min(n_slots);
    contenders.sort_by_key(|contender| (contender.is_unchoked, contender.since, contender.connection));
    let mut chosen: BTreeSet<_> = contenders.iter().take(n_rotating).map(|contender| contender.connection).collect();
    contenders.sort_by_key(|contender| {
        // Served for longest is the tie-break that goes first, so that equals take turns.
        (std::cmp::Reverse((contender.is_unchoked, contender.merit_bytes_per_s, contender.since)), contender.connection)
    });
    for contender in contenders {
        if chosen.len() >= n_slots {
            break;
        }
        chosen.insert(contender.connection);
    }
    chosen
}

/// The peer that has waited longest, for a slot that became free.
pub(crate) fn next_in_line(contenders: &[Contender]) -> Option<ConnectionId> {
    let waiting = contenders.iter().filter(|contender| !contender.is_unchoked);
    waiting.min_by_key(|contender| (contender.since, contender.connection)).map(|contender| contender.connection)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "an arbitrary origin")]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::time::Duration;

    fn contender(n: u64, is_unchoked: bool, merit: u64, since: Instant) -> Contender {
        Contender { connection: ConnectionId(n), is_unchoked, merit_bytes_per_s: merit, since }
    }

    #[test]
    fn with_few_contenders_everyone_is_served() {
        let now = Instant::now();
        assert_eq!(choose((0..5).map(|n| contender(n, false, 0, now)).collect(), 8, 2).len(), 5);
    }

    #[test]
    fn the_best_stay_and_the_longest_waiting_get_the_optimistic_slots() {
        let start = Instant::now();
        let served = (0..4).map(|n| contender(n, true, n * 100, start));
        let waiting = (4..10).map(|n| contender(n, false, 0, start + Duration::from_secs(n)));
        let chosen = choose(served.chain(waiting).collect(), 4, 1);
        assert_eq!(chosen, [1, 2, 3, 4].map(ConnectionId).into());
    }

    #[test]
    fn equals_all_get_their_turn() {
        let start = Instant::now();
        let mut peers: BTreeMap<u64, (bool, Instant)> = (0..20).map(|n| (n, (n < 4, start))).collect();
        let mut n_served = BTreeMap::new();
        for round in 1..=20u32 {
            let now = start + Duration::from_secs(10) * round;
            let contenders = peers.iter().map(|(n, (on, since))| contender(*n, *on, 100, *since)).collect();
            let chosen = choose(contenders, 4, 2);
            assert_eq!(chosen.len(), 4);
            for (n, state) in &mut peers {
                let on = chosen.contains(&ConnectionId(*n));
                if on != state.0 {
                    *state = (on, now);
                }
                *n_served.entry(*n).or_insert(0) += u32::from(on);
            }
        }
        assert!(n_served.values().all(|n| (2..=8).contains(n)), "{n_served:?}");
    }
}
