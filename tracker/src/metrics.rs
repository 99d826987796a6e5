//! What the tracker counts, and its text form for Prometheus. No name of a user, group or file is a label.

use crate::service::Service;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that others see at some time later.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    /// One more.
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// One less: for what is open.
    pub(crate) fn take_away(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Everything that is counted since the tracker started.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Connections that were accepted.
    pub connections: Count,
    /// Connections that are open.
    pub connections_open: Count,
    /// HTTP requests for an announce.
    pub http_announces: Count,
    /// HTTP requests for a scrape.
    pub http_scrapes: Count,
    /// All other HTTP requests.
    pub http_others: Count,
    /// UDP packets that asked for a connection id.
    pub udp_connects: Count,
    /// UDP announces with a valid connection id.
    pub udp_announces: Count,
    /// UDP scrapes with a valid connection id.
    pub udp_scrapes: Count,
    /// UDP packets that got no answer.
    pub udp_dropped: Count,
    /// Announces and scrapes that were turned away.
    pub turned_away: Count,
    /// Logins that were refused.
    pub logins_refused: Count,
}

impl Metrics {
    /// All numbers in the text format 0.0.4 of Prometheus.
    pub(crate) fn text(service: &Service) -> String {
        let metrics = service.metrics();
        let n = |count: &Count| count.value();
        let size = |n: usize| n as u64;
        let mut text = String::with_capacity(2048);
        let mut family = |name: &str, kind: &str, rows: &[(&str, u64)]| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "# TYPE mini_tracker_{name} {kind}");
            for (labels, value) in rows {
                let _ = writeln!(text, "mini_tracker_{name}{labels} {value}");
            }
        };
        family("connections_total", "counter", &[("", n(&metrics.connections))]);
        family("connections_open", "gauge", &[("", n(&metrics.connections_open))]);
        let requests = [
            ("{protocol=\"http\",kind=\"announce\"}", n(&metrics.http_announces)),
            ("{protocol=\"http\",kind=\"scrape\"}", n(&metrics.http_scrapes)),
            ("{protocol=\"http\",kind=\"other\"}", n(&metrics.http_others)),
            ("{protocol=\"udp\",kind=\"connect\"}", n(&metrics.udp_connects)),
            ("{protocol=\"udp\",kind=\"announce\"}", n(&metrics.udp_announces)),
            ("{protocol=\"udp\",kind=\"scrape\"}", n(&metrics.udp_scrapes)),
            ("{protocol=\"udp\",kind=\"dropped\"}", n(&metrics.udp_dropped)),
        ];
        family("requests_total", "counter", &requests);
        family("requests_refused_total", "counter", &[("", n(&metrics.turned_away))]);
        family("logins_refused_total", "counter", &[("", n(&metrics.logins_refused))]);
        // Its own, so that the trackers' numbers can be added up.
        let n_signed_in = service.presence().live_sessions().len();
        let peers =
            [("{kind=\"member\"}", size(n_signed_in)), ("{kind=\"stock\"}", size(service.announces().n_peers()))];
        family("peers", "gauge", &peers);
        family("stock_swarms", "gauge", &[("", size(service.announces().n_swarms()))]);
        family("stock_swarms_bytes", "gauge", &[("", size(service.announces().n_bytes()))]);
        text
    }
}
