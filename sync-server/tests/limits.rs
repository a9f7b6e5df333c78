//! Limits, as applications run into them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod e2e;
mod registries;

use std::time::Duration;

use e2e::{Over, World, append, content, get, map, push, set, text, until, until_status, within};
use sync_client::yrs::{Text, Transact};
use sync_client::{
    ChangeId, EditError, ErrorCode, RefusedChange, RefusedReason, SaveError, Status, SyncPhase,
};
use sync_server::{Anonymous, Limits, Rate, Server, ServerEvent};

const DOC: &str = "doc";
const TOO_LARGE: RefusedReason = RefusedReason::Code(ErrorCode::TooLarge);

async fn world_with(set: impl FnOnce(&mut Limits)) -> World {
    let mut limits = Limits::default();
    set(&mut limits);
    World::with(Over::Memory, |builder| builder.limits(limits)).await
}

async fn changes_of_1000_bytes_over(over: Over) -> World {
    let mut limits = Limits::default();
    limits.change_bytes_max = 1_000;
    World::with(over, |builder| builder.limits(limits)).await
}

async fn changes_of_1000_bytes() -> World {
    changes_of_1000_bytes_over(Over::Memory).await
}

fn reasons(refused: &[RefusedChange]) -> Vec<RefusedReason> {
    refused.iter().map(|change| change.reason).collect()
}

fn ids(refused: &[RefusedChange]) -> Vec<ChangeId> {
    refused.iter().map(|change| change.id).collect()
}

both! {
    /// Scenario 47.
    a_text_that_grows_too_much_in_one_edit_is_as_before_and_the_edit_waits_among_the_refused => text_too_large(super::changes_of_1000_bytes_over)
}

async fn text_too_large(world: World) {
    let (ann, bob) = (world.client(), world.client());
    let (a, b) = (text(&ann, DOC).await, text(&bob, DOC).await);
    push(&a, "one ");
    within("saved", a.saved()).await.unwrap();
    let revision = a.revision().get();

    let large = "x".repeat(2_000);
    let refused = a.edit(|txn| append(txn, &large));
    let Err(EditError::TooLarge { bytes, max }) = refused else {
        panic!("{refused:?}")
    };
    assert!((bytes > 2_000, max) == (true, 1_000), "{bytes} of {max}");
    assert_eq!(content(&a), "one ");
    assert!(a.revision().get() > revision, "it was replaced");
    assert_eq!(reasons(&a.refused()), [TOO_LARGE]);
    assert_eq!(a.refused()[0].bytes.len(), bytes);
    let state = a.sync_state().get();
    assert_eq!((state.refused, state.unsaved), (1, 0));

    push(&a, "two");
    // As long as it waits there, not everything is saved.
    let answer = within("an answer", a.saved()).await;
    assert_eq!(answer, Err(SaveError::Refused(ids(&a.refused()))));
    until(&b, "bob has it", |b, _| content(b) == "one two").await;
    assert!(a.drop_refused(a.refused()[0].id));
    assert_eq!(a.sync_state().get().refused, 0);
    within("saved", a.saved()).await.unwrap();
}

/// Scenario 47.
#[tokio::test(start_paused = true)]
async fn a_map_that_grows_too_much_in_one_edit_is_as_before() {
    let world = changes_of_1000_bytes().await;
    let a = map(&world.client(), DOC).await;
    set(&a, "k", "before");
    within("saved", a.saved()).await.unwrap();
    let refused = a.edit(|map| {
        map.insert("k".to_owned(), "after".to_owned()).unwrap();
        map.insert("large".to_owned(), "x".repeat(2_000)).unwrap();
    });
    assert!(matches!(
        refused,
        Err(EditError::TooLarge { max: 1_000, .. })
    ));
    assert_eq!(
        (get(&a, "k").unwrap(), get(&a, "large")),
        ("before".to_owned(), None)
    );
    assert_eq!(reasons(&a.refused()), [TOO_LARGE]);
    set(&a, "k", "later");
    until(&a, "saved", |_, state| state.is_saved()).await;
    assert_eq!(a.refused().len(), 1);
}

