//! What the tests of the registry on disk share.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "test harness")]

mod directory;
pub(crate) mod load;

pub(crate) use directory::Directory;
use sync_core::history::Epoch;
use sync_core::ids::{ChangeId, DocumentId, EngineId, OriginId, User};
use sync_server::registry::{NewChange, NewDocument, ServerRegistry, StoredChange, Tail};

pub(crate) const EPOCH: Epoch = Epoch(7);

/// How much of something a test does, if not as usual.
pub(crate) fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |value| value.parse().unwrap())
}

pub(crate) fn id(name: &str) -> DocumentId {
    DocumentId::new(name).unwrap()
}

pub(crate) fn new(name: &str) -> NewDocument {
    NewDocument::new(id(name), EngineId::OPAQUE, EPOCH)
}

/// Change `number` of `origin`, with bytes of its own.
pub(crate) fn change(origin: u128, number: u64) -> NewChange {
    let id = ChangeId {
        origin: OriginId(origin),
        number,
    };
    NewChange::new(id, User::new("ada"), format!("{id}").into())
}

/// All that the log holds, checked row by row: sequences, digests, and every origin's numbers follow on each other.
pub(crate) async fn log(registry: &impl ServerRegistry, name: &str) -> Vec<StoredChange> {
    let meta = registry.meta(&id(name)).await.unwrap();
    let mut after = meta.log_start;
    let mut rows: Vec<StoredChange> = Vec::new();
    loop {
        let tail = registry.tail(&id(name), after, 100_000).await.unwrap();
        let Tail::Changes {
            digest, changes, ..
        } = tail
        else {
            panic!("{tail:?}")
        };
        let Some(last) = changes.last() else { break };
        let mut digest = digest;
        for (row, n) in changes.iter().zip(1..) {
            digest = digest.with(row.id.number, &row.bytes);
            assert_eq!((row.seq, row.digest), (after.plus(n), digest));
        }
        after = last.seq;
        rows.extend(changes);
    }
    assert_eq!(rows.last().map_or(meta.log_start, |row| row.seq), meta.head);
    let mut last = std::collections::HashMap::new();
    for row in &rows {
        let before = last.insert(row.id.origin, row.id.number);
        assert!(
            before.is_none_or(|before| before + 1 == row.id.number),
            "{row:?} after {before:?}"
        );
    }
    rows
}
