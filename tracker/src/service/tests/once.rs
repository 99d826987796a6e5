//! What a client asks for again, of another tracker on the same store, because the first answer was lost.

use super::*;
use mini_torrent_common::control::Left;
use mini_torrent_common::hash::OperationId;

/// The same caller, asking by a name that is made of this byte.
fn named(stage: &Stage, caller: &Caller, name: u8) -> Caller {
    Caller { once: Some(stage.service.once(OperationId([name; 16]))), ..caller.clone() }
}

/// An account and what was done with it at a tracker that is gone: the client asks the next one.
#[tokio::test]
async fn another_tracker_answers_as_the_first_one_did() {
    let one = Stage::new().await;
    let two = one.beside().await;
    let (visitor, _events) = one.connect(1);
    let (stranger, _events) = two.connect(2);
    let bob: UserName = "bob".parse().unwrap();
    let once = Some(one.service.once(OperationId([1; 16])));
    one.service.register(&visitor, bob.clone(), password(), once).await.unwrap();
    let again = two.service.register(&visitor, bob.clone(), password(), once).await;
    assert_eq!(again, Ok(()));
    let elsewhere = two.service.register(&stranger, bob.clone(), password(), once).await;
    assert_eq!(elsewhere, Err(Refused::UserExists));

    let token = one.service.login(&visitor, bob, password(), false).await.unwrap().token;
    let caller = one.service.caller(visitor.connection).unwrap();
    one.service.create_group(&named(&one, &caller, 2), group()).await.unwrap();
    let (visitor, _events) = two.connect(1);
    two.service.resume(&visitor, token).await.unwrap();
    let caller = two.service.caller(visitor.connection).unwrap();
    assert_eq!(two.service.create_group(&named(&two, &caller, 2), group()).await, Ok(()));
    assert_eq!(two.service.create_group(&caller, group()).await, Err(Refused::GroupExists));
    for stage in [&one, &two] {
        let left = stage.service.leave_group(&named(stage, &caller, 3), group()).await;
        assert_eq!(left, Ok(Left::GroupRemoved));
    }
}

/// A registration that is asked for again costs the address no further one.
#[tokio::test]
async fn an_account_that_is_asked_for_again_counts_once() {
    let stage = Stage::new().await;
    let (visitor, _events) = stage.connect(1);
    let once = Some(stage.service.once(OperationId([1; 16])));
    for _ in 0..2 * limits::FREE_REGISTRATIONS {
        let created = stage.service.register(&visitor, "bob".parse().unwrap(), password(), once).await;
        assert_eq!(created, Ok(()));
    }
}
