//! Handles of the application: kept too long, used from within, and used from a thread that must never wait.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod e2e;
mod registries;

use std::future::IntoFuture;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use futures_util::FutureExt;

use e2e::{World, content, push, text, until, within};
use sync_client::yrs::{
    Map, Observable, ReadTxn, Text, TextPrelim, Transact, Transaction, TransactionMut, WriteTxn,
};
use sync_client::{DocumentHandle, EditError, ErrorCode, RefusedReason, Yrs};
use sync_core::engine::{Engine, EngineError, ValidateLimits, Validator};
use sync_core::ids::EngineId;
use sync_server::InProcess;

const DOC: &str = "doc";
const FORBIDDEN: &str = "#forbidden";

/// Takes everything but this word.
struct Censor;

impl Validator for Censor {
    fn engine(&self) -> EngineId {
        EngineId::YRS
    }

    fn validate(&self, change: &[u8], limits: &ValidateLimits) -> Result<(), EngineError> {
        let mut windows = change.windows(FORBIDDEN.len());
        if windows.any(|at| at == FORBIDDEN.as_bytes()) {
            return Err(EngineError::Unsupported { what: "the word" });
        }
        Engine::validate(&Yrs::new(), change, limits)
    }
}

async fn strict() -> World {
    World::with(e2e::Over::Memory, |builder| {
        builder.engines(InProcess::default().engine(Censor))
    })
    .await
}

/// Runs on a thread of its own, and fails if that does not end.
fn ends<T: Send + 'static>(what: &str, f: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || done.send(catch_unwind(AssertUnwindSafe(f))));
    match ended.recv_timeout(Duration::from_secs(20)) {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        Err(_) => panic!("deadlock: {what}"),
    }
}

async fn replaced(document: &DocumentHandle<Yrs>) {
    push(document, FORBIDDEN);
    until(document, "replaced", |document, state| {
        state.refused == 1 && state.is_caught_up() && !content(document).contains(FORBIDDEN)
    })
    .await;
}

/// Scenario 89.
#[tokio::test(start_paused = true)]
async fn what_is_written_through_a_native_handle_from_before_a_replacement_comes_back_as_refused() {
    let world = strict().await;
    let (ann, bob) = (world.client(), world.client());
    let (a, b) = (text(&ann, DOC).await, text(&bob, DOC).await);
    push(&a, "one ");
    let native = a.native();
    let body = native.get_or_insert_text("body");
    body.push(&mut native.transact_mut(), "two ");
    within("saved", a.saved()).await.unwrap();
    until(&b, "bob has both", |b, _| content(b) == "one two ").await;

    replaced(&a).await;
    body.push(&mut native.transact_mut(), "late");
    until(&a, "handed back", |_, state| state.refused == 2).await;
    let refused = a.refused();
    assert_eq!(refused[1].reason, RefusedReason::Replaced);
    assert!(refused[1].bytes.windows(4).any(|at| at == b"late"));
    assert_eq!(content(&a), "one two ");

    // A handle from now works.
    let native = a.native();
    let body = native.get_or_insert_text("body");
    body.push(&mut native.transact_mut(), "three");
    for change in a.refused() {
        a.drop_refused(change.id);
    }
    within("saved", a.saved()).await.unwrap();
    until(&b, "bob has it", |b, _| content(b) == "one two three").await;
    assert_eq!(content(&a), "one two three");
    assert_eq!(a.sync_state().get().refused, 0);
}

/// Scenario 89: what was written just before the replacement, and not picked up yet, is not lost either.
#[tokio::test(start_paused = true)]
async fn what_is_written_through_a_native_handle_while_a_replacement_is_under_way_comes_back() {
    let world = strict().await;
    let ann = world.client();
    let a = text(&ann, DOC).await;
    push(&a, "one ");
    within("saved", a.saved()).await.unwrap();
    let native = a.native();
    let body = native.get_or_insert_text("body");
    push(&a, FORBIDDEN);
    let mut n = 0;
    // In every turn until the replacement is over.
    while a.sync_state().get().refused == 0 || !a.sync_state().get().is_caught_up() {
        n += 1;
        body.push(&mut native.transact_mut(), &format!("<{n}>"));
        tokio::task::yield_now().await;
    }
    within("settled", a.saved()).await.ok();
    let refused = a.refused();
    for n in 1..=n {
        let word = format!("<{n}>");
        let times = refused
            .iter()
            .filter(|change| {
                change
                    .bytes
                    .windows(word.len())
                    .any(|at| at == word.as_bytes())
            })
            .count();
        assert_eq!(times, 1, "{word}: {refused:?}");
    }
    assert_eq!(content(&a), "one ");
}

