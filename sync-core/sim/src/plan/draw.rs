//! Plans drawn from seeds, or from what a fuzzer writes.

use sync_core::rng::Rng;

use super::{Kind, Level, Op, Plan, Settings, Sky};

/// Draws with a generator.
#[derive(Debug)]
pub struct Draw {
    source: Source,
    pub(super) settings: Settings,
    /// What is wrong and to be put right: happens later in the plan.
    themes: u64,
}

/// What decides.
#[derive(Debug)]
enum Source {
    Chance(Rng),
    /// Bytes, the next one last. Past their end everything is zero.
    Written(Vec<u8>),
}

impl Draw {
    pub(super) fn of(seed: u64) -> Self {
        let rng = Rng::new((u128::from(seed) << 64) | u128::from(seed ^ 0x5eed));
        Self::from(Source::Chance(rng))
    }

    const fn from(source: Source) -> Self {
        Self {
            source,
            settings: Settings::SMALL,
            themes: 0,
        }
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        let drawn = match &mut self.source {
            Source::Chance(rng) => rng.next_u64(),
            Source::Written(bytes) => {
                let mut byte = || u64::from(bytes.pop().unwrap_or(0));
                if n <= 256 {
                    byte()
                } else {
                    byte() << 8 | byte()
                }
            }
        };
        drawn % n
    }

    /// Whether anything is left to draw from.
    const fn is_over(&self) -> bool {
        matches!(&self.source, Source::Written(bytes) if bytes.is_empty())
    }

    /// An index below `n`.
    pub fn one_of(&mut self, n: usize) -> usize {
        usize::try_from(self.below(n as u64)).unwrap()
    }

    /// One of these.
    pub fn pick<T: Copy, const N: usize>(&mut self, of: [T; N]) -> T {
        of[self.one_of(N)]
    }

    pub(super) fn happens(&mut self, per_cent: u64) -> bool {
        self.below(100) < per_cent
    }

    /// One of the clients.
    pub fn client(&mut self) -> usize {
        self.one_of(self.settings.clients)
    }

    /// One of the documents.
    pub fn document(&mut self) -> usize {
        self.one_of(self.settings.documents)
    }

    /// One of the nodes.
    pub fn node(&mut self) -> usize {
        self.one_of(self.settings.nodes)
    }

    fn has_theme(&self, theme: u64) -> bool {
        self.themes & (1 << theme) != 0
    }
}

/// Groups of things that go wrong. A plan has some: all at once hide each other.
const NETWORK: u64 = 0;
const DEVICES: u64 = 1;
const NODES: u64 = 2;
const HISTORY: u64 = 3;
const REGISTRY: u64 = 4;
const PERMISSIONS: u64 = 5;
const REFUSALS: u64 = 6;
const EPHEMERAL: u64 = 7;
const FOLDS: u64 = 8;
const THEMES: u64 = 9;

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        Self::of(Draw::of(seed), seed)
    }

    /// The plan that bytes stand for: any bytes do. They decide where [`draw`](Self::draw) has chance decide, until they end.
    #[must_use]
    pub fn written(bytes: &[u8]) -> Self {
        let (seed, rest) = bytes
            .split_first()
            .map_or((0, bytes), |(&seed, rest)| (seed, rest));
        let rest = rest.iter().rev().copied().collect();
        Self::of(Draw::from(Source::Written(rest)), seed.into())
    }

    fn of(mut draw: Draw, seed: u64) -> Self {
        for _ in 0..2 + draw.below(3) {
            draw.themes |= 1 << draw.below(THEMES);
        }
        draw.settings = draw.settings();
        let n = 20 + draw.below(30);
        let mut at = 0;
        let mut ops = Vec::new();
        for client in 0..draw.settings.clients {
            for document in 0..draw.settings.documents {
                if document == 0 || draw.happens(60) {
                    at += 1;
                    ops.push((at, Op::Open { client, document }));
                }
            }
        }
        for _ in 0..n {
            if draw.is_over() {
                break;
            }
            at += draw.pause();
            ops.push((at, draw.op()));
        }
        Self {
            seed,
            settings: draw.settings,
            ops,
        }
    }
}

