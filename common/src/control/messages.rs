//! Every message of the control connection.
//!
//! Length: the protocol is to be read in one place.

use crate::announce_key::AnnounceKey;
use crate::error_code::ErrorCode;
use crate::hash::{GroupId, InfoHash, OperationId, PeerId, Sha1Hash, Sha256Hash};
use crate::names::{FileName, GroupName, UserName};
use crate::revocation::Revocation;
use crate::secret::{Password, SessionToken};
use crate::ticket::SignedTicket;
use crate::tls::PublicKey;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// What a client sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientMessage {
    /// The first message of a connection, and only the first.
    Hello(Hello),
    /// A question; the tracker answers each with one [`TrackerMessage::Response`], in any order.
    Request {
        /// Chosen by the client, unique among its open requests.
        id: u32,
        /// Names what is asked for, so that it is done once however often it is asked: when the answer is lost with the
        /// connection, the same question with the same name, to any tracker of the deployment, brings the first answer.
        once: Option<OperationId>,
        /// The question itself.
        body: Request,
    },
}

/// What a tracker sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TrackerMessage {
    /// The answer to [`ClientMessage::Hello`].
    Welcome(Welcome),
    /// The connection cannot go on; it closes after this message.
    Goodbye(Refusal),
    /// The answer to one request.
    Response {
        /// The request's `id`.
        id: u32,
        /// What came of it.
        result: Result<Response, Refusal>,
    },
    /// Something happened that concerns this client.
    Event(Event),
}

/// A client introduces itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Oldest version of the messages that the client speaks.
    pub min_version: u16,
    /// Newest version of the messages that the client speaks.
    pub max_version: u16,
    /// Name and version of the program, at most [`super::MAX_AGENT_LENGTH`] bytes.
    pub agent: String,
    /// The client's name in swarms.
    pub peer_id: PeerId,
    /// The port that the client accepts peers on. Its address is the source address of this connection.
    pub listen_port: u16,
}

/// A tracker introduces itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The version that both will use.
    pub version: u16,
    /// The tracker's wall clock, in milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// How long the tracker has been up, in seconds: what it knows from announces alone may be older.
    pub up_s: u64,
    /// Where other members will be told to find this client.
    pub address: SocketAddr,
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The stable code.
    pub code: ErrorCode,
    /// One line for a person, without secrets.
    pub message: String,
}

