//! Runs a plan, and looks at every step whether all is well.

mod ops;
mod rest;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use sync_core::engine::opaque::Opaque;
use sync_core::engine::yrs::Yrs;
use sync_core::ids::DocumentId;
use sync_core::planted::Bug;
use sync_core::rng::Rng;
use sync_core::time::Time;

use crate::content::{Content, Map, Mark, Picky, Relayed, marks_in};
use crate::coverage::Coverage;
use crate::model::{Model, Stored, Violation};
use crate::plan::{Kind, Op, Plan, Sky};
use crate::quiet;
use crate::record::Recorded;
use crate::world::{
    BuggyRegistry, CALM, DriverBug, Hints, ROUGH, RegistryBug, Store, Weather, World, id, in_memory,
};

/// What is wrong with the world, to see that it is found. By default nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bugs {
    /// In the machines.
    pub machine: Option<Bug>,
    /// In the registry.
    pub registry: Option<RegistryBug>,
    /// In stores: a write says where the document stands before it puts the document there.
    pub saves_cursor_first: bool,
    /// In what drives the server's machines.
    pub driver: Option<DriverBug>,
}

/// Runs a plan to its end, and until the world has come to rest.
///
/// # Errors
///
/// The first rule that was broken.
pub fn run(plan: &Plan) -> Result<Coverage, Violation> {
    run_with(plan, Bugs::default())
}

/// The same in a world with bugs.
///
/// # Errors
///
/// As [`run`].
pub fn run_with(plan: &Plan, bugs: Bugs) -> Result<Coverage, Violation> {
    match plan.settings.content {
        Kind::Mergeable => run_as::<Map>(plan, bugs),
        Kind::Unread => run_as::<Opaque>(plan, bugs),
        Kind::Relayed => run_as::<Relayed>(plan, bugs),
        Kind::Yrs => run_as::<Yrs>(plan, bugs),
    }
}

/// Runs a plan.
///
/// # Panics
///
/// If a rule is broken: says which.
#[track_caller]
pub fn run_planned(plan: &Plan) {
    if let Err(violation) = run(plan) {
        panic!("{violation}");
    }
}

fn run_as<C: Content>(plan: &Plan, bugs: Bugs) -> Result<Coverage, Violation> {
    let mut runner = Runner::<C>::new(plan, bugs);
    let result = quiet::catch(AssertUnwindSafe(|| runner.run(plan)));
    let at_ms = runner.now_ms();
    match result {
        Ok(Ok(())) => Ok(runner.into_coverage(plan)),
        Ok(Err(violation)) => Err(violation),
        Err(message) => Err(Violation {
            kind: "panic",
            what: message,
            at_ms,
        }),
    }
}

pub(crate) struct Runner<C: Content> {
    pub(crate) world: World<C>,
    pub(crate) registry: Arc<Recorded>,
    pub(crate) model: Model,
    bugs: Bugs,
    seed: u64,
    documents: usize,
    nodes: usize,
    backup: Option<Arc<Recorded>>,
    stores: BTreeMap<usize, Store>,
    watched: watch::Watched,
    began: Time,
}

impl<C: Content> Runner<C> {
    fn new(plan: &Plan, bugs: Bugs) -> Self {
        let settings = &plan.settings;
        let inner = match bugs.registry {
            Some(bug) => Arc::new(BuggyRegistry::new(bug)),
            None => in_memory(),
        };
        let registry = Arc::new(Recorded::new(inner));
        let weather = weather_of(settings.sky);
        let mut world = World::on(
            registry.clone(),
            plan.seed,
            <C as Content>::engine(),
            weather,
        );
        world.planted = bugs.machine;
        world.driver_bug = bugs.driver;
        world.keeps_traffic = false;
        if !matches!(plan.settings.content, Kind::Unread | Kind::Relayed) {
            world.validator = Some(Arc::new(Picky(<C as Content>::engine())));
        }
        world.checks = settings.checks;
        world.folding =
            (settings.fold_after > 0).then_some((settings.fold_after, settings.keep_bytes));
        world.ring_bytes = settings.ring_bytes;
        world.piece_bytes = settings.piece_bytes;
        if settings.grant_s > 0 {
            world.permits.valid_for = Some(Duration::from_secs(settings.grant_s));
        }
        if settings.credentials_s > 0 {
            world.permits.credentials = Some(Duration::from_secs(settings.credentials_s));
        }
        let began = world.now;
        Self {
            world,
            registry,
            model: Model::default(),
            bugs,
            seed: plan.seed,
            documents: settings.documents.max(1),
            nodes: settings.nodes.max(1),
            backup: None,
            stores: BTreeMap::new(),
            watched: watch::Watched::default(),
            began,
        }
    }

