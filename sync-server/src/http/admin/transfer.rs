//! Documents on their way out of the registry, and into it.

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde::Deserialize;
use sync_core::history::EpochMode;
use utoipa::{IntoParams, ToSchema};

use super::documents::Stored;
use super::error::{Answer, ApiError, Code, ErrorBody};
use super::respond::{DocumentPath, Params, body, content, document, json};
use super::{IMPORT_BYTES_MAX, Shared, Who};
use crate::registry::{Existing, Export, ExportError};

/// Takes a document out, as a file that `sync-server inspect` reads too.
#[utoipa::path(
    get,
    path = "/documents/{document}/export",
    tag = "documents",
    params(("document" = String, Path, description = "Its id, percent-encoded")),
    responses(
        (status = 200, description = "The file", content_type = "application/octet-stream", body = Vec<u8>),
        (status = "default", body = ErrorBody),
    )
)]
pub(super) async fn export(
    State(api): Shared,
    Extension(who): Who,
    DocumentPath(document): DocumentPath,
) -> Answer<Response> {
    let export = api.server.export(&document).await?;
    let written = blocking(move || {
        let mut file = Vec::new();
        export.write_to(&mut file).map(|()| file)
    });
    let file = written.await?.map_err(|error| {
        // Memory takes whatever is written to it.
        ApiError::new(Code::Unavailable, error.to_string())
    })?;
    tracing::info!(admin = &*who.name, %document, bytes = file.len(), "document exported");
    let mut response = content("application/octet-stream", file);
    response.headers_mut().insert(
        header::CONTENT_DISPOSITION,
        HeaderValue::from_static("attachment; filename=\"document.syncdoc\""),
    );
    Ok(response)
}

/// How a file is taken.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ImportParams {
    /// What clients do with what they have and the imported document has not; by default `merge`.
    #[param(inline)]
    mode: Option<Mode>,
    /// Whether to put it in the place of the document, or of the tombstone, that is there.
    #[serde(default)]
    replace: bool,
}

#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// They bring it back.
    Merge,
    /// They drop it.
    Discard,
}

/// Puts a document from a file into the registry, under the name in the path, as a new history.
#[utoipa::path(
    put,
    path = "/documents/{document}/import",
    tag = "documents",
    params(("document" = String, Path, description = "Its id, percent-encoded"), ImportParams),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 200, body = Stored),
        (status = "default", body = ErrorBody),
    )
)]
pub(super) async fn import(
    State(api): Shared,
    Extension(who): Who,
    DocumentPath(document): DocumentPath,
    Params(params): Params<ImportParams>,
    sent: Body,
) -> Answer<Response> {
    let file = body(sent, IMPORT_BYTES_MAX).await?;
    let read = blocking(move || Export::read_from(&file[..])).await?;
    let export = read.map_err(|error| match error {
        ExportError::Io(error) => ApiError::invalid(error.to_string()),
        error => ApiError::invalid(error.to_string()),
    })?;
    let mode = match params.mode {
        None | Some(Mode::Merge) => EpochMode::Merge,
        Some(Mode::Discard) => EpochMode::Discard,
    };
    let existing = if params.replace {
        Existing::Replace
    } else {
        Existing::Keep
    };
    let meta = api.server.import(document, export, mode, existing);
    let meta = meta.await?;
    let document = &meta.id;
    tracing::info!(admin = &*who.name, %document, %mode, ?existing, "document imported");
    Ok(json(&Stored::new(&meta, None)))
}

/// What the fork is called.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ForkParams {
    /// Its id: of no document that there is, or was.
    to: String,
}

/// Makes a new document of what this one is now.
#[utoipa::path(
    post,
    path = "/documents/{document}/fork",
    tag = "documents",
    params(("document" = String, Path, description = "Its id, percent-encoded"), ForkParams),
    responses(
        (status = 200, body = Stored),
        (status = "default", body = ErrorBody),
    )
)]
pub(super) async fn fork(
    State(api): Shared,
    Extension(who): Who,
    DocumentPath(from): DocumentPath,
    Params(params): Params<ForkParams>,
) -> Answer<Response> {
    let meta = api.server.fork(&from, document(&params.to)?).await?;
    tracing::info!(admin = &*who.name, document = %from, to = %meta.id, "document forked");
    Ok(json(&Stored::new(&meta, None)))
}

/// Does what takes a while for a large document, beside what is served.
async fn blocking<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> Answer<T> {
    let done = tokio::task::spawn_blocking(f).await;
    done.map_err(|_| ApiError::new(Code::Damaged, "the document could not be processed"))
}