impl Refusal {
    /// Makes a refusal.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// The number of a listing: one file of one group. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ListingId(pub u64);

/// The number of an upload in progress on one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UploadId(pub u32);

/// The number of an announce key. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyId(pub u64);

/// The questions that a client asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Keeps the connection and the lease alive, and the client's idea of the time. Answered by [`Response::Time`].
    Ping,
    /// Creates an account. No sign-in follows. Answered by [`Response::Done`].
    CreateUser {
        /// The new account's name.
        user: UserName,
        /// Its password.
        password: Password,
    },
    /// Signs in. Answered by [`Response::SignedIn`].
    Login {
        /// The account.
        user: UserName,
        /// Its password.
        password: Password,
        /// Whether to end the user's session on another client, if there is one.
        takeover: bool,
    },
    /// Takes up a session on a new connection. Answered by [`Response::SignedIn`] with the token's successor. The
    /// token stays valid until its successor is used, for the answer may be lost; after that it ends the session.
    Resume {
        /// The session's token.
        token: SessionToken,
    },
    /// Ends the session; the connection stays. Answered by [`Response::Done`].
    Logout,
    /// Ends every session of the account and revokes its tickets. Answered by [`Response::Done`].
    LogoutEverywhere,
    /// The account's sessions. Answered by [`Response::Sessions`].
    ListSessions,
    /// Creates a group owned by the caller. Answered by [`Response::Done`].
    CreateGroup {
        /// The new group's name.
        group: GroupName,
    },
    /// Asks to join. Answered by [`Response::Done`].
    JoinGroup {
        /// The group to join.
        group: GroupName,
    },
    /// Leaves a group, or withdraws a pending request. Answered by [`Response::Left`].
    LeaveGroup {
        /// The group to leave.
        group: GroupName,
    },
    /// The pending join requests. Answered by [`Response::JoinRequests`].
    ListRequests {
        /// The group.
        group: GroupName,
        /// Where the page begins: `next` of the page before.
        after: Option<u64>,
    },
    /// Makes a requester a member. Answered by [`Response::Done`].
    AcceptRequest {
        /// The group.
        group: GroupName,
        /// Who asked.
        user: UserName,
    },
    /// Turns a requester away. Answered by [`Response::Done`].
    RejectRequest {
        /// The group.
        group: GroupName,
        /// Who asked.
        user: UserName,
    },
    /// Ends a member's membership. Answered by [`Response::Done`].
    RemoveMember {
        /// The group.
        group: GroupName,
        /// The member.
        user: UserName,
    },
    /// Makes a member an admin, or an admin a member. Answered by [`Response::Done`].
    SetRole {
        /// The group.
        group: GroupName,
        /// The member.
        user: UserName,
        /// [`Role::Admin`] or [`Role::Member`].
        role: Role,
    },
    /// Makes a member the owner; the caller becomes an admin. Answered by [`Response::Done`].
    TransferOwner {
        /// The group.
        group: GroupName,
        /// The member.
        user: UserName,
    },
    /// Ends a listing with all its shares. Answered by [`Response::Done`].
    RemoveFile {
        /// The group.
        group: GroupName,
        /// The file.
        file: FileName,
    },
    /// A ticket for a group, and the revocations that its holder must know. From now on [`Event::Revoked`] tells
    /// of the group's. Answered by [`Response::Admission`].
    EnterGroup {
        /// The group.
        group: GroupId,
        /// The last revocation's number that is known; 0 for none.
        after: u64,
    },
    /// Admits ordinary BitTorrent clients with a member's key to a group's files, or turns them away. Answered by
    /// [`Response::Done`].
    SetStockClients {
        /// The group.
        group: GroupName,
        /// Whether they are admitted.
        on: bool,
    },
    /// An announce key of the caller for one file. Answered by [`Response::Key`].
    CreateKey {
        /// The file.
        listing: ListingId,
    },
    /// The caller's announce keys. Answered by [`Response::Keys`].
    ListKeys,
    /// Ends an announce key of the caller. Answered by [`Response::Done`].
    RevokeKey {
        /// The key.
        id: KeyId,
    },
    /// Everybody's groups, sorted by name. Answered by [`Response::Groups`].
    ListGroups {
        /// Where the page begins: the last name of the page before.
        after: Option<GroupName>,
    },
    /// What a member must know of a group to share in it. Answered by [`Response::Group`].
    DescribeGroup {
        /// The group.
        group: GroupName,
    },
    /// A group's files, sorted by name. Answered by [`Response::Files`].
    ListFiles {
        /// The group.
        group: GroupName,
        /// Where the page begins: the last name of the page before.
        after: Option<FileName>,
    },
    /// One file of a group. Answered by [`Response::File`].
    FindFile {
        /// The group.
        group: GroupName,
        /// The file.
        file: FileName,
    },
    /// A page of a listing's raw `info` dictionary. Answered by [`Response::InfoPage`].
    ReadInfo {
        /// The listing.
        listing: ListingId,
        /// Offset in bytes.
        offset: u64,
    },
    /// Wants to share a file. Answered by [`Response::Offered`].
    OfferListing {
        /// The group.
        group: GroupName,
        /// The file.
        draft: ListingDraft,
    },
    /// A page of the offered file's `info` dictionary, in order. Answered by [`Response::Done`].
    PutInfo {
        /// The upload.
        upload: UploadId,
        /// Offset in bytes.
        offset: u64,
        /// At most [`super::INFO_PAGE_LENGTH`] bytes.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    /// All pages are there: list the file, with the caller as its first sharer. Answered by
    /// [`Response::Listed`].
    CommitListing {
        /// The upload.
        upload: UploadId,
    },
    /// Becomes a lasting sharer of a listed file. Answered by [`Response::Done`].
    Share {
        /// The listing.
        listing: ListingId,
    },
    /// Stops being a sharer; the listing goes with its last one. Answered by [`Response::Done`].
    StopShare {
        /// The listing.
        listing: ListingId,
    },
    /// Says what this client has, for as long as the connection lives. Answered by
    /// [`Response::Announced`].
    Announce {
        /// At most [`super::ANNOUNCE_PAGE`].
        announcements: Vec<Announcement>,
    },
    /// The peers of a swarm, and [`Event::Peers`] from now on. Answered by [`Response::Peers`].
    Watch {
        /// The listing.
        listing: ListingId,
    },
    /// No more events of this swarm. Answered by [`Response::Done`].
    Unwatch {
        /// The listing.
        listing: ListingId,
    },
    /// [`Request::FindFile`] and the first [`Request::ReadInfo`] in one. Answered by [`Response::Opened`].
    OpenFile {
        /// The group.
        group: GroupName,
        /// The file.
        file: FileName,
    },
    /// Begins to fetch a file: [`Presence::Leeching`] is announced and [`Request::Watch`] done in one. Answered by
    /// [`Response::Peers`].
    Leech {
        /// The listing.
        listing: ListingId,
    },
    /// Has fetched a file: [`Request::Share`], [`Presence::Seeding`] and [`Request::Unwatch`] in one. Answered by
    /// [`Response::Done`].
    Seed {
        /// The listing.
        listing: ListingId,
    },
}

/// A file as its uploader describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListingDraft {
    /// The name in the group.
    pub name: FileName,
    /// Length in bytes.
    pub size: u64,
    /// SHA-1 of the whole file.
    pub sha1: Sha1Hash,
    /// SHA-256 of the whole file.
    pub sha256: Sha256Hash,
    /// SHA-1 of the raw `info` dictionary.
    pub info_hash: InfoHash,
    /// Length of the raw `info` dictionary in bytes.
    pub info_length: u64,
}