/// Scenario 89: a change that is too large replaces the document as well.
#[tokio::test(start_paused = true)]
async fn a_handle_from_before_a_change_that_was_too_large_is_watched_as_well() {
    let world = World::memory().await;
    let a = text(&world.client(), DOC).await;
    push(&a, "one ");
    within("saved", a.saved()).await.unwrap();
    let native = a.native();
    let body = native.get_or_insert_text("body");
    let large = "x".repeat(2 * 1024 * 1024);
    let refused = a.edit(|txn| e2e::append(txn, &large));
    assert!(
        matches!(refused, Err(EditError::TooLarge { .. })),
        "{refused:?}"
    );
    body.push(&mut native.transact_mut(), "late");
    until(&a, "handed back", |_, state| state.refused == 2).await;
    let reasons: Vec<_> = a.refused().iter().map(|change| change.reason).collect();
    let too_large = RefusedReason::Code(ErrorCode::TooLarge);
    assert_eq!(reasons, [too_large, RefusedReason::Replaced]);
    assert_eq!(content(&a), "one ");
    push(&a, "two");
    for change in a.refused() {
        a.drop_refused(change.id);
    }
    within("saved", a.saved()).await.unwrap();
}

fn is_handed_back(document: &DocumentHandle<Yrs>, word: &str) -> bool {
    let refused = document.refused();
    refused.iter().any(|change| {
        let mut windows = change.bytes.windows(word.len());
        change.reason == RefusedReason::Replaced && windows.any(|at| at == word.as_bytes())
    })
}

/// Scenario 89: a `TextRef` is a pointer into the document that it came from.
#[tokio::test(start_paused = true)]
async fn a_text_kept_from_before_a_replacement_and_used_in_an_edit_is_noticed() {
    for empty in [false, true] {
        let world = strict().await;
        let (ann, bob) = (world.client(), world.client());
        let (a, b) = (text(&ann, DOC).await, text(&bob, DOC).await);
        let start = if empty { "" } else { "one " };
        let kept = a
            .edit(|txn| {
                let body = txn.get_or_insert_text("body");
                body.push(txn, start);
                body
            })
            .unwrap();
        push(&a, "two ");
        replaced(&a).await;
        // What is pending and in order stays pending.
        ann.disconnect();
        push(&a, "three ");
        assert_eq!(
            a.edit(|txn| kept.push(txn, "late")),
            Err(EditError::Reloading)
        );
        assert!(is_handed_back(&a, "late"));
        assert_eq!(
            a.edit(|_| ()),
            Err(EditError::Reloading),
            "until it is loaded afresh"
        );
        ann.connect();
        until(&a, "loaded afresh", |_, s| s.is_caught_up() && s.is_saved()).await;
        let all = format!("{start}two three ");
        until(&b, "bob has what is in order", |b, s| {
            s.is_caught_up() && content(b) == all
        })
        .await;
        assert_eq!((content(&a), a.refused().len()), (all, 2));
        push(&a, "four");
        until(&b, "bob has it", |b, _| content(b).ends_with("four")).await;
        assert_eq!(content(&a), content(&b));
    }
}

/// Scenario 89: the same in a transaction of the application's own.
#[tokio::test(start_paused = true)]
async fn a_text_kept_from_before_a_replacement_and_used_in_a_native_transaction_is_noticed() {
    let world = strict().await;
    let (ann, bob) = (world.client(), world.client());
    let (a, b) = (text(&ann, DOC).await, text(&bob, DOC).await);
    push(&a, "one ");
    let kept = a.native().get_or_insert_text("body");
    replaced(&a).await;
    let native = a.native();
    kept.push(&mut native.transact_mut(), "late");
    // What comes after it in the same document is built on it.
    let body = native.get_or_insert_text("body");
    body.push(&mut native.transact_mut(), "behind");
    until(&a, "handed back", |a, state| {
        state.is_caught_up() && is_handed_back(a, "late") && is_handed_back(a, "behind")
    })
    .await;
    push(&b, "two");
    for document in [&a, &b] {
        until(document, "in order", |d, s| {
            s.is_caught_up() && content(d) == "one two"
        })
        .await;
    }
}

