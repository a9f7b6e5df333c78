//! Everything at once, at random.

use std::collections::BTreeSet;
use std::time::Duration;

use sync_core::client::SyncPhase;
use sync_core::engine::typed::Typed;
use sync_core::error::ErrorCode;
use sync_core::mergeable::LwwMap;
use sync_core::wire::AccessLevel;
use sync_sim::world::{
    CALM, Hints, ROUGH, RegistryFaults, Restored, Store, World, WorldRegistry, in_memory,
};

type Words = Typed<LwwMap<String, u8>>;

const DOC: &str = "doc";
const CLIENTS: usize = 4;

/// What an edit writes, as nothing else does.
fn word(n: u64) -> String {
    format!("<{n}>")
}

fn holds(change: &[u8], n: u64) -> bool {
    let word = word(n);
    change.windows(word.len()).any(|at| at == word.as_bytes())
}

/// The edits that a client has.
fn edits(world: &World<Words>, client: usize) -> BTreeSet<u64> {
    let number = |word: &String| word.trim_matches(['<', '>']).parse().unwrap();
    world.read(client, DOC, |map| {
        map.iter().map(|(key, _)| number(key)).collect()
    })
}

struct Chaos {
    world: World<Words>,
    seed: u64,
    made: u64,
    /// Edits that a crash may have taken: nobody has promised anything about them.
    lost: BTreeSet<u64>,
    backups: Vec<(usize, u64, Store)>,
    copies: Vec<std::sync::Arc<dyn WorldRegistry>>,
    loses_data: bool,
}

fn begin(seed: u64) -> Chaos {
    let mut world = World::<Words>::on(
        in_memory(),
        seed,
        Words::new(),
        if seed.is_multiple_of(4) { CALM } else { ROUGH },
    );
    let n_nodes = usize::try_from(1 + seed % 3).unwrap();
    for _ in 1..n_nodes {
        world.add_node();
    }
    if seed.is_multiple_of(5) {
        world.weather.hints = Hints::NONE;
    }
    if seed.is_multiple_of(3) {
        world.weather.job_delay_max = Duration::from_millis(300);
    }
    if seed % 7 < 4 {
        world.folding = Some((2 + seed % 5, usize::try_from(seed % 3 * 60).unwrap()));
    }
    if seed % 11 < 3 {
        world.permits.vetoes = Some(40);
    }
    if seed % 13 < 4 {
        world.ring_bytes = 300;
        world.catch_up_bytes = 200;
        world.weather.buffer_bytes = 300;
        world.piece_bytes = 40;
    }
    if seed.is_multiple_of(2) {
        world.faults = RegistryFaults {
            unavailable: 30,
            unknown: 30,
            lost: 30,
            slow: 20,
            slow_max: Duration::from_secs(5),
            ..RegistryFaults::default()
        };
    }
    if seed % 6 == 1 {
        world.permits.valid_for = Some(Duration::from_secs(8));
    }
    if seed % 10 == 3 {
        world.permits.credentials = Some(Duration::from_secs(50));
    }
    for client in 0..CLIENTS {
        world.add_client();
        if !(seed + u64::try_from(client).unwrap()).is_multiple_of(3) {
            world.give_store(client);
        }
        world.open(client, DOC);
    }
    Chaos {
        world,
        seed,
        made: 0,
        lost: BTreeSet::new(),
        backups: Vec::new(),
        copies: Vec::new(),
        loses_data: seed % 9 == 2,
    }
}

impl Chaos {
    fn pick(&mut self) -> usize {
        usize::try_from(self.world.below(CLIENTS as u64)).unwrap()
    }

    /// Whatever the client has may go, and what was handed back to it.
    fn note_lost(&mut self, client: usize) {
        if self.world.has_open(client, DOC) {
            self.lost.extend(edits(&self.world, client));
            let refused = self.world.refused(client, DOC);
            let is_in = |n: &u64| refused.iter().any(|change| holds(&change.bytes, *n));
            self.lost.extend((0..self.made).filter(is_in));
        }
    }

