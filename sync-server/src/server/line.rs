//! What waits for the hooks of one session: broadcasts, extension messages and ends, in their order.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sync_core::error::{ErrorCode, PeerError};
use sync_core::ids::{DocumentId, SessionId, User};
use sync_core::wire::Broadcast;
use tokio::runtime::Handle;

use super::Shared;
use super::rooms::RoomHandle;
use crate::hooks::{BroadcastContext, CloseContext, ExtensionContext};

/// Messages that may wait for the hooks of one session; those that come then are dropped, and their sender told.
const MESSAGES_MAX: usize = 64;
/// Steps that may wait before the client is not read any more: one that opens and closes documents all the time.
const STEPS_MAX: usize = 1_024;
/// When to send again what found no place.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The line of a session; only where there are hooks.
pub(super) struct Line {
    server: Arc<Shared>,
    session: SessionId,
    /// Who the hooks have let connect.
    user: Option<User>,
    /// What the hooks have let it open.
    open: BTreeSet<DocumentId>,
    waiting: VecDeque<Step>,
    n_messages: usize,
    running: Option<BoxFuture<'static, Option<Asked>>>,
}

enum Step {
    Broadcast(Arc<RoomHandle>, Broadcast),
    Extension(u8, Option<DocumentId>, Bytes),
    Closed(Option<DocumentId>),
}

/// A broadcast that has been asked about.
pub(super) struct Asked {
    pub(super) room: Arc<RoomHandle>,
    pub(super) broadcast: Broadcast,
    pub(super) answer: Result<(), PeerError>,
}

impl Line {
    pub(super) fn new(server: &Arc<Shared>, session: SessionId) -> Self {
        Self {
            server: Arc::clone(server),
            session,
            user: None,
            open: BTreeSet::new(),
            waiting: VecDeque::new(),
            n_messages: 0,
            running: None,
        }
    }

    pub(super) fn connected(&mut self, user: User) {
        self.user.get_or_insert(user);
    }

    pub(super) fn opened(&mut self, document: DocumentId) {
        self.open.insert(document);
    }

    pub(super) fn closed(&mut self, document: &DocumentId) {
        if let Some(document) = self.open.take(document) {
            self.waiting.push_back(Step::Closed(Some(document)));
        }
    }

    /// # Errors
    /// What to tell the session: too much waits already.
    pub(super) fn broadcast(
        &mut self,
        room: &Arc<RoomHandle>,
        broadcast: Broadcast,
    ) -> Result<(), PeerError> {
        self.count(ErrorCode::BroadcastTooFast)?;
        let step = Step::Broadcast(Arc::clone(room), broadcast);
        self.waiting.push_back(step);
        Ok(())
    }

    /// # Errors
    /// As [`broadcast`](Self::broadcast).
    pub(super) fn extension(
        &mut self,
        kind: u8,
        document: Option<DocumentId>,
        bytes: Bytes,
    ) -> Result<(), PeerError> {
        self.count(ErrorCode::ExtensionTooFast)?;
        self.waiting
            .push_back(Step::Extension(kind, document, bytes));
        Ok(())
    }

    fn count(&mut self, code: ErrorCode) -> Result<(), PeerError> {
        if self.n_messages >= MESSAGES_MAX {
            let error = PeerError::new(code, "the hooks of the server do not keep up");
            return Err(error.retry_after(RETRY_AFTER));
        }
        self.n_messages += 1;
        Ok(())
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() > STEPS_MAX
    }

    /// The next broadcast that has been asked about.
    pub(super) fn poll_asked(&mut self, cx: &mut Context<'_>) -> Poll<Asked> {
        loop {
            if self.running.is_none()
                && let Some(step) = self.waiting.pop_front()
            {
                if !matches!(step, Step::Closed(_)) {
                    self.n_messages -= 1;
                }
                self.running = self.start(step);
                continue;
            }
            let Some(running) = &mut self.running else {
                return Poll::Pending;
            };
            let done = std::task::ready!(running.as_mut().poll(cx));
            self.running = None;
            if let Some(asked) = done {
                return Poll::Ready(asked);
            }
        }
    }

    fn start(&self, step: Step) -> Option<BoxFuture<'static, Option<Asked>>> {
        let user = self.user.clone()?;
        let (shared, session) = (Arc::clone(&self.server), self.session);
        let server = self.server.handle();
        let call = async move {
            let (server, user) = (&server, &user);
            match step {
                Step::Broadcast(room, broadcast) => {
                    let context = BroadcastContext {
                        server,
                        user,
                        session,
                        document: room.document(),
                        topic: &broadcast.topic,
                        bytes: &broadcast.bytes,
                    };
                    let answer = shared.ask_broadcast(&context).await;
                    return Some(Asked {
                        room,
                        broadcast,
                        answer,
                    });
                }
                Step::Extension(kind, document, bytes) => {
                    let context = ExtensionContext {
                        server,
                        user,
                        session,
                        document: document.as_ref(),
                        kind,
                        bytes: &bytes,
                    };
                    shared.tell_extension(&context).await;
                }
                Step::Closed(document) => {
                    let context = CloseContext {
                        server,
                        user,
                        session,
                        document: document.as_ref(),
                    };
                    shared.tell_close(&context).await;
                }
            }
            None
        };
        Some(call.boxed())
    }

    /// The session has ended: tells the hooks the rest, beside whatever comes next.
    pub(super) fn finish(mut self) {
        if self.user.is_none() {
            return;
        }
        // What is broadcast is of a session that is not there any more.
        self.waiting
            .retain(|step| !matches!(step, Step::Broadcast(..)));
        let open = std::mem::take(&mut self.open);
        self.waiting.extend(
            open.into_iter()
                .map(|document| Step::Closed(Some(document))),
        );
        self.waiting.push_back(Step::Closed(None));
        // Without a runtime there is nobody left to be told.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                if let Some(running) = self.running.take() {
                    running.await;
                }
                while let Some(step) = self.waiting.pop_front() {
                    if let Some(call) = self.start(step) {
                        call.await;
                    }
                }
            });
        }
    }
}