/// Scenario 89: what the text was in is not there any more at all.
#[tokio::test(start_paused = true)]
async fn a_text_inside_something_that_was_refused_is_noticed() {
    let world = strict().await;
    let (ann, bob) = (world.client(), world.client());
    let (a, b) = (text(&ann, DOC).await, text(&bob, DOC).await);
    push(&a, "one ");
    let inner = a
        .edit(|txn| {
            let map = txn.get_or_insert_map("map");
            map.insert(txn, "k", TextPrelim::new(FORBIDDEN))
        })
        .unwrap();
    until(&a, "replaced", |_, state| {
        state.refused == 1 && state.is_caught_up()
    })
    .await;
    let used = a.edit(|txn| inner.push(txn, "late"));
    assert_eq!(used, Err(EditError::Reloading));
    assert!(is_handed_back(&a, "late"));
    until(&a, "loaded afresh", |a, s| {
        s.is_caught_up() && a.edit(|_| ()).is_ok()
    })
    .await;
    push(&a, "two");
    until(&b, "bob has it", |b, s| {
        s.is_caught_up() && content(b) == "one two"
    })
    .await;
}

/// Scenario 89, for mergeable documents: the value lent is to be changed, not replaced.
#[tokio::test(start_paused = true)]
async fn a_map_that_was_overwritten_by_another_is_loaded_afresh() {
    let world = World::memory().await;
    let (ann, bob) = (world.client(), world.client());
    let (a, b) = (e2e::map(&ann, DOC).await, e2e::map(&bob, DOC).await);
    e2e::set(&a, "k", "v");
    within("saved", a.saved()).await.unwrap();
    assert_eq!(
        a.edit(|map| *map = Default::default()),
        Err(EditError::Reloading)
    );
    until(&a, "loaded afresh", |a, _| a.try_read(|_| ()).is_some()).await;
    assert_eq!(e2e::get(&a, "k").unwrap(), "v");
    e2e::set(&a, "k", "w");
    until(&b, "bob has it", |b, _| {
        e2e::get(b, "k").as_deref() == Some("w")
    })
    .await;
}

/// Scenario 90.
#[tokio::test(start_paused = true)]
async fn using_a_document_from_within_is_an_error_and_never_a_deadlock() {
    let world = World::memory().await;
    let a = text(&world.client(), DOC).await;
    push(&a, "one");
    let a = ends("nested calls", move || {
        let nested = |a: &DocumentHandle<Yrs>| {
            assert_eq!(a.edit(|_| ()), Err(EditError::Reentrant));
            assert_eq!(a.try_read(|_| ()), None);
            assert!(catch_unwind(AssertUnwindSafe(|| a.read(|_| ()))).is_err());
            assert!(catch_unwind(AssertUnwindSafe(|| a.native())).is_err());
            // What only looks at the machine, or waits elsewhere, is allowed.
            assert_eq!(a.refused().len(), 0);
            drop(a.saved());
            let _ = a.sync_state().get();
        };
        a.read(|_| nested(&a));
        a.try_read(|_| nested(&a)).unwrap();
        a.edit(|_| nested(&a)).unwrap();
        a.edit(|txn| {
            e2e::append(txn, " two");
            nested(&a);
        })
        .unwrap();
        a
    });
    assert_eq!(content(&a), "one two");
    within("saved", a.saved()).await.unwrap();
}

