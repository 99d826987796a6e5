//! The shell on a real terminal: E3 and behaviour §1, §2 (prompt, history, completion, notices, passwords).

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use mini_torrent_tests::files::{files_with, random_file, sparse_file};
use mini_torrent_tests::terminal::Terminal;
use mini_torrent_tests::{Deployment, GROUP, programs};

/// A shell of a new user's, started in the directory of that name.
fn shell(deployment: &Deployment, name: &str) -> Terminal {
    let dir = deployment.scene.make_dir(name);
    let arguments = ["127.0.0.1:0", deployment.tracker.info(), "--data-dir", "data"];
    let mut command = deployment.scene.client_command(&arguments);
    command.current_dir(dir);
    Terminal::start(command)
}

/// A shell with somebody signed in.
fn signed_in(deployment: &Deployment, name: &str) -> Terminal {
    let mut shell = shell(deployment, name);
    shell.type_line(&format!("create_user {name} password-of-{name}"));
    shell.expect(&format!("user {name} created"));
    shell.type_line(&format!("login {name} password-of-{name}"));
    shell.expect(&format!("logged in as {name}; sharing 0 files"));
    shell
}

/// E3: it prompts, answers, and `quit` ends it with status 0.
#[test]
fn e3_the_shell_prompts_and_answers() {
    let deployment = Deployment::empty(programs!());
    let mut shell = shell(&deployment, "ann");
    shell.expect(">");
    shell.type_line("create_user ann password-1");
    shell.expect("user ann created");
    shell.type_line("login ann password-2");
    shell.expect("error[wrong_credentials]: ");
    shell.type_line("login ann password-1");
    shell.expect("logged in as ann; sharing 0 files");
    shell.expect("ann>");
    shell.type_line("");
    shell.expect("ann>");
    shell.type_line("create_group lab");
    shell.expect("group lab created");
    shell.type_line("quit");
    assert_eq!(shell.wait_exit(), 0);
}

/// Lines typed or pasted faster than they are answered are all run.
#[test]
fn lines_typed_ahead_are_not_lost() {
    let deployment = Deployment::empty(programs!());
    let mut shell = signed_in(&deployment, "ann");
    shell.expect("ann>");
    shell.type_line("create_group one\ncreate_group two\ncreate_group three");
    for group in ["one", "two", "three"] {
        shell.expect(&format!("group {group} created"));
    }
    shell.type_line("quit");
    assert_eq!(shell.wait_exit(), 0);
}

/// Ctrl-D is `quit`.
#[test]
fn end_of_input_is_quit() {
    let deployment = Deployment::empty(programs!());
    let mut shell = signed_in(&deployment, "ann");
    shell.type_line("create_group lab");
    shell.expect("group lab created");
    shell.expect(">");
    shell.type_end();
    assert_eq!(shell.wait_exit(), 0);
}

/// A password that is asked for is not echoed, and none reaches the history, the logs or the state.
#[test]
fn passwords_are_asked_unechoed_and_kept_nowhere() {
    let deployment = Deployment::empty(programs!());
    let mut shell = shell(&deployment, "ann");
    shell.expect(">");
    shell.type_line("create_user ann");
    shell.expect("assword");
    shell.type_line("unechoed-secret");
    shell.expect("again");
    shell.type_line("unechoed-secret");
    shell.expect("user ann created");
    shell.type_line("login ann");
    shell.expect("assword");
    shell.type_line("unechoed-secret");
    shell.expect("logged in as ann");
    shell.type_line("create_user bob visible-secret");
    shell.expect("user bob created");
    shell.type_line("create_group remembered");
    shell.expect("group remembered created");
    shell.type_line("quit");
    assert_eq!(shell.wait_exit(), 0);
    assert!(!shell.seen().contains("unechoed-secret"), "{}", shell.seen());
    let dir = deployment.scene.path("ann");
    assert!(!files_with(&dir, b"create_group remembered").is_empty(), "there is a history");
    for secret in ["visible-secret", "unechoed-secret"] {
        let files = files_with(&dir, secret.as_bytes());
        assert!(files.is_empty(), "{secret} is in {files:?}");
    }
}

/// Tab completes commands, groups, files and paths.
#[test]
fn tab_completes_commands_groups_files_and_paths() {
    let deployment = Deployment::empty(programs!());
    let mut shell = signed_in(&deployment, "ann");
    random_file(deployment.scene.path("ann/some-long-path"), 1000, 1);
    shell.type_line("create_group laboratory");
    shell.expect("group laboratory created");
    shell.type_line("upload_file some-l\t labor\t");
    shell.expect("sharing some-long-path in laboratory");
    shell.type_line("list_f\t laboratory");
    shell.expect("some-long-path");
    shell.type_line("verify labor\t some\t");
    shell.expect("some-long-path is intact");
    shell.type_line("quit");
    assert_eq!(shell.wait_exit(), 0);
}

