//! Two applications that edit one document.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "scenarios are plain async functions"
)]

mod e2e;

use e2e::{World, content, get, map, push, set, text, until, until_status, within};
use sync_client::Status;

both! {
    /// Scenarios 16 and 30.
    an_edit_reaches_the_server_and_the_other_client => edit_reaches_everybody
}

async fn edit_reaches_everybody(world: World) {
    let (ann, bob) = (world.client(), world.client());
    until_status(&ann, "ann is connected", Status::is_connected).await;
    let (a, b) = (text(&ann, "notes").await, text(&bob, "notes").await);
    push(&a, "hello");
    within("saved", a.saved()).await.unwrap();
    until(&b, "bob has it", |b, _| content(b) == "hello").await;
    within("caught up", b.caught_up()).await.unwrap();
    assert!(a.sync_state().get().is_saved());
}

both! {
    /// Scenario 57.
    one_connection_carries_three_documents => three_documents
}

async fn three_documents(world: World) {
    let (ann, bob) = (world.client(), world.client());
    let a = [
        map(&ann, "1").await,
        map(&ann, "2").await,
        map(&ann, "3").await,
    ];
    let b = [
        map(&bob, "1").await,
        map(&bob, "2").await,
        map(&bob, "3").await,
    ];
    for (n, document) in a.iter().enumerate() {
        set(document, "n", &n.to_string());
    }
    for (n, document) in b.iter().enumerate() {
        until(document, "it arrives", |d, _| {
            get(d, "n") == Some(n.to_string())
        })
        .await;
    }
}
