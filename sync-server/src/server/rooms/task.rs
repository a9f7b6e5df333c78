//! A room's task, and the calls that it makes.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use sync_core::registry::RegistryError;
use sync_core::server::{
    AskRequest, FoldRequest, RegistryAnswer, RegistryRequest, RequestNumber, RoomPhase,
};

use super::super::budget::Shares;
use super::super::{lock, shutting_down};
use super::{Answer, Request, RoomHandle};
use crate::engine_host::Meter;
use crate::registry::ServerRegistry;

/// A room's task: calls the registry, several calls at once, and minds the time.
pub(super) async fn run(room: Arc<RoomHandle>) {
    let mut calls = FuturesUnordered::new();
    loop {
        let (requests, timeout, phase) = {
            let mut state = lock(&room.state);
            let requests = std::mem::take(&mut state.requests);
            (requests, state.timeout, state.room.phase())
        };
        for request in requests {
            calls.push(match request {
                Request::Registry(number, request) => call(&room, number, request),
                Request::Fold(request, payers) => fold(&room, request, payers),
                Request::Ask(number, request) => ask(&room, number, request),
                Request::Authorize(number, user) => {
                    let asked = Arc::clone(&room.server).ask_access(user, room.document.clone());
                    asked
                        .map(move |answer| Answer::Authorized(number, answer))
                        .boxed()
                }
                Request::Check(number, request, hot, payers) => {
                    super::check::check(&room, number, request, hot, payers)
                }
            });
        }
        match phase {
            RoomPhase::Unloaded if calls.is_empty() => break,
            // Nobody is to come back: it need not stay for the usual while.
            RoomPhase::Draining { .. } if room.server.is_closing() => {
                room.evict(&shutting_down());
                continue;
            }
            _ => {}
        }
        let deadline = timeout.map(|time| room.server.clock.instant(time));
        tokio::select! {
            Some(answer) = calls.next() => {
                room.turn(|state, now| match answer {
                    Answer::Registry(number, answer) => {
                        state.room.handle_registry(now, number, answer);
                    }
                    Answer::Fold(result) => state.room.handle_folded(now, result),
                    Answer::Asked(number, (accepted, error)) => {
                        state.room.handle_asked(now, number, accepted, error);
                    }
                    Answer::Authorized(number, answer) => {
                        state.room.handle_authorized(now, number, answer);
                    }
                    Answer::Check(number, epoch, checks) => {
                        room.checked(state, now, number, epoch, checks);
                    }
                });
            }
            () = room.work.notified() => {}
            () = sleep_until(deadline), if deadline.is_some() => {
                room.turn(|state, now| state.room.handle_timeout(now));
            }
        }
    }
    room.server.rooms.ended.notify_waiters();
}

pub(in crate::server) async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    if let Some(deadline) = deadline {
        tokio::time::sleep_until(deadline).await;
    }
}

/// Calls the registry. A call that panics may have been carried out or not.
fn call(
    room: &RoomHandle,
    number: RequestNumber,
    request: RegistryRequest,
) -> BoxFuture<'static, Answer> {
    let server = Arc::clone(&room.server);
    let document = room.document.clone();
    async move {
        let (registry, calls) = (&server.registry, &server.calls);
        let answer = match request {
            RegistryRequest::Create(new) => {
                RegistryAnswer::Create(calls.create.time(caught(registry.create(new))).await)
            }
            RegistryRequest::Meta => {
                RegistryAnswer::Meta(calls.meta.time(caught(registry.meta(&document))).await)
            }
            RegistryRequest::Size => RegistryAnswer::Size(caught(registry.size(&document)).await),
            RegistryRequest::Append {
                epoch,
                expect,
                changes,
            } => {
                let appended = registry.append(&document, epoch, expect, changes);
                RegistryAnswer::Append(calls.append.time(caught(appended)).await)
            }
            RegistryRequest::Tail { after, max_bytes } => {
                let tail = registry.tail(&document, after, max_bytes);
                RegistryAnswer::Tail(calls.tail.time(caught(tail)).await)
            }
            RegistryRequest::Snapshot => {
                let snapshot = caught(registry.snapshot(&document));
                RegistryAnswer::Snapshot(calls.snapshot.time(snapshot).await)
            }
            RegistryRequest::Origins(origins) => {
                let origins = caught(registry.origins(&document, &origins));
                RegistryAnswer::Origins(calls.origins.time(origins).await)
            }
            RegistryRequest::Compact {
                epoch,
                snapshot,
                keep_after,
            } => {
                let compacted = registry.compact(&document, epoch, snapshot, keep_after);
                RegistryAnswer::Compact(calls.compact.time(caught(compacted)).await)
            }
            // The core and the server are built together.
            _ => RegistryAnswer::Meta(Err(RegistryError::Unavailable {
                retry_after: None,
                source: None,
            })),
        };
        Answer::Registry(number, answer)
    }
    .boxed()
}

fn fold(room: &RoomHandle, request: FoldRequest, payers: Shares) -> BoxFuture<'static, Answer> {
    let server = Arc::clone(&room.server);
    let document = room.document.clone();
    async move {
        let meter = Meter::default();
        let folded = server.fold(&document, request, &meter).await;
        payers.spend(server.clock.now(), meter.spent());
        Answer::Fold(folded)
    }
    .boxed()
}

fn ask(
    room: &RoomHandle,
    number: RequestNumber,
    request: AskRequest,
) -> BoxFuture<'static, Answer> {
    let server = Arc::clone(&room.server);
    let document = room.document.clone();
    async move { Answer::Asked(number, server.ask_changes(&document, &request).await) }.boxed()
}

pub(in crate::server) async fn caught<T>(
    call: impl Future<Output = Result<T, RegistryError>>,
) -> Result<T, RegistryError> {
    AssertUnwindSafe(call)
        .catch_unwind()
        .await
        .unwrap_or_else(|_| {
            Err(RegistryError::Unknown {
                source: Some("the registry panicked".into()),
            })
        })
}
