//! The registry that misbehaves on request, on which other tests rely.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;

use futures_util::{FutureExt, future};
use sync_core::history::{Epoch, Seq};
use sync_core::ids::{ChangeId, DocumentId, EngineId, OriginId, User};
use sync_server::registry::{
    Call, FaultyRegistry, HoldPoint, MemoryRegistry, NewChange, NewDocument, Outcome,
    RegistryError, ServerRegistry,
};

const EPOCH: Epoch = Epoch(1);

fn id() -> DocumentId {
    DocumentId::new("notes").unwrap()
}

fn change(number: u64) -> NewChange {
    NewChange::new(
        ChangeId {
            origin: OriginId(1),
            number,
        },
        User::new("ada"),
        "bytes".into(),
    )
}

async fn faulty() -> FaultyRegistry<Arc<MemoryRegistry>> {
    let registry = FaultyRegistry::new(Arc::new(MemoryRegistry::new()));
    registry
        .create(NewDocument::new(id(), EngineId::YRS, EPOCH))
        .await
        .unwrap();
    registry
}

async fn append(
    registry: &impl ServerRegistry,
    number: u64,
) -> Result<Vec<Outcome>, RegistryError> {
    registry
        .append(&id(), EPOCH, None, vec![change(number)])
        .await
}

async fn head(registry: &FaultyRegistry<Arc<MemoryRegistry>>) -> Seq {
    registry.inner().meta(&id()).await.unwrap().head
}

#[tokio::test]
async fn a_failed_append_does_nothing() {
    let registry = faulty().await;
    registry.fail_appends(1);
    let failed = append(&registry, 1).await;
    assert!(
        matches!(failed, Err(RegistryError::Unavailable { .. })),
        "{failed:?}"
    );
    assert_eq!(head(&registry).await, Seq::ZERO);
    assert_eq!(append(&registry, 1).await.unwrap(), [Outcome::At(Seq(1))]);
}

#[tokio::test]
async fn a_lost_answer_is_committed_and_the_repeat_says_so() {
    let registry = faulty().await;
    registry.lose_answers(1);
    let lost = append(&registry, 1).await;
    assert!(
        matches!(lost, Err(RegistryError::Unknown { .. })),
        "{lost:?}"
    );
    assert_eq!(
        append(&registry, 1).await.unwrap(),
        [Outcome::Duplicate {
            last: 1,
            seq: Some(Seq(1))
        }]
    );
}

#[tokio::test]
async fn appends_are_held_before_or_after_the_commit_until_released() {
    for (point, while_held) in [
        (HoldPoint::BeforeCommit, Seq::ZERO),
        (HoldPoint::AfterCommit, Seq(1)),
    ] {
        let registry = faulty().await;
        registry.hold_appends(point);
        let watch_and_release = async {
            registry.held_appends(point, 1).await;
            let held = head(&registry).await;
            registry.release_appends();
            held
        };
        let (outcomes, held) = future::join(append(&registry, 1), watch_and_release).await;
        assert_eq!(
            (outcomes.unwrap(), held),
            (vec![Outcome::At(Seq(1))], while_held)
        );
    }
}

#[tokio::test]
async fn an_abandoned_append_no_longer_waits() {
    let registry = faulty().await;
    registry.hold_appends(HoldPoint::AfterCommit);
    let mut abandoned = append(&registry, 1).boxed();
    assert!(future::poll_immediate(&mut abandoned).await.is_none());
    assert!(
        registry
            .held_appends(HoldPoint::AfterCommit, 1)
            .now_or_never()
            .is_some()
    );
    drop(abandoned);
    assert!(
        registry
            .held_appends(HoldPoint::AfterCommit, 1)
            .now_or_never()
            .is_none()
    );
    assert_eq!(
        head(&registry).await,
        Seq(1),
        "what a crash between commit and ack leaves"
    );
}

#[tokio::test]
async fn reads_fail_or_wait_when_asked_to() {
    let registry = faulty().await;
    registry.fail_reads(usize::MAX);
    for _ in 0..3 {
        let failed = registry.meta(&id()).await;
        assert!(
            matches!(failed, Err(RegistryError::Unavailable { .. })),
            "{failed:?}"
        );
    }
    registry.fail_reads(0);
    registry.hold_reads();
    let release = async {
        registry.held_reads(2).await;
        registry.release_reads();
    };
    let (meta, snapshot, ()) =
        future::join3(registry.meta(&id()), registry.snapshot(&id()), release).await;
    assert_eq!((meta.unwrap().head, snapshot.unwrap()), (Seq::ZERO, None));
}

#[tokio::test]
async fn calls_are_recorded_also_those_that_failed() {
    let registry = faulty().await;
    registry.fail_appends(1);
    let _ = append(&registry, 1).await;
    registry.tail(&id(), Seq::ZERO, 1).await.unwrap();
    let promised = [
        Call::Create(id()),
        Call::Append {
            document: id(),
            changes: vec![change(1).id],
        },
        Call::Tail {
            document: id(),
            after: Seq::ZERO,
        },
    ];
    assert_eq!(registry.calls(), promised);
}

#[tokio::test]
async fn a_crash_loses_a_call_or_its_answer_and_everything_after_it() {
    for (point, head) in [(HoldPoint::BeforeCommit, 1), (HoldPoint::AfterCommit, 2)] {
        let registry = faulty().await;
        registry.crash_at(2, point);
        assert_eq!(append(&registry, 1).await.unwrap(), [Outcome::At(Seq(1))]);
        let unknown = append(&registry, 2).await;
        assert!(
            matches!(unknown, Err(RegistryError::Unknown { .. })),
            "{unknown:?}"
        );
        registry.crashed().await;
        let after = append(&registry, 3).await;
        assert!(
            matches!(after, Err(RegistryError::Unavailable { .. })),
            "{after:?}"
        );
        let read = registry.meta(&id()).await;
        assert!(
            matches!(read, Err(RegistryError::Unavailable { .. })),
            "{read:?}"
        );
        registry.reopen();
        assert_eq!(registry.meta(&id()).await.unwrap().head, Seq(head));
        append(&registry, 2).await.unwrap();
        let next = append(&registry, 3).await.unwrap();
        assert_eq!(next, [Outcome::At(Seq(3))]);
    }
}
