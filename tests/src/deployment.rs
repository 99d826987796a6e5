//! A tracker with a group and its members, ready for a test.

use crate::client::{Client, ClientSettings, password_of};
use crate::scene::{Programs, Scene};
use crate::tracker::Tracker;
use crate::wire_link::Pass;
use crate::wire_member::{Content, WireMember};
use crate::wire_seeder::{Conduct, WireSeeder};
use std::sync::Arc;

/// The group of a deployment.
pub const GROUP: &str = "lab";

const USERS: [&str; 10] = ["ann", "bob", "cid", "dee", "eli", "fay", "gus", "hal", "ivy", "jon"];

/// A tracker, a group and its members: the first one owns it.
#[derive(Debug)]
pub struct Deployment {
    /// The members, each a client of its own.
    pub clients: Vec<Client>,
    /// The tracker.
    pub tracker: Tracker,
    /// The directory that everything lies in.
    pub scene: Arc<Scene>,
}

impl Deployment {
    /// A tracker alone.
    pub fn empty(programs: Programs) -> Self {
        Self::on(Scene::new(programs))
    }

    /// A tracker alone, on this scene.
    pub fn on(scene: Arc<Scene>) -> Self {
        Self { clients: Vec::new(), tracker: Tracker::start(&scene), scene }
    }

    /// A tracker and `n` members of [`GROUP`], signed in.
    pub fn of(programs: Programs, n: usize) -> Self {
        let mut deployment = Self::empty(programs);
        deployment.add_members(n);
        deployment
    }

    /// Adds a client with an account, signed in, in no group.
    pub fn add_stranger(&mut self) -> &mut Client {
        let name = user_name(self.clients.len());
        self.add_stranger_with(ClientSettings::new(&name))
    }

    /// As [`Self::add_stranger`], started in a way of its own; its account has the name of its settings.
    pub fn add_stranger_with(&mut self, settings: ClientSettings) -> &mut Client {
        let user = settings.name.clone();
        let mut client = Client::start_with(&self.scene, self.tracker.info_file(), settings);
        client.sign_up(&user);
        self.clients.push(client);
        self.clients.last_mut().expect("one was added")
    }

    /// Adds members of [`GROUP`], signed in.
    pub fn add_members(&mut self, n: usize) {
        for _ in 0..n {
            self.add_member_with(ClientSettings::new(&user_name(self.clients.len())));
        }
    }

    /// Adds a member of [`GROUP`], started in a way of its own.
    pub fn add_member_with(&mut self, settings: ClientSettings) -> &mut Client {
        self.add_stranger_with(settings);
        let (newcomer, others) = self.clients.split_last_mut().expect("one was added");
        match others.first_mut() {
            None => {
                newcomer.expect_ok(&format!("create_group {GROUP}"));
            }
            Some(owner) => {
                newcomer.expect_ok(&format!("join_group {GROUP}"));
                owner.expect_ok(&format!("accept_request {GROUP} {}", newcomer.user()));
            }
        }
        newcomer
    }

    /// Two clients at once.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn pair(&mut self) -> (&mut Client, &mut Client) {
        let [a, b] = self.some();
        (a, b)
    }

    /// The first `N` clients at once.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn some<const N: usize>(&mut self) -> [&mut Client; N] {
        let clients: Vec<&mut Client> = self.clients.iter_mut().take(N).collect();
        clients.try_into().unwrap_or_else(|found: Vec<_>| panic!("{} clients, not {N}", found.len()))
    }

    /// Adds a member of [`GROUP`] that speaks the protocols by itself, with a listener for peers.
    ///
    /// # Panics
    /// When the tracker refuses.
    pub fn add_wire_member(&mut self, user: &str, listen_port: u16) -> WireMember {
        let mut member = WireMember::connect(self.tracker.address(), listen_port).expect("the tracker accepts");
        member.sign_up(user, &password_of(user));
        match self.clients.first_mut() {
            None => member.create_group(GROUP),
            Some(owner) => {
                member.join_group(GROUP);
                owner.expect_ok(&format!("accept_request {GROUP} {user}"));
            }
        }
        member
    }

    /// Adds a member of [`GROUP`] that shares `content` and serves it as it likes.
    pub fn add_wire_seeder(&mut self, user: &str, content: &Content, conduct: Conduct) -> WireSeeder {
        self.add_wire_seeder_with(user, content, conduct, |_| {})
    }

    /// As [`Self::add_wire_seeder`], showing others what `change` makes of its own pass.
    pub fn add_wire_seeder_with(
        &mut self,
        user: &str,
        content: &Content,
        conduct: Conduct,
        change: impl FnOnce(&mut Pass),
    ) -> WireSeeder {
        let listener = WireSeeder::bind();
        let mut member = self.add_wire_member(user, WireSeeder::port_of(&listener));
        let torrent = member.share(GROUP, content);
        let mut pass = member.pass(torrent.group);
        change(&mut pass);
        WireSeeder::serve(listener, member, &torrent, content.clone(), conduct, pass)
    }
}

/// The name of the user with this number.
pub fn user_name(nth: usize) -> String {
    USERS.get(nth).map_or_else(|| format!("user{nth}"), |name| (*name).to_owned())
}
