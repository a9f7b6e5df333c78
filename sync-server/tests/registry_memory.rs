//! What the registry in memory does beyond the conformance suite.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;

use futures_util::StreamExt;
use sync_core::history::{Cursor, Epoch, EpochMode, Seq};
use sync_core::ids::{ChangeId, DocumentId, EngineId, OriginId, User};
use sync_server::registry::{
    Durability, MemoryRegistry, NewChange, NewDocument, ORIGINS_PER_DOCUMENT_MAX,
    ORIGINS_PER_USER_MAX, Outcome, RegistryError, RegistryEvent, ServerRegistry, Snapshot, Tail,
};

const FIRST: Epoch = Epoch(1);
const SECOND: Epoch = Epoch(2);

fn id() -> DocumentId {
    DocumentId::new("notes").unwrap()
}

fn new(epoch: Epoch, mode: EpochMode) -> NewDocument {
    let mut document = NewDocument::new(id(), EngineId::YRS, epoch);
    document.mode = mode;
    document
}

fn change(origin: u128, number: u64) -> NewChange {
    change_by("ada", origin, number)
}

fn change_by(user: &str, origin: u128, number: u64) -> NewChange {
    let id = ChangeId {
        origin: OriginId(origin),
        number,
    };
    NewChange::new(id, User::new(user), format!("{id}").into())
}

async fn filled() -> MemoryRegistry {
    let registry = MemoryRegistry::new();
    registry.create(new(FIRST, EpochMode::New)).await.unwrap();
    let changes = vec![change(1, 1), change(1, 2), change(1, 3)];
    registry.append(&id(), FIRST, None, changes).await.unwrap();
    registry
}

#[tokio::test]
async fn it_says_that_it_keeps_nothing_beyond_the_process() {
    assert_eq!(MemoryRegistry::new().durability(), Durability::Memory);
}

#[tokio::test]
async fn a_replaced_history_fences_the_old_one_and_starts_with_what_it_was_given() {
    let registry = filled().await;
    let meta = registry
        .replace(
            new(SECOND, EpochMode::Discard),
            vec![change(1, 1), change(1, 3)],
        )
        .unwrap();
    assert_eq!(
        (meta.epoch, meta.mode, meta.head),
        (SECOND, EpochMode::Discard, Seq(2))
    );
    let (one, three) = (change(1, 1), change(1, 3));
    assert_eq!(
        meta.digest,
        Cursor::start(SECOND)
            .with(1, &one.bytes)
            .with(3, &three.bytes)
            .digest
    );

    let stale = registry
        .append(&id(), FIRST, None, vec![change(1, 4)])
        .await;
    assert!(
        matches!(stale, Err(RegistryError::Fenced { current: SECOND })),
        "{stale:?}"
    );
    let outcomes = registry
        .append(&id(), SECOND, None, vec![change(1, 4)])
        .await
        .unwrap();
    assert_eq!(outcomes, [Outcome::At(Seq(3))]);
}

#[tokio::test]
async fn a_replaced_history_forgets_origins_that_are_not_in_it() {
    let registry = filled().await;
    registry
        .replace(new(SECOND, EpochMode::Merge), vec![change(2, 1)])
        .unwrap();
    let origins = registry
        .origins(&id(), &[OriginId(1), OriginId(2)])
        .await
        .unwrap();
    assert_eq!(
        origins.iter().map(Option::is_some).collect::<Vec<_>>(),
        [false, true]
    );
}

#[tokio::test]
async fn replacing_brings_a_deleted_document_back() {
    let registry = filled().await;
    registry.delete(&id()).await.unwrap();
    let mut restored = new(SECOND, EpochMode::Merge);
    restored.snapshot = Some(Snapshot::new(
        Seq(3),
        sync_core::history::Digest(9),
        "backup".into(),
    ));
    registry.replace(restored, vec![change(2, 1)]).unwrap();
    let meta = registry.meta(&id()).await.unwrap();
    assert_eq!(
        (meta.snapshot_seq, meta.log_start, meta.head),
        (Seq(3), Seq(3), Seq(4))
    );
}

#[tokio::test]
async fn a_new_history_needs_a_new_epoch_and_ids_that_differ() {
    let registry = filled().await;
    let before = registry.meta(&id()).await.unwrap();
    let same_epoch = registry.replace(new(FIRST, EpochMode::Discard), Vec::new());
    assert!(
        matches!(same_epoch, Err(RegistryError::Refused { .. })),
        "{same_epoch:?}"
    );
    let twice = registry.replace(
        new(SECOND, EpochMode::Discard),
        vec![change(1, 1), change(1, 1)],
    );
    assert!(
        matches!(twice, Err(RegistryError::Refused { .. })),
        "{twice:?}"
    );
    assert_eq!(registry.meta(&id()).await.unwrap(), before);
}

