//! The run: lanes that push mutated bytes, honest documents beside them, and what may never be.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sync_core::engine::suite::{LoroProbe, Probe, YrsProbe};
use sync_core::engine::{Document, Engine, ReplicaSeed};
use sync_server::registry::{Epoch, MemoryRegistry, NewDocument, Seq, ServerRegistry, Snapshot};
use sync_server::{Anonymous, DocumentId, EngineId, Server, ServerEvent, Workers};

use super::corpus::{KINDS, Sample, sample};
use super::engines;
use super::mutate::mutate;
use super::peer::{Broken, HostilePeer, Said};
use crate::random::SplitMix;

/// Cases of one document before the next begins.
const CASES_PER_DOCUMENT: u64 = 64;

/// Honest writers pause so long between two changes.
const PAUSE: Duration = Duration::from_millis(5);

/// Times that a client tries again what could not be checked, before that counts as wrong.
const LATER_MAX: u32 = 50;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Mutated inputs, over all engines.
    pub cases: u64,
    /// Where randomness starts.
    pub seed: u64,
    /// Only this engine's, if one is named.
    pub only: Option<EngineId>,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// Mutated inputs.
    pub cases: u64,
    /// Of these, logged: their engines take them.
    pub committed: u64,
    /// Refused, each by its id.
    pub refused: u64,
    /// Mutated snapshots that were stored already, and so could not be refused.
    pub stored: u64,
    /// Times that a client was told to try again.
    pub later: u64,
    /// Changes that killed, and the smallest of them, by engine.
    pub killers: BTreeMap<EngineId, (u64, Bytes)>,
    /// Workers that died.
    pub deaths: u64,
    /// Documents that were relayed, because what is stored of them kills.
    pub relayed: u64,
    /// Refused changes that reached somebody.
    pub leaked: u64,
    /// Microseconds until honest changes of other documents were acknowledged, while the lanes sent honest bytes: the median,
    /// and what 99 in 100 stayed below.
    pub honest: (u64, u64),
    /// The same, while they sent mutated ones.
    pub hostile: (u64, u64),
    /// How long it took.
    pub took: Duration,
}

impl Report {
    /// Whether nothing happened that may not.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.leaked == 0
            && self.committed + self.refused + self.stored == self.cases
            && self.hostile.1 <= self.honest.1 * 2
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} mutated inputs in {:.0?}: {} taken, {} refused by id, {} stored beforehand",
            self.cases, self.took, self.committed, self.refused, self.stored
        )?;
        writeln!(
            f,
            "{} workers died, {} documents were relayed, {} times a client was told to try again",
            self.deaths, self.relayed, self.later
        )?;
        for (engine, (n, smallest)) in &self.killers {
            let hex: String = smallest.iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(
                f,
                "{}: {n} changes killed, the smallest of {} bytes: {hex}",
                engine.as_str(),
                smallest.len()
            )?;
        }
        writeln!(f, "{} refused changes reached somebody", self.leaked)?;
        write!(
            f,
            "other documents, median and p99 in us: {:?} beside honest clients, {:?} beside hostile ones",
            self.honest, self.hostile
        )
    }
}

impl Report {
    fn note_killer(&mut self, engine: &EngineId, bytes: &Bytes) {
        let (n, smallest) = self
            .killers
            .entry(engine.clone())
            .or_insert_with(|| (0, bytes.clone()));
        *n += 1;
        if bytes.len() < smallest.len() {
            *smallest = bytes.clone();
        }
    }

    fn add(&mut self, other: &Self) {
        self.cases += other.cases;
        self.committed += other.committed;
        self.refused += other.refused;
        self.stored += other.stored;
        self.later += other.later;
        self.leaked += other.leaked;
        for (engine, (n, bytes)) in &other.killers {
            self.note_killer(engine, bytes);
            if let Some((all, _)) = self.killers.get_mut(engine) {
                *all += n - 1;
            }
        }
    }
}

