//! Bugs that the simulator plants in the machines, to show that it finds them (`docs/decisions/0037`). No part of the API.
//!
//! Each is one condition at the place where a rule is kept. Without the feature `planted-bugs` all of them are `false` for
//! the compiler, and nothing of this is left.

/// A rule that a machine does not keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[cfg_attr(
    not(feature = "planted-bugs"),
    expect(unreachable_pub, reason = "public with the feature")
)]
pub enum Bug {
    /// The room acknowledges a change when it takes it, not when the registry has it.
    AckBeforeCommit,
    /// The room goes on showing sessions that have left.
    PresenceKept,
    /// A session that the ring has left behind goes on at the head.
    LaggingSessionSkipped,
    /// A cursor resumes by its sequence, whatever the digest there.
    DigestIgnored,
    /// What follows on changes of an origin that the registry does not know any more is pushed as it is, and refused.
    EvictedOriginRefused,
    /// The refusal of a change lets another origin's changes on the channel through.
    RefusalOvertaken,
    /// A cursor beyond what the room has published is beyond the log.
    ResetFromMemory,
    /// A fold is offered whatever is in the outbox, and with it.
    FoldWithOutbox,
    /// A session whose permission is asked anew goes on being sent what is published.
    RevocationIgnoredByRing,
    /// Fragments of all rooms travel on the session's channel, by ids that each room counts.
    FragmentIdsCollide,
    /// An append whose outcome is unknown refuses its changes.
    UnknownAppendFailed,
    /// What is pending when a history is replaced is replayed, whether or not the registry has it.
    LostAckReplayed,
    /// An error of `authorize` is a no: the outbox is handed back.
    AuthorizeErrorRefuses,
    /// What the document's ledger refuses is appended.
    ForgedClockAccepted,
}

/// The bug in a machine, if there is one.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Planted {
    #[cfg(feature = "planted-bugs")]
    pub(crate) bug: Option<Bug>,
}

impl Planted {
    /// Whether it is this one.
    #[cfg(feature = "planted-bugs")]
    pub(crate) fn has(self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// Whether it is this one: there is none.
    #[cfg(not(feature = "planted-bugs"))]
    #[expect(clippy::unused_self, reason = "as with the feature")]
    pub(crate) const fn has(self, _: Bug) -> bool {
        false
    }
}
