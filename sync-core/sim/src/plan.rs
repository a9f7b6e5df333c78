//! What is done to a world, and when: a value, drawn from a seed, that can be run again, cut down and written out.

mod aim;
mod draw;

use std::fmt;

pub use aim::Aim;
pub use draw::Draw;

/// A world and what happens in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Where the world's chance comes from.
    pub seed: u64,
    /// What the world is like at the beginning.
    pub settings: Settings,
    /// What happens, and when: milliseconds since the beginning. In order, no two at the same time. Anything may be left
    /// out.
    pub ops: Vec<(u64, Op)>,
}

/// What a world is like at the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// What reads the documents.
    pub content: Kind,
    /// How many documents there are.
    pub documents: usize,
    /// How many clients there are.
    pub clients: usize,
    /// Which of them have stores: a bit for each.
    pub stores: u64,
    /// How many nodes the server has.
    pub nodes: usize,
    /// How the network behaves.
    pub sky: Sky,
    /// Changes after which the log is folded; 0: never.
    pub fold_after: u64,
    /// Bytes of the log that are kept then.
    pub keep_bytes: usize,
    /// Bytes of recent frames that a room keeps.
    pub ring_bytes: usize,
    /// Bytes of a snapshot in one message.
    pub piece_bytes: usize,
    /// Whether changes are checked against what the document holds, where the engine can.
    pub checks: bool,
    /// For how many seconds an answer about permissions is good; 0: for ever.
    pub grant_s: u64,
    /// For how many seconds credentials are good; 0: there are none.
    pub credentials_s: u64,
}

/// What reads the documents of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A mergeable map.
    Mergeable,
    /// Nothing: only clients can fold them.
    Unread,
    /// A map that only clients can read.
    Relayed,
    /// A map of yrs.
    Yrs,
}

/// How the network behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sky {
    /// Everything is quick.
    Fair,
    /// Everything takes its time, and nobody notices that anybody is gone.
    Stormy,
    /// The same; attempts to connect fail, connections take little at once, and hints never come.
    Dark,
}

/// What a user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    Nothing,
    /// Read.
    Reading,
    /// Read and write.
    Writing,
}

/// Something that happens. Where it makes no sense, nothing does. Clients, documents and nodes that there are not are those
/// that there are, counted again from the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are what the variants speak of")]
pub enum Op {
    /// A client makes so many edits at once.
    Edit {
        client: usize,
        document: usize,
        n: u64,
    },
    /// A client makes a change in the name of another one's replica, where changes are checked against what is there.
    Forge {
        client: usize,
        other: usize,
        document: usize,
    },
    /// A client's machine is given a change that no server takes.
    EditBadly { client: usize, document: usize },
    /// A client makes an edit that is too large for one frame.
    EditLargely { client: usize, document: usize },
    /// A client opens a document.
    Open { client: usize, document: usize },
    /// A client closes a document.
    Close { client: usize, document: usize },
    /// The application drops what was handed back.
    DropRefused { client: usize, document: usize },
    /// A client says something of itself, or nothing any more.
    Show {
        client: usize,
        document: usize,
        says: bool,
    },
    /// A client says something to everybody who is there.
    Broadcast { client: usize, document: usize },

    /// A client's connection is lost.
    Cut { client: usize },
    /// A client has no network any more.
    GoOffline { client: usize },
    /// A client has a network again.
    GoOnline { client: usize },
    /// The application ends the connection.
    Disconnect { client: usize },
    /// The application has the client connect.
    Reconnect { client: usize },
    /// The server's end of a connection is gone, and nobody tells the client.
    CutBehind { client: usize },
    /// Nothing arrives any more: at the server, at the client, or at both.
    Deafen {
        client: usize,
        server: bool,
        both: bool,
    },
    /// A connection breaks in the middle of the next large message.
    CutInMessage { client: usize },
    /// A client reads nothing for so long.
    Stall { client: usize, ms: u64 },
    /// Each frame to a client takes so much longer than the one before; 0: not any more.
    SlowDown { client: usize, ms: u64 },
    /// The next attempt to connect fails.
    FailDial { client: usize },
    /// The server ends a session.
    EndSession { client: usize },
    /// Something on the way closes a connection with a code.
    CloseConnection { client: usize },
    /// The network behaves otherwise from now on.
    Weather { sky: Sky },