/// What a client has of one listed file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// The listing.
    pub listing: ListingId,
    /// How much of it.
    pub presence: Presence,
}

/// How much of a file a client has online.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Presence {
    /// Everything; only sharers may say so.
    Seeding,
    /// A part, and it wants the rest.
    Leeching,
    /// It takes part no more.
    Gone,
}

/// The answers of a tracker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// It is done and durable.
    Done,
    /// The session began or goes on.
    SignedIn(SignedIn),
    /// The account's sessions, oldest first.
    Sessions(Vec<SessionRow>),
    /// A ticket, and a page of revocations.
    Admission(Admission),
    /// An announce key.
    Key(GrantedKey),
    /// The caller's announce keys, oldest first.
    Keys(Vec<KeyRow>),
    /// The caller left the group.
    Left(Left),
    /// A page of join requests in order of arrival.
    JoinRequests {
        /// The requests.
        requests: Vec<JoinRequest>,
        /// Where the next page begins, if there is one.
        next: Option<u64>,
    },
    /// A page of groups; fewer than [`super::PAGE_ROWS`] means the last one.
    Groups(Vec<GroupRow>),
    /// A group.
    Group(GroupDescription),
    /// A page of files; fewer than [`super::PAGE_ROWS`] means the last one.
    Files(Vec<Listing>),
    /// A file.
    File(Listing),
    /// Bytes of an `info` dictionary, at most [`super::INFO_PAGE_LENGTH`].
    InfoPage(#[serde(with = "serde_bytes")] Vec<u8>),
    /// What to do about the offered file.
    Offered(Offer),
    /// The file is listed under this number.
    Listed(ListingId),
    /// The announcements that were not accepted; all others were.
    Announced(Vec<RefusedAnnouncement>),
    /// Peers of the watched swarm, without the caller: at most [`super::MAX_PEERS`].
    Peers(Vec<PeerContact>),
    /// The tracker's wall clock, in milliseconds since the Unix epoch.
    Time(u64),
    /// A file and how its `info` dictionary begins.
    Opened(OpenedFile),
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedIn {
    /// The account, as its creator wrote it.
    pub user: UserName,
    /// What resumes the session on another connection.
    pub token: SessionToken,
}

/// A session as its user sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// Where the client accepts peers.
    pub address: String,
    /// Name and version of its program.
    pub agent: String,
    /// When it began, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// Whether it is the session that asks.
    pub current: bool,
}

/// What opens a group's files, and whom they are closed to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// The caller's ticket, bound to its connection's key.
    pub ticket: SignedTicket,
    /// Revocations of the group's members in the order of their numbers; fewer than [`super::PAGE_ROWS`] means
    /// that there are no more.
    pub revocations: Vec<Revocation>,
}

/// An announce key as its member gets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantedKey {
    /// Its number.
    pub id: KeyId,
    /// What stands in the announce URL.
    pub key: AnnounceKey,
}

/// An announce key as its member sees it later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRow {
    /// Its number.
    pub id: KeyId,
    /// The group.
    pub group: GroupName,
    /// The one file that it opens.
    pub file: FileName,
    /// Where it was used last.
    pub address: Option<String>,
    /// When it was used last, in milliseconds since the Unix epoch.
    pub used_ms: Option<u64>,
    /// Whether it is suspended because it was used from too many places.
    pub suspended: bool,
}

/// An ordinary BitTorrent client in a swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockPeer {
    /// Where it accepts peers; it dials from the same host.
    pub address: SocketAddr,
    /// Whether it has everything.
    pub complete: bool,
}