/// Scenario 90: observers run inside `edit`, inside an import, and inside a transaction of the application.
#[tokio::test(start_paused = true)]
async fn an_observer_that_edits_gets_an_error_and_holds_up_nothing() {
    let world = World::memory().await;
    let (a, b) = (
        text(&world.client(), DOC).await,
        text(&world.client(), DOC).await,
    );
    let native = a.native();
    let body = native.get_or_insert_text("body");
    let seen: Arc<Mutex<Vec<EditError>>> = Arc::default();
    body.observe("test", {
        let (a, seen) = (a.clone(), seen.clone());
        move |_, _| seen.lock().unwrap().push(a.edit(|_| ()).unwrap_err())
    });
    let (a, native, body) = ends("an observer of an edit", move || {
        push(&a, "one ");
        (a, native, body)
    });
    assert_eq!(seen.lock().unwrap().split_off(0), [EditError::Reentrant]);
    let (a, native, body) = ends("an observer of a native transaction", move || {
        body.push(&mut native.transact_mut(), "two ");
        (a, native, body)
    });
    assert_eq!(seen.lock().unwrap().split_off(0), [EditError::Busy]);
    until(&b, "bob has both", |b, _| content(b) == "one two ").await;
    push(&b, "three");
    until(&a, "ann has all", |a, _| content(a) == "one two three").await;
    assert_eq!(seen.lock().unwrap().split_off(0), [EditError::Reentrant]);
    drop((body, native));
}

/// Scenario 90.
#[tokio::test(start_paused = true)]
async fn a_transaction_of_the_application_makes_edits_fail_and_imports_wait() {
    let world = World::memory().await;
    let (a, b) = (
        text(&world.client(), DOC).await,
        text(&world.client(), DOC).await,
    );
    push(&a, "one ");
    until(&b, "bob has it", |b, _| content(b) == "one ").await;
    let native = a.native();
    let held = native.transact_mut();
    assert_eq!(a.edit(|_| ()), Err(EditError::Busy));
    assert_eq!(a.try_read(|_| ()), None);
    push(&b, "two ");
    within("saved", b.saved()).await.unwrap();
    push(&b, "three");
    within("saved", b.saved()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let state = a.sync_state().get();
    assert!(!state.is_caught_up(), "{state:?}");
    drop(held);
    within("caught up", a.caught_up()).await.unwrap();
    assert_eq!(content(&a), "one two three");
    push(&a, "!");
    until(&b, "bob has it", |b, _| content(b) == "one two three!").await;
}

/// Scenario 90.
#[tokio::test(start_paused = true)]
async fn reading_waits_for_a_transaction_of_another_thread_and_not_for_ever() {
    let world = World::memory().await;
    let a = text(&world.client(), DOC).await;
    push(&a, "one ");
    let native = a.native();
    let body = native.get_or_insert_text("body");
    let (begun, is_begun) = mpsc::channel();
    let (seen, is_seen) = mpsc::channel();
    let writer = std::thread::spawn(move || {
        let mut txn = native.transact_mut();
        begun.send(()).unwrap();
        is_seen.recv().unwrap();
        body.push(&mut txn, "two");
    });
    is_begun.recv().unwrap();
    let a = ends("reading beside a transaction", move || {
        assert_eq!(a.try_read(|_| ()), None);
        seen.send(()).unwrap();
        a.read(|_| ());
        a
    });
    writer.join().unwrap();
    assert_eq!(content(&a), "one two");
    let is_refused = ends("reading inside a transaction", move || {
        let native = a.native();
        let _held = native.transact_mut();
        catch_unwind(AssertUnwindSafe(|| a.read(|_| ()))).is_err()
    });
    assert!(is_refused);
}

/// Scenario 90.
#[tokio::test(start_paused = true)]
async fn a_closure_that_panics_leaves_the_handle_usable_and_everybody_in_agreement() {
    let world = World::memory().await;
    let (a, b) = (
        text(&world.client(), DOC).await,
        text(&world.client(), DOC).await,
    );
    push(&a, "one ");
    let half = AssertUnwindSafe(|| {
        a.edit(|txn| {
            e2e::append(txn, "half ");
            panic!("in the closure of an edit");
        })
    });
    assert!(catch_unwind(half).is_err());
    // yrs cannot roll back: what was done stays, here and everywhere, without waiting for the next edit.
    assert_eq!(content(&a), "one half ");
    until(&b, "bob has it", |b, _| content(b) == "one half ").await;
    let reading = AssertUnwindSafe(|| a.read(|_| panic!("in the closure of a read")));
    assert!(catch_unwind(reading).is_err());
    push(&a, "two");
    within("saved", a.saved()).await.unwrap();
    until(&b, "bob has it", |b, _| content(b) == "one half two").await;

    let map = e2e::map(&world.client(), "map").await;
    let half = AssertUnwindSafe(|| {
        map.edit(|map| {
            map.insert("a".to_owned(), "half".to_owned()).unwrap();
            panic!("in the closure of an edit");
        })
    });
    assert!(catch_unwind(half).is_err());
    assert_eq!(e2e::get(&map, "a"), None);
    e2e::set(&map, "a", "whole");
    within("saved", map.saved()).await.unwrap();
}

// ---- scenario 91

const PIECE: usize = 500 * 1024;
const PIECES: usize = 40;

/// Scenario 91.
#[test]
fn a_user_interface_without_a_runtime_reads_every_frame_while_20_mb_arrive() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let world = runtime.block_on(async {
        let world = World::memory().await;
        let author = text(&world.client(), DOC).await;
        // Entries of a map, because yrs looks through a whole text for each push.
        for n in 0..PIECES {
            let piece = "x".repeat(PIECE);
            let insert = |txn: &mut TransactionMut<'_>| {
                txn.get_or_insert_map("pieces")
                    .insert(txn, n.to_string(), piece);
            };
            author.edit(insert).unwrap();
        }
        within("saved", author.saved()).await.unwrap();
        world
    });

    // From here on as in a plain `main`: the client has a thread of its own.
    let client = world.client();
    let document = polled(client.open(DOC, Yrs::new()).into_future()).unwrap();
    let mut revision = document.revision();
    let mut state = document.sync_state();
    let mut events = document.events();
    let repaints = Arc::new(AtomicUsize::new(0));
    let subscription = revision.notify({
        let repaints = repaints.clone();
        move || {
            repaints.fetch_add(1, Ordering::Relaxed);
        }
    });
    let mut caught_up = Box::pin(document.caught_up());
    let (mut frames, mut shown, mut changes, mut phases) = (0_u64, 0, 0, 0);
    let started = std::time::Instant::now();
    loop {
        frames += 1;
        if let Some(n) = document.try_read(pieces) {
            assert!(n >= shown, "what was shown does not vanish");
            shown = n;
        }
        changes += usize::from(revision.take_changed().is_some());
        phases += usize::from(state.take_changed().is_some());
        while events.try_next().is_some() {}
        if let Some(result) = caught_up.as_mut().now_or_never() {
            result.unwrap();
            break;
        }
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "{frames} frames"
        );
        std::thread::yield_now();
    }
    assert_eq!(document.read(pieces), PIECES);
    assert!(frames > 1 && changes > 0 && phases > 0);
    assert!(repaints.load(Ordering::Relaxed) > 0);
    drop(subscription);
    // Editing needs no runtime either.
    push(&document, "!");
    polled(document.saved()).unwrap();
    drop(document);
    drop(client);
    runtime.block_on(world.server.shutdown(Duration::ZERO));
}

