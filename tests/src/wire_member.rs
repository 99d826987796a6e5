//! A member that speaks the control connection by itself: for what no honest client would say, and for
//! hundreds of members at once.

use bytes::BytesMut;
use mini_torrent_common::control::{
    Admission, Announcement, ClientMessage, ControlCodec, Event, Hello, INFO_PAGE_LENGTH, Listing, ListingDraft,
    ListingId, MAX_FRAME_LENGTH, MAX_VERSION, MIN_VERSION, Offer, Presence, Refusal, Request, Response, TrackerMessage,
    Welcome,
};
use mini_torrent_common::geometry::{Geometry, PIECE_LENGTH};
use mini_torrent_common::hash::{GroupId, InfoHash, PeerId, Sha1Hash, Sha256Hash};
use mini_torrent_common::metainfo::{Info, PieceHashes};
use mini_torrent_common::names::{GroupName, PUBLIC_GROUP};
use mini_torrent_common::secret::{Password, SessionToken};
use mini_torrent_common::tls::{self, Identity, PublicKey};
use rustls::{ClientConnection, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use tokio_util::codec::{Decoder, Encoder};

use crate::waiting::DEADLINE;
use crate::wire_link::Pass;

/// A file in memory that is to be shared.
#[derive(Debug, Clone)]
pub struct Content {
    /// Its name in the group.
    pub name: String,
    /// Its bytes.
    pub bytes: Arc<Vec<u8>>,
}

/// A file as the swarm knows it.
#[derive(Debug, Clone)]
pub struct Torrent {
    /// The tracker's number for it.
    pub listing: ListingId,
    /// Whose file it is.
    pub group: GroupId,
    /// The swarm's name.
    pub info_hash: InfoHash,
    /// How it is divided.
    pub geometry: Geometry,
}

impl Content {
    /// A file with these bytes.
    pub fn new(name: &str, bytes: Vec<u8>) -> Self {
        Self { name: name.into(), bytes: Arc::new(bytes) }
    }

    /// Its `info` dictionary in a group.
    ///
    /// # Panics
    /// When its name is no file name.
    pub fn info(&self, group: GroupId) -> Info {
        let hashes: Vec<u8> =
            self.bytes.chunks(PIECE_LENGTH as usize).flat_map(|piece| Sha1Hash::of(piece).0).collect();
        Info {
            name: self.name.parse().expect("a file name"),
            geometry: Geometry::new(self.bytes.len() as u64, u64::from(PIECE_LENGTH)).expect("a size"),
            pieces: PieceHashes::new(hashes).expect("whole hashes"),
            private: true,
            group: Some(group),
        }
    }

    /// Its raw `info` dictionary as any other program would make it.
    ///
    /// # Panics
    /// When its name is no file name.
    pub fn foreign_info(&self) -> Vec<u8> {
        self.open_info().encode()
    }

    /// Its `info` dictionary where everybody may have it.
    fn open_info(&self) -> Info {
        Info { private: false, group: None, ..self.info(GroupId([0; 16])) }
    }

    /// What its uploader says of it in a group, and its raw `info` dictionary.
    pub fn draft(&self, group: GroupId) -> (ListingDraft, Vec<u8>) {
        self.described_by(self.info(group))
    }

    fn described_by(&self, info: Info) -> (ListingDraft, Vec<u8>) {
        let raw = info.encode();
        let draft = ListingDraft {
            name: info.name,
            size: self.bytes.len() as u64,
            sha1: Sha1Hash::of(&self.bytes),
            sha256: Sha256Hash::of(&self.bytes),
            info_hash: InfoHash::of(&raw),
            info_length: raw.len() as u64,
        };
        (draft, raw)
    }
}

/// The secret of a client: its key, and thereby its name in swarms.
#[derive(Debug, Clone, Copy)]
pub struct Seed(pub [u8; tls::SEED_LENGTH]);

impl Seed {
    /// A new one.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// The key.
    ///
    /// # Panics
    /// When the cryptographic library refuses it.
    pub fn identity(&self) -> Identity {
        Identity::from_seed(&self.0).expect("any seed makes a key")
    }
}

/// A control connection.
pub struct WireMember {
    stream: StreamOwned<ClientConnection, TcpStream>,
    codec: ControlCodec<TrackerMessage, ClientMessage>,
    incoming: BytesMut,
    next_id: u32,
    identity: Identity,
    peer_id: PeerId,
    welcome: Option<Welcome>,
    token: Option<SessionToken>,
    /// What the tracker told unasked, oldest first.
    pub events: Vec<Event>,
}

impl std::fmt::Debug for WireMember {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WireMember").field("peer_id", &self.peer_id).finish_non_exhaustive()
    }
}

