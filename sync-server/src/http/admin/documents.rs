//! Documents as they are: listed, inspected, read.

use std::collections::HashMap;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use sync_core::ids::DocumentId;
use sync_core::registry::{DocumentMeta, DocumentSize};
use utoipa::{IntoParams, ToSchema};

use super::Shared;
use super::error::{Answer, ErrorBody};
use super::respond::{DocumentPath, Params, content, document, json};
use crate::stats::{DocumentDetails, DocumentStats};

/// Documents listed at once.
const PAGE_MAX: usize = 1_000;

/// Which documents.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Those whose ids come after this one, in the order of their bytes.
    after: Option<String>,
    /// At most so many, up to 1,000; by default 100.
    limit: Option<usize>,
    /// Live ones only: those that somebody has open, or had a short while ago.
    #[serde(default)]
    live: bool,
    /// With the bytes of each, which the registry is asked for one by one.
    #[serde(default)]
    sizes: bool,
}

/// Documents, in the order of their ids.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Documents {
    documents: Vec<Document>,
    /// `after` for the next page, if there may be one.
    next: Option<String>,
}

/// A document in a list.
#[derive(Debug, Serialize, ToSchema)]
struct Document {
    #[serde(flatten)]
    stored: Stored,
    /// How it stands on this server, if it is live.
    live: Option<DocumentStats>,
}

/// What is stored of a document.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Stored {
    /// Its name.
    document: String,
    /// Its engine.
    engine: String,
    /// Name of its history.
    epoch: String,
    /// How that came about: new, merge, rebase or discard.
    mode: String,
    /// Its last sequence.
    head: u64,
    /// Digest over everything through `head`, in hexadecimal.
    digest: String,
    /// Sequence of its snapshot; 0 if it has none.
    snapshot_seq: u64,
    /// Changes in the kept log.
    log_changes: u64,
    /// Bytes of its snapshot, if they were asked for.
    snapshot_bytes: Option<u64>,
    /// Bytes of the changes after it, or what storing them takes; likewise.
    log_bytes: Option<u64>,
}

impl Stored {
    pub(super) fn new(meta: &DocumentMeta, size: Option<DocumentSize>) -> Self {
        Self {
            document: meta.id.as_str().to_owned(),
            engine: meta.engine.to_string(),
            epoch: meta.epoch.to_string(),
            mode: meta.mode.to_string(),
            head: meta.head.0,
            digest: format!("{:016x}", meta.digest.0),
            snapshot_seq: meta.snapshot_seq.0,
            log_changes: meta.head.0.saturating_sub(meta.log_start.0),
            snapshot_bytes: size.map(|size| size.snapshot_bytes),
            log_bytes: size.map(|size| size.log_bytes),
        }
    }
}

/// Lists documents, live or not.
#[utoipa::path(
    get,
    path = "/documents",
    tag = "documents",
    params(ListParams),
    responses(
        (status = 200, body = Documents),
        (status = "default", body = ErrorBody),
    )
)]
pub(super) async fn list(
    State(api): Shared,
    Params(params): Params<ListParams>,
) -> Answer<Response> {
    let after = params.after.as_deref().map(document).transpose()?;
    let limit = params.limit.unwrap_or(100).clamp(1, PAGE_MAX);
    let live = api.server.documents();
    let metas = if params.live {
        let later = live.iter().map(|found| &found.document);
        let later = later.filter(|id| after.as_ref().is_none_or(|after| *id > after));
        let mut metas = Vec::new();
        for id in later.take(limit) {
            // One that is being created, or was just deleted, is on no list.
            metas.extend(api.server.meta(id).await.ok());
        }
        metas
    } else {
        api.server.list(after.as_ref(), limit).await?
    };
    let is_full = metas.len() == limit;
    let next = metas.last().filter(|_| is_full);
    let next = next.map(|meta| meta.id.as_str().to_owned());
    let mut live: HashMap<DocumentId, DocumentStats> = live
        .into_iter()
        .map(|found| (found.document.clone(), found))
        .collect();
    let mut documents = Vec::with_capacity(metas.len());
    for meta in &metas {
        let size = if params.sizes {
            api.server.size(&meta.id).await.ok()
        } else {
            None
        };
        documents.push(Document {
            stored: Stored::new(meta, size),
            live: live.remove(&meta.id),
        });
    }
    Ok(json(&Documents { documents, next }))
}

/// All that is known of a document but its content.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Inspected {
    /// What is stored.
    stored: Stored,
    /// How it stands on this server, and its sessions, if it is live.
    live: Option<DocumentDetails>,
}

/// Shows a document: what is stored, and the sessions that have it open, with their cursors and lags.
#[utoipa::path(
    get,
    path = "/documents/{document}",
    tag = "documents",
    params(("document" = String, Path, description = "Its id, percent-encoded")),
    responses(
        (status = 200, body = Inspected),
        (status = "default", body = ErrorBody),
    )
)]
pub(super) async fn inspect(
    State(api): Shared,
    DocumentPath(document): DocumentPath,
) -> Answer<Response> {
    let meta = api.server.meta(&document).await?;
    let size = api.server.size(&document).await?;
    Ok(json(&Inspected {
        stored: Stored::new(&meta, Some(size)),
        live: api.server.inspect(&document),
    }))
}

/// Reads a document as JSON, as it is committed, where its engine can. What is in JSON depends on the engine, and is not all
/// of it: for people and tools.
#[utoipa::path(
    get,
    path = "/documents/{document}/json",
    tag = "documents",
    params(("document" = String, Path, description = "Its id, percent-encoded")),
    responses(
        (status = 200, description = "The content", content_type = "application/json", body = serde_json::Value),
        (status = "default", body = ErrorBody),
    )
)]
pub(super) async fn read_json(
    State(api): Shared,
    DocumentPath(document): DocumentPath,
) -> Answer<Response> {
    let read = api.server.read_json(&document).await?;
    Ok(content("application/json", read))
}
