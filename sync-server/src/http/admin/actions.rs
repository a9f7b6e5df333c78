//! What is done to documents in their place. Each is logged with who did it.

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::error::{Answer, ErrorBody};
use super::respond::{DocumentPath, Params, body, json};
use super::{Shared, Who};
use crate::stats::FoldStats;

/// The document is no more.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Deleted {
    deleted: bool,
}

/// Deletes a document for good: its sessions are told, and clients that come back cannot bring it back.
#[utoipa::path(
    delete,
    path = "/documents/{document}",
    tag = "documents",
    params(("document" = String, Path, description = "Its id, percent-encoded")),
    responses(
        (status = 200, body = Deleted),
        (status = "default", body = ErrorBody),
    )
)]
pub(super) async fn delete(
    State(api): Shared,
    Extension(who): Who,
    DocumentPath(document): DocumentPath,
) -> Answer<Response> {
    api.server.delete(&document).await?;
    tracing::info!(admin = &*who.name, %document, "document deleted");
    Ok(json(&Deleted { deleted: true }))
}

/// Folds a document's log into a new snapshot now. `unavailable` if there is nothing to fold.
#[utoipa::path(
    post,
    path = "/documents/{document}/compact",
    tag = "documents",
    params(("document" = String, Path, description = "Its id, percent-encoded")),
    responses(
        (status = 200, body = FoldStats),
        (status = "default", body = ErrorBody),
    )
)]
pub(super) async fn compact(
    State(api): Shared,
    Extension(who): Who,
    DocumentPath(document): DocumentPath,
) -> Answer<Response> {
    let fold = api.server.compact(&document).await?;
    tracing::info!(admin = &*who.name, %document, seq = %fold.seq, "document compacted");
    Ok(json(&fold))
}

/// What became of an eviction.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Evicted {
    /// Whether the document is not live any more. It stays where sessions do not read, or are back already.
    unloaded: bool,
}

/// Has a live document unloaded, so that the next open loads it afresh. Sessions that have it open come back to it.
#[utoipa::path(
    post,
    path = "/documents/{document}/evict",
    tag = "documents",
    params(("document" = String, Path, description = "Its id, percent-encoded")),
    responses(
        (status = 200, body = Evicted),
        (status = "default", body = ErrorBody),
    )
)]
pub(super) async fn evict(
    State(api): Shared,
    Extension(who): Who,
    DocumentPath(document): DocumentPath,
) -> Answer<Response> {
    let unloaded = api.server.evict(&document).await;
    tracing::info!(admin = &*who.name, %document, unloaded, "document evicted");
    Ok(json(&Evicted { unloaded }))
}

/// What a broadcast is about.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct BroadcastParams {
    /// Its topic.
    topic: String,
}

/// Who was sent something.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BroadcastSent {
    /// Sessions that have the document open on this server.
    n_sessions: usize,
}

/// Sends a broadcast of the server itself to every session that has the document open. It is stored nowhere: whoever is not
/// there does not get it.
#[utoipa::path(
    post,
    path = "/documents/{document}/broadcast",
    tag = "documents",
    params(("document" = String, Path, description = "Its id, percent-encoded"), BroadcastParams),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 200, body = BroadcastSent),
        (status = "default", body = ErrorBody),
    )
)]
pub(super) async fn broadcast(
    State(api): Shared,
    Extension(who): Who,
    DocumentPath(document): DocumentPath,
    Params(params): Params<BroadcastParams>,
    sent: Body,
) -> Answer<Response> {
    let bytes = body(sent, BROADCAST_BYTES_MAX).await?;
    let n_sessions = api.server.broadcast(&document, &params.topic, bytes)?;
    let topic = &params.topic;
    tracing::info!(admin = &*who.name, %document, topic, n_sessions, "broadcast sent");
    Ok(json(&BroadcastSent { n_sessions }))
}

/// More than any limit on broadcasts allows; that is looked at then.
const BROADCAST_BYTES_MAX: usize = 16 << 20;
