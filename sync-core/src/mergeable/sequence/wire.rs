//! Sequences as they travel.
//!
//! ```text
//! body    = 2 n + (0 | 1),
//!           [n, n x (replica, number)]            floors: the last element of each replica that was reclaimed
//!           n x run, removal*                     runs in document order, then those that wait for others
//! run     = flags, stamp,                         the commit that inserted the first
//!           number, count,                        elements of its replica: the first, and how many
//!           [replica, number],                    the parent
//!           length, values                        one MessagePack value behind the other
//!         | stamp                                 the commit that removed the first
//! flags   = bits 0-1: commits of the elements (0 the same, 1 each the next); 2-3: parent (0 the root,
//!           1 to its right, 2 to its left); 4: removed; 5-6: commits of the removals (2 each the one before)
//! removal = replica, number, count, stamp, commits as in flags
//! ```

use super::super::clock::{Dot, ReplicaId};
use super::super::{DeltaReader, DeltaWriter, Kind, VersionVector};
use super::order::{Order, Removal};
use super::run::{Commits, Id, Parent, Run, Step};
use crate::engine::EngineError;

const REMOVED: u8 = 1 << 4;

impl Order {
    /// Merges a node. Returns whether a reader sees something else.
    pub(crate) fn apply(&mut self, delta: &mut DeltaReader<'_>) -> Result<bool, EngineError> {
        let mut node = delta.node(Kind::Sequence)?;
        let news = read(&mut node)?;
        Ok(self.merge(news, &node))
    }

    /// Merges what has been read from `node`.
    pub(super) fn merge(&mut self, news: News, node: &DeltaReader<'_>) -> bool {
        let News {
            runs,
            removals,
            floors,
        } = news;
        let mut changed = false;
        for run in runs {
            changed |= self.merge_unsettled(run, node);
        }
        for removal in removals {
            let Removal { count, by, .. } = removal;
            if !node.is_all_settled(by.first.replica, by.bounds(count)) {
                changed |= self.remove(removal);
            }
        }
        // Not before: of a whole state, what comes first may hang on what comes last.
        if node.adopts() {
            self.set_floors(floors);
        }
        changed
    }

    /// Merges what of a run has not been merged, and perhaps reclaimed, before.
    fn merge_unsettled(&mut self, run: Run, node: &DeltaReader<'_>) -> bool {
        let mut changed = false;
        let mut rest = Some(run);
        while let Some(mut run) = rest.take() {
            let Dot { replica, number } = run.inserted.first;
            let (is_settled, last) = node.settled_through(replica, number);
            let n = match run.inserted.step {
                Step::Up => last.saturating_sub(number).saturating_add(1),
                Step::Same | Step::Down => run.count,
            };
            if n < run.count {
                rest = Some(run.split_off(n));
            }
            if !is_settled {
                changed |= self.insert(run);
            } else if let Some(by) = run.removed {
                let (first, count) = (run.first, run.count);
                if !node.is_all_settled(by.first.replica, by.bounds(count)) {
                    changed |= self.remove(Removal { first, count, by });
                }
            }
        }
        changed
    }

    /// Writes what a holder of `since` lacks.
    pub(crate) fn diff(&self, since: &VersionVector, out: &mut DeltaWriter) {
        let whole = since.is_empty();
        let mut news = Collected::default();
        for run in self.runs() {
            if whole {
                news.push_run(run.clone());
            } else {
                news.push_unseen(run, since);
            }
        }
        news.finish_run();
        for run in self.orphans() {
            if whole || !has_all(since, run.inserted, run.count) {
                news.runs.push(run.clone());
            }
        }
        for removal in self.early() {
            if whole || !has_all(since, removal.by, removal.count) {
                news.removals.push(*removal);
            }
        }
        let floors = whole && !self.floors.is_empty();
        if news.runs.is_empty() && news.removals.is_empty() && !floors {
            return;
        }
        out.node(Kind::Sequence, |out| {
            put_head(news.runs.len(), floors, out);
            if floors {
                out.number(u64::try_from(self.floors.len()).unwrap_or(u64::MAX));
                for (replica, last) in &self.floors {
                    out.replica(*replica);
                    out.number(*last);
                }
            }
            news.runs.iter().for_each(|run| put_run(run, out));
            news.removals
                .iter()
                .for_each(|removal| put_removal(removal, out));
        });
    }
}

/// What a delta brings.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) runs: Vec<Run>,
    pub(super) removals: Vec<Removal>,
    floors: Vec<(ReplicaId, u64)>,
}

/// What somebody lacks, in runs as long as can be.
#[derive(Debug, Default)]
struct Collected {
    runs: Vec<Run>,
    /// The run that may go on.
    current: Option<Run>,
    removals: Vec<Removal>,
}

impl Collected {
    fn push_run(&mut self, mut run: Run) {
        let n = self
            .current
            .as_mut()
            .map_or(0, |current| current.absorb(&run));
        if n == run.count {
            return;
        }
        if n > 0 {
            run = run.split_off(n);
        }
        self.finish_run();
        self.current = Some(run);
    }

