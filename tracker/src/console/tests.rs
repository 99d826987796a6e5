//! The console's lines, against a service without sockets.

use super::*;
use crate::service::tests::Stage;

/// D1, D9: who is connected is shown with address and peer id; nonsense gets its words.
#[tokio::test]
async fn d9_the_console_answers_and_escapes() {
    let stage = Stage::new().await;
    let shutdown = CancellationToken::new();
    let mut console = Console::new(Arc::clone(&stage.service), shutdown.clone());
    assert_eq!(console.answer("list\n").await, "no files");
    assert_eq!(console.answer("peerinfo").await, "no peers");
    assert_eq!(console.answer("  \n").await, "");
    assert!(console.answer("help").await.contains("unlock_user"));
    assert!(console.answer("lits").await.starts_with("error[usage]: unknown command 'lits'"));
    assert!(console.answer("x\u{1b}[2J").await.contains("\\u{1b}"));
    assert!(console.answer("fileinfo").await.starts_with("error[usage]"));
    assert!(console.answer("fileinfo nix").await.starts_with("error[no_such_file]"));

    assert_eq!(console.answer("create_user bob 12345678").await, "user bob created");
    assert_eq!(console.answer("create_user Bob 12345678").await, "error[user_exists]: this user name is taken");
    assert_eq!(console.answer("create_user eve").await, "");
    assert_eq!(console.prompt(), "password for eve (next line): ");
    assert_eq!(console.answer("a pass phrase\n").await, "user eve created");
    assert!(console.answer("create_user ../x 12345678").await.starts_with("error[invalid_name]"));

    assert_eq!(console.answer("lock_user BOB").await, "user bob locked");
    assert_eq!(console.answer("unlock_user Bob").await, "user bob unlocked");
    assert_eq!(console.answer("lock_user nix").await, "error[no_such_user]: there is no such user");
    assert_eq!(console.answer("unlock_user nix").await, "error[no_such_user]: there is no such user");
    assert!(console.answer("lock_user").await.starts_with("error[usage]"));
    assert!(console.answer("lock_user a b").await.starts_with("error[usage]"));
    assert!(console.answer("unlock_user ../x").await.starts_with("error[invalid_name]"));

    let _client = stage.connect(1);
    let peers = console.answer("peerinfo").await;
    assert!(peers.starts_with("10.0.0.1:4000 - 0101") && peers.ends_with("t\\u{1b}"), "{peers}");
    let export = console.answer("export").await;
    let document: serde_json::Value = serde_json::from_str(&export).unwrap();
    assert_eq!(document["users"][0]["name"], "bob");
    assert_eq!(document["peers"][0]["client"], "t\u{1b}");
    assert!(!export.contains("argon2") && !export.contains('\u{1b}'));
    assert_eq!(json_escaped('\u{202e}'), "\\u202e");
    assert!(!shutdown.is_cancelled());
    console.answer("quit").await;
    assert!(shutdown.is_cancelled());
}