    fn run(&mut self, plan: &Plan) -> Result<(), Violation> {
        for _ in 1..self.nodes {
            self.world.add_node();
        }
        for client in 0..plan.settings.clients.max(1) {
            self.world.add_client();
            if plan.settings.stores & (1 << client) != 0 {
                self.world.give_store(client);
                self.arm_store(client);
            }
        }
        for (at, op) in &plan.ops {
            self.go_to(self.began + Duration::from_millis(*at))?;
            // What is left out of a plan does not change what is drawn after what is not.
            let seed = u128::from(self.seed) << 64 | u128::from(*at);
            self.world.rng = Rng::new(Rng::new(seed).next_u128());
            self.perform(*op)?;
            self.watch()?;
        }
        self.come_to_rest()
    }

    /// Looks now and then.
    fn go_to(&mut self, end: Time) -> Result<(), Violation> {
        const LOOK: Duration = Duration::from_secs(2);
        while self.world.now < end {
            let left = end.since(self.world.now);
            self.world.run_for(left.min(LOOK));
            self.watch()?;
        }
        Ok(())
    }

    fn arm_store(&mut self, client: usize) {
        if let Some(store) = &mut self.world.clients[client].store {
            store.saves_cursor_first = self.bugs.saves_cursor_first;
        }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        let since = self.world.now.since(self.began);
        u64::try_from(since.as_millis()).unwrap()
    }

    pub(crate) fn violation<T>(
        &self,
        kind: &'static str,
        what: impl Into<String>,
    ) -> Result<T, Violation> {
        Err(Violation {
            kind,
            what: what.into(),
            at_ms: self.now_ms(),
        })
    }

    pub(crate) fn clients(&self) -> std::ops::Range<usize> {
        0..self.world.clients.len()
    }

    /// Marks that a client shows in a document that it has open.
    pub(crate) fn shown(&self, client: usize, document: usize) -> Option<Vec<u8>> {
        let name = name_of(document);
        let has = self.world.has_open(client, &name);
        has.then(|| self.world.read(client, &name, |read| C::shown(read)))
    }

    /// What a store has, by document.
    pub(crate) fn stored(&self, store: &Store) -> BTreeMap<usize, Stored> {
        let found = (0..self.documents).filter_map(|document| {
            let there = store.documents.get(&id_of(document))?;
            let mut stored = Stored::default();
            for change in &there.outbox {
                stored.outbox.extend(marks_in(&change.bytes));
            }
            for change in &there.refused {
                stored.refused.extend(marks_in(&change.bytes));
            }
            for bytes in there.snapshot.iter().chain(&there.tail) {
                stored.all.extend(marks_in(bytes));
            }
            stored.all.extend(&stored.outbox);
            Some((document, stored))
        });
        found.collect()
    }

    /// Who has a mark, on the screen or in a store.
    pub(crate) fn holders(&self, document: usize) -> BTreeMap<Mark, BTreeSet<usize>> {
        let mut holders: BTreeMap<Mark, BTreeSet<usize>> = BTreeMap::new();
        for client in self.clients() {
            let mut marks = marks_in(&self.shown(client, document).unwrap_or_default());
            if let Some(store) = &self.world.clients[client].store {
                let stored = self.stored(store);
                marks.extend(stored.get(&document).iter().flat_map(|it| &it.all));
            }
            for mark in marks {
                holders.entry(mark).or_default().insert(client);
            }
        }
        holders
    }

    fn into_coverage(self, plan: &Plan) -> Coverage {
        let mut coverage = Coverage::default();
        coverage.add_world(&self.world.counts);
        coverage.add(self.watched.counts);
        coverage.add_plan(plan);
        coverage
    }
}

pub(crate) fn name_of(document: usize) -> String {
    format!("doc-{document}")
}

pub(crate) fn id_of(document: usize) -> DocumentId {
    id(&name_of(document))
}

fn weather_of(sky: Sky) -> Weather {
    match sky {
        Sky::Fair => CALM,
        Sky::Stormy => Weather {
            job_delay_max: Duration::from_millis(20),
            ..ROUGH
        },
        Sky::Dark => Weather {
            job_delay_max: Duration::from_millis(200),
            dial_failures: 200,
            buffer_bytes: 300,
            hints: Hints::NONE,
            ..ROUGH
        },
    }
}

impl Op {
    /// What coverage calls it.
    #[must_use]
    pub fn name(&self) -> String {
        let shown = format!("{self:?}");
        shown
            .split([' ', '{'])
            .next()
            .unwrap_or_default()
            .to_owned()
    }
}