    /// A client's process is killed, and starts again.
    RestartClient { client: usize },
    /// A client's process is killed.
    KillClient { client: usize },
    /// A client's process starts, if there is none.
    StartClient { client: usize },
    /// A device loses its power, and starts again.
    LosePower { client: usize },
    /// A device's store is copied.
    BackupStore { client: usize },
    /// A device's store is put back to the copy.
    RestoreStore { client: usize },
    /// Writes to a store fail, or do not any more.
    FailStore { client: usize, fails: bool },
    /// A device's clock is ahead by so much.
    SetClock { client: usize, ahead_ms: i64 },
    /// A node's clock is ahead by so much.
    SetNodeClock { node: usize, ahead_ms: i64 },

    /// A node's process is killed.
    KillNode { node: usize },
    /// A node's machine is gone.
    LoseNode { node: usize },
    /// A node dies at a call of the registry, before or after it was carried out.
    CrashAtCall { after: u64, is_done: bool },
    /// A node starts, if it is down.
    StartNode { node: usize },
    /// A node sends its clients elsewhere and ends.
    DrainNode { node: usize, ms: u64 },
    /// A client connects to this node from the next time on.
    DialNode { client: usize, node: usize },

    /// The registry is copied.
    Backup,
    /// The registry is put back to the copy.
    Restore,
    /// The registry is lost.
    LoseEverything,
    /// A document is put back to the copy of it, under the same epoch or another.
    RestoreDocument { document: usize, same_epoch: bool },
    /// A document is put back by so many changes, to be rid of them.
    Rewind { document: usize, changes: u64 },
    /// A document's history is forgotten, but for so many changes.
    Trim {
        node: usize,
        document: usize,
        keep: usize,
    },
    /// Rooms append nothing for so long.
    HoldAppends { document: usize, ms: u64 },
    /// The log is folded after so many changes from now on, by rooms that begin; 0: never.
    Fold { after: u64, keep_bytes: usize },
    /// Of a thousand calls of the registry, so many fail, so many are slow, and of so many nobody knows.
    Trouble {
        failed: u64,
        slow: u64,
        unknown: u64,
    },
    /// Nothing can be written, or it can again.
    Fill { is_full: bool },

    /// What a user may do changes; the server is told, or finds out.
    Permit {
        client: usize,
        level: Level,
        is_told: bool,
    },
    /// Nobody answers questions about permissions, or somebody does again.
    Leave { is_away: bool },
    /// What anybody may do with a document may have changed.
    Reauthorize { document: usize },
    /// A client's credentials are refused, or taken again.
    TakeCredentials { client: usize, are_taken: bool },
    /// Hooks veto so many of a thousand changes.
    Veto { per_mille: u64 },
}

/// As a test, to be pasted.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings {
            content,
            documents,
            clients,
            stores,
            nodes,
            sky,
            fold_after,
            keep_bytes,
            ring_bytes,
            piece_bytes,
            checks,
            grant_s,
            credentials_s,
        } = self.settings;
        writeln!(f, "#[test]")?;
        writeln!(f, "fn say_what_should_be_so() {{")?;
        writeln!(f, "    run_planned(Plan {{")?;
        writeln!(f, "        seed: {},", self.seed)?;
        writeln!(f, "        settings: Settings {{")?;
        writeln!(f, "            content: Kind::{content:?},")?;
        writeln!(f, "            documents: {documents},")?;
        writeln!(f, "            clients: {clients},")?;
        writeln!(f, "            stores: {stores:#b},")?;
        writeln!(f, "            nodes: {nodes},")?;
        writeln!(f, "            sky: Sky::{sky:?},")?;
        writeln!(f, "            fold_after: {fold_after},")?;
        writeln!(f, "            keep_bytes: {keep_bytes},")?;
        writeln!(f, "            ring_bytes: {ring_bytes},")?;
        writeln!(f, "            piece_bytes: {piece_bytes},")?;
        writeln!(f, "            checks: {checks},")?;
        writeln!(f, "            grant_s: {grant_s},")?;
        writeln!(f, "            credentials_s: {credentials_s},")?;
        writeln!(f, "        }},")?;
        writeln!(f, "        ops: vec![")?;
        for (at, op) in &self.ops {
            match op {
                Op::Weather { sky } => {
                    writeln!(
                        f,
                        "            ({at}, Op::Weather {{ sky: Sky::{sky:?} }}),"
                    )?;
                }
                Op::Permit {
                    client,
                    level,
                    is_told,
                } => writeln!(
                    f,
                    "            ({at}, Op::Permit {{ client: {client}, level: Level::{level:?}, is_told: {is_told} }}),"
                )?,
                op => writeln!(f, "            ({at}, Op::{op:?}),")?,
            }
        }
        writeln!(f, "        ],")?;
        writeln!(f, "    }});")?;
        writeln!(f, "}}")
    }
}