/// What leaving a group brought about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Left {
    /// A join request was withdrawn.
    RequestWithdrawn,
    /// The caller is no member any more.
    Member,
    /// The caller was the owner; this user is it now.
    OwnerIsNow(UserName),
    /// The caller was the last member; the group is gone.
    GroupRemoved,
}

/// A pending join request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// Who asks.
    pub user: UserName,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// What a user is to a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// Asked to join.
    Pending,
    /// May list, upload and download.
    Member,
    /// May also decide on join requests, remove members and remove files.
    Admin,
    /// May do everything.
    Owner,
}

impl Role {
    /// The stable text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Member => "member",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }
}

/// A group as everybody sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRow {
    /// Its name.
    pub name: GroupName,
    /// Its owner; the built-in group has none.
    pub owner: Option<UserName>,
    /// How many members it has.
    pub n_members: u64,
    /// What the caller is to it.
    pub role: Option<Role>,
}

/// A group as its members see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupDescription {
    /// Its number.
    pub id: GroupId,
    /// Its name.
    pub name: GroupName,
    /// What the caller is to it.
    pub role: Role,
    /// Whether ordinary BitTorrent clients with a member's key are admitted to its files.
    pub stock_clients: bool,
}

/// A file of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// Its number.
    pub id: ListingId,
    /// The group that it belongs to.
    pub group: GroupId,
    /// What the uploader said of it, checked against the `info` dictionary.
    pub draft: ListingDraft,
    /// Who listed it first.
    pub uploader: UserName,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Clients online that have everything.
    pub n_seeders: u32,
    /// Clients online that have a part and want the rest.
    pub n_leechers: u32,
}

/// A file of a group with the beginning of its raw `info` dictionary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenedFile {
    /// The file.
    pub listing: Listing,
    /// At most [`super::INFO_PAGE_LENGTH`] bytes.
    #[serde(with = "serde_bytes")]
    pub info: Vec<u8>,
}

/// What becomes of an offered file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Offer {
    /// The group lists this content under this name already; the caller is a sharer of it now.
    Joined(ListingId),
    /// As [`Offer::Joined`], and the caller was a sharer before.
    AlreadySharing(ListingId),
    /// It is new: send the `info` dictionary.
    SendInfo(UploadId),
}

/// An announcement that was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedAnnouncement {
    /// The listing.
    pub listing: ListingId,
    /// [`ErrorCode::NoSuchFile`], [`ErrorCode::NotAMember`] or [`ErrorCode::NotSharing`].
    pub code: ErrorCode,
}

/// A peer of a swarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerContact {
    /// The client's key.
    pub key: PublicKey,
    /// Where it accepts peers.
    pub address: SocketAddr,
    /// Its name in swarms.
    pub peer_id: PeerId,
    /// The account behind it.
    pub user: UserName,
    /// Whether it has everything.
    pub complete: bool,
}

/// What a tracker tells unasked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// To the group's owner and admins: somebody asks to join.
    JoinRequested {
        /// The group.
        group: GroupName,
        /// Who asks.
        user: UserName,
    },
    /// To the requester: the caller is a member now.
    RequestAccepted {
        /// The group.
        group: GroupName,
    },
    /// To a former member, on all its clients: the membership ended.
    RemovedFromGroup {
        /// The group's number.
        id: GroupId,
        /// The group's name.
        group: GroupName,
    },
    /// A watched swarm changed.
    Peers {
        /// The listing.
        listing: ListingId,
        /// Peers that came, or whose completeness or address changed.
        came: Vec<PeerContact>,
        /// Keys of the peers that left.
        left: Vec<PublicKey>,
    },
    /// To everybody who announced or watches it: the listing is gone.
    ListingEnded {
        /// The listing.
        listing: ListingId,
    },
    /// To everybody who announced or watches it: ordinary clients that came to a swarm or left it. The first one after
    /// an announcement or a watch names all of them.
    StockPeers {
        /// The listing.
        listing: ListingId,
        /// Those that came, or whose completeness changed.
        came: Vec<StockPeer>,
        /// Where those were that left.
        left: Vec<SocketAddr>,
    },
    /// To everybody who has entered a group of them: these tickets are not valid any more.
    Revoked(Vec<Revocation>),
    /// To its member: an announce key was used from too many places and is suspended.
    KeySuspended {
        /// The key.
        id: KeyId,
        /// The group.
        group: GroupName,
        /// The file that it opens.
        file: FileName,
    },
    /// The session is over; the client is signed out.
    SessionEnded {
        /// Why, in one line.
        reason: String,
    },
}