/// Polls once per frame, with nothing that wakes.
fn polled<T>(future: impl Future<Output = T>) -> T {
    let mut future = Box::pin(future);
    let started = std::time::Instant::now();
    loop {
        if let Some(result) = future.as_mut().now_or_never() {
            return result;
        }
        assert!(started.elapsed() < Duration::from_secs(60));
        std::thread::yield_now();
    }
}

fn pieces(txn: &Transaction<'_>) -> usize {
    txn.get_map("pieces")
        .map_or(0, |pieces| usize::try_from(pieces.len(txn)).unwrap())
}

/// Scenario 46, before anything is sent: what no peer would take is taken back at once.
#[tokio::test(start_paused = true)]
async fn an_edit_that_breaks_the_engines_rules_is_taken_back_at_once() {
    use sync_client::yrs::{Any, Map};

    let world = World::memory().await;
    let ann = world.client();
    let a = text(&ann, "notes").await;
    push(&a, "one");
    let deep = (0..100).fold(Any::Null, |inner, _| Any::Array([inner].into()));
    let edited = a.edit(|txn| {
        txn.get_or_insert_map("deep").insert(txn, "deep", deep);
    });
    assert_eq!(edited, Err(EditError::Invalid));
    assert_eq!(content(&a), "one");
    let reasons: Vec<_> = a.refused().iter().map(|change| change.reason).collect();
    assert_eq!(reasons, [RefusedReason::Code(ErrorCode::InvalidChange)]);
    assert!(a.drop_refused(a.refused()[0].id));
    push(&a, " two");
    within("saved", a.saved()).await.unwrap();
}
