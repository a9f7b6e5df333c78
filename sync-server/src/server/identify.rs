//! Asking who somebody is, and what somebody may do.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use sync_core::error::{ErrorCode, PeerError};
use sync_core::ids::{DocumentId, User};
use sync_core::server::Grant;

use super::Shared;
use crate::auth::{AuthError, ConnectRequest, Identity};

impl Shared {
    /// Asks, for as long as that takes.
    pub(super) async fn identify(
        self: Arc<Self>,
        request: ConnectRequest,
    ) -> Result<Identity, PeerError> {
        let asked = AssertUnwindSafe(self.auth.who.authenticate(&request)).catch_unwind();
        match asked.await {
            Ok(Ok(identity)) => Ok(identity),
            Ok(Err(AuthError::Refused { reason })) => {
                Err(PeerError::new(ErrorCode::Unauthenticated, reason))
            }
            Ok(Err(error)) => Err(cannot_tell(&error)),
            Err(_) => Err(cannot_tell(&AuthError::unavailable("it panicked"))),
        }
    }

    /// Asks, for as long as a handshake may take.
    pub(super) async fn identify_in_time(
        self: Arc<Self>,
        request: ConnectRequest,
    ) -> Result<Identity, PeerError> {
        let within = self.room_config.limits.handshake_timeout;
        tokio::time::timeout(within, self.identify(request))
            .await
            .unwrap_or_else(|elapsed| Err(cannot_tell(&AuthError::unavailable(elapsed))))
    }
}

impl Shared {
    /// Asks what a user may do with a document, for as long as a handshake may take.
    pub(super) async fn ask_access(
        self: Arc<Self>,
        user: User,
        document: DocumentId,
    ) -> Result<Grant, PeerError> {
        let within = self.room_config.limits.handshake_timeout;
        let asked = AssertUnwindSafe(self.auth.may.authorize(&user, &document)).catch_unwind();
        match tokio::time::timeout(within, asked).await {
            Ok(Ok(Ok(access))) => Ok(access.into()),
            Ok(Ok(Err(error))) => Err(cannot_tell(&error)),
            Ok(Err(_)) => Err(cannot_tell(&AuthError::unavailable("it panicked"))),
            Err(elapsed) => Err(cannot_tell(&AuthError::unavailable(elapsed))),
        }
    }
}

/// What a client is told when somebody else's fault keeps it waiting; what exactly that was is in the log.
fn cannot_tell(error: &AuthError) -> PeerError {
    let source: &dyn std::error::Error = error;
    tracing::warn!(error = source, "cannot tell who may do what");
    let told = PeerError::new(
        ErrorCode::AuthorizationUnavailable,
        "cannot tell now who may do what",
    );
    match error {
        AuthError::Unavailable {
            retry_after: Some(delay),
            ..
        } => told.retry_after(*delay),
        _ => told,
    }
}