/// A notice from outside does not spoil the line that is being typed.
#[test]
fn notices_do_not_spoil_the_typed_line() {
    let mut deployment = Deployment::empty(programs!());
    let mut shell = signed_in(&deployment, "ann");
    shell.type_line("create_group lab");
    shell.expect("group lab created");
    shell.type_text("create_group hal");
    shell.expect("hal");
    let bob = deployment.add_stranger_with(mini_torrent_tests::client::ClientSettings::new("bob"));
    bob.expect_ok("join_group lab");
    shell.expect("bob");
    // The typed part is shown again below the notice.
    shell.expect("create_group hal");
    shell.type_line("f");
    shell.expect("group half created");
    shell.type_line("quit");
    assert_eq!(shell.wait_exit(), 0);
}

/// While a large file is hashed the shell answers; the upload reports itself.
#[test]
fn uploads_do_not_block_the_shell() {
    let deployment = Deployment::empty(programs!());
    let mut shell = signed_in(&deployment, "ann");
    sparse_file(deployment.scene.path("ann/large"), 3 << 30, &[(5, b"x")]);
    shell.type_line("create_group lab");
    shell.expect("group lab created");
    shell.type_line("upload_file large lab");
    shell.type_line("create_group meanwhile");
    let before = shell.expect("group meanwhile created");
    assert!(!before.contains("sharing large in lab"), "the upload blocked the shell");
    shell.expect("sharing large in lab");
    shell.type_line("quit");
    assert_eq!(shell.wait_exit(), 0);
}

/// On a terminal the lists say more: size, seeders, leechers, uploader; progress.
#[test]
fn lists_say_more_on_a_terminal() {
    let mut deployment = Deployment::of(programs!(), 1);
    let ann = &mut deployment.clients[0];
    let file = random_file(ann.path("file"), 3 << 20, 2);
    ann.upload(&file, GROUP);
    let mut shell = signed_in(&deployment, "zed");
    shell.type_line("join_group lab");
    shell.expect("join request sent to the owner of lab");
    deployment.clients[0].expect_ok("accept_request lab zed");
    shell.type_line("list_files lab");
    let shown = format!("{}{}", shell.expect("file"), shell.expect("ann"));
    assert!(shown.contains('3'), "the size: {shown}");
    shell.type_line("download_file lab file .");
    shell.expect("downloading file from 1 seeder");
    deployment.clients[0].wait_seeders(GROUP, "file", 2);
    shell.type_line("show_downloads");
    shell.expect("[C] [lab] file");
    shell.type_line("quit");
    assert_eq!(shell.wait_exit(), 0);
}

/// Ctrl-C takes back what was typed; on an empty line it ends the client with 130.
#[test]
fn ctrl_c_clears_the_line_and_then_ends_with_130() {
    let deployment = Deployment::empty(programs!());
    let mut shell = signed_in(&deployment, "ann");
    shell.expect("ann>");
    shell.type_text("create_group wrong");
    shell.expect("wrong");
    shell.type_interrupt();
    shell.type_line("create_group right");
    shell.expect("group right created");
    shell.expect("ann>");
    shell.type_interrupt();
    assert_eq!(shell.wait_exit(), 130);
    assert!(!shell.seen().contains("group wrong created"), "{}", shell.seen());
}

/// The upload of a large file shows how far it is and can be cancelled.
#[test]
fn hashing_shows_progress_and_can_be_cancelled() {
    let deployment = Deployment::empty(programs!());
    let mut shell = signed_in(&deployment, "ann");
    sparse_file(deployment.scene.path("ann/large"), 200 << 30, &[(5, b"x")]);
    shell.type_line("create_group lab");
    shell.expect("group lab created");
    shell.type_line("upload_file large lab");
    shell.expect("background");
    shell.type_line("show_downloads");
    shell.expect("[U] [lab] large");
    shell.expect("%");
    shell.expect("ann>");
    shell.type_line("cancel_download lab large");
    shell.expect("cancelled large of lab");
    shell.expect("ann>");
    shell.type_line("list_files lab");
    shell.expect("no files");
    shell.type_line("quit");
    assert_eq!(shell.wait_exit(), 0);
}
