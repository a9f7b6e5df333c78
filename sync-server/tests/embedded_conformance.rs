//! The registry on disk keeps the promises of `ServerRegistry`, however eagerly it tidies up.
#![cfg(feature = "embedded")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod embedded;

use sync_server::registry::{EmbeddedOptions, EmbeddedRegistry, conformance};

use embedded::Directory;

async fn keeps_every_promise(options: EmbeddedOptions) {
    let open = async |directory: &Directory| {
        EmbeddedRegistry::open_with(directory.path(), options.clone()).unwrap()
    };
    let report = conformance::run_with_crashes(async || Directory::new(), open)
        .await
        .unwrap();
    assert!(report.kept.len() > 35);
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
