//! What requests say, and how answers look.

use std::net::SocketAddr;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{ConnectInfo, FromRequestParts, Path, Query};
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sync_core::ids::DocumentId;
use sync_core::transport::PeerInfo;

use super::error::{Answer, ApiError, Code};

/// The document that the path names: percent-encoded, compared byte for byte, never part of a path on disk.
pub(super) struct DocumentPath(pub(super) DocumentId);

impl<S: Send + Sync> FromRequestParts<S> for DocumentPath {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Name(name) = Name::from_request_parts(parts, state).await?;
        document(&name).map(Self)
    }
}

/// The one name in the path.
pub(super) struct Name(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let found = Path::<String>::from_request_parts(parts, state).await;
        let Path(name) = found.map_err(|error| ApiError::invalid(error.body_text()))?;
        Ok(Self(name))
    }
}

pub(super) fn document(name: &str) -> Answer<DocumentId> {
    DocumentId::new(name).map_err(|error| ApiError::invalid(error.to_string()))
}

/// What stands behind the question mark.
pub(super) struct Params<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let found = Query::<T>::from_request_parts(parts, state).await;
        let Query(params) = found.map_err(|error| ApiError::invalid(error.body_text()))?;
        Ok(Self(params))
    }
}

/// Where a request comes from.
pub(super) fn peer(parts: &axum::http::Extensions) -> PeerInfo {
    let address = parts.get::<ConnectInfo<SocketAddr>>();
    address.map_or_else(PeerInfo::default, |ConnectInfo(address)| {
        PeerInfo::at(*address)
    })
}

pub(super) async fn body(body: Body, bytes_max: usize) -> Answer<Bytes> {
    to_bytes(body, bytes_max).await.map_err(|_| {
        ApiError::new(
            Code::TooLarge,
            format!("the body has more than {bytes_max} bytes, or was cut"),
        )
    })
}

pub(super) fn json(value: &impl Serialize) -> Response {
    match serde_json::to_string(value) {
        Ok(text) => content("application/json", text),
        // Nothing here has keys that are no texts.
        Err(_) => content("application/json", "null"),
    }
}

pub(super) fn content(kind: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
