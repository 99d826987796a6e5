//! Hosts of a network on one machine: network namespaces. Two of them with a cable between them are here; what runs on one
//! reaches the other by the cable alone.

use crate::scene::Programs;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::panic::resume_unwind;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use tempfile::TempDir;

/// Where the system keeps named network namespaces.
const NAMESPACES: &str = "/run/netns";
/// What the names of our hosts begin with; the number of the process follows.
const NAME_PREFIX: &str = "mini-torrent-";

/// A host with an address, and nothing yet that leads to others; dropped, it is gone.
#[derive(Debug)]
pub struct Host {
    name: String,
    address: Ipv4Addr,
}

impl Host {
    /// The host with this number in a network of this name.
    ///
    /// # Errors
    /// When this machine lets nobody make one; the text says why.
    pub(crate) fn new(network: &str, nth: u8) -> Result<Self, String> {
        let host = Self { name: format!("{network}-{nth}"), address: Ipv4Addr::new(10, 0, 0, nth + 1) };
        ip(&["netns", "add", &host.name])?;
        host.ip("link set lo up")?;
        Ok(host)
    }

    /// Its address.
    pub fn address(&self) -> IpAddr {
        self.address.into()
    }

    /// What runs a program on it: the words of a command that stand before the program.
    pub fn enter(&self) -> [&str; 5] {
        ["ip", "netns", "exec", &self.name, "env"]
    }

    /// Does something on the host: sockets that it opens and programs that it starts are there, and stay.
    ///
    /// # Panics
    /// When the system refuses, and when `act` does.
    pub fn run<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        // A thread of its own, since a namespace is a thread's.
        let on_host = || {
            let namespace = File::open(Path::new(NAMESPACES).join(&self.name)).expect("the host is there");
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("an own namespace");
            act()
        };
        thread::scope(|scope| scope.spawn(on_host).join()).unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Gives it this device, up, with its address on it.
    pub(crate) fn plug_in(&self, device: &str) -> Result<(), String> {
        self.ip(&format!("address add {}/24 dev {device}", self.address))?;
        self.ip(&format!("link set {device} up"))
    }

    /// Runs `ip` on it, with these words.
    pub(crate) fn ip(&self, words: &str) -> Result<(), String> {
        let words: Vec<&str> = ["-n", &self.name].into_iter().chain(words.split(' ')).collect();
        ip(&words)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // One that was never made cannot be removed.
        let _ = ip(&["netns", "delete", &self.name]);
    }
}

/// Removes the hosts of processes that were killed before they could do so.
fn remove_orphans() {
    let names = std::fs::read_dir(NAMESPACES).into_iter().flatten().flatten();
    for name in names.filter_map(|entry| entry.file_name().into_string().ok()) {
        if owner(&name).is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            // Another process may remove it at the same time.
            let _ = ip(&["netns", "delete", &name]);
        }
    }
}

/// The number of the process whose host this is.
fn owner(name: &str) -> Option<&str> {
    name.strip_prefix(NAME_PREFIX)?.split('-').next().filter(|process| process.parse::<u32>().is_ok())
}

/// The two hosts; dropped, they are gone with all that runs on them.
#[derive(Debug)]
pub struct Hosts {
    hosts: [Host; 2],
    /// Where the programs that enter a host lie.
    directory: TempDir,
}

impl Hosts {
    /// Two hosts with an address each.
    ///
    /// # Errors
    /// When this machine lets nobody make them; the text says why.
    ///
    /// # Panics
    /// When there is no room for a temporary directory.
    pub fn two() -> Result<Self, String> {
        let network = begin_network();
        let directory = tempfile::tempdir().expect("a temporary directory");
        let hosts = [Host::new(&network, 0)?, Host::new(&network, 1)?];
        hosts[0].ip(&format!("link add cable type veth peer name cable netns {}", hosts[1].name))?;
        hosts.iter().try_for_each(|host| host.plug_in("cable"))?;
        Ok(Self { hosts, directory })
    }

    /// The address of the first or the second one.
    pub fn address(&self, nth: usize) -> IpAddr {
        self.hosts[nth].address()
    }

    /// What runs a program on the first or the second one: the words of a command that stand before it.
    pub fn enter(&self, nth: usize) -> [&str; 5] {
        self.hosts[nth].enter()
    }

    /// Plugs the cable in or out.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn connect(&self, plugged: bool) {
        let state = if plugged { "up" } else { "down" };
        self.hosts[0].ip(&format!("link set cable {state}")).expect("a cable of our own");
    }

    /// The programs, to be run on the first or the second one.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn programs_on(&self, nth: usize, programs: &Programs) -> Programs {
        let on_host = |program: &Path| {
            let name = program.file_name().expect("a program has a name");
            let path = self.directory.path().join(format!("{nth}-{}", name.display()));
            let enter = self.enter(nth).join(" ");
            let script = format!("#!/bin/sh\nexec {enter} '{}' \"$@\"\n", program.display());
            std::fs::write(&path, script).expect("a script can be written");
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).expect("an own file");
            path
        };
        Programs::new(on_host(&programs.client), on_host(&programs.tracker))
    }
}

/// Clears away what killed processes left, for a new network. Its name is one that no other process and no other network
/// of this one has.
pub(crate) fn begin_network() -> String {
    static N_NETWORKS: AtomicU32 = AtomicU32::new(0);
    remove_orphans();
    format!("{NAME_PREFIX}{}-{}", std::process::id(), N_NETWORKS.fetch_add(1, Ordering::Relaxed))
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| format!("ip: {error}"))?;
    let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(format!("ip {}: {reason}", arguments.join(" "))) }
}
