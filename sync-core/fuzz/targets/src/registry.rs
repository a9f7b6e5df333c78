//! A registry in memory, called at once, and what a room asks of it.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use sync_core::engine::Folder;
use sync_core::history::Seq;
use sync_core::ids::DocumentId;
use sync_core::registry::{RegistryError, Snapshot, Tail};
use sync_core::server::{FoldError, FoldRequest, FoldedLog, RegistryAnswer, RegistryRequest};
use sync_server::registry::{MemoryRegistry, ServerRegistry};

use crate::client::Map;

/// Waits for a registry in memory, which never has anybody wait.
pub(crate) fn now<T>(call: impl Future<Output = T>) -> T {
    match pin!(call).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("the registry in memory waits for something"),
    }
}

/// Carries a call out.
pub(crate) fn execute(
    registry: &MemoryRegistry,
    document: &DocumentId,
    request: RegistryRequest,
) -> RegistryAnswer {
    now(async {
        match request {
            RegistryRequest::Create(new) => RegistryAnswer::Create(registry.create(new).await),
            RegistryRequest::Meta => RegistryAnswer::Meta(registry.meta(document).await),
            RegistryRequest::Size => RegistryAnswer::Size(registry.size(document).await),
            RegistryRequest::Append {
                epoch,
                expect,
                changes,
            } => RegistryAnswer::Append(registry.append(document, epoch, expect, changes).await),
            RegistryRequest::Tail { after, max_bytes } => {
                RegistryAnswer::Tail(registry.tail(document, after, max_bytes).await)
            }
            RegistryRequest::Compact {
                epoch,
                snapshot,
                keep_after,
            } => RegistryAnswer::Compact(
                registry
                    .compact(document, epoch, snapshot, keep_after)
                    .await,
            ),
            RegistryRequest::Snapshot => {
                RegistryAnswer::Snapshot(registry.snapshot(document).await)
            }
            RegistryRequest::Origins(origins) => {
                RegistryAnswer::Origins(registry.origins(document, &origins).await)
            }
            other => panic!("{other:?}"),
        }
    })
}

/// Folds the log that the registry has.
pub(crate) fn fold(
    registry: &MemoryRegistry,
    document: &DocumentId,
    request: &FoldRequest,
) -> Result<FoldedLog, FoldError> {
    // A room that has been lied to asks for what is not there.
    let gone = || FoldError::HistoryReplaced;
    let meta = now(registry.meta(document)).map_err(|_| gone())?;
    if meta.epoch != request.epoch {
        return Err(gone());
    }
    let snapshot = now(registry.snapshot(document)).map_err(|_| gone())?;
    let from = snapshot.as_ref().map_or(Seq::ZERO, |snapshot| snapshot.seq);
    if from > request.after {
        return Err(FoldError::Newer { seq: from });
    }
    let Ok(Tail::Changes {
        changes: mut rows, ..
    }) = now(registry.tail(document, meta.log_start, usize::MAX))
    else {
        return Err(gone());
    };
    rows.retain(|row| row.seq <= request.through);
    let digest = rows
        .last()
        .filter(|row| row.seq == request.through)
        .map(|row| row.digest)
        .ok_or_else(gone)?;
    let new = rows.iter().filter(|row| row.seq > from);
    let changes: Vec<_> = new.map(|row| row.bytes.clone()).collect();
    let state = snapshot.as_ref().map(|found| &*found.bytes);
    let bytes = Map::new()
        .fold(state, &changes)
        .map_err(FoldError::Engine)?;
    Ok(FoldedLog::new(
        Snapshot::new(request.through, digest, bytes),
        rows.iter().map(|row| row.bytes.len()).collect(),
    ))
}

/// The answer to a call that was not carried out, or nobody knows whether it was.
pub(crate) fn failed(request: &RegistryRequest, is_unknown: bool) -> RegistryAnswer {
    let error = || {
        if is_unknown {
            RegistryError::Unknown { source: None }
        } else {
            RegistryError::unavailable("not now")
        }
    };
    match request {
        RegistryRequest::Create(_) => RegistryAnswer::Create(Err(error())),
        RegistryRequest::Meta => RegistryAnswer::Meta(Err(error())),
        RegistryRequest::Size => RegistryAnswer::Size(Err(error())),
        RegistryRequest::Append { .. } => RegistryAnswer::Append(Err(error())),
        RegistryRequest::Tail { .. } => RegistryAnswer::Tail(Err(error())),
        RegistryRequest::Snapshot => RegistryAnswer::Snapshot(Err(error())),
        RegistryRequest::Origins(_) => RegistryAnswer::Origins(Err(error())),
        RegistryRequest::Compact { .. } => RegistryAnswer::Compact(Err(error())),
        other => panic!("{other:?}"),
    }
}