    fn finish_run(&mut self) {
        self.runs.extend(self.current.take());
    }

    /// Pushes the parts of a run that are unseen, or whose removal is.
    fn push_unseen(&mut self, run: &Run, since: &VersionVector) {
        let has_run = has_all(since, run.inserted, run.count);
        let has_removal = run.removed.is_none_or(|by| has_all(since, by, run.count));
        if has_run && has_removal {
            return;
        }
        let mut rest = Some(run.clone());
        while let Some(mut run) = rest.take() {
            let inserted = run.inserted.first;
            let (seen, last) = since.same_through(inserted.replica, inserted.number);
            let n = match run.inserted.step {
                Step::Up => last.saturating_sub(inserted.number).saturating_add(1),
                Step::Same | Step::Down => run.count,
            };
            if n < run.count {
                rest = Some(run.split_off(n));
            }
            if !seen {
                self.push_run(run);
            } else if let Some(by) = run.removed
                && !has_all(since, by, run.count)
            {
                let (first, count) = (run.first, run.count);
                self.removals.push(Removal { first, count, by });
            }
        }
    }
}

fn has_all(since: &VersionVector, commits: Commits, count: u64) -> bool {
    let (first, last) = commits.bounds(count);
    since.contains_range(commits.first.replica, first, last)
}

/// Writes what comes before runs.
pub(super) fn put_head(n_runs: usize, floors: bool, out: &mut DeltaWriter) {
    let n = u64::try_from(n_runs).unwrap_or(u64::MAX >> 1);
    out.number(n << 1 | u64::from(floors));
}

pub(super) fn put_run(run: &Run, out: &mut DeltaWriter) {
    let mut flags = step_number(run.inserted.step, run.count);
    flags |= match run.parent {
        Parent::Root => 0,
        Parent::Right(_) => 1 << 2,
        Parent::Left(_) => 2 << 2,
    };
    if let Some(by) = run.removed {
        flags |= REMOVED | step_number(by.step, run.count) << 5;
    }
    out.raw(&[flags]);
    out.dot(run.inserted.first);
    out.number(run.first.counter);
    out.number(run.count);
    if let Parent::Right(id) | Parent::Left(id) = run.parent {
        out.replica(id.replica);
        out.number(id.counter);
    }
    match run.removed {
        Some(by) => out.dot(by.first),
        None => out.bytes(&run.values),
    }
}

pub(super) fn put_removal(removal: &Removal, out: &mut DeltaWriter) {
    out.replica(removal.first.replica);
    out.number(removal.first.counter);
    out.number(removal.count);
    out.dot(removal.by.first);
    out.raw(&[step_number(removal.by.step, removal.count)]);
}

/// Reads the body of a node. The values of a run are as many as it says, or the change has not been checked.
pub(super) fn read(node: &mut DeltaReader<'_>) -> Result<News, EngineError> {
    let mut news = News::default();
    let n = node.number()?;
    if n & 1 == 1 {
        for _ in 0..node.number()? {
            news.floors.push((node.replica()?, node.number()?));
        }
    }
    for _ in 0..n >> 1 {
        news.runs.push(read_run(node)?);
    }
    while !node.is_at_end() {
        let first = Id {
            replica: node.replica()?,
            counter: node.number()?,
        };
        let count = node.number()?;
        let by = Commits {
            first: node.dot()?,
            step: step(node.byte()?),
        };
        news.removals.push(Removal { first, count, by });
    }
    Ok(news)
}

fn read_run(node: &mut DeltaReader<'_>) -> Result<Run, EngineError> {
    let flags = node.byte()?;
    let inserted = Commits {
        first: node.dot()?,
        step: step(flags & 3),
    };
    let first = Id {
        replica: inserted.first.replica,
        counter: node.number()?,
    };
    let count = node.number()?;
    let side = flags >> 2 & 3;
    let parent = if side == 0 {
        Parent::Root
    } else {
        let id = Id {
            replica: node.replica()?,
            counter: node.number()?,
        };
        if side == 1 {
            Parent::Right(id)
        } else {
            Parent::Left(id)
        }
    };
    let (removed, values) = if flags & REMOVED == 0 {
        (None, node.bytes()?.to_vec())
    } else {
        let by = Commits {
            first: node.dot()?,
            step: step(flags >> 5),
        };
        (Some(by), Vec::new())
    };
    Ok(Run {
        first,
        count,
        parent,
        inserted,
        removed,
        values,
    })
}

const fn step(number: u8) -> Step {
    match number {
        0 => Step::Same,
        1 => Step::Up,
        _ => Step::Down,
    }
}

/// A single one has no step.
const fn step_number(step: Step, count: u64) -> u8 {
    match step {
        _ if count == 1 => 0,
        Step::Same => 0,
        Step::Up => 1,
        Step::Down => 2,
    }
}