/// Runs a server with workers that are this program, and does to it what the plan says.
///
/// # Errors
/// Whatever should not happen to a client, however hostile it is.
pub async fn run(plan: Plan, workers: Workers) -> Result<Report, Broken> {
    let began = Instant::now();
    let registry = Arc::new(MemoryRegistry::new());
    let server = Server::builder(Arc::clone(&registry), Anonymous::read_write())
        .engines(workers.engines(engines()))
        .fold_after(40, usize::MAX)
        .build()?;
    let mut events = server.events();
    let watching = tokio::spawn(async move {
        let (mut deaths, mut relayed) = (0, 0);
        while let Some(event) = events.next().await {
            match event {
                ServerEvent::WorkerDied { .. } => deaths += 1,
                ServerEvent::DocumentRelayed { .. } => relayed += 1,
                _ => {}
            }
        }
        (deaths, relayed)
    });
    // As long as the other half, so that the percentiles mean the same.
    let warm_up = (plan.cases / 4).max(200);
    let (_, honest) = phase(&server, &registry, &plan, warm_up, false).await?;
    let (mut report, hostile) = phase(&server, &registry, &plan, plan.cases, true).await?;
    server.shutdown(Duration::ZERO).await;
    drop(server);
    (report.deaths, report.relayed) =
        tokio::time::timeout(Duration::from_secs(60), watching).await??;
    (report.honest, report.hostile) = (percentiles(honest), percentiles(hostile));
    report.took = began.elapsed();
    Ok(report)
}

fn percentiles(mut times: Vec<u64>) -> (u64, u64) {
    times.sort_unstable();
    let at = |hundredths: usize| times.get(times.len() * hundredths / 100).copied();
    (at(50).unwrap_or_default(), at(99).unwrap_or_default())
}

