//! Tells the tracker what this client has, in order, one page after the other.

use mini_torrent_common::control::{
    ANNOUNCE_PAGE, Announcement, ListingId, PAGE_ROWS, Presence, RefusedAnnouncement, Request, Response,
};
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::hash::GroupId;
use tokio::sync::{mpsc, oneshot};

use super::{Answer, Finding};
use crate::command::unexpected;
use crate::error::CommandError;
use crate::link::Link;

/// Something to tell the tracker.
pub(super) enum Announce {
    /// This client takes part in a group: it needs a ticket, and the revocations behind this number.
    Enter { group: GroupId, after: u64 },
    /// What this client has; answered, where somebody waits, with how many were accepted.
    Presence { announcements: Vec<Announcement>, accepted: Option<oneshot::Sender<usize>> },
    /// A finished download becomes a lasting share, and is seeded.
    Share(ListingId),
    /// A share ends. Told in the same queue, so that it cannot overtake its own beginning.
    Stop { listing: ListingId, answer: Answer<()> },
}

/// Tells until the node is gone. What is lost with a connection is told again by the node when the session
/// resumes.
pub(super) async fn run(link: Link, mut queue: mpsc::Receiver<Announce>, findings: mpsc::Sender<Finding>) {
    while let Some(announce) = queue.recv().await {
        let finding = match announce {
            Announce::Enter { group, after } => Some(enter(&link, group, after, &findings).await),
            Announce::Presence { announcements, accepted } => {
                let (refused, unheard) = tell(&link, &announcements).await;
                if unheard {
                    let _ = findings.send(Finding::Unheard).await;
                }
                if let Some(accepted) = accepted {
                    let _ = accepted.send(announcements.len() - refused.len());
                }
                (!refused.is_empty()).then_some(Finding::Refused(refused))
            }
            Announce::Share(listing) => share(&link, listing).await,
            Announce::Stop { listing, answer } => {
                let stopped = link.request(Request::StopShare { listing }).await;
                let _ = answer.send(stopped.map(|_| ()));
                None
            }
        };
        if let Some(finding) = finding {
            // The node is gone: so is the reason to tell anything.
            let _ = findings.send(finding).await;
        }
    }
}

/// Brings a ticket and all pages of revocations; the last word is the last page or why there is none.
async fn enter(link: &Link, group: GroupId, mut after: u64, findings: &mpsc::Sender<Finding>) -> Finding {
    loop {
        let admission = match link.request(Request::EnterGroup { group, after }).await {
            Ok(Response::Admission(admission)) => admission,
            Ok(other) => return Finding::Admitted(group, Err(unexpected(other))),
            Err(error) => return Finding::Admitted(group, Err(error)),
        };
        match admission.revocations.last() {
            Some(last) if admission.revocations.len() >= PAGE_ROWS => {
                after = last.number;
                // Without a node nobody wants the rest; the next page finds that out, too.
                let _ = findings.send(Finding::Admitted(group, Ok(admission))).await;
            }
            _ => return Finding::Admitted(group, Ok(admission)),
        }
    }
}

/// What was refused, and whether something has to be told again although the connection lives.
async fn tell(link: &Link, announcements: &[Announcement]) -> (Vec<RefusedAnnouncement>, bool) {
    let (mut refused, mut unheard) = (Vec::new(), false);
    for page in announcements.chunks(ANNOUNCE_PAGE) {
        match link.request(Request::Announce { announcements: page.to_vec() }).await {
            Ok(Response::Announced(page)) => refused.extend(page),
            Ok(_) => tracing::warn!("the tracker answers an announcement with something else"),
            Err(error) => {
                tracing::debug!(%error, "an announcement is not heard");
                unheard |= is_passing(&error);
            }
        }
    }
    (refused, unheard)
}

async fn share(link: &Link, listing: ListingId) -> Option<Finding> {
    match link.request(Request::Share { listing }).await {
        Ok(_) => {}
        Err(error) if is_final(&error) => {
            return Some(Finding::Refused(vec![RefusedAnnouncement { listing, code: error.code }]));
        }
        Err(error) => return is_passing(&error).then_some(Finding::Unheard),
    }
    let (refused, unheard) = tell(link, &[Announcement { listing, presence: Presence::Seeding }]).await;
    Some(match refused.is_empty() {
        true if unheard => Finding::Unheard,
        true => Finding::Registered(listing),
        false => Finding::Refused(refused),
    })
}

/// Whether the tracker may do later what it refuses now. A lost connection or session is not among it: the node
/// tells everything again when it is taken up.
fn is_passing(error: &CommandError) -> bool {
    matches!(error.code, ErrorCode::StoreUnavailable | ErrorCode::RateLimited | ErrorCode::Internal)
}

fn is_final(error: &CommandError) -> bool {
    matches!(error.code, ErrorCode::NoSuchFile | ErrorCode::NotAMember)
}
