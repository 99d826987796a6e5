//! Clients with a disk of their own: one that is soon full, or one that promises more than there is.

use crate::scene::{Programs, Scene};
use crate::waiting::skipped;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// A scene within this one, each of whose clients has a file system of `length` bytes in memory at `disk`, which nobody
/// else sees: in a mount namespace of its own. `None` where the machine does not allow that.
///
/// # Panics
/// When the scene cannot be made.
pub fn scene_with_disk(scene: &Scene, disk: &Path, length: u64) -> Option<Arc<Scene>> {
    let mount = format!("mount -t tmpfs -o size={length} none '{}'", disk.display());
    let tried = Command::new("unshare").args(["-rm", "sh", "-c", &mount]).status();
    if !tried.is_ok_and(|status| status.success()) {
        skipped("this machine allows no mount namespace, so no client has a disk of its own");
        return None;
    }
    let client = scene.programs().client.display();
    let script = format!("#!/bin/sh\nexec unshare -rm sh -c \"{mount}\"' && exec \"$0\" \"$@\"' '{client}' \"$@\"\n");
    let client = scene.write("client-with-disk", script);
    std::fs::set_permissions(&client, std::fs::Permissions::from_mode(0o755)).expect("a program can be made of it");
    Some(Scene::within(Programs { client, ..scene.programs().clone() }, scene.dir()))
}
