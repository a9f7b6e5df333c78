//! What was exercised, and what has to be.

use std::collections::BTreeMap;
use std::fmt;

use crate::plan::Plan;

/// How often each thing happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    /// By its kind and name.
    pub counts: BTreeMap<String, u64>,
}

impl Coverage {
    /// Adds what another run did.
    pub fn merge(&mut self, other: Self) {
        self.add(other.counts);
    }

    pub(crate) fn add(&mut self, counts: BTreeMap<String, u64>) {
        for (name, n) in counts {
            *self.counts.entry(name).or_default() += n;
        }
    }

    pub(crate) fn add_world(&mut self, counts: &BTreeMap<(&'static str, &'static str), u64>) {
        for ((kind, name), n) in counts {
            *self.counts.entry(format!("{kind}: {name}")).or_default() += n;
        }
    }

    pub(crate) fn add_plan(&mut self, plan: &Plan) {
        for (_, op) in &plan.ops {
            *self.counts.entry(format!("op: {}", op.name())).or_default() += 1;
        }
    }

    /// What has to be exercised in a long run, and was not.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let mut missing = REQUIRED.to_vec();
        missing.retain(|name| !self.counts.contains_key(*name));
        missing
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, n) in &self.counts {
            writeln!(f, "{n:>12}  {name}")?;
        }
        Ok(())
    }
}

/// What no long run may miss.
const REQUIRED: &[&str] = &[
    "client: access changed",
    "client: going away",
    "client: refused",
    "client: replaced",
    "closed by server: AuthorizationUnavailable",
    "closed by server: Internal",
    "closed by server: ShuttingDown",
    "closed by server: Superseded",
    "closed by server: Unauthenticated",
    "document error: AccessDenied",
    "document error: AuthorizationUnavailable",
    "document error: Fenced",
    "document error: StorageUnavailable",
    "ended by server: AuthorizationUnavailable",
    "ended by server: Internal",
    "ended by server: ShuttingDown",
    "ended by server: Unauthenticated",
    "ended: handshake timeout",
    "ended: local",
    "ended: lost",
    "ended: silence",
    "fault: closed on the way",
    "fault: crash at a call",
    "fault: cut",
    "fault: cut in a message",
    "fault: document restored",
    "fault: full",
    "fault: half open, server gone",
    "fault: half open, silent",
    "fault: hint doubled",
    "fault: hint lost",
    "fault: no connection",
    "fault: node drained",
    "fault: node killed",
    "fault: node lost",
    "fault: power lost",
    "fault: reader stalled",
    "fault: registry replaced",
    "fault: slow call",
    "fault: slow reader",
    "fault: store failed",
    "fault: store restored",
    "fault: unavailable",
    "fault: unknown, done",
    "fault: unknown, not done",
    "op: Backup",
    "op: BackupStore",
    "op: Broadcast",
    "op: Close",
    "op: CloseConnection",
    "op: CrashAtCall",
    "op: Cut",
    "op: CutBehind",
    "op: CutInMessage",
    "op: Deafen",
    "op: DialNode",
    "op: Disconnect",
    "op: DrainNode",
    "op: DropRefused",
    "op: Edit",
    "op: EditBadly",
    "op: EditLargely",
    "op: EndSession",
    "op: FailDial",
    "op: FailStore",
    "op: Fill",
    "op: Fold",
    "op: GoOffline",
    "op: GoOnline",
    "op: HoldAppends",
    "op: KillClient",
    "op: KillNode",
    "op: Leave",
    "op: LoseEverything",
    "op: LoseNode",
    "op: LosePower",
    "op: Open",
    "op: Permit",
    "op: Reauthorize",
    "op: Reconnect",
    "op: RestartClient",
    "op: Restore",
    "op: RestoreDocument",
    "op: RestoreStore",
    "op: Rewind",
    "op: SetClock",
    "op: SetNodeClock",
    "op: Show",
    "op: SlowDown",
    "op: Stall",
    "op: StartClient",
    "op: StartNode",
    "op: TakeCredentials",
    "op: Trim",
    "op: Trouble",
    "op: Veto",
    "op: Weather",
    "operator: rewound",
    "operator: trimmed",
    "phase: catching up to closed",
    "phase: catching up to live",
    "phase: catching up to none",
    "phase: catching up to offline",
    "phase: catching up to refused",
    "phase: closed to catching up",
    "phase: closed to live",
    "phase: closed to none",
    "phase: closed to offline",
    "phase: live to catching up",
    "phase: live to closed",
    "phase: live to none",
    "phase: live to offline",
    "phase: live to refused",
    "phase: none to catching up",
    "phase: none to live",
    "phase: none to none",
    "phase: none to offline",
    "phase: offline to catching up",
    "phase: offline to closed",
    "phase: offline to live",
    "phase: offline to none",
    "phase: offline to refused",
    "phase: refused to catching up",
    "phase: refused to live",
    "phase: refused to none",
    "phase: refused to offline",
    "refused: AccessDenied",
    "refused: InvalidChange",
    "registry failed: append",
    "registry failed: open",
    "registry failed: tail",
    "room: access changed",
    "room: begun",
    "room: broadcast",
    "room: committed",
    "room: fold failed",
    "room: folded",
    "room: history replaced",
    "room: left",
    "room: loaded",
    "room: opened",
    "room: presence joined",
    "room: presence left",
    "room: presence resumed",
    "room: snapshot read",
    "room: unloaded",
    "sent by clients: Auth",
    "sent by clients: Broadcast",
    "sent by clients: Close",
    "sent by clients: Extension",
    "sent by clients: FoldOffer",
    "sent by clients: Fragment",
    "sent by clients: Hello",
    "sent by clients: Open",
    "sent by clients: Ping",
    "sent by clients: Presence",
    "sent by clients: Push",
    "sent by servers: Access",
    "sent by servers: Ack",
    "sent by servers: Auth",
    "sent by servers: Author",
    "sent by servers: Broadcast",
    "sent by servers: Changes",
    "sent by servers: Closed",
    "sent by servers: Error",
    "sent by servers: Extension",
    "sent by servers: FoldRequest",
    "sent by servers: Fragment",
    "sent by servers: GoAway",
    "sent by servers: Opened",
    "sent by servers: Pong",
    "sent by servers: Presence",
    "sent by servers: Refuse",
    "sent by servers: Snapshot",
    "sent by servers: Welcome",
    "status: connected",
    "status: connecting",
    "status: offline",
    "status: reconnecting",
    "told by session: AccessDenied",
    "told by session: AuthorizationUnavailable",
    "told by session: ChannelNotOpen",
];
