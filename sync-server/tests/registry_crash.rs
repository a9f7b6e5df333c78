//! A server whose registry crashes at every step, and is opened again by the next server.

#![allow(clippy::unwrap_used, reason = "scenarios are plain async functions")]

mod e2e;
mod registries;

use std::time::Duration;

use e2e::{Over, World, content, push, text, until, within};
use sync_server::registry::{DocumentId, HoldPoint, ServerRegistry};

/// Creates the document, appends ten changes, and compacts the log after every third: more calls than there are here.
const STEPS: usize = 16;

/// Scenarios 31 and 62: before a call is carried out, and after, when nobody has heard of it.
#[tokio::test(start_paused = true)]
async fn nothing_is_lost_or_doubled_wherever_the_registry_crashes() {
    let document = DocumentId::new("notes").unwrap();
    let mut n_crashes = 0;
    for point in [HoldPoint::BeforeCommit, HoldPoint::AfterCommit] {
        for step in 1..=STEPS {
            let case = format!("{point:?}, step {step}");
            let mut world = World::with(Over::Memory, |builder| {
                builder
                    .fold_after(3, usize::MAX)
                    .keep_log(0, Duration::ZERO)
            })
            .await;
            world.faults.crash_at(step, point);
            let (ada, bob) = (world.client(), world.client());
            let (ours, theirs) = (text(&ada, "notes").await, text(&bob, "notes").await);
            let mut expected = String::new();
            for word in 0..10 {
                let word = format!("<{word}>");
                push(&ours, &word);
                expected += &word;
                let is_up = tokio::select! {
                    biased;
                    () = world.faults.crashed() => false,
                    saved = ours.saved() => { saved.unwrap(); true }
                };
                if !is_up {
                    n_crashes += 1;
                    world.stop().await;
                    world.faults.reopen();
                    world.start().await;
                    ada.on_network_change();
                    bob.on_network_change();
                }
            }
            within(&case, ours.saved()).await.unwrap();
            until(&theirs, &case, |theirs, _| content(theirs) == expected).await;
            assert_eq!(content(&ours), expected, "{case}");
            // Each change has one row, whatever of them has been folded.
            let meta = world.registry.meta(&document).await.unwrap();
            assert_eq!(meta.head.0, 10, "{case}");
            world.stop().await;
        }
    }
    assert!(n_crashes >= 24, "{n_crashes}");
}
