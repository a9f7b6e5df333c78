//! Asking hooks: in their order, for a bounded time, and so that one that fails is nobody's problem but the asker's.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use sync_core::error::{ErrorCode, PeerError};
use sync_core::ids::{DocumentId, SessionId, User};
use sync_core::server::AskRequest;
use sync_core::transport::PeerInfo;
use sync_core::wire::AccessLevel;

use super::{Server, Shared};
use crate::event::ServerEvent;
use crate::hooks::{
    BroadcastContext, ChangeContext, CloseContext, ConnectContext, ExtensionContext, HookFailure,
    OpenContext, ServerHooks, Verdict,
};

/// How long a hook may take unless the builder says otherwise.
pub(super) const HOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// The hooks of a server, in the order in which they are asked.
#[derive(Clone)]
pub(super) struct Hooks {
    chain: Arc<[Arc<dyn ServerHooks>]>,
    timeout: Duration,
}

impl Hooks {
    pub(super) fn new(chain: Vec<Arc<dyn ServerHooks>>, timeout: Duration) -> Self {
        Self {
            chain: chain.into(),
            timeout,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chain.is_empty()
    }
}

/// Codes of a veto, and of hooks that cannot be asked.
type Codes = (ErrorCode, ErrorCode);

const FINAL: Codes = (ErrorCode::Vetoed, ErrorCode::HookUnavailable);
const OF_BROADCASTS: Codes = (ErrorCode::BroadcastRefused, ErrorCode::BroadcastUnavailable);

impl Shared {
    pub(super) async fn ask_connect(
        self: &Arc<Self>,
        user: &User,
        session: SessionId,
        peer: &PeerInfo,
    ) -> Result<(), PeerError> {
        for hook in self.hooks.chain.iter() {
            let context = ConnectContext {
                server: &self.handle(),
                user,
                session,
                peer,
            };
            self.ask("connect", FINAL, hook.connect(&context)).await?;
        }
        Ok(())
    }

    pub(super) async fn ask_open(
        self: &Arc<Self>,
        user: &User,
        session: SessionId,
        document: &DocumentId,
        access: AccessLevel,
    ) -> Result<(), PeerError> {
        for hook in self.hooks.chain.iter() {
            let context = OpenContext {
                server: &self.handle(),
                user,
                session,
                document,
                access,
            };
            self.ask("open", FINAL, hook.open(&context)).await?;
        }
        Ok(())
    }

    pub(super) async fn ask_broadcast(
        &self,
        broadcast: &BroadcastContext<'_>,
    ) -> Result<(), PeerError> {
        for hook in self.hooks.chain.iter() {
            let asked = hook.broadcast(broadcast);
            self.ask("broadcast", OF_BROADCASTS, asked).await?;
        }
        Ok(())
    }

    /// How many of the changes are accepted, from the first, and what is the matter with the next one.
    pub(super) async fn ask_changes(
        self: &Arc<Self>,
        document: &DocumentId,
        request: &AskRequest,
    ) -> (usize, Option<PeerError>) {
        let server = self.handle();
        for (n, change) in request.changes.iter().enumerate() {
            let context = ChangeContext {
                server: &server,
                user: &change.user,
                session: request.session,
                document,
                id: change.id,
                bytes: &change.bytes,
            };
            for hook in self.hooks.chain.iter() {
                if let Err(error) = self.ask("change", FINAL, hook.change(&context)).await {
                    return (n, Some(error));
                }
            }
        }
        (request.changes.len(), None)
    }

    pub(super) async fn tell_extension(&self, extension: &ExtensionContext<'_>) {
        for hook in self.hooks.chain.iter() {
            let _ = self.call("extension", hook.extension(extension)).await;
        }
    }

    pub(super) async fn tell_close(&self, close: &CloseContext<'_>) {
        for hook in self.hooks.chain.iter() {
            let _ = self.call("close", hook.close(close)).await;
        }
    }

    pub(super) fn handle(self: &Arc<Self>) -> Server {
        Server {
            shared: Arc::clone(self),
        }
    }

    async fn ask(
        &self,
        call: &'static str,
        (vetoed, unavailable): Codes,
        verdict: impl Future<Output = Verdict>,
    ) -> Result<(), PeerError> {
        let retry_after = match self.call(call, verdict).await {
            Some(Verdict::Accept) => return Ok(()),
            Some(Verdict::Veto { reason }) => return Err(PeerError::new(vetoed, reason)),
            Some(Verdict::Unavailable { retry_after }) => retry_after,
            None => None,
        };
        let mut error = PeerError::new(unavailable, "a hook of the server cannot tell now");
        error.retry_after = retry_after;
        Err(error)
    }

    /// `None` if the hook failed, which has been reported.
    async fn call<T>(&self, call: &'static str, future: impl Future<Output = T>) -> Option<T> {
        let caught = AssertUnwindSafe(future).catch_unwind();
        let failure = match tokio::time::timeout(self.hooks.timeout, caught).await {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(_)) => HookFailure::Panicked,
            Err(_) => HookFailure::TimedOut,
        };
        tracing::error!(call, %failure, "a hook failed");
        self.events.send(ServerEvent::HookFailed { call, failure });
        None
    }
}
