//! Pushing, acknowledging, resuming, and slow readers, through raw frames.
#![allow(missing_docs, reason = "tests")]

mod common;

use common::*;
use sync_core::wire::*;

/// Scenario 30.
#[tokio::test(start_paused = true)]
async fn a_change_reaches_the_others_once_and_its_author_gets_an_ack() {
    let (server, _) = server();
    let (mut ada, mut bob) = (
        Peer::welcomed(&server, 1).await,
        Peer::welcomed(&server, 2).await,
    );
    let ours = ada.open("notes").await;
    let mut theirs = bob.open("notes").await;
    assert_eq!(ours.channel, theirs.channel);
    ada.push(&ours, 1, &["hello"]).await;
    let ack = Ack {
        channel: ours.channel,
        check: 1,
        number: 1,
        count: 1,
    };
    assert_eq!(ada.ack().await, ack);
    bob.follow(&mut theirs, 1).await;
    assert_eq!(theirs.content, ["hello"]);
    assert_eq!((ada.quiet().await, bob.quiet().await), (None, None));
}
