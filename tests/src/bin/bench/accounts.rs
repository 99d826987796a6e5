//! Sign-in: shares that revive, and many members at once.

use crate::Bench;
use crate::figures::{Figures, Goal};
use crate::transfers::{long_answer, sharer};
use mini_torrent_common::control::Request;
use mini_torrent_common::secret::Password;
use mini_torrent_tests::client::password_of;
use mini_torrent_tests::{Deployment, GROUP, WireMember, eventually};
use std::time::Instant;

/// Thousands of small shares come back at login, without being hashed again.
pub(crate) fn revive(bench: &Bench, figures: &mut Figures) {
    let n_shares = bench.options.shares;
    let mut deployment = Deployment::on(bench.scene());
    deployment.add_members(1);
    let client = sharer(&mut deployment);
    let start = Instant::now();
    for nth in 0..n_shares {
        let path = client.path(&format!("f{nth}"));
        std::fs::write(&path, nth.to_be_bytes().repeat(64)).expect("a small file");
        client.send(&format!("upload_file {} {GROUP}", path.display()));
    }
    for _ in 0..n_shares {
        let answer = long_answer(client);
        assert_eq!(answer["ok"], true, "{answer}");
    }
    figures.add("small uploads", "per s", Goal::None, f64::from(n_shares) / start.elapsed().as_secs_f64());
    client.quit();
    client.start_again();
    let start = Instant::now();
    let answer = client.sign_in();
    figures.add("revive at login", "s", Goal::AtMost(2.0), start.elapsed().as_secs_f64());
    assert_eq!(answer["shares"], n_shares);
    let observer = &mut deployment.clients[0];
    eventually("all are announced", || {
        let files = observer.expect_ok(&format!("list_files {GROUP}"));
        let rows = files["files"].as_array().map(Vec::as_slice).unwrap_or_default();
        (rows.len() == n_shares as usize && rows.iter().all(|row| row["seeders"] == 1)).then_some(())
    });
    figures.add("revive until all are listed", "s", Goal::None, start.elapsed().as_secs_f64());
}

/// Hundreds of members sign in at the same moment.
pub(crate) fn logins(bench: &Bench, figures: &mut Figures) {
    let deployment = Deployment::on(bench.scene());
    let address = deployment.tracker.address();
    let names: Vec<String> = (0..bench.options.logins).map(|nth| format!("user{nth}")).collect();
    let mut members: Vec<WireMember> =
        names.iter().map(|_| WireMember::connect(address, 1).expect("the tracker accepts")).collect();
    for (member, name) in members.iter_mut().zip(&names) {
        let (user, password) = (name.parse().expect("a user name"), Password::new(password_of(name)));
        member.ask(Request::CreateUser { user, password });
    }
    let start = Instant::now();
    std::thread::scope(|scope| {
        for (member, name) in members.iter_mut().zip(&names) {
            scope.spawn(move || member.sign_in(name, &password_of(name)));
        }
    });
    figures.add("logins at once, until the last is in", "s", Goal::None, start.elapsed().as_secs_f64());
    figures.add("logins that succeeded", "", Goal::AtLeast(f64::from(bench.options.logins)), members.len() as f64);
}
