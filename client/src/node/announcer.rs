//! Tells the tracker what this client has and wants, in order.

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use mini_torrent_common::control::{
    ANNOUNCE_PAGE, Announcement, ListingId, PAGE_ROWS, PeerContact, RefusedAnnouncement, Request, Response,
};
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::hash::GroupId;
use tokio::sync::{mpsc, oneshot, watch};

use super::owner::Era;
use super::{Answer, Finding};
use crate::error::CommandError;
use crate::link::Link;

/// What is told side by side. The tracker takes it in the order in which it was sent, and queues so much for a client
/// without keeping its questions waiting.
const MAX_UNDER_WAY: usize = 8;

/// Something to tell the tracker.
pub(super) enum Announce {
    /// This client takes part in a group: it needs a ticket, and the revocations behind this number.
    Enter { group: GroupId, after: u64 },
    /// What this client has; answered, where somebody waits, with how many were accepted.
    Presence { announcements: Vec<Announcement>, accepted: Option<oneshot::Sender<usize>> },
    /// A download begins: its peers are to be found.
    Leech(ListingId),
    /// The peers of these swarms are to be found again.
    Watch(Vec<ListingId>),
    /// They are not of use any more.
    Unwatch(ListingId),
    /// A finished download becomes a lasting share, and is seeded.
    Seed(ListingId),
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
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            next = queue.recv(), if under_way.len() < MAX_UNDER_WAY => {
                let Some((era, announce)) = next else { return };
                if era.session == eras.borrow().session {
                    under_way.push(tell(&link, era, announce, &findings));
                } else if let Announce::Stop { answer, .. } = announce {
                    let _ = answer.send(Err(CommandError::session_ended()));
                }
            }
            Some(()) = under_way.next() => {}
        }
    }
}

/// Everything is sent at the first poll, in order; what is found out has no reader once the node is gone.
async fn tell(link: &Link, era: Era, announce: Announce, findings: &mpsc::Sender<Finding>) {
    match announce {
        Announce::Enter { group, after } => enter(link, era, group, after, findings).await,
        Announce::Presence { announcements, accepted } => {
            let (refused, unheard) = tell_presence(link, &announcements).await;
            if unheard {
                let _ = findings.send(Finding::Unheard).await;
            }
            if let Some(accepted) = accepted {
                let _ = accepted.send(announcements.len() - refused.len());
            }
            if !refused.is_empty() {
                let _ = findings.send(Finding::Refused(refused)).await;
            }
        }
        Announce::Leech(listing) => {
            let mut peers = ask_peers(link, Request::Leech { listing }).await;
            if peers.as_ref().is_err_and(|error| error.code == ErrorCode::QuotaExceeded) {
                // Who cannot be named to others can fetch all the same.
                peers = ask_peers(link, Request::Watch { listing }).await;
            }
            if peers.as_ref().is_err_and(is_passing) {
                let _ = findings.send(Finding::Unheard).await;
            }
            let _ = findings.send(Finding::Watched(listing, peers)).await;
        }
        Announce::Watch(listings) => {
            let watching = listings.into_iter().map(async |listing| {
                let peers = ask_peers(link, Request::Watch { listing }).await;
                let _ = findings.send(Finding::Watched(listing, peers)).await;
            });
            join_all(watching).await;
        }
        // A tracker that is gone has forgotten it anyway.
        Announce::Unwatch(listing) => drop(link.request(Request::Unwatch { listing }).await),
        Announce::Seed(listing) => {
            let found = match link.request(Request::Seed { listing }).await {
                Ok(_) => Some(Finding::Registered(listing)),
                Err(error) if is_final(&error) => {
                    Some(Finding::Refused(vec![RefusedAnnouncement { listing, code: error.code }]))
                }
                Err(error) => is_passing(&error).then_some(Finding::Unheard),
            };
            if let Some(found) = found {
                let _ = findings.send(found).await;
            }
        }
        Announce::Stop { listing, answer } => {
            let stopped = link.request(Request::StopShare { listing }).await;
            let _ = answer.send(stopped.map(|_| ()));
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

async fn ask_peers(link: &Link, request: Request) -> Result<Vec<PeerContact>, CommandError> {
    match link.request(request).await? {
        Response::Peers(peers) => Ok(peers),
        other => Err(CommandError::unexpected(other)),
    }
}

/// What was refused, and whether something has to be told again although the connection lives.
async fn tell_presence(link: &Link, announcements: &[Announcement]) -> (Vec<RefusedAnnouncement>, bool) {
    let (mut refused, mut unheard) = (Vec::new(), false);
    let pages = announcements.chunks(ANNOUNCE_PAGE);
    let asked = pages.map(|page| link.request(Request::Announce { announcements: page.to_vec() }));
    for answer in join_all(asked).await {
        match answer {
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

/// Whether the tracker may do later what it refuses now. A lost connection or session is not among it: the node
/// tells everything again when it is taken up.
fn is_passing(error: &CommandError) -> bool {
    matches!(error.code, ErrorCode::StoreUnavailable | ErrorCode::RateLimited | ErrorCode::Internal)
}

fn is_final(error: &CommandError) -> bool {
    matches!(error.code, ErrorCode::NoSuchFile | ErrorCode::NotAMember)
}
