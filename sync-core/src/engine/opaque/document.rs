//! One replica of an opaque document.

use std::fmt;

use bytes::Bytes;

use super::format::{self, Base, Entry};
use super::log::Taken;
use super::{Opaque, OpaqueEdit, OpaqueLog};
use crate::engine::{
    Document, Drained, Edited, EngineError, EngineEvent, Imported, Source, Unreadable, Version,
    Wake,
};
use crate::mergeable::{Dot, ReplicaId, decode_version, encode_version};

/// One replica of an opaque document. It keeps all changes in memory that are in no snapshot.
pub struct OpaqueDocument {
    engine: Opaque,
    log: OpaqueLog,
    replica: ReplicaId,
    next_number: u64,
    /// Changes of the log that are none of such a document.
    unreadable: u64,
    wake: Option<Wake>,
    drained: Drained,
}

impl fmt::Debug for OpaqueDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpaqueDocument")
            .field("log", &self.log)
            .finish_non_exhaustive()
    }
}

impl OpaqueDocument {
    pub(super) fn new(engine: Opaque, replica: ReplicaId) -> Self {
        Self {
            engine,
            log: OpaqueLog::default(),
            replica,
            next_number: 1,
            unreadable: 0,
            wake: None,
            drained: Drained::default(),
        }
    }

    pub(super) const fn log(&self) -> &OpaqueLog {
        &self.log
    }

    pub(super) fn edit<R>(
        &mut self,
        bytes_max: usize,
        f: impl FnOnce(&mut OpaqueEdit<'_>) -> R,
    ) -> Edited<R> {
        let mut edit = OpaqueEdit::new(&self.log);
        let result = f(&mut edit);
        let pushed = edit.into_pushed();
        if pushed.is_empty() {
            return Edited::Done(result);
        }
        let entries: Vec<Entry> = pushed
            .into_iter()
            .zip(self.next_number..)
            .map(|(bytes, number)| Entry {
                dot: Dot::new(self.replica, number),
                bytes,
            })
            .collect();
        let change = format::write_changes(&entries);
        if change.len() > bytes_max {
            return Edited::TakenBack {
                change,
                replaced: false,
            };
        }
        self.next_number = entries
            .last()
            .map_or(self.next_number, |last| last.dot.number.saturating_add(1));
        for entry in entries {
            self.log.append_pending(entry);
        }
        self.drained.local.push(change);
        self.happened(Source::Local);
        Edited::Done(result)
    }

    /// Has the list take what changes bring.
    fn take_each(
        &mut self,
        changes: &[Bytes],
        mut take: impl FnMut(&mut OpaqueLog, Entry) -> Taken,
    ) -> Imported {
        let mut most = Taken::Nothing;
        for change in changes {
            let Ok(state) = format::read(change) else {
                self.unreadable += 1;
                continue;
            };
            for base in state.bases {
                most = most.max(Taken::new_if(self.log.take_base(base)));
            }
            for entry in state.changes.into_iter().chain(state.pending) {
                most = most.max(take(&mut self.log, entry));
            }
        }
        if most > Taken::Nothing {
            self.happened(Source::Remote);
        }
        Imported::new(most == Taken::New, false)
    }

    fn happened(&mut self, source: Source) {
        self.drained
            .events
            .push(EngineEvent::new(source, Vec::new()));
        if let Some(wake) = &self.wake {
            wake();
        }
    }
}

impl Document for OpaqueDocument {
    fn version(&mut self) -> Version {
        let mut all = self.log.seen.clone();
        for entry in &self.log.pending {
            all.insert(entry.dot);
        }
        Version(encode_version(&all, 0))
    }

    fn set_wake(&mut self, wake: Wake) {
        self.wake = Some(wake);
    }

    fn drain(&mut self) -> Drained {
        std::mem::take(&mut self.drained)
    }

    fn import(&mut self, changes: &[Bytes]) -> Result<Imported, EngineError> {
        Ok(self.take_each(changes, OpaqueLog::append))
    }

    fn import_pending(&mut self, changes: &[Bytes]) -> Result<Imported, EngineError> {
        Ok(self.take_each(changes, |log, entry| {
            Taken::new_if(log.append_pending(entry))
        }))
    }

    fn import_snapshot(&mut self, snapshot: &[u8]) -> Result<Imported, EngineError> {
        let before = self.version();
        let state = format::read(&Bytes::copy_from_slice(snapshot))?;
        if self.log.take_order(state) {
            self.happened(Source::Remote);
        }
        Ok(Imported::new(self.version() != before, false))
    }

    fn since(&mut self, version: &Version) -> Result<Option<Bytes>, EngineError> {
        let (theirs, _) = decode_version(&version.0)?;
        let lacks = |base: &&Base| !theirs.covers(&base.covers);
        let bases: Vec<Base> = self.log.bases.iter().filter(lacks).cloned().collect();
        let changes = self.log.changes.iter().chain(&self.log.pending);
        let changes: Vec<Entry> = changes
            .filter(|entry| !theirs.contains(entry.dot))
            .cloned()
            .collect();
        let is_nothing = bases.is_empty() && changes.is_empty();
        Ok((!is_nothing).then(|| format::write_state(&bases, &changes, &[])))
    }

    /// The list as it is.
    fn snapshot(&mut self) -> Result<Bytes, EngineError> {
        let OpaqueLog {
            bases,
            changes,
            pending,
            ..
        } = &self.log;
        Ok(format::write_state(bases, changes, pending))
    }

    fn fold(&mut self) -> Result<Bytes, EngineError> {
        let is_folded = self.log.changes.is_empty() && self.log.bases.len() < 2;
        let Some(fold) = self.engine.fold.as_ref().filter(|_| !is_folded) else {
            return Ok(format::write_state(&self.log.bases, &self.log.changes, &[]));
        };
        let bases: Vec<Bytes> = self.log.snapshots().cloned().collect();
        let changes: Vec<Bytes> = self.log.changes().cloned().collect();
        let base = Base {
            covers: self.log.seen.clone(),
            bytes: fold(&bases, &changes),
        };
        Ok(format::write_state(&[base], &[], &[]))
    }

    fn follows_the_log(&self) -> bool {
        true
    }

    fn unreadable(&self) -> Unreadable {
        Unreadable {
            changes: self.unreadable,
            ..Unreadable::default()
        }
    }

    fn can_rebase(&self) -> bool {
        self.engine.can_rebase
    }
}
