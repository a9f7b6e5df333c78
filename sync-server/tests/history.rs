//! Undo, redo and earlier versions through document handles.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod e2e;
mod registries;

use e2e::{World, append, content, push, set, until, within};
use sync_client::{EditError, HistoryError, LwwMap, Typed, UndoError, Yrs};

const DOC: &str = "doc";

fn yrs() -> Yrs {
    Yrs::new().keep_history()
}

/// Scenario 76.
#[tokio::test(start_paused = true)]
async fn undo_and_redo_travel_like_edits_and_touch_nothing_of_others() {
    let world = World::memory().await;
    let a = world.client().open(DOC, yrs()).await.unwrap();
    let b = world.client().open(DOC, Yrs::new()).await.unwrap();
    assert_eq!((a.can_undo(), a.undo()), (false, Ok(false)));
    push(&a, "one ");
    within("saved", a.saved()).await.unwrap();
    until(&b, "one is here", |b, _| content(b) == "one ").await;
    push(&b, "two ");
    until(&a, "two is here", |a, _| content(a) == "one two ").await;
    let revision = a.revision().get();
    assert_eq!(a.undo(), Ok(true));
    assert_eq!(content(&a), "two ");
    assert!(a.revision().get() > revision);
    assert!(!a.sync_state().get().is_saved());
    within("saved", a.saved()).await.unwrap();
    until(&b, "undone here too", |b, _| content(b) == "two ").await;
    assert_eq!((a.can_undo(), a.can_redo()), (false, true));
    assert_eq!(a.redo(), Ok(true));
    until(&b, "redone here too", |b, _| content(b) == "one two ").await;
    assert_eq!(world.log(DOC).await.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn undo_is_refused_where_an_edit_would_be() {
    let world = World::memory().await;
    let client = world.client();
    let a = client.open(DOC, yrs()).await.unwrap();
    push(&a, "one");
    let within_edit = a.edit(|_| (a.undo(), a.can_undo(), a.version().map(drop)));
    let reentrant = Err(UndoError::Edit(EditError::Reentrant));
    let expected = (reentrant, false, Err(HistoryError::Reentrant));
    assert_eq!(within_edit, Ok(expected));
    let native = a.native();
    let held = sync_client::yrs::Transact::transact_mut(&native);
    assert_eq!(a.undo(), Err(UndoError::Edit(EditError::Busy)));
    assert_eq!(a.version(), Err(HistoryError::Busy));
    drop(held);
    within("saved", a.saved()).await.unwrap();
    client.shutdown(std::time::Duration::ZERO).await;
    assert_eq!(a.undo(), Err(UndoError::Edit(EditError::Closed)));
    assert_eq!(content(&a), "one");
}

#[tokio::test(start_paused = true)]
async fn a_replaced_document_has_nothing_to_undo() {
    let world = World::memory().await;
    let a = world.client().open(DOC, yrs()).await.unwrap();
    push(&a, "one");
    let large = "x".repeat(2 * 1024 * 1024);
    let refused = a.edit(|txn| append(txn, &large));
    assert!(matches!(refused, Err(EditError::TooLarge { .. })));
    assert_eq!((a.can_undo(), a.undo()), (false, Ok(false)));
    push(&a, " two");
    assert_eq!(a.undo(), Ok(true));
    assert_eq!(content(&a), "one");
}

/// Scenario 77.
#[tokio::test(start_paused = true)]
async fn an_earlier_version_shows_what_was_seen_then_and_is_read_only() {
    use sync_client::yrs::{GetString, ReadTxn, Text, WriteTxn};
    let world = World::memory().await;
    let client = world.client();
    let a = client.open(DOC, yrs()).await.unwrap();
    push(&a, "one two");
    let then = a.version().unwrap();
    a.edit(|txn| txn.get_or_insert_text("body").remove_range(txn, 0, 4))
        .unwrap();
    push(&a, " three");
    let shown = a.read_at(&then, |txn| txn.get_text("body").unwrap().get_string(txn));
    assert_eq!(shown.as_deref(), Ok("one two"));
    assert_eq!(content(&a), "two three");
    within("saved", a.saved()).await.unwrap();
    // So does another replica that has read the whole log.
    let b = world.client().open(DOC, yrs()).await.unwrap();
    until(&b, "all here", |b, _| content(b) == "two three").await;
    let shown = b.read_at(&then, |txn| txn.get_text("body").unwrap().get_string(txn));
    assert_eq!(shown.as_deref(), Ok("one two"));
    let other = client.open("other", yrs()).await.unwrap();
    assert_eq!(other.read_at(&then, |_| ()), Err(HistoryError::Missing));
    let none = client.open("none", Yrs::new()).await.unwrap();
    assert!(matches!(
        none.version(),
        Err(HistoryError::Unsupported { .. })
    ));
    assert!(matches!(none.undo(), Err(UndoError::Unsupported { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_map_has_no_earlier_versions() {
    let world = World::memory().await;
    let engine = Typed::<LwwMap<String, String>>::new();
    let map = world.client().open(DOC, engine).await.unwrap();
    set(&map, "key", "value");
    assert!(matches!(
        map.version(),
        Err(HistoryError::Unsupported { .. })
    ));
}

/// Scenarios 76, 77 and 89, with a document that the application edits itself.
#[cfg(feature = "loro")]
#[tokio::test(start_paused = true)]
async fn a_loro_document_is_edited_through_its_own_handle_undone_and_looked_back_at() {
    use sync_core::engine::loro::Loro;
    use sync_core::loro::LoroDoc;
    use sync_server::InProcess;

    let world = World::with(e2e::Over::Memory, |builder| {
        builder.engines(InProcess::default().engine(Loro::new()))
    })
    .await;
    let a = world
        .client()
        .open(DOC, Loro::new().keep_undo())
        .await
        .unwrap();
    let b = world.client().open(DOC, Loro::new()).await.unwrap();
    let text = |doc: &LoroDoc| doc.get_text("body").to_string();
    let native = a.native();
    native.get_text("body").push_str("one ").unwrap();
    native.commit();
    within("saved", a.saved()).await.unwrap();
    until(&b, "one is here", |b, _| b.read(text) == "one ").await;
    let then = b.version().unwrap();
    b.edit(|doc| doc.get_text("body").push_str("two "))
        .unwrap()
        .unwrap();
    until(&a, "two is here", |a, _| a.read(text) == "one two ").await;
    assert_eq!(a.undo(), Ok(true));
    until(&b, "undone here too", |b, _| b.read(text) == "two ").await;
    assert_eq!(a.read_at(&then, text), Ok("one ".to_owned()));
    let shown = a.read_at(&then, |doc| doc.get_text("body").push_str("!").is_err());
    assert_eq!(shown, Ok(true), "a view is read-only");
    assert_eq!(b.undo(), Err(UndoError::Unsupported { what: "undo" }));

    let large = "x".repeat(2 * 1024 * 1024);
    let refused = a.edit(|doc| doc.get_text("body").push_str(&large));
    assert!(matches!(refused, Err(EditError::TooLarge { .. })));
    native.get_text("body").push_str("late").unwrap();
    native.commit();
    until(&a, "handed back", |_, state| state.refused == 2).await;
    assert_eq!(a.read(text), "two ");
    a.edit(|doc| doc.get_text("body").push_str("three"))
        .unwrap()
        .unwrap();
    until(&b, "three is here", |b, _| b.read(text) == "two three").await;
}