    fn step(&mut self) {
        let client = self.pick();
        let has_store = self.world.clients[client].store.is_some();
        let node = usize::try_from(self.world.below(self.world.n_nodes() as u64)).unwrap();
        match self.world.below(60) {
            0 => self.world.cut(client),
            1 => self.world.cut_behind(client),
            2 => self.world.deafen(
                client,
                self.seed.is_multiple_of(2),
                !self.seed.is_multiple_of(3),
            ),
            3 => self.world.cut_in_message(client),
            4 => {
                let time = Duration::from_millis(self.world.below(6_000));
                self.world.stall(client, time);
            }
            5 => {
                let trickle = Duration::from_millis(self.world.below(60));
                self.world.slow_down(client, trickle);
            }
            6 | 7 => self.world.set_online(client, false),
            8..=11 => self.world.set_online(client, true),
            12 => self.world.kill_node(node),
            13 => self.world.lose_node(node),
            14 => self.world.drain_node(node, Duration::from_secs(2)),
            15..=20 => self.world.start_node(node),
            21 if has_store => {
                self.world.restart_client(client);
                let pause = Duration::from_millis(self.world.below(2) * self.world.below(2_000));
                self.world.run_for(pause);
                self.world.open(client, DOC);
            }
            22 if has_store => {
                self.note_lost(client);
                self.world.lose_power(client);
                self.world.open(client, DOC);
            }
            23 if has_store => {
                let store = self.world.backup_store(client).unwrap();
                self.backups.push((client, self.made, store));
            }
            24 if !self.backups.is_empty() && self.world.below(3) == 0 => {
                let at = usize::try_from(self.world.below(self.backups.len() as u64)).unwrap();
                let (client, _, store) = self.backups[at].clone();
                self.note_lost(client);
                self.world.restore_store(client, store);
                self.world.open(client, DOC);
            }
            // Without a store, what only this client has would be gone with it.
            25 if has_store || !self.loses_data => self.world.close(client, DOC),
            26..=29 => self.world.open(client, DOC),
            30 => {
                let at = usize::try_from(self.world.below(ErrorCode::ALL.len() as u64)).unwrap();
                self.world.end_session(client, ErrorCode::ALL[at]);
            }
            31 => self.world.close_connection(client, 1006),
            32 | 33 => self.world.reconnect(client),
            34 if self.seed % 6 == 1 || self.seed % 6 == 4 => {
                let level = [AccessLevel::None, AccessLevel::Read, AccessLevel::Write];
                let level = level[usize::try_from(self.world.below(3)).unwrap()];
                let told = self.world.permits.valid_for.is_none() || self.world.below(2) == 0;
                self.world.permit(client, level, told);
            }
            35 => self.world.permit(client, AccessLevel::Write, true),
            36 if self.seed % 8 == 5 => {
                let _ = self.world.trim(node, DOC, 2);
            }
            37 if self.loses_data => self.copies.push(self.world.registry.backup()),
            38 if self.loses_data && !self.copies.is_empty() && self.world.below(3) == 0 => {
                let at = usize::try_from(self.world.below(self.copies.len() as u64)).unwrap();
                let copy = self.copies[at].clone();
                match self.world.below(3) {
                    0 => self.world.restore(copy.backup()),
                    1 => drop(self.world.restore_document(DOC, &*copy, Restored::NewEpoch)),
                    _ => drop(
                        self.world
                            .restore_document(DOC, &*copy, Restored::SameEpoch),
                    ),
                }
            }
            39 => self.world.permits.is_away = self.world.below(3) == 0,
            _ => {
                let n = self.made;
                if self
                    .world
                    .edit(client, DOC, |map| map.insert(word(n), 0).unwrap())
                {
                    self.made += 1;
                }
            }
        }
        let pause = Duration::from_millis(self.world.below(500));
        self.world.run_for(pause);
    }

    fn finish(mut self) {
        let seed = self.seed;
        let world = &mut self.world;
        world.run_for(Duration::from_secs(20));
        world.faults = RegistryFaults::default();
        world.permits.is_away = false;
        world.permits.vetoes = world.permits.vetoes.map(|_| 0);
        world.start_server();
        world.run_for(Duration::from_secs(30));
        world.start_server();
        for client in 0..CLIENTS {
            world.slow_down(client, Duration::ZERO);
            world.permit(client, AccessLevel::Write, true);
            world.set_online(client, true);
            world.reconnect(client);
            world.open(client, DOC);
        }
        world.run_for(Duration::from_secs(60));
        for client in 0..CLIENTS {
            if matches!(world.sync_state(client, DOC).phase, SyncPhase::Refused(_)) {
                world.open(client, DOC);
            }
        }
        world.settle(DOC);
        world.assert_converged(DOC);
        let there = edits(world, 0);
        let refused: Vec<_> = (0..CLIENTS)
            .flat_map(|client| world.refused(client, DOC))
            .collect();
        for n in 0..self.made {
            let is_refused = refused.iter().any(|change| holds(&change.bytes, n));
            assert!(
                there.contains(&n) || is_refused || self.lost.contains(&n),
                "seed {seed}: edit {n} is missing"
            );
        }
        let ids: BTreeSet<_> = refused
            .iter()
            .map(|change| (change.id, &change.bytes))
            .collect();
        assert_eq!(ids.len(), refused.len(), "seed {seed}: handed back twice");
        let log = world.log(DOC);
        if !self.loses_data && seed % 8 != 5 && self.backups.is_empty() {
            assert_eq!(
                log.iter()
                    .map(|row| &row.bytes)
                    .collect::<BTreeSet<_>>()
                    .len(),
                log.len(),
                "seed {seed}: a change is in the log twice"
            );
        }
    }
}

#[test]
fn whatever_happens_everybody_ends_up_with_the_same_and_nothing_is_missing() {
    let first: u64 = std::env::var("SEED").map_or(1, |seed| seed.parse().unwrap());
    let n: u64 = std::env::var("SEEDS").map_or(100, |seeds| seeds.parse().unwrap());
    for seed in first..first + n {
        println!("seed {seed}");
        let mut chaos = begin(seed);
        for _ in 0..80 {
            chaos.step();
        }
        chaos.finish();
    }
}
