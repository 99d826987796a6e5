//! kill -9 of a tracker, or of one of two, under the requests of several members at once.

use super::tracker_model::{Actor, Model, Operation};
use super::{KillRun, Tally, random_moment};
use crate::client::password_of;
use crate::files::random_bytes;
use crate::scene::Scene;
use crate::tracker::Tracker;
use crate::waiting::eventually;
use crate::wire_member::{Content, Seed, WireMember};
use mini_torrent_common::control::{Listing, Request, Response, Role};
use mini_torrent_common::hash::InfoHash;
use mini_torrent_common::names::{GroupName, UserName};
use mini_torrent_common::secret::SessionToken;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Workers that talk at the same time, so that the store has several writes to commit together.
const N_WORKERS: usize = 3;
/// Most acknowledged operations between two kills.
const MAX_ACKS: u64 = 30;
/// How many ask for one name.
const N_RIVALS: usize = 4;

/// Kills the tracker at every point and compares what it remembers with what it acknowledged.
///
/// # Panics
/// When something acknowledged is lost, or something is there that nobody asked for.
pub fn kill_tracker(run: &KillRun) -> Tally {
    let scene = Scene::new(run.programs.clone());
    kill_among(run, vec![Tracker::start(&scene)])
}

/// Kills one of two trackers of a deployment at every point, and compares what the other one has with what either
/// acknowledged; then all race for one name.
///
/// # Panics
/// As [`kill_tracker`], and when two users get one name.
pub fn kill_one_of_two(run: &KillRun) -> Tally {
    let scene = Scene::new(run.programs.clone());
    let first = Tracker::start(&scene);
    let second = first.start_beside(2);
    kill_among(run, vec![first, second])
}

fn kill_among(run: &KillRun, mut trackers: Vec<Tracker>) -> Tally {
    let mut random = StdRng::seed_from_u64(run.seed);
    let addresses: Vec<_> = trackers.iter().map(Tracker::address).collect();
    let mut workers: Vec<Worker> =
        (0..N_WORKERS).map(|nth| Worker::sign_up(&addresses, nth, random.random())).collect();
    for point in 0..run.n_points {
        let n_acks = Arc::new(AtomicU64::new(0));
        let is_over = AtomicBool::new(false);
        let wanted = random.random_range(0..MAX_ACKS);
        let victim = random.random_range(0..trackers.len());
        std::thread::scope(|scope| {
            for worker in &mut workers {
                let (n_acks, is_over) = (&n_acks, &is_over);
                scope.spawn(move || worker.work_until_it_breaks(n_acks, is_over));
            }
            eventually("the workers work", || (n_acks.load(Ordering::Relaxed) >= wanted).then_some(()));
            random_moment(&mut random, Duration::from_millis(4));
            trackers[victim].kill();
            is_over.store(true, Ordering::Relaxed);
        });
        let survivors: Vec<_> = trackers
            .iter()
            .enumerate()
            .filter(|(nth, _)| *nth != victim)
            .map(|(_, tracker)| tracker.address())
            .collect();
        if !survivors.is_empty() {
            compare_all(&mut workers, &survivors, point);
        }
        trackers[victim].start_again();
        compare_all(&mut workers, &addresses, point);
        race_for_a_name(&addresses, point);
    }
    workers.iter().fold(Tally::default(), |sum, worker| Tally {
        happened: sum.happened + worker.tally.happened,
        not: sum.not + worker.tally.not,
        in_part: 0,
    })
}

fn compare_all(workers: &mut [Worker], trackers: &[SocketAddr], point: u32) {
    std::thread::scope(|scope| {
        for worker in workers {
            scope.spawn(move || worker.compare(trackers, point));
        }
    });
}

/// Everybody asks for the same name at once, at every tracker: one gets it.
fn race_for_a_name(trackers: &[SocketAddr], point: u32) {
    let name = format!("contested{point}");
    let asked = std::thread::scope(|scope| {
        let ask = |tracker: SocketAddr| {
            let name = &name;
            scope.spawn(move || {
                let mut member = WireMember::connect(tracker, 1).expect("the tracker accepts");
                let password = mini_torrent_common::secret::Password::new(password_of(name));
                member.request(Request::CreateUser { user: user_name(name), password }).expect("an answer").is_ok()
            })
        };
        let asked: Vec<_> = trackers.iter().cycle().take(N_RIVALS).map(|tracker| ask(*tracker)).collect();
        asked.into_iter().map(|one| one.join().expect("it was asked")).collect::<Vec<_>>()
    });
    let n_owners = asked.iter().filter(|got_it| **got_it).count();
    assert_eq!(n_owners, 1, "point {point}: {n_owners} own {name}");
}

struct Worker {
    name: String,
    trackers: Vec<SocketAddr>,
    actors: [Account; 2],
    model: Model,
    /// Accounts that nobody has signed in to since they were made.
    fresh_accounts: BTreeSet<String>,
    /// The operation under way at the kill.
    in_doubt: Option<Operation>,
    n_drawn: u64,
    random: StdRng,
    tally: Tally,
}

