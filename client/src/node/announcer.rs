//! Tells the tracker what this client has, in order, one page after the other.

use futures_util::future::join_all;
use mini_torrent_common::control::{
    ANNOUNCE_PAGE, Announcement, ListingId, PAGE_ROWS, Presence, RefusedAnnouncement, Request, Response,
};
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::hash::GroupId;
use tokio::sync::{mpsc, oneshot, watch};

use super::owner::Era;
use super::{Answer, Finding};
use crate::error::CommandError;
use crate::link::Link;

/// Groups that are entered side by side.
const MAX_ENTERING: usize = 64;

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
/// resumes; what is left of a session that has ended is not told.
pub(super) async fn run(
    link: Link,
    mut queue: mpsc::Receiver<(Era, Announce)>,
    eras: watch::Receiver<Era>,
    findings: mpsc::Sender<Finding>,
) {
    let mut put_back = None;
    loop {
        let next = match put_back.take() {
            Some(next) => Some(next),
            None => queue.recv().await,
        };
        let Some((era, announce)) = next else { return };
        if era.session != eras.borrow().session {
            if let Announce::Stop { answer, .. } = announce {
                let _ = answer.send(Err(CommandError::session_ended()));
            }
            continue;
        }
        let Announce::Enter { group, after } = announce else {
            if let Some(finding) = tell_one(&link, announce, &findings).await {
                // The node is gone: so is the reason to tell anything.
                let _ = findings.send(finding).await;
            }
            continue;
        };
        let mut entering = vec![enter(&link, era, group, after, &findings)];
        while entering.len() < MAX_ENTERING {
            match queue.try_recv() {
                Ok((era, Announce::Enter { group, after })) => {
                    entering.push(enter(&link, era, group, after, &findings));
                }
                Ok(other) => {
                    put_back = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        join_all(entering).await;
    }
}

async fn tell_one(link: &Link, announce: Announce, findings: &mpsc::Sender<Finding>) -> Option<Finding> {
    match announce {
        Announce::Enter { .. } => None,
        Announce::Presence { announcements, accepted } => {
            let (refused, unheard) = tell(link, &announcements).await;
            if unheard {
                let _ = findings.send(Finding::Unheard).await;
            }
            if let Some(accepted) = accepted {
                let _ = accepted.send(announcements.len() - refused.len());
            }
            (!refused.is_empty()).then_some(Finding::Refused(refused))
        }
        Announce::Share(listing) => share(link, listing).await,
        Announce::Stop { listing, answer } => {
            let stopped = link.request(Request::StopShare { listing }).await;
            let _ = answer.send(stopped.map(|_| ()));
            None
        }
    }
}

/// Brings a ticket and all pages of revocations; the last word is the last page or why there is none.
async fn enter(link: &Link, era: Era, group: GroupId, mut after: u64, findings: &mpsc::Sender<Finding>) {
    loop {
        let answer = match link.request(Request::EnterGroup { group, after }).await {
            Ok(Response::Admission(admission)) => Ok(admission),
            Ok(other) => Err(CommandError::unexpected(other)),
            Err(error) => Err(error),
        };
        let page = answer.as_ref().ok().filter(|admission| admission.revocations.len() >= PAGE_ROWS);
        let next = page.and_then(|admission| admission.revocations.last()).map(|last| last.number);
        // Without a node nobody wants the rest; the next page finds that out, too.
        let _ = findings.send(Finding::Admitted(era, group, answer)).await;
        match next {
            Some(last) => after = last,
            None => return,
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