/// Lanes for every engine, and honest documents beside them.
async fn phase(
    server: &Server,
    registry: &Arc<MemoryRegistry>,
    plan: &Plan,
    cases: u64,
    is_hostile: bool,
) -> Result<(Report, Vec<u64>), Broken> {
    let seed = plan.seed;
    let mut kinds = Vec::new();
    for kind in 0..KINDS {
        let engine = sample(kind, seed)?.engine;
        if plan.only.as_ref().is_none_or(|only| *only == engine) {
            kinds.push(kind);
        }
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let beside = [
        tokio::spawn(honest::<YrsProbe>(
            server.clone(),
            seed,
            is_hostile,
            Arc::clone(&is_over),
        )),
        tokio::spawn(honest::<LoroProbe>(
            server.clone(),
            seed,
            is_hostile,
            Arc::clone(&is_over),
        )),
    ];
    let n_kinds = u64::try_from(kinds.len())?.max(1);
    let lanes: Vec<_> = kinds
        .into_iter()
        .map(|kind| {
            let lane = Lane {
                server: server.clone(),
                registry: Arc::clone(registry),
                kind,
                random: SplitMix(
                    seed ^ (u64::try_from(kind).unwrap_or_default() << 32)
                        ^ (u64::from(is_hostile) << 40),
                ),
                is_hostile,
                report: Report::default(),
            };
            let share = cases.div_ceil(n_kinds);
            // What only dies, of whatever it is given, costs much and shows little.
            let is_brittle = kind + 1 == KINDS;
            tokio::spawn(lane.run(if is_brittle {
                share.min(CASES_PER_DOCUMENT)
            } else {
                share
            }))
        })
        .collect();
    let mut report = Report::default();
    for lane in lanes {
        report.add(&lane.await??);
    }
    is_over.store(true, Ordering::Relaxed);
    let mut times = Vec::new();
    for one in beside {
        times.append(&mut one.await??);
    }
    Ok((report, times))
}

/// Writes to a document of its own, and measures how long each change takes to be acknowledged.
async fn honest<P: Probe>(
    server: Server,
    seed: u64,
    is_hostile: bool,
    is_over: Arc<AtomicBool>,
) -> Result<Vec<u64>, Broken> {
    let engine = P::engine();
    let mut replica = engine.create(ReplicaSeed(u128::from(seed) << 1 | u128::from(is_hostile)))?;
    let document = DocumentId::new(format!("honest {} {is_hostile}", engine.id().as_str()))?;
    let mut random =
        SplitMix(!seed ^ u64::from(is_hostile) << 8 ^ u64::try_from(engine.id().as_str().len())?);
    let mut peer = HostilePeer::connect(&server, origin(&mut random)).await?;
    let (channel, _) = peer.open(&document, &engine.id()).await?;
    let (mut number, mut times) = (1, Vec::new());
    while !is_over.load(Ordering::Relaxed) {
        engine.edit(&mut replica, usize::MAX, |edit| {
            P::add(edit, number % 1_000)
        })?;
        for change in replica.drain().local {
            let began = Instant::now();
            let said = peer.push(channel, number, &change, false).await?;
            if said != Said::Committed {
                return Err(format!("an honest change was not taken: {said:?}").into());
            }
            number += 1;
            times.push(u64::try_from(began.elapsed().as_micros())?);
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(times)
}

fn origin(random: &mut SplitMix) -> u128 {
    u128::from(random.draw()) << 64 | u128::from(random.draw())
}

/// One engine's documents, one after the other.
struct Lane {
    server: Server,
    registry: Arc<MemoryRegistry>,
    kind: usize,
    random: SplitMix,
    is_hostile: bool,
    report: Report,
}

impl Lane {
    async fn run(mut self, cases: u64) -> Result<Report, Broken> {
        let mut document = 0_u64;
        while self.report.cases < cases {
            let sample = sample(self.kind, self.random.draw())?;
            let engine = sample.engine.as_str();
            let name = format!("{engine} {} {document}", self.is_hostile);
            let id = DocumentId::new(name)?;
            if self.is_hostile && document % 4 == 3 {
                self.stored(&id, &sample).await?;
            } else {
                self.pushed(&id, &sample).await?;
            }
            document += 1;
        }
        Ok(self.report)
    }

    /// Mutated changes and snapshots, each pushed after honest changes.
    async fn pushed(&mut self, id: &DocumentId, sample: &Sample) -> Result<(), Broken> {
        let mut peer = HostilePeer::connect(&self.server, origin(&mut self.random)).await?;
        let (mut channel, _) = peer.open(id, &sample.engine).await?;
        let mut number = 1;
        let mut refused = BTreeSet::new();
        for change in &sample.base {
            self.push(&mut peer, id, sample, &mut channel, number, change, false)
                .await?;
            number += 1;
        }
        for case in 0..CASES_PER_DOCUMENT {
            let reconciling = case % 8 == 7;
            let at = self.random.below(sample.next.len());
            let bytes = if reconciling {
                &sample.snapshot
            } else {
                sample.next.get(at).unwrap_or(&sample.snapshot)
            };
            let bytes = if self.is_hostile {
                mutate(&sample.engine, bytes, &mut self.random)
            } else {
                bytes.clone()
            };
            self.report.cases += 1;
            match self
                .push(
                    &mut peer,
                    id,
                    sample,
                    &mut channel,
                    number,
                    &bytes,
                    reconciling,
                )
                .await?
            {
                Said::Committed => {
                    number += 1;
                    self.report.committed += 1;
                    refused.remove(&bytes);
                }
                Said::Refused { killed } => {
                    if killed {
                        self.report.note_killer(&sample.engine, &bytes);
                    }
                    self.report.refused += 1;
                    refused.insert(bytes);
                    channel = peer.open(id, &sample.engine).await?.0;
                }
                Said::Later => return Err("never checked".into()),
            }
        }
        let mut bob = HostilePeer::connect(&self.server, origin(&mut self.random)).await?;
        let content = bob.content(id, &sample.engine).await?;
        let leaked = content
            .iter()
            .filter(|bytes| refused.contains(*bytes))
            .count();
        self.report.leaked += u64::try_from(leaked)?;
        Ok(())
    }

    async fn push(
        &mut self,
        peer: &mut HostilePeer,
        id: &DocumentId,
        sample: &Sample,
        channel: &mut sync_core::ids::Channel,
        number: u64,
        change: &Bytes,
        reconciling: bool,
    ) -> Result<Said, Broken> {
        for _ in 0..LATER_MAX {
            let said = peer.push(*channel, number, change, reconciling).await?;
            if said != Said::Later {
                return Ok(said);
            }
            self.report.later += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
            *channel = peer.open(id, &sample.engine).await?.0;
        }
        Ok(Said::Later)
    }

    /// A document that begins with a mutated snapshot, which came in some other way: it may be relayed, and no more.
    async fn stored(&mut self, id: &DocumentId, sample: &Sample) -> Result<(), Broken> {
        let bytes = mutate(&sample.engine, &sample.snapshot, &mut self.random);
        let mut new = NewDocument::new(id.clone(), sample.engine.clone(), Epoch(7));
        let digest = sync_core::history::Digest::EMPTY.with(1, &bytes);
        new.snapshot = Some(Snapshot::new(Seq(1), digest, bytes));
        self.registry.create(new).await?;
        let mut peer = HostilePeer::connect(&self.server, origin(&mut self.random)).await?;
        let (mut channel, _) = peer.open(id, &sample.engine).await?;
        self.report.cases += 1;
        self.report.stored += 1;
        if let Some(change) = sample.base.first() {
            self.push(&mut peer, id, sample, &mut channel, 1, change, false)
                .await?;
        }
        // Whatever comes of it.
        drop(self.server.read_json(id).await);
        Ok(())
    }
}