struct Account {
    user: String,
    seed: Seed,
    token: SessionToken,
}

impl Account {
    fn connect(&mut self, tracker: SocketAddr) -> io::Result<WireMember> {
        let mut member = WireMember::connect_as(tracker, self.seed, 1)?;
        match accepted(&mut member, Request::Resume { token: self.token.clone() })? {
            Response::SignedIn(session) => self.token = session.token,
            other => panic!("not signed in: {other:?}"),
        }
        Ok(member)
    }
}

/// What two users see of their groups.
#[derive(Debug, PartialEq, Eq)]
struct Sight {
    groups: BTreeMap<String, GroupSight>,
}

#[derive(Debug, PartialEq, Eq)]
struct GroupSight {
    owner: String,
    n_members: u64,
    roles: [Option<Role>; 2],
    pending: Vec<String>,
    files: BTreeMap<String, InfoHash>,
}

impl Worker {
    fn sign_up(trackers: &[SocketAddr], nth: usize, seed: u64) -> Self {
        let name = format!("w{nth}");
        let tracker = trackers[nth % trackers.len()];
        let actors = ["a", "b"].map(|letter| {
            let (user, seed) = (format!("{name}{letter}"), Seed::random());
            let mut member = WireMember::connect_as(tracker, seed, 1).expect("the tracker accepts");
            member.sign_up(&user, &password_of(&user));
            Account { user, seed, token: member.token() }
        });
        Self {
            name,
            trackers: trackers.to_vec(),
            actors,
            model: Model::default(),
            fresh_accounts: BTreeSet::new(),
            in_doubt: None,
            n_drawn: 0,
            random: StdRng::seed_from_u64(seed),
            tally: Tally::default(),
        }
    }

    /// Both users' sessions, taken up again, each at some tracker. One that the tracker did not come to confirm keeps its
    /// old token.
    fn connect(&mut self) -> io::Result<[WireMember; 2]> {
        let [one, other] = [(); 2].map(|()| self.trackers[self.random.random_range(0..self.trackers.len())]);
        let [first, second] = &mut self.actors;
        Ok([first.connect(one)?, second.connect(other)?])
    }