impl Settings {
    /// One document, two clients, one node, fair weather.
    pub const SMALL: Self = Self {
        content: Kind::Mergeable,
        documents: 1,
        clients: 2,
        stores: 0,
        nodes: 1,
        sky: Sky::Fair,
        fold_after: 0,
        keep_bytes: 0,
        ring_bytes: 1 << 20,
        piece_bytes: 32 * 1024,
        checks: false,
        grant_s: 0,
        credentials_s: 0,
    };
}

impl Draw {
    fn settings(&mut self) -> Settings {
        let folds = self.has_theme(FOLDS) || self.happens(20);
        Settings {
            content: if self.happens(88) {
                Kind::Mergeable
            } else {
                Kind::Unread
            },
            documents: self.pick([1, 1, 1, 2]),
            clients: self.pick([2, 2, 3, 3, 4]),
            stores: if self.has_theme(DEVICES) || self.happens(30) {
                self.below(16)
            } else {
                0
            },
            nodes: if self.has_theme(NODES) || self.happens(15) {
                self.pick([1, 2, 2, 3])
            } else {
                1
            },
            sky: if self.has_theme(NETWORK) {
                self.pick([Sky::Fair, Sky::Stormy, Sky::Dark])
            } else {
                self.pick([Sky::Fair, Sky::Fair, Sky::Stormy])
            },
            fold_after: if folds { 2 + self.below(8) } else { 0 },
            keep_bytes: self.pick([0, 60, 400]),
            ring_bytes: self.pick([1 << 20, 1 << 20, 200]),
            piece_bytes: self.pick([32 * 1024, 40, 16]),
            checks: self.happens(25),
            grant_s: if self.has_theme(PERMISSIONS) {
                self.pick([0, 8])
            } else {
                0
            },
            credentials_s: if self.has_theme(PERMISSIONS) && self.happens(30) {
                20
            } else {
                0
            },
        }
    }

    pub(super) fn pause(&mut self) -> u64 {
        1 + match self.below(20) {
            0..=7 => self.below(30),
            8..=13 => self.below(400),
            14..=17 => self.below(2_000),
            18 => self.below(8_000),
            _ => self.below(40_000),
        }
    }

    pub(super) fn op(&mut self) -> Op {
        let theme = self.below(THEMES * 2);
        if theme < THEMES && self.has_theme(theme) {
            return match theme {
                NETWORK => self.network(),
                DEVICES => self.device(),
                NODES => self.server(),
                HISTORY => self.history(),
                REGISTRY => self.registry(),
                PERMISSIONS => self.permission(),
                REFUSALS => self.refusal(),
                EPHEMERAL => self.ephemeral(),
                _ => self.folding(),
            };
        }
        let (client, document) = (self.client(), self.document());
        match self.below(20) {
            0 => Op::Cut { client },
            1 => Op::GoOffline { client },
            2 | 3 => Op::GoOnline { client },
            4 => Op::Open { client, document },
            5 => Op::Close { client, document },
            _ => Op::Edit {
                client,
                document,
                n: self.pick([1, 1, 1, 2, 5]),
            },
        }
    }

    fn network(&mut self) -> Op {
        let client = self.client();
        match self.below(16) {
            0 | 1 => Op::Cut { client },
            2 => Op::CutBehind { client },
            3 => Op::Deafen {
                client,
                server: self.happens(50),
                both: self.happens(30),
            },
            4 if self.happens(50) => Op::EditLargely {
                client,
                document: self.document(),
            },
            4 => Op::CutInMessage { client },
            5 => Op::Stall {
                client,
                ms: self.pick([300, 3_000, 30_000]),
            },
            6 => Op::SlowDown {
                client,
                ms: self.pick([0, 20, 400]),
            },
            7 => Op::FailDial { client },
            8 => Op::EndSession { client },
            9 => Op::CloseConnection { client },
            10 => Op::Weather {
                sky: self.pick([Sky::Fair, Sky::Stormy, Sky::Dark]),
            },
            11 => Op::Disconnect { client },
            12 | 13 => Op::Reconnect { client },
            14 => Op::GoOffline { client },
            _ => Op::GoOnline { client },
        }
    }

