//! The smallest bytes that are known to ruin each engine, sent to a server with worker processes, in real time.
#![cfg(feature = "hostile")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "scenarios are plain async functions"
)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sync_core::automerge::transaction::Transactable;
use sync_core::automerge::{ObjType, ROOT};
use sync_core::engine::automerge::Automerge;
use sync_core::engine::suite::{AutomergeProbe, Hostile, LoroProbe, Probe, YrsProbe};
use sync_core::engine::{Document, Edited, Engine, ReplicaSeed};
use sync_examples::hostile::{HostilePeer, Plan, Said, engines, run};
use sync_server::{Anonymous, DocumentId, EngineId, MemoryRegistry, Server, ServerEvent, Workers};

fn server() -> Server {
    let workers = Workers::program(env!("CARGO_BIN_EXE_hostile"))
        .engines(engines())
        .processes(1)
        .memory_max(256 * 1024 * 1024)
        .cpu_max(Duration::from_secs(2));
    Server::builder(Arc::new(MemoryRegistry::new()), Anonymous::read_write())
        .engines(workers)
        .fold_after(1, usize::MAX)
        .build()
        .unwrap()
}

fn document(name: &str) -> DocumentId {
    DocumentId::new(name).unwrap()
}

/// What becomes of a change, as the first of a document. Whatever it is, nobody else is hurt.
async fn probe(server: &Server, engine: EngineId, change: Bytes) -> Said {
    let mut eve = HostilePeer::connect(server, 1).await.unwrap();
    let hers = document("hers");
    let (channel, _) = eve.open(&hers, &engine).await.unwrap();
    let said = eve.push(channel, 1, &change, false).await.unwrap();

    let mut bob = HostilePeer::connect(server, 2).await.unwrap();
    let received = bob.content(&hers, &engine).await.unwrap();
    assert_eq!(received.contains(&change), said == Said::Committed);
    // Of his own he may do everything: here, a list of nothing.
    let his = document("his");
    let (channel, _) = bob.open(&his, &EngineId::YRS).await.unwrap();
    let nothing = Bytes::from_static(&[0, 0]);
    let taken = bob.push(channel, 1, &nothing, false).await.unwrap();
    assert_eq!(taken, Said::Committed);
    said
}

/// Found by `hostile 3000 3 loro`: a run length in the columns of an update.
const LORO_KILLER: &str = "6c6f726f000000000000000000000000ec8bb5050004421401140101110141869c02a4440deb00010184f1fe4bfe0501\
    00000100060104010000020a0137076e756d62657273000e010402010002010002010b020101000101";

const REFUSED: Said = Said::Refused { killed: false };

/// Scenario 51, the short form of `just hostile`. How much slower others become is not asked here: a busy machine would decide.
#[tokio::test(flavor = "multi_thread")]
async fn mutated_changes_of_every_engine_are_refused_by_id_and_reach_nobody() {
    let plan = Plan {
        cases: 2_000,
        seed: 1,
        only: None,
    };
    let workers = Workers::program(env!("CARGO_BIN_EXE_hostile"));
    let report = run(plan, workers.memory_max(256 * 1024 * 1024))
        .await
        .unwrap();
    assert!(report.refused > 1_000 && report.deaths > 0, "{report}");
    assert_eq!(
        (
            report.leaked,
            report.committed + report.refused + report.stored
        ),
        (0, report.cases),
        "{report}"
    );
}

/// Scenarios 51 and 88: what is known to ruin the engines, without a worker having looked at it.
#[tokio::test]
async fn bytes_that_are_known_to_ruin_engines_are_refused_before_a_worker_sees_them() {
    for (engine, probes) in [
        (EngineId::YRS, YrsProbe::hostile_changes()),
        (EngineId::LORO, LoroProbe::hostile_changes()),
        (EngineId::AUTOMERGE, AutomergeProbe::hostile_changes()),
    ] {
        assert!(!probes.is_empty());
        for Hostile { what, bytes, .. } in probes {
            let server = server();
            let mut events = server.events();
            assert_eq!(
                probe(&server, engine.clone(), bytes).await,
                REFUSED,
                "{what}"
            );
            while let Some(event) = events.try_next() {
                assert!(!matches!(event, ServerEvent::WorkerDied { .. }), "{what}");
            }
        }
    }
}

/// Scenario 51: run lengths that loro expands to more than there is. They are counted before a worker sees them.
#[tokio::test]
async fn a_hundred_bytes_of_which_loro_aborts_are_refused() {
    let server = server();
    let said = probe(&server, EngineId::LORO, bytes(LORO_KILLER)).await;
    assert_eq!(said, REFUSED);
}

/// 300 maps in maps are a few hundred bytes to automerge.
#[tokio::test]
async fn maps_nested_deep_in_automerge_are_taken() {
    let engine = Automerge::new();
    let mut replica = engine.create(ReplicaSeed(1)).unwrap();
    let edited = engine.edit(&mut replica, usize::MAX, |doc| {
        let mut parent = ROOT;
        for _ in 0..300 {
            parent = doc.put_object(&parent, "k", ObjType::Map).unwrap();
        }
    });
    assert_eq!(edited, Ok(Edited::Done(())));
    let change = replica.drain().local.remove(0);
    assert!(change.len() < 1_000);
    let server = server();
    let said = probe(&server, EngineId::AUTOMERGE, change).await;
    assert_eq!(said, Said::Committed);
}

fn bytes(hex: &str) -> Bytes {
    let digits = hex.as_bytes().chunks(2);
    digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect::<Vec<_>>()
        .into()
}
