//! What the node and the user hear of a torrent: where it stands, and what became of it.

use std::time::Instant;
use tokio::sync::mpsc;

use super::{MAX_REPORTS, Task};
use crate::torrent::{Report, TorrentStatus};

impl Task {
    /// Shows where it stands.
    pub(super) fn publish(&mut self, now: Instant) {
        let stats = self.engine.stats(now);
        self.mailboxes.status.send_replace(TorrentStatus {
            done_bytes: stats.have_bytes,
            download_bytes_per_s: stats.download_bytes_per_s,
            upload_bytes_per_s: stats.upload_bytes_per_s,
            downloaded_bytes: stats.downloaded_bytes,
            uploaded_bytes: stats.uploaded_bytes,
            n_peers: stats.n_connections,
            reason: self.reason(stats.n_connections),
        });
    }

    /// Why it does not go on just now.
    fn reason(&self, n_connections: usize) -> Option<String> {
        let obstacle = self.obstacle.as_ref().map(|(reason, _)| reason.clone());
        let refusal = self.refusal.as_ref().filter(|_| n_connections == 0 && self.part.is_some());
        obstacle.or_else(|| refusal.map(|refusal| format!("no peer can be had: {refusal}")))
    }

    pub(super) fn tell_verified(&mut self) {
        let have = self.engine.have();
        if have.n_set() != self.told_verified {
            self.told_verified = have.n_set();
            let have = have.clone();
            self.report(Report::Verified(have));
        }
    }

    pub(super) fn report(&mut self, report: Report) {
        if self.reports.len() < MAX_REPORTS {
            self.reports.push_back(report);
        }
        self.send_reports();
    }

    pub(super) fn send_reports(&mut self) {
        while let Some(report) = self.reports.pop_front() {
            use mpsc::error::TrySendError::{Closed, Full};
            match self.mailboxes.reports.try_send((self.plan.name, report)) {
                Ok(()) | Err(Closed(_)) => {}
                Err(Full((_, report))) => return self.reports.push_front(report),
            }
        }
    }
}
