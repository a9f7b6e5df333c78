//! The bugs that the simulator has to find, and the plans in which each shows.

use sync_core::planted::Bug;

use crate::plan::{Aim, Draw, Kind, Level, Op, Plan, Settings, Sky};
use crate::run::Bugs;
use crate::world::{DriverBug, RegistryBug};

/// A bug, and how to look for it.
#[derive(Debug, Clone, Copy)]
pub struct Planted {
    /// What is wrong.
    pub name: &'static str,
    /// Where.
    pub bugs: Bugs,
    /// What plans are drawn towards; `None`: plans of all kinds.
    pub aim: Option<&'static Aim>,
}

impl Planted {
    /// The plan of a seed.
    #[must_use]
    pub fn plan(&self, seed: u64) -> Plan {
        match self.aim {
            Some(aim) => Plan::draw_towards(seed, aim),
            None => Plan::draw(seed),
        }
    }
}

/// All of them.
pub const PLANTED: [Planted; 20] = [
    machine("ack before commit", Bug::AckBeforeCommit, None),
    registry("tail dropped in compaction", RegistryBug::TailDropped),
    Planted {
        name: "cursor saved before the document",
        bugs: Bugs {
            saves_cursor_first: true,
            ..NONE
        },
        aim: Some(&KILLED_DEVICES),
    },
    registry("duplicate table lost at restart", RegistryBug::OriginsLost),
    registry("epoch not changed after a rewind", RegistryBug::EpochKept),
    machine("presence kept after disconnect", Bug::PresenceKept, None),
    machine("lagging session skipped", Bug::LaggingSessionSkipped, None),
    machine("digest ignored", Bug::DigestIgnored, None),
    machine("evicted origin refused", Bug::EvictedOriginRefused, None),
    machine(
        "refusal lets a later origin through",
        Bug::RefusalOvertaken,
        Some(&VETOED_BACKLOGS),
    ),
    driver(
        "last hint dropped without a poll",
        DriverBug::NeverPolls,
        Some(&DEAF_NODES),
    ),
    machine(
        "reset from a lagging node's memory",
        Bug::ResetFromMemory,
        None,
    ),
    driver(
        "fold from a validation replica",
        DriverBug::FoldsUncommitted,
        None,
    ),
    machine(
        "fold offered with an outbox",
        Bug::FoldWithOutbox,
        Some(&RELAYED_FOLDS),
    ),
    machine(
        "revocation between append and ring read",
        Bug::RevocationIgnoredByRing,
        Some(&REVOCATIONS),
    ),
    machine(
        "fragment ids collide between rooms",
        Bug::FragmentIdsCollide,
        Some(&LARGE_EDITS),
    ),
    machine(
        "append of unknown outcome taken for a failure",
        Bug::UnknownAppendFailed,
        None,
    ),
    machine(
        "lost ack followed by a rebase",
        Bug::LostAckReplayed,
        Some(&TRIMS),
    ),
    machine(
        "authorize error empties an outbox",
        Bug::AuthorizeErrorRefuses,
        None,
    ),
    machine(
        "forged engine clock accepted",
        Bug::ForgedClockAccepted,
        Some(&FORGERS),
    ),
];

const NONE: Bugs = Bugs {
    machine: None,
    registry: None,
    saves_cursor_first: false,
    driver: None,
};

const fn machine(name: &'static str, bug: Bug, aim: Option<&'static Aim>) -> Planted {
    let bugs = Bugs {
        machine: Some(bug),
        ..NONE
    };
    Planted { name, bugs, aim }
}

const fn registry(name: &'static str, bug: RegistryBug) -> Planted {
    let bugs = Bugs {
        registry: Some(bug),
        ..NONE
    };
    Planted {
        name,
        bugs,
        aim: None,
    }
}

const fn driver(name: &'static str, bug: DriverBug, aim: Option<&'static Aim>) -> Planted {
    let bugs = Bugs {
        driver: Some(bug),
        ..NONE
    };
    Planted { name, bugs, aim }
}

fn edits(draw: &mut Draw) -> Vec<Op> {
    vec![Op::Edit {
        client: draw.client(),
        document: draw.document(),
        n: draw.pick([1, 2, 5]),
    }]
}