/// Scenario 47: offline, the server's limit is not known yet.
#[tokio::test(start_paused = true)]
async fn an_edit_that_turns_out_too_large_for_the_server_is_refused_after_connecting() {
    let world = changes_of_1000_bytes().await;
    world.network.set_online(false);
    let (ann, bob) = (world.client(), world.client());
    let a = text(&ann, DOC).await;
    push(&a, "one ");
    let first = a.saved();
    push(&a, &"x".repeat(2_000));
    let second = a.saved();
    world.network.set_online(true);
    ann.on_network_change();
    bob.on_network_change();
    within("the first is saved", first).await.unwrap();
    let answer = within("an answer", second).await;
    assert_eq!(answer, Err(SaveError::Refused(ids(&a.refused()))));
    assert_eq!(reasons(&a.refused()), [TOO_LARGE]);
    until(&a, "as before", |a, state| {
        state.is_caught_up() && content(a) == "one "
    })
    .await;
    // Now it is known.
    let refused = a.edit(|txn| append(txn, &"x".repeat(2_000)));
    assert!(matches!(
        refused,
        Err(EditError::TooLarge { max: 1_000, .. })
    ));
    let b = text(&bob, DOC).await;
    until(&b, "bob has it", |b, _| content(b) == "one ").await;
}

/// Scenario 47: what is done through the engine's own handle cannot be refused beforehand.
#[tokio::test(start_paused = true)]
async fn a_native_edit_that_is_too_large_is_taken_back_and_what_came_before_it_is_sent() {
    for online in [true, false] {
        let world = changes_of_1000_bytes().await;
        let (ann, bob) = (world.client(), world.client());
        let (a, b) = (text(&ann, DOC).await, text(&bob, DOC).await);
        within("caught up", a.caught_up()).await.unwrap();
        if !online {
            ann.disconnect();
            until_status(&ann, "offline", |status| *status == Status::Offline).await;
        }
        push(&a, "one ");
        let before = a.saved();
        let native = a.native();
        let body = native.get_or_insert_text("body");
        // Known limits are kept to without a connection.
        body.push(&mut native.transact_mut(), &"x".repeat(1_100_000));
        let large = a.saved();
        push(&a, "behind");
        let behind = a.saved();
        ann.connect();
        within("what came before is saved", before).await.unwrap();
        for saved in [large, behind] {
            let answer = within("an answer", saved).await;
            assert!(matches!(answer, Err(SaveError::Refused(_))), "{answer:?}");
        }
        assert_eq!(reasons(&a.refused()), [TOO_LARGE, RefusedReason::Behind]);
        until(&b, "bob has it", |b, _| content(b) == "one ").await;
        until(&a, "as before", |a, state| {
            state.is_caught_up() && content(a) == "one "
        })
        .await;
        push(&a, "two");
        until(&b, "bob has it", |b, _| content(b) == "one two").await;
        assert_eq!(a.refused().len(), 2, "online: {online}");
    }
}

/// Scenario 47.
#[tokio::test(start_paused = true)]
async fn an_outbox_that_is_full_refuses_edits_before_they_are_made() {
    let world = World::memory().await;
    world.network.set_online(false);
    let ann = world.builder().outbox_max(3).start().unwrap();
    let (a, other) = (text(&ann, DOC).await, text(&ann, "other").await);
    for _ in 0..3 {
        push(&a, "x");
    }
    let mut ran = false;
    let refused = a.edit(|_| ran = true);
    assert_eq!(
        (refused, ran),
        (Err(EditError::OutboxFull { max: 3 }), false)
    );
    assert_eq!((content(&a).len(), a.refused().len()), (3, 0));
    push(&other, "another document is not full");
    world.network.set_online(true);
    ann.on_network_change();
    within("saved", a.saved()).await.unwrap();
    push(&a, "x");
    within("saved", a.saved()).await.unwrap();
    assert_eq!(content(&a).len(), 4);
}