impl WireMember {
    /// Connects with a new key and says hello.
    ///
    /// # Errors
    /// When the connection fails or the tracker will not go on.
    pub fn connect(tracker: SocketAddr, listen_port: u16) -> io::Result<Self> {
        Self::connect_as(tracker, Seed::random(), listen_port)
    }

    /// Connects with this key and says hello.
    ///
    /// # Errors
    /// When the connection fails or the tracker will not go on.
    pub fn connect_as(tracker: SocketAddr, seed: Seed, listen_port: u16) -> io::Result<Self> {
        let mut member = Self::connect_silently(tracker, seed)?;
        let (peer_id, agent) = (member.peer_id, "wire member".to_owned());
        let hello = Hello { min_version: MIN_VERSION, max_version: MAX_VERSION, agent, peer_id, listen_port };
        member.write(ClientMessage::Hello(hello))?;
        match member.read()? {
            TrackerMessage::Welcome(welcome) => member.welcome = Some(welcome),
            other => return Err(io::Error::other(format!("no welcome: {other:?}"))),
        }
        Ok(member)
    }

    /// Connects and says nothing.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn connect_silently(tracker: SocketAddr, seed: Seed) -> io::Result<Self> {
        let identity = seed.identity();
        let config = tls::control_client_config(&identity, None).map_err(io::Error::other)?;
        let tls = ClientConnection::new(Arc::new(config), tls::unnamed_server()).map_err(io::Error::other)?;
        let socket = TcpStream::connect_timeout(&tracker, DEADLINE)?;
        socket.set_read_timeout(Some(DEADLINE))?;
        socket.set_nodelay(true)?;
        let peer_id = PeerId(*seed.0.first_chunk().expect("a seed is longer"));
        Ok(Self {
            stream: StreamOwned::new(tls, socket),
            codec: ControlCodec::new(MAX_FRAME_LENGTH),
            incoming: BytesMut::new(),
            next_id: 1,
            identity,
            peer_id,
            welcome: None,
            token: None,
            events: Vec::new(),
        })
    }

    /// Finishes the TLS handshake and still says nothing.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn shake_hands(&mut self) -> io::Result<()> {
        while self.stream.conn.is_handshaking() {
            self.stream.conn.complete_io(&mut self.stream.sock)?;
        }
        Ok(())
    }

    /// Its name in swarms.
    pub fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    /// The key that this connection proved.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The deployment's key.
    ///
    /// # Panics
    /// Before the TLS handshake.
    pub fn deployment(&self) -> PublicKey {
        tls::peer_key(&self.stream.conn).expect("the tracker's key")
    }

    /// What the tracker said first.
    ///
    /// # Panics
    /// When it was not asked.
    pub fn welcome(&self) -> Welcome {
        self.welcome.expect("a welcome")
    }

    /// What resumes its session.
    ///
    /// # Panics
    /// When it did not sign in.
    pub fn token(&self) -> SessionToken {
        self.token.clone().expect("a session")
    }

    /// Sends a message.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn write(&mut self, message: ClientMessage) -> io::Result<()> {
        let mut bytes = BytesMut::new();
        self.codec.encode(message, &mut bytes).map_err(io::Error::other)?;
        self.write_raw(&bytes)
    }

    /// Sends bytes that need not be a message.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn write_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// The next message, waiting for it.
    ///
    /// # Errors
    /// When the connection fails or ends.
    pub fn read(&mut self) -> io::Result<TrackerMessage> {
        loop {
            if let Some(message) = self.codec.decode(&mut self.incoming).map_err(io::Error::other)? {
                return Ok(message);
            }
            let mut buffer = [0; 64 * 1024];
            let n = self.stream.read(&mut buffer)?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.incoming.extend_from_slice(&buffer[..n]);
        }
    }

    /// Sends a request without waiting; its number.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn send(&mut self, body: Request) -> io::Result<u32> {
        let id = self.next_id;
        self.next_id += 1;
        self.write(ClientMessage::Request { id, once: None, body })?;
        Ok(id)
    }

    /// Asks, and waits for the answer; events on the way are kept.
    ///
    /// # Errors
    /// When the connection fails or ends.
    pub fn request(&mut self, body: Request) -> io::Result<Result<Response, Refusal>> {
        let asked = self.send(body)?;
        loop {
            match self.read()? {
                TrackerMessage::Response { id, result } if id == asked => return Ok(result),
                TrackerMessage::Event(event) => self.events.push(event),
                other => return Err(io::Error::other(format!("unexpected: {other:?}"))),
            }
        }
    }

    /// Asks for what must succeed.
    ///
    /// # Panics
    /// When it does not.
    pub fn ask(&mut self, body: Request) -> Response {
        let shown = format!("{body:.200?}");
        let answer = self.request(body).unwrap_or_else(|error| panic!("{shown}: {error}"));
        answer.unwrap_or_else(|refusal| panic!("{shown}: {refusal:?}"))
    }

    /// Creates an account and signs in.
    ///
    /// # Panics
    /// When the tracker refuses.
    pub fn sign_up(&mut self, user: &str, password: &str) {
        let name = user.parse().expect("a user name");
        self.ask(Request::CreateUser { user: name, password: Password::new(password.into()) });
        self.sign_in(user, password);
    }

    /// Signs in.
    ///
    /// # Panics
    /// When the tracker refuses.
    pub fn sign_in(&mut self, user: &str, password: &str) {
        self.log_in(user, password, false);
    }

    /// Signs in, ending the user's session on another client.
    ///
    /// # Panics
    /// When the tracker refuses.
    pub fn sign_in_taking_over(&mut self, user: &str, password: &str) {
        self.log_in(user, password, true);
    }

    fn log_in(&mut self, user: &str, password: &str, takeover: bool) {
        let (user, password) = (user.parse().expect("a user name"), Password::new(password.into()));
        let answer = self.ask(Request::Login { user, password, takeover });
        self.keep_token(answer);
    }

    /// Takes up a session again.
    ///
    /// # Panics
    /// When the tracker refuses.
    pub fn resume(&mut self, token: SessionToken) {
        let answer = self.ask(Request::Resume { token });
        self.keep_token(answer);
    }

    fn keep_token(&mut self, answer: Response) {
        match answer {
            Response::SignedIn(session) => self.token = Some(session.token),
            other => panic!("not signed in: {other:?}"),
        }
    }

    /// Creates a group.
    ///
    /// # Panics
    /// When the tracker refuses.
    pub fn create_group(&mut self, group: &str) {
        self.ask(Request::CreateGroup { group: group.parse().expect("a group name") });
    }

    /// Asks to join a group.
    ///
    /// # Panics
    /// When the tracker refuses.
    pub fn join_group(&mut self, group: &str) {
        self.ask(Request::JoinGroup { group: group.parse().expect("a group name") });
    }

    /// The number of a group of its own.
    ///
    /// # Panics
    /// When the tracker refuses.
    pub fn group_id(&mut self, group: &str) -> GroupId {
        match self.ask(Request::DescribeGroup { group: group.parse().expect("a group name") }) {
            Response::Group(description) => description.id,
            other => panic!("no group: {other:?}"),
        }
    }

    /// A ticket for a group, and the revocations after that number; what happens later comes as events.
    ///
    /// # Panics
    /// When the tracker refuses.
    pub fn enter_group(&mut self, group: GroupId, after: u64) -> Admission {
        match self.ask(Request::EnterGroup { group, after }) {
            Response::Admission(admission) => admission,
            other => panic!("not admitted: {other:?}"),
        }
    }

    /// What it shows other members of a group.
    ///
    /// # Panics
    /// When the tracker refuses.
    pub fn pass(&mut self, group: GroupId) -> Pass {
        let ticket = self.enter_group(group, 0).ticket.as_bytes().to_vec();
        Pass { identity: self.identity.clone(), ticket, deployment: self.deployment(), group }
    }

    /// Lists a file, or becomes a sharer of it.
    ///
    /// # Panics
    /// When the tracker refuses.
    pub fn share(&mut self, group: &str, content: &Content) -> Torrent {
        let group_id = self.group_id(group);
        let (draft, raw) = match group {
            PUBLIC_GROUP => content.described_by(content.open_info()),
            _ => content.draft(group_id),
        };
        let info_hash = draft.info_hash;
        let geometry = Geometry::new(draft.size, u64::from(PIECE_LENGTH)).expect("a size");
        let listing = self.offer(group, draft, &raw).unwrap_or_else(|refusal| panic!("{refusal:?}"));
        Torrent { listing, group: group_id, info_hash, geometry }
    }

    /// Offers a file with this raw `info` dictionary; its number.
    ///
    /// # Errors
    /// When the tracker refuses.
    ///
    /// # Panics
    /// When the connection ends.
    pub fn offer(&mut self, group: &str, draft: ListingDraft, raw: &[u8]) -> Result<ListingId, Refusal> {
        const ENDED: &str = "the tracker answers";
        let group = group.parse().expect("a group name");
        let upload = match self.request(Request::OfferListing { group, draft }).expect(ENDED)? {
            Response::Offered(Offer::SendInfo(upload)) => upload,
            Response::Offered(Offer::Joined(listing) | Offer::AlreadySharing(listing)) => return Ok(listing),
            other => panic!("no offer: {other:?}"),
        };
        for (nth, page) in raw.chunks(INFO_PAGE_LENGTH).enumerate() {
            let offset = (nth * INFO_PAGE_LENGTH) as u64;
            self.request(Request::PutInfo { upload, offset, bytes: page.to_vec() }).expect(ENDED)?;
        }
        match self.request(Request::CommitListing { upload }).expect(ENDED)? {
            Response::Listed(listing) => Ok(listing),
            other => panic!("not listed: {other:?}"),
        }
    }

    /// Says what it has of a file.
    ///
    /// # Panics
    /// When the tracker does not accept it.
    pub fn announce(&mut self, listing: ListingId, presence: Presence) {
        let announcements = vec![Announcement { listing, presence }];
        match self.ask(Request::Announce { announcements }) {
            Response::Announced(refused) if refused.is_empty() => {}
            other => panic!("not announced: {other:?}"),
        }
    }

    /// The files of a group, with the numbers of all pages.
    ///
    /// # Panics
    /// When the tracker refuses.
    pub fn list_files(&mut self, group: &str) -> Vec<Listing> {
        let group: GroupName = group.parse().expect("a group name");
        let mut files = Vec::new();
        loop {
            let after = files.last().map(|file: &Listing| file.draft.name.clone());
            match self.ask(Request::ListFiles { group: group.clone(), after }) {
                Response::Files(page) if page.is_empty() => return files,
                Response::Files(page) => files.extend(page),
                other => panic!("no files: {other:?}"),
            }
        }
    }
}

/// What its uploader would say of a file named `vast` of this size that nobody has, and its raw `info`
/// dictionary.
///
/// # Panics
/// When there is no such size.
pub fn vast_draft(group: GroupId, size: u64) -> (ListingDraft, Vec<u8>) {
    let geometry = Geometry::new(size, u64::from(PIECE_LENGTH)).expect("a size");
    let hashes = crate::files::random_bytes(geometry.n_pieces() as usize * Sha1Hash::LENGTH, size);
    let name: mini_torrent_common::names::FileName = "vast".parse().expect("a file name");
    let pieces = PieceHashes::new(hashes).expect("whole hashes");
    let raw = Info { name: name.clone(), geometry, pieces, private: true, group: Some(group) }.encode();
    let draft = ListingDraft {
        name,
        size,
        sha1: Sha1Hash([1; 20]),
        sha256: Sha256Hash([2; 32]),
        info_hash: InfoHash::of(&raw),
        info_length: raw.len() as u64,
    };
    (draft, raw)
}