    fn work_until_it_breaks(&mut self, n_acks: &AtomicU64, is_over: &AtomicBool) {
        let Ok(mut members) = self.connect() else { return };
        while !is_over.load(Ordering::Relaxed) {
            let mut operation = self.model.draw(&self.name, &mut self.n_drawn, &mut self.random);
            if self.carry_out(&mut members, &mut operation).is_err() {
                self.in_doubt = Some(operation);
                return;
            }
            if let Operation::CreateUser { user } = &operation {
                self.fresh_accounts.insert(user.clone());
            }
            self.model = self.model.after(&operation);
            n_acks.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn carry_out(&self, members: &mut [WireMember; 2], operation: &mut Operation) -> io::Result<()> {
        let member = &mut members[operation.actor()];
        if let Operation::List { group, file, seed, info_hash, .. } = operation {
            return list(member, &group_name(group), file, *seed, info_hash);
        }
        let request = match operation {
            Operation::CreateUser { user } => Request::CreateUser {
                user: user_name(user),
                password: mini_torrent_common::secret::Password::new(password_of(user)),
            },
            Operation::CreateGroup { group, .. } => Request::CreateGroup { group: group_name(group) },
            Operation::Join { group, .. } => Request::JoinGroup { group: group_name(group) },
            Operation::Accept { group, user, .. } => {
                Request::AcceptRequest { group: group_name(group), user: self.user(*user) }
            }
            Operation::Reject { group, user, .. } => {
                Request::RejectRequest { group: group_name(group), user: self.user(*user) }
            }
            Operation::Leave { group, .. } => Request::LeaveGroup { group: group_name(group) },
            Operation::StopShare { group, file, .. } => {
                let found = accepted(member, Request::FindFile { group: group_name(group), file: file_name(file) })?;
                let Response::File(listing) = found else { panic!("no file: {found:?}") };
                Request::StopShare { listing: listing.id }
            }
            Operation::List { .. } => unreachable!("listed above"),
        };
        accepted(member, request).map(|_| ())
    }

    fn user(&self, actor: Actor) -> UserName {
        user_name(&self.actors[actor].user)
    }

    /// Looks at everything again, at these trackers, and settles the operation in doubt.
    fn compare(&mut self, trackers: &[SocketAddr], point: u32) {
        self.trackers = trackers.to_vec();
        let mut members = self.connect().expect("the tracker is back");
        let sight = self.look(&mut members);
        let in_doubt = self.in_doubt.take();
        let with = in_doubt.as_ref().map(|operation| self.model.after(operation));
        if self.expected(&self.model) == sight {
            // An account in doubt shows nowhere.
            self.tally.not += u32::from(with.is_some());
        } else if let Some(with) = with.filter(|with| self.expected(with) == sight) {
            self.tally.happened += 1;
            self.model = with;
        } else {
            panic!(
                "point {point}, {}: the tracker has\n{sight:#?}\nacknowledged is\n{:#?}\nin doubt is {in_doubt:?}",
                self.name,
                self.expected(&self.model),
            );
        }
        for user in std::mem::take(&mut self.fresh_accounts) {
            let mut member = WireMember::connect(trackers[0], 1).expect("the tracker accepts");
            member.sign_in(&user, &password_of(&user));
        }
    }

    /// What must be seen when this is so.
    fn expected(&self, model: &Model) -> Sight {
        let groups = model.groups.iter().map(|(name, group)| {
            let role = |actor: Actor| match () {
                () if group.owner == actor => Some(Role::Owner),
                () if group.members.contains(&actor) => Some(Role::Member),
                () if group.pending == Some(actor) => Some(Role::Pending),
                () => None,
            };
            let sight = GroupSight {
                owner: self.actors[group.owner].user.clone(),
                n_members: group.members.len() as u64,
                roles: [role(0), role(1)],
                pending: group.pending.iter().map(|actor| self.actors[*actor].user.clone()).collect(),
                files: group.files.iter().map(|(name, file)| (name.clone(), file.info_hash)).collect(),
            };
            (name.clone(), sight)
        });
        Sight { groups: groups.collect() }
    }

    /// What is seen.
    fn look(&self, members: &mut [WireMember; 2]) -> Sight {
        let roles = [0, 1].map(|actor: Actor| list_groups(&mut members[actor], &self.name));
        let mut groups = BTreeMap::new();
        for (name, (owner, n_members, role)) in &roles[0] {
            let owning: Actor = if *owner == self.actors[0].user { 0 } else { 1 };
            let member = &mut members[owning];
            let sight = GroupSight {
                owner: owner.clone(),
                n_members: *n_members,
                roles: [*role, roles[1].get(name).and_then(|(_, _, role)| *role)],
                pending: list_requests(member, name),
                files: member.list_files(name).iter().map(name_and_hash).collect(),
            };
            groups.insert(name.clone(), sight);
        }
        Sight { groups }
    }
}

fn name_and_hash(listing: &Listing) -> (String, InfoHash) {
    (listing.draft.name.as_str().to_owned(), listing.draft.info_hash)
}

fn list_groups(member: &mut WireMember, prefix: &str) -> BTreeMap<String, (String, u64, Option<Role>)> {
    let mut rows: Vec<mini_torrent_common::control::GroupRow> = Vec::new();
    loop {
        let after = rows.last().map(|row| row.name.clone());
        match member.ask(Request::ListGroups { after }) {
            Response::Groups(page) if page.is_empty() => break,
            Response::Groups(page) => rows.extend(page),
            other => panic!("no groups: {other:?}"),
        }
    }
    let own = rows.into_iter().filter(|row| row.name.as_str().starts_with(&format!("{prefix}g")));
    own.map(|row| {
        let owner = row.owner.map(|owner| owner.as_str().to_owned()).unwrap_or_default();
        (row.name.as_str().to_owned(), (owner, row.n_members, row.role))
    })
    .collect()
}

fn list_requests(member: &mut WireMember, group: &str) -> Vec<String> {
    match member.ask(Request::ListRequests { group: group_name(group), after: None }) {
        Response::JoinRequests { requests, .. } => {
            requests.iter().map(|request| request.user.as_str().to_owned()).collect()
        }
        other => panic!("no requests: {other:?}"),
    }
}

/// Lists a small file; notes its info-hash as soon as it is known.
fn list(
    member: &mut WireMember,
    group: &GroupName,
    file: &str,
    seed: u64,
    info_hash: &mut Option<InfoHash>,
) -> io::Result<()> {
    use mini_torrent_common::control::Offer;
    let described = accepted(member, Request::DescribeGroup { group: group.clone() })?;
    let Response::Group(description) = described else { panic!("no group: {described:?}") };
    let content = Content::new(file, random_bytes(usize::from(u16::try_from(seed % 5000).unwrap_or(0)), seed));
    let (draft, raw) = content.draft(description.id);
    *info_hash = Some(draft.info_hash);
    let offered = accepted(member, Request::OfferListing { group: group.clone(), draft })?;
    let Response::Offered(Offer::SendInfo(upload)) = offered else { panic!("not new: {offered:?}") };
    accepted(member, Request::PutInfo { upload, offset: 0, bytes: raw })?;
    accepted(member, Request::CommitListing { upload }).map(|_| ())
}

/// Asks for what the tracker must not refuse; only the connection may fail.
fn accepted(member: &mut WireMember, request: Request) -> io::Result<Response> {
    let shown = format!("{request:.200?}");
    Ok(member.request(request)?.unwrap_or_else(|refusal| panic!("{shown}: {refusal:?}")))
}

fn user_name(text: &str) -> UserName {
    text.parse().expect("a user name")
}

fn group_name(text: &str) -> GroupName {
    text.parse().expect("a group name")
}

fn file_name(text: &str) -> mini_torrent_common::names::FileName {
    text.parse().expect("a file name")
}
