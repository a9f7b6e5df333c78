//! The registry on disk keeps the promises of `ServerRegistry`, however eagerly it tidies up.
#![cfg(feature = "embedded")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod embedded;

use std::cell::Cell;

use sync_server::registry::{EmbeddedOptions, EmbeddedRegistry, conformance};

use embedded::Directory;

async fn keeps_every_promise(options: EmbeddedOptions) {
    let directory = Directory::new();
    let next = Cell::new(0);
    let open = || {
        next.set(next.get() + 1);
        let registry = EmbeddedRegistry::open_with(
            directory.path().join(next.get().to_string()),
            options.clone(),
        );
        std::future::ready(registry.unwrap())
    };
    let report = conformance::run(open).await.unwrap();
    assert_eq!(report.kept.len(), next.get());
}

#[tokio::test]
async fn it_keeps_every_promise() {
    keeps_every_promise(EmbeddedOptions::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_keeps_every_promise_on_several_threads() {
    keeps_every_promise(EmbeddedOptions::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_keeps_every_promise_while_rows_move_and_the_log_restarts_after_every_commit() {
    let eager = EmbeddedOptions::default().fold_bytes(1).checkpoint_pages(1);
    keeps_every_promise(eager).await;
}