/// Scenarios 47 and 83.
#[tokio::test(start_paused = true)]
async fn edits_of_a_document_that_is_full_are_kept_and_saved_when_there_is_room() {
    let mut world = world_with(|limits| limits.document_bytes_max = 10_000).await;
    let mut events = world.server.events();
    let ann = world.client();
    let (a, other) = (text(&ann, DOC).await, text(&ann, "other").await);
    push(&a, &"x".repeat(8_500));
    within("saved", a.saved()).await.unwrap();
    let near = async {
        loop {
            if let Some(ServerEvent::DocumentNearLimit {
                document,
                bytes,
                max: 10_000,
            }) = events.next().await
            {
                return (document, bytes);
            }
        }
    };
    let (document, bytes) = within("it is said", near).await;
    assert_eq!(document.as_str(), DOC);
    assert!((8_500..9_000).contains(&bytes), "{bytes}");
    push(&a, &"y".repeat(2_000));
    let saved = a.saved();
    push(&other, "z");
    within("another document is saved", other.saved())
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(120)).await;
    let state = a.sync_state().get();
    assert_eq!((state.unsaved, state.refused), (1, 0));
    assert_eq!(content(&a).len(), 10_500);

    // The operator makes room.
    world.server.shutdown(Duration::ZERO).await;
    world.server = Server::builder(world.registry.clone(), Anonymous::read_write())
        .build()
        .unwrap();
    world.listen().await;
    within("saved", saved).await.unwrap();
}

/// Scenario 47: offline edits of a whole day come at once.
#[tokio::test(start_paused = true)]
async fn a_client_that_is_faster_than_the_rate_is_saved_in_the_end() {
    let world = world_with(|limits| {
        limits.push_changes = Rate::new(50, 10);
        limits.push_bytes = Rate::new(10_000, 1_000);
        limits.push_window_bytes = 2_000;
    })
    .await;
    world.network.set_online(false);
    let ann = world.client();
    let a = text(&ann, DOC).await;
    for _ in 0..500 {
        push(&a, "x");
    }
    world.network.set_online(true);
    ann.on_network_change();
    a.saved().await.unwrap();
    assert_eq!(a.refused(), []);
    let b = text(&world.client(), DOC).await;
    until(&b, "bob has it", |b, _| content(b).len() == 500).await;
}

/// Scenario 47.
#[tokio::test(start_paused = true)]
async fn a_document_too_many_says_so_keeps_its_edits_and_is_opened_when_there_is_room() {
    let world = world_with(|limits| limits.documents_per_session_max = 2).await;
    let ann = world.client();
    let (first, second) = (text(&ann, "1").await, text(&ann, "2").await);
    within("caught up", first.caught_up()).await.unwrap();
    within("caught up", second.caught_up()).await.unwrap();

    let third = text(&ann, "3").await;
    push(&third, "kept");
    let denied = Err(SaveError::Denied(ErrorCode::TooManyDocuments));
    assert_eq!(within("an answer", third.caught_up()).await, denied);
    assert_eq!(within("an answer", third.saved()).await, denied);
    let state = third.sync_state().get();
    assert_eq!(state.phase, SyncPhase::Refused(ErrorCode::TooManyDocuments));
    assert_eq!(
        (state.unsaved, state.refused, content(&third)),
        (1, 0, "kept".to_owned())
    );
    // The others, and the session, go on.
    push(&first, "x");
    within("saved", first.saved()).await.unwrap();
    assert_eq!(world.network.dials(), 1);

    drop(second);
    let again = text(&ann, "3").await;
    within("saved", again.saved()).await.unwrap();
    within("caught up", third.caught_up()).await.unwrap();
    within(
        "nothing unsaved",
        ann.unsaved().wait_for(|it| it.is_empty()),
    )
    .await
    .unwrap();
}

/// Scenarios 25 and 47: whoever asks again, asking for more, is not answered from memory.
#[tokio::test(start_paused = true)]
async fn a_document_that_had_to_exist_is_created_when_it_is_opened_once_more_without_that_wish() {
    let world = World::memory().await;
    let ann = world.client();
    let strict = ann
        .open(DOC, sync_client::Yrs::new())
        .must_exist()
        .await
        .unwrap();
    let answer = within("an answer", strict.caught_up()).await;
    assert_eq!(answer, Err(SaveError::Denied(ErrorCode::NotFound)));
    let lax = text(&ann, DOC).await;
    within("caught up", lax.caught_up()).await.unwrap();
    within("caught up", strict.caught_up()).await.unwrap();
    push(&strict, "x");
    within("saved", lax.saved()).await.unwrap();
}