    fn device(&mut self) -> Op {
        let client = self.client();
        match self.below(11) {
            0..=2 => Op::RestartClient { client },
            3 => Op::KillClient { client },
            4 => Op::StartClient { client },
            5 => Op::LosePower { client },
            6 => Op::BackupStore { client },
            7 => Op::RestoreStore { client },
            8 => Op::FailStore {
                client,
                fails: self.happens(50),
            },
            9 => Op::SetClock {
                client,
                ahead_ms: self.pick([0, -3_600_000, 86_400_000, 400 * 86_400_000]),
            },
            _ => Op::SetNodeClock {
                node: self.node(),
                ahead_ms: self.pick([0, -3_600_000, 86_400_000]),
            },
        }
    }

    fn server(&mut self) -> Op {
        let node = self.node();
        match self.below(10) {
            0 | 1 => Op::KillNode { node },
            2 => Op::LoseNode { node },
            3 => Op::CrashAtCall {
                after: self.below(6),
                is_done: self.happens(50),
            },
            4 => Op::DrainNode {
                node,
                ms: self.pick([0, 1_000, 10_000]),
            },
            5 => Op::DialNode {
                client: self.client(),
                node,
            },
            _ => Op::StartNode { node },
        }
    }

    fn history(&mut self) -> Op {
        let document = self.document();
        match self.below(9) {
            0..=2 => Op::Backup,
            3 => Op::Restore,
            4 => Op::LoseEverything,
            5 | 6 => Op::RestoreDocument {
                document,
                same_epoch: self.happens(50),
            },
            7 => Op::Rewind {
                document,
                changes: 1 + self.below(4),
            },
            _ => Op::Trim {
                node: self.node(),
                document,
                keep: self.one_of(4),
            },
        }
    }

    fn registry(&mut self) -> Op {
        match self.below(6) {
            0 | 1 => Op::Trouble {
                failed: self.pick([0, 50, 300]),
                slow: self.pick([0, 0, 100]),
                unknown: self.pick([0, 100, 400]),
            },
            2 => Op::Trouble {
                failed: 0,
                slow: 0,
                unknown: 0,
            },
            3 => Op::Fill {
                is_full: self.happens(50),
            },
            4 => Op::HoldAppends {
                document: self.document(),
                ms: self.pick([100, 2_000]),
            },
            _ => Op::CrashAtCall {
                after: self.below(10),
                is_done: self.happens(50),
            },
        }
    }

    fn permission(&mut self) -> Op {
        let client = self.client();
        match self.below(10) {
            0..=3 => Op::Permit {
                client,
                level: self.pick([Level::Nothing, Level::Reading]),
                is_told: self.happens(70),
            },
            4..=6 => Op::Permit {
                client,
                level: Level::Writing,
                is_told: true,
            },
            7 => Op::Leave {
                is_away: self.happens(50),
            },
            8 => Op::Reauthorize {
                document: self.document(),
            },
            _ => Op::TakeCredentials {
                client,
                are_taken: self.happens(60),
            },
        }
    }

    fn refusal(&mut self) -> Op {
        let (client, document) = (self.client(), self.document());
        match self.below(5) {
            0..=2 => Op::EditBadly { client, document },
            3 => Op::Veto {
                per_mille: self.pick([0, 0, 200]),
            },
            _ => Op::DropRefused { client, document },
        }
    }

    fn ephemeral(&mut self) -> Op {
        let (client, document) = (self.client(), self.document());
        match self.below(4) {
            0 => Op::Broadcast { client, document },
            says => Op::Show {
                client,
                document,
                says: says > 1,
            },
        }
    }

    fn folding(&mut self) -> Op {
        Op::Fold {
            after: self.pick([0, 2, 3, 8]),
            keep_bytes: self.pick([0, 60, 400]),
        }
    }
}
