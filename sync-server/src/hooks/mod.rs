//! Hooks: code of the application that is told what clients do, and may say no.

mod context;

use std::time::Duration;

use async_trait::async_trait;

pub use self::context::{
    BroadcastContext, ChangeContext, CloseContext, ConnectContext, ExtensionContext, OpenContext,
};

/// Code that has a say in what clients do: [`ServerBuilder::hooks`](crate::ServerBuilder::hooks). Every method has a default, which
/// accepts.
///
/// Several hooks are asked in the order in which they were added, until one does not accept. Each call is made where it holds up
/// nobody but the session that it is about, and may take as long as [`ServerBuilder::hook_timeout`](crate::ServerBuilder::hook_timeout)
/// says. A hook that takes longer, or panics, is reported ([`ServerEvent::HookFailed`](crate::ServerEvent::HookFailed)) and counts as
/// [`Verdict::Unavailable`]: the client tries again. Like any asynchronous code it must not block its thread.
///
/// # Cancellation
/// The future of any method is dropped when its time is over; that of `connect`, `open` and `broadcast` also when the session ends.
///
/// ```
/// use async_trait::async_trait;
/// use sync_server::hooks::{ChangeContext, ServerHooks, Verdict};
///
/// struct Archive;
///
/// #[async_trait]
/// impl ServerHooks for Archive {
///     async fn change(&self, change: &ChangeContext<'_>) -> Verdict {
///         if change.document.as_str().starts_with("archive/") {
///             return Verdict::veto("the archive does not change");
///         }
///         Verdict::Accept
///     }
/// }
/// ```
#[async_trait]
pub trait ServerHooks: Send + Sync + 'static {
    /// A client has said who it is, and the authenticator believes it. A veto ends the connection, and the client does not try
    /// again by itself.
    async fn connect(&self, connect: &ConnectContext<'_>) -> Verdict {
        let _ = connect;
        Verdict::Accept
    }

    /// A session is about to open a document, also one that it has open, and the authorizer allows it. A veto refuses the open for good.
    async fn open(&self, open: &OpenContext<'_>) -> Verdict {
        let _ = open;
        Verdict::Accept
    }

    /// A change is about to be appended to a document's log. It is well-formed, and its user may write; it may still turn out to be a
    /// repeat, or to be refused for another reason.
    ///
    /// Those of one session are asked about one after the other, in their order; what other sessions send does not wait for them. A
    /// veto refuses the change for good: it is handed back to its author, and whatever the session sent behind it is ignored until it has
    /// opened the document again.
    async fn change(&self, change: &ChangeContext<'_>) -> Verdict {
        let _ = change;
        Verdict::Accept
    }

    /// A session that may write is about to broadcast. A broadcast that is not accepted is dropped, and its sender told.
    async fn broadcast(&self, broadcast: &BroadcastContext<'_>) -> Verdict {
        let _ = broadcast;
        Verdict::Accept
    }

    /// A client has sent a message of type 128 to 255. All hooks get it, and ignore types that they do not know.
    async fn extension(&self, extension: &ExtensionContext<'_>) {
        let _ = extension;
    }

    /// A session has closed a document that it had been let open, or has ended, after all its documents. Told once for each that `open`
    /// and `connect` were asked about and accepted, to all hooks.
    async fn close(&self, close: &CloseContext<'_>) {
        let _ = close;
    }
}

/// What a hook says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// Go on.
    Accept,
    /// No, for good.
    Veto {
        /// Why, in words that the client is told.
        reason: String,
    },
    /// This cannot be said now. Never a no: the client tries again.
    Unavailable {
        /// When, if that is known.
        retry_after: Option<Duration>,
    },
}

impl Verdict {
    /// No, for good, with the reason that the client is told.
    #[must_use]
    pub fn veto(reason: impl Into<String>) -> Self {
        Self::Veto {
            reason: reason.into(),
        }
    }
}

/// How a hook failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HookFailure {
    /// It panicked.
    Panicked,
    /// It took longer than it may.
    TimedOut,
}

impl std::fmt::Display for HookFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Panicked => "panicked",
            Self::TimedOut => "took too long",
        })
    }
}
