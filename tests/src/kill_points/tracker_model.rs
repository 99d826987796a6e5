//! What a tracker must remember of two users and their groups, and the operations that change it.

use mini_torrent_common::hash::InfoHash;
use rand::RngExt;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, BTreeSet};

/// More groups than this are not kept.
const MAX_GROUPS: usize = 12;
/// More files than this are not kept in a group.
const MAX_FILES: usize = 6;

/// One of the two users.
pub(super) type Actor = usize;

/// What the tracker acknowledged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Model {
    pub(super) accounts: BTreeSet<String>,
    pub(super) groups: BTreeMap<String, Group>,
}

/// A group of the two users.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) owner: Actor,
    pub(super) members: BTreeSet<Actor>,
    pub(super) pending: Option<Actor>,
    pub(super) files: BTreeMap<String, File>,
}

/// A listed file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    pub(super) info_hash: InfoHash,
    pub(super) sharers: BTreeSet<Actor>,
}

/// A change that one user asks for.
#[derive(Debug, Clone)]
pub(super) enum Operation {
    CreateUser { user: String },
    CreateGroup { by: Actor, group: String },
    Join { by: Actor, group: String },
    Accept { by: Actor, group: String, user: Actor },
    Reject { by: Actor, group: String, user: Actor },
    Leave { by: Actor, group: String },
    List { by: Actor, group: String, file: String, seed: u64, info_hash: Option<InfoHash> },
    StopShare { by: Actor, group: String, file: String },
}

impl Model {
    /// What is so after the operation.
    pub(super) fn after(&self, operation: &Operation) -> Self {
        let mut model = self.clone();
        model.apply(operation);
        model
    }

    fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::CreateUser { user } => {
                self.accounts.insert(user.clone());
            }
            Operation::CreateGroup { by, group } => {
                let new = Group { owner: *by, members: [*by].into(), ..Group::default() };
                self.groups.insert(group.clone(), new);
            }
            Operation::Join { by, group } => self.group(group).pending = Some(*by),
            Operation::Accept { group, user, .. } => {
                self.group(group).pending = None;
                self.group(group).members.insert(*user);
            }
            Operation::Reject { group, .. } => self.group(group).pending = None,
            Operation::Leave { by, group } => self.leave(*by, group),
            // Without an info-hash it did not get as far as the tracker.
            Operation::List { info_hash: None, .. } => {}
            Operation::List { by, group, file, info_hash: Some(info_hash), .. } => {
                let new = File { info_hash: *info_hash, sharers: [*by].into() };
                self.group(group).files.insert(file.clone(), new);
            }
            Operation::StopShare { by, group, file } => self.group(group).stop_share(*by, file),
        }
    }

    fn group(&mut self, name: &str) -> &mut Group {
        self.groups.get_mut(name).expect("operations are drawn for groups that exist")
    }

    fn leave(&mut self, by: Actor, name: &str) {
        let group = self.group(name);
        if group.pending == Some(by) {
            group.pending = None;
            return;
        }
        group.members.remove(&by);
        let files: Vec<String> = group.files.keys().cloned().collect();
        files.iter().for_each(|file| group.stop_share(by, file));
        match group.members.first() {
            Some(heir) if group.owner == by => group.owner = *heir,
            Some(_) => {}
            None => {
                self.groups.remove(name);
            }
        }
    }

    /// Draws an operation that the tracker must accept.
    pub(super) fn draw(&self, prefix: &str, fresh: &mut u64, random: &mut StdRng) -> Operation {
        *fresh += 1;
        let by = random.random_range(0..2);
        let names: Vec<&String> = self.groups.keys().collect();
        if names.is_empty() || (names.len() < MAX_GROUPS && random.random_ratio(1, 5)) {
            return Operation::CreateGroup { by, group: format!("{prefix}g{fresh}") };
        }
        if random.random_ratio(1, 20) {
            return Operation::CreateUser { user: format!("{prefix}u{fresh}") };
        }
        let name = names[random.random_range(0..names.len())];
        self.groups[name].draw(name, by, *fresh, random)
    }
}

impl Group {
    fn stop_share(&mut self, by: Actor, file: &str) {
        if let Some(listing) = self.files.get_mut(file) {
            listing.sharers.remove(&by);
        }
        self.files.retain(|_, listing| !listing.sharers.is_empty());
    }

    fn draw(&self, name: &str, by: Actor, fresh: u64, random: &mut StdRng) -> Operation {
        let group = name.to_owned();
        if let Some(user) = self.pending {
            return match random.random_range(0..6) {
                0 => Operation::Leave { by: user, group },
                1 => Operation::Reject { by: self.owner, group, user },
                _ => Operation::Accept { by: self.owner, group, user },
            };
        }
        if !self.members.contains(&by) {
            return Operation::Join { by, group };
        }
        let own: Vec<&String> =
            self.files.iter().filter(|(_, file)| file.sharers.contains(&by)).map(|(name, _)| name).collect();
        match random.random_range(0..10) {
            0 | 1 => Operation::Leave { by, group },
            2..=4 if !own.is_empty() => {
                Operation::StopShare { by, group, file: own[random.random_range(0..own.len())].clone() }
            }
            _ if own.len() >= MAX_FILES => Operation::StopShare { by, group, file: own[0].clone() },
            _ => {
                let file = format!("f{fresh}");
                Operation::List { by, group, file, seed: random.random(), info_hash: None }
            }
        }
    }
}

impl Operation {
    /// Who asks for it.
    pub(super) fn actor(&self) -> Actor {
        match self {
            Self::CreateUser { .. } => 0,
            Self::CreateGroup { by, .. }
            | Self::Join { by, .. }
            | Self::Accept { by, .. }
            | Self::Reject { by, .. }
            | Self::Leave { by, .. }
            | Self::List { by, .. }
            | Self::StopShare { by, .. } => *by,
        }
    }
}
