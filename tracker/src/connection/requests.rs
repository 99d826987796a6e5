//! From a request to its use case and back to a response. No rule stands here.

use crate::domain::Refused;
use crate::presence::ConnectionId;
use crate::service::{Caller, Service, Uploads, Visitor};
use mini_torrent_common::control::{Request, Response};
use mini_torrent_common::hash::OperationId;

/// How a request is answered relative to the others of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// By the reader itself.
    Immediate,
    /// With other readings.
    Concurrent,
    /// After all changes that were asked for before.
    Ordered,
}

pub(super) fn lane(request: &Request) -> Lane {
    match request {
        Request::Ping => Lane::Immediate,
        Request::ListRequests { .. }
        | Request::ListGroups { .. }
        | Request::ListSessions
        | Request::ListKeys
        | Request::DescribeGroup { .. }
        | Request::ListFiles { .. }
        | Request::FindFile { .. }
        | Request::OpenFile { .. }
        | Request::ReadInfo { .. } => Lane::Concurrent,
        _ => Lane::Ordered,
    }
}

pub(super) async fn read(service: &Service, id: ConnectionId, request: Request) -> Result<Response, Refused> {
    service.catch_up().await;
    let caller = service.caller(id)?;
    match request {
        Request::ListRequests { group, after } => {
            let (requests, next) = service.list_requests(&caller, group, after).await?;
            Ok(Response::JoinRequests { requests, next })
        }
        Request::ListGroups { after } => service.list_groups(&caller, after).await.map(Response::Groups),
        Request::ListSessions => service.list_sessions(&caller).await.map(Response::Sessions),
        Request::ListKeys => service.list_keys(&caller).await.map(Response::Keys),
        Request::DescribeGroup { group } => service.describe_group(&caller, group).await.map(Response::Group),
        Request::ListFiles { group, after } => service.list_files(&caller, group, after).await.map(Response::Files),
        Request::FindFile { group, file } => service.find_file(&caller, group, file).await.map(Response::File),
        Request::OpenFile { group, file } => service.open_file(&caller, group, file).await.map(Response::Opened),
        Request::ReadInfo { listing, offset } => {
            service.read_info(&caller, listing, offset).await.map(Response::InfoPage)
        }
        _ => Err(Refused::Internal),
    }
}

pub(super) async fn change(
    service: &Service,
    visitor: &Visitor,
    uploads: &mut Uploads,
    once: Option<OperationId>,
    request: Request,
) -> Result<Response, Refused> {
    service.catch_up().await;
    let once = once.map(|id| service.once(id));
    match request {
        Request::CreateUser { user, password } => {
            service.register(visitor, user, password, once).await.map(|()| Response::Done)
        }
        Request::Login { user, password, takeover } => {
            let signed_in = service.login(visitor, user, password, takeover).await;
            if signed_in.is_err() {
                service.metrics().logins_refused.add();
            }
            signed_in.map(Response::SignedIn)
        }
        Request::Resume { token } => service.resume(visitor, token).await.map(Response::SignedIn),
        Request::Logout => {
            uploads.clear();
            service.logout(visitor.connection).await.map(|()| Response::Done)
        }
        request => {
            let caller = Caller { once, ..service.caller(visitor.connection)? };
            let answer = change_as_user(service, visitor, &caller, uploads, request).await;
            if answer == Err(Refused::SessionEnded) {
                service.forget_session(&caller);
            }
            answer
        }
    }
}

async fn change_as_user(
    service: &Service,
    visitor: &Visitor,
    caller: &Caller,
    uploads: &mut Uploads,
    request: Request,
) -> Result<Response, Refused> {
    let done = |()| Response::Done;
    match request {
        Request::LogoutEverywhere => {
            uploads.clear();
            service.logout_everywhere(caller).await.map(done)
        }
        Request::CreateGroup { group } => service.create_group(caller, group).await.map(done),
        Request::JoinGroup { group } => service.join_group(caller, group).await.map(done),
        Request::LeaveGroup { group } => service.leave_group(caller, group).await.map(Response::Left),
        Request::AcceptRequest { group, user } => service.decide_request(caller, group, user, true).await.map(done),
        Request::RejectRequest { group, user } => service.decide_request(caller, group, user, false).await.map(done),
        Request::RemoveMember { group, user } => service.remove_member(caller, group, user).await.map(done),
        Request::SetRole { group, user, role } => service.set_role(caller, group, user, role).await.map(done),
        Request::TransferOwner { group, user } => service.transfer_owner(caller, group, user).await.map(done),
        Request::RemoveFile { group, file } => service.remove_file(caller, group, file).await.map(done),
        Request::SetStockClients { group, on } => service.set_stock_clients(caller, group, on).await.map(done),
        Request::CreateKey { listing } => service.create_key(caller, listing).await.map(Response::Key),
        Request::RevokeKey { id } => service.revoke_key(caller, id).await.map(done),
        Request::EnterGroup { group, after } => {
            service.enter_group(caller, visitor.client.key, group, after).await.map(Response::Admission)
        }
        Request::OfferListing { group, draft } => {
            service.offer(caller, uploads, group, draft).await.map(Response::Offered)
        }
        Request::PutInfo { upload, offset, bytes } => {
            service.put_info(caller, uploads, upload, offset, bytes).await.map(done)
        }
        Request::CommitListing { upload } => {
            service.commit_listing(caller, uploads, upload).await.map(Response::Listed)
        }
        Request::Share { listing } => service.share(caller, listing).await.map(|_| Response::Done),
        Request::StopShare { listing } => service.stop_share(caller, listing).await.map(done),
        Request::Announce { announcements } => service.announce(caller, &announcements).await.map(Response::Announced),
        Request::Watch { listing } => service.watch(caller, listing).await.map(Response::Peers),
        Request::Unwatch { listing } => {
            service.unwatch(caller, listing);
            Ok(Response::Done)
        }
        Request::Leech { listing } => service.leech(caller, listing).await.map(Response::Peers),
        Request::Seed { listing } => service.seed(caller, listing).await.map(done),
        _ => Err(Refused::Internal),
    }
}
