//! Errors of the admin API: one shape, one code each.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use sync_core::engine::EngineError;
use sync_core::registry::RegistryError;
use sync_core::server::FoldError;
use utoipa::ToSchema;

use super::access::AdminRefusal;
use super::respond::json;
use crate::server::{ReadError, SendError};

/// What went wrong; the HTTP status follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Code {
    /// 400: what was sent makes no sense.
    Invalid,
    /// 401: the credentials are missing, wrong or expired.
    Unauthenticated,
    /// 403: the user is no admin.
    Forbidden,
    /// 404: there is no such document, or no such route.
    NotFound,
    /// 405: the route does not take this method.
    MethodNotAllowed,
    /// 409: there is something of that name already.
    Exists,
    /// 409: what is asked for cannot be done with this document, or on this server.
    Unsupported,
    /// 410: the document has been deleted.
    Deleted,
    /// 413: more was sent than is taken.
    TooLarge,
    /// 500: what is stored is damaged.
    Damaged,
    /// 503: it cannot be done now; the same request may succeed later.
    Unavailable,
}

impl Code {
    const fn status(self) -> StatusCode {
        match self {
            Self::Invalid => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Exists | Self::Unsupported => StatusCode::CONFLICT,
            Self::Deleted => StatusCode::GONE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Damaged => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// The answer to a request that failed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ErrorBody {
    error: ErrorInfo,
}

#[derive(Debug, Serialize, ToSchema)]
struct ErrorInfo {
    code: Code,
    /// The same for a person.
    message: String,
}

#[derive(Debug)]
pub(super) struct ApiError {
    code: Code,
    message: String,
}

pub(super) type Answer<T> = Result<T, ApiError>;

impl ApiError {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::Invalid, message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response<Body> {
        let Self { code, message } = self;
        let mut response = json(&ErrorBody {
            error: ErrorInfo { code, message },
        });
        *response.status_mut() = code.status();
        let name_and_value = match code {
            Code::Unauthenticated => (header::WWW_AUTHENTICATE, "Bearer"),
            Code::Unavailable => (header::RETRY_AFTER, "1"),
            _ => return response,
        };
        let (name, value) = name_and_value;
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
        response
    }
}

impl From<AdminRefusal> for ApiError {
    fn from(refusal: AdminRefusal) -> Self {
        let code = match refusal {
            AdminRefusal::Unauthenticated => Code::Unauthenticated,
            AdminRefusal::Forbidden => Code::Forbidden,
            AdminRefusal::Unavailable => Code::Unavailable,
        };
        Self::new(code, refusal.to_string())
    }
}

impl From<RegistryError> for ApiError {
    fn from(error: RegistryError) -> Self {
        let code = match &error {
            RegistryError::NotFound => Code::NotFound,
            RegistryError::Deleted => Code::Deleted,
            RegistryError::Refused { what } if *what == EXISTS => Code::Exists,
            RegistryError::Refused { .. } => Code::Unsupported,
            RegistryError::Damaged { .. } => Code::Damaged,
            _ => Code::Unavailable,
        };
        Self::new(code, text(&error))
    }
}

/// What registries say of a document that is not to be replaced.
const EXISTS: &str = "the document exists";

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        let code = match error {
            EngineError::Unsupported { .. } => Code::Unsupported,
            _ => Code::Damaged,
        };
        Self::new(code, text(&error))
    }
}

impl From<FoldError> for ApiError {
    fn from(error: FoldError) -> Self {
        match error {
            FoldError::Registry(error) => error.into(),
            FoldError::Engine(error) => error.into(),
            error => Self::new(Code::Unavailable, text(&error)),
        }
    }
}

impl From<SendError> for ApiError {
    fn from(error: SendError) -> Self {
        Self::new(Code::TooLarge, text(&error))
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NotFound => Self::new(Code::NotFound, text(&error)),
            ReadError::Registry(error) => error.into(),
            ReadError::Engine(error) => error.into(),
            error @ ReadError::Host { .. } => Self::new(Code::Unavailable, text(&error)),
        }
    }
}

/// An error and its causes, in one line.
fn text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