/// Devices that are killed while they write.
const KILLED_DEVICES: Aim = Aim {
    settings: |_| Settings {
        stores: u64::MAX,
        sky: Sky::Stormy,
        clients: 3,
        ..Settings::SMALL
    },
    turns: &[edits, |draw| {
        let (client, document) = (draw.client(), draw.document());
        vec![
            Op::Edit {
                client: draw.client(),
                document,
                n: 3,
            },
            Op::RestartClient { client },
            Op::Open { client, document },
        ]
    }],
};

/// Changes of several processes that wait in one outbox, and hooks that do not like some.
const VETOED_BACKLOGS: Aim = Aim {
    settings: |draw| Settings {
        stores: u64::MAX,
        sky: draw.pick([Sky::Fair, Sky::Stormy]),
        ..Settings::SMALL
    },
    turns: &[
        |draw| {
            let (client, document) = (draw.client(), draw.document());
            vec![
                Op::Veto { per_mille: 200 },
                Op::GoOffline { client },
                Op::Edit {
                    client,
                    document,
                    n: 4,
                },
                Op::RestartClient { client },
                Op::Open { client, document },
                Op::Edit {
                    client,
                    document,
                    n: 4,
                },
                Op::GoOnline { client },
            ]
        },
        edits,
    ],
};

/// Nodes that hear nothing of each other but what they ask for.
const DEAF_NODES: Aim = Aim {
    settings: |draw| Settings {
        nodes: 2,
        clients: draw.pick([2, 3, 4]),
        sky: Sky::Dark,
        ..Settings::SMALL
    },
    turns: &[edits],
};

/// Clients that fold what the server only relays, and go on editing.
const RELAYED_FOLDS: Aim = Aim {
    settings: |draw| Settings {
        content: Kind::Relayed,
        fold_after: 2,
        sky: draw.pick([Sky::Fair, Sky::Stormy]),
        ..Settings::SMALL
    },
    turns: &[edits],
};

/// Users that may not read any more, while others write.
const REVOCATIONS: Aim = Aim {
    settings: |draw| Settings {
        clients: 3,
        sky: draw.pick([Sky::Fair, Sky::Stormy]),
        ..Settings::SMALL
    },
    turns: &[
        |draw| {
            let (client, document) = (draw.client(), draw.document());
            let mut ops = edits(draw);
            ops.push(Op::Leave {
                is_away: draw.below(2) == 0,
            });
            ops.push(Op::Permit {
                client,
                level: Level::Nothing,
                is_told: true,
            });
            for other in 1..3 {
                ops.push(Op::Edit {
                    client: client + other,
                    document,
                    n: 2,
                });
            }
            ops
        },
        |draw| {
            let client = draw.client();
            vec![
                Op::Leave { is_away: false },
                Op::Permit {
                    client,
                    level: Level::Writing,
                    is_told: true,
                },
                Op::Reconnect { client },
            ]
        },
    ],
};

/// Edits that travel in parts, in two documents at once.
const LARGE_EDITS: Aim = Aim {
    settings: |draw| Settings {
        documents: 2,
        clients: 3,
        sky: draw.pick([Sky::Fair, Sky::Stormy]),
        ..Settings::SMALL
    },
    turns: &[edits, edits, edits, |draw| {
        let client = draw.client();
        let edit = |client, document| Op::EditLargely { client, document };
        vec![edit(client, 0), edit(client + 1, 1)]
    }],
};

/// Documents whose history is forgotten while somebody waits for an answer.
const TRIMS: Aim = Aim {
    settings: |draw| Settings {
        sky: Sky::Stormy,
        stores: draw.pick([0, 1]),
        ..Settings::SMALL
    },
    turns: &[edits, |draw| {
        let (client, document) = (draw.client(), draw.document());
        vec![
            Op::Edit {
                client,
                document,
                n: 2,
            },
            Op::GoOffline { client },
            Op::Edit {
                client: client + 1,
                document,
                n: 1,
            },
            Op::Trim {
                node: 0,
                document,
                keep: 0,
            },
            Op::GoOnline { client },
        ]
    }],
};

/// Users that write in the name of others' replicas.
const FORGERS: Aim = Aim {
    settings: |draw| Settings {
        content: Kind::Yrs,
        checks: true,
        clients: 3,
        sky: draw.pick([Sky::Fair, Sky::Stormy]),
        ..Settings::SMALL
    },
    turns: &[edits, |draw| {
        let (client, document) = (draw.client(), draw.document());
        vec![
            Op::Forge {
                client,
                other: client + 1,
                document,
            },
            Op::Edit {
                client: client + 1,
                document,
                n: 1,
            },
        ]
    }],
};
