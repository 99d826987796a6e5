//! Two hosts of a network on one machine: network namespaces with a cable between them. What runs on one reaches the
//! other by the cable alone.

use crate::scene::Programs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;

/// The hosts; dropped, they are gone with all that runs on them.
#[derive(Debug)]
pub struct Hosts {
    names: [String; 2],
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
        static N_PAIRS: AtomicU32 = AtomicU32::new(0);
        let pair = format!("mini-torrent-{}-{}", std::process::id(), N_PAIRS.fetch_add(1, Ordering::Relaxed));
        let names = ["near", "far"].map(|name| format!("{pair}-{name}"));
        let directory = tempfile::tempdir().expect("a temporary directory");
        let hosts = Self { names, directory };
        let [near, far] = hosts.names.each_ref().map(String::as_str);
        ip(&["netns", "add", near])?;
        ip(&["netns", "add", far])?;
        ip(&["-n", near, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", far])?;
        for nth in 0..2 {
            let (name, address) = (hosts.names[nth].as_str(), format!("{}/24", hosts.address(nth)));
            ip(&["-n", name, "address", "add", &address, "dev", "cable"])?;
            ip(&["-n", name, "link", "set", "cable", "up"])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
        }
        Ok(hosts)
    }

    /// The address of the first or the second one.
    pub fn address(&self, nth: usize) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, if nth == 0 { 1 } else { 2 }).into()
    }

    /// What runs a program on the first or the second one: the words of a command that stand before it.
    pub fn enter(&self, nth: usize) -> [&str; 5] {
        ["ip", "netns", "exec", &self.names[nth], "env"]
    }

    /// Plugs the cable in or out.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn connect(&self, plugged: bool) {
        let state = if plugged { "up" } else { "down" };
        ip(&["-n", &self.names[0], "link", "set", "cable", state]).expect("a cable of our own");
    }

    /// The programs, to be run on the first or the second one.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn programs_on(&self, nth: usize, programs: &Programs) -> Programs {
        let on_host = |program: &Path| {
            let name = program.file_name().expect("a program has a name");
            let path = self.directory.path().join(format!("{nth}-{}", name.display()));
            let script = format!("#!/bin/sh\nexec ip netns exec {} '{}' \"$@\"\n", self.names[nth], program.display());
            std::fs::write(&path, script).expect("a script can be written");
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).expect("an own file");
            path
        };
        Programs::new(on_host(&programs.client), on_host(&programs.tracker))
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in &self.names {
            // One that was never made cannot be removed.
            let _ = ip(&["netns", "delete", name]);
        }
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| format!("ip: {error}"))?;
    let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(format!("ip {}: {reason}", arguments.join(" "))) }
}
