//! A torrent's life: its file is opened, its task runs, and when the file is lost meanwhile it begins anew.

use mini_torrent_common::bitfield::Bitfield;
use mini_torrent_common::error_code::ErrorCode;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::preparation::{DISK_FULL, Obstacle, Prepared, prepare};
use super::task::{End, Mailboxes, Task, stale};
use super::{OPEN_RETRY, Report, TorrentPlan};
use crate::disk::Content;

/// Runs a torrent until it is stopped, fails, or has been idle.
pub(super) async fn run(mut plan: TorrentPlan, mut mailboxes: Mailboxes, stop: CancellationToken) {
    loop {
        let (content, part, have) = match open(&mut plan, &mailboxes, &stop).await {
            None => return,
            Some(Prepared::AlreadyComplete(stamp)) => {
                return drop(mailboxes.reports.send((plan.name, Report::Completed(stamp))).await);
            }
            Some(Prepared::Seed(content)) => (content, None, Bitfield::all(plan.geometry.n_pieces())),
            Some(Prepared::Fetch { part, destination, have }) => {
                if let Ok(inode) = part.inode() {
                    let _ = mailboxes.reports.send((plan.name, Report::Opened(inode))).await;
                }
                (Content::partial(part.file()), Some((part, destination)), have)
            }
        };
        let (end, returned) = Task::new(plan.clone(), mailboxes, content, part, have).run(&stop).await;
        match end {
            End::Over => return,
            End::FileLost => mailboxes = returned,
        }
    }
}

/// Opens the file; tries again for as long as the obstacle may pass.
async fn open(plan: &mut TorrentPlan, mailboxes: &Mailboxes, stop: &CancellationToken) -> Option<Prepared> {
    while !stop.is_cancelled() {
        let (mut purpose, geometry, stopping) = (plan.purpose.clone(), plan.geometry, stop.clone());
        let preparing = tokio::task::spawn_blocking(move || {
            let prepared = prepare(&mut purpose, geometry, &stopping);
            (purpose, prepared)
        });
        let (purpose, prepared) = preparing.await.ok()?;
        plan.purpose = purpose;
        let report = match prepared {
            Ok(prepared) => return Some(prepared),
            Err(Obstacle::Passing(error)) => {
                let reason = if error.code == ErrorCode::DiskFull { DISK_FULL.to_owned() } else { error.to_string() };
                mailboxes.status.send_modify(|status| status.reason = Some(reason));
                stop.run_until_cancelled(sleep(OPEN_RETRY)).await?;
                continue;
            }
            Err(Obstacle::Fatal(error)) => Report::Failed(error.code, error.message),
            Err(Obstacle::Stale(reason)) => stale(&plan.purpose, reason),
        };
        let _ = mailboxes.reports.send((plan.name, report)).await;
        return None;
    }
    None
}