#[tokio::test]
async fn watchers_are_told_what_happened_and_not_what_did_not() {
    let registry = filled().await;
    let mut events = registry.watch().unwrap();
    registry
        .append(&id(), FIRST, None, vec![change(1, 1), change(1, 9)])
        .await
        .unwrap();
    registry
        .append(&id(), FIRST, None, vec![change(1, 4), change(1, 5)])
        .await
        .unwrap();
    registry
        .replace(new(SECOND, EpochMode::Merge), Vec::new())
        .unwrap();
    registry.delete(&id()).await.unwrap();
    registry.delete(&id()).await.unwrap();
    drop(registry);
    let mut told = Vec::new();
    while let Some(event) = events.next().await {
        told.push(event);
    }
    let promised = [
        RegistryEvent::Appended {
            document: id(),
            head: Seq(5),
        },
        RegistryEvent::Replaced {
            document: id(),
            epoch: SECOND,
        },
        RegistryEvent::Deleted { document: id() },
    ];
    assert_eq!(told, promised);
}

/// Scenario 80: the table is bounded, and a user with many origins pushes out only their own.
#[tokio::test]
async fn old_origins_are_forgotten_oldest_first_by_user_and_then_in_all() {
    let registry = MemoryRegistry::new();
    registry.create(new(FIRST, EpochMode::New)).await.unwrap();
    let users = ORIGINS_PER_DOCUMENT_MAX / ORIGINS_PER_USER_MAX + 1;
    let per_user = ORIGINS_PER_USER_MAX + 1;
    let mut changes = Vec::new();
    for user in 0..users {
        for n in 0..per_user {
            let origin = u128::try_from(user * per_user + n).unwrap();
            changes.push(change_by(&format!("user {user}"), origin, 1));
        }
    }
    let asked: Vec<_> = changes.iter().map(|change| change.id.origin).collect();
    registry.append(&id(), FIRST, None, changes).await.unwrap();
    let meta = registry.meta(&id()).await.unwrap();
    let known = async || {
        let known = registry.origins(&id(), &asked).await.unwrap();
        known.iter().map(Option::is_some).collect::<Vec<_>>()
    };
    assert!(
        known().await.iter().all(|known| *known),
        "all are in the log"
    );

    registry
        .compact(
            &id(),
            FIRST,
            Snapshot::new(meta.head, meta.digest, "all".into()),
            meta.head,
        )
        .await
        .unwrap();
    for (user, known) in known().await.chunks(per_user).enumerate() {
        // Everybody's oldest goes; then, as there is one user too many, all of those who came first.
        let promised: Vec<_> = (0..per_user).map(|n| user > 0 && n > 0).collect();
        assert_eq!(known, promised, "user {user}");
    }
}

/// A client that was forgotten starts under a fresh origin; under the old one it would be a gap.
#[tokio::test]
async fn a_forgotten_origin_counts_from_one_again() {
    let registry = MemoryRegistry::new();
    registry.create(new(FIRST, EpochMode::New)).await.unwrap();
    let many =
        (1..=u128::try_from(ORIGINS_PER_USER_MAX).unwrap() + 1).map(|origin| change(origin, 1));
    registry
        .append(&id(), FIRST, None, many.collect())
        .await
        .unwrap();
    let meta = registry.meta(&id()).await.unwrap();
    registry
        .compact(
            &id(),
            FIRST,
            Snapshot::new(meta.head, meta.digest, "all".into()),
            meta.head,
        )
        .await
        .unwrap();
    let outcomes = registry
        .append(&id(), FIRST, None, vec![change(1, 2), change(2, 2)])
        .await
        .unwrap();
    assert_eq!(
        outcomes,
        [Outcome::Gap { expected: 1 }, Outcome::At(meta.head.next())]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn appends_from_many_threads_leave_no_holes() {
    let registry = Arc::new(MemoryRegistry::new());
    registry.create(new(FIRST, EpochMode::New)).await.unwrap();
    let writers: Vec<_> = (1..=8)
        .map(|origin| {
            let registry = registry.clone();
            tokio::spawn(async move {
                for number in 1..=200 {
                    let outcomes = registry
                        .append(&id(), FIRST, None, vec![change(origin, number)])
                        .await
                        .unwrap();
                    assert!(matches!(outcomes[..], [Outcome::At(_)]), "{outcomes:?}");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let Tail::Changes { changes, head, .. } =
        registry.tail(&id(), Seq::ZERO, usize::MAX).await.unwrap()
    else {
        panic!("nothing was compacted")
    };
    let seqs: Vec<_> = changes.iter().map(|row| row.seq.0).collect();
    assert_eq!((seqs, head), ((1..=1600).collect(), Seq(1600)));
}
