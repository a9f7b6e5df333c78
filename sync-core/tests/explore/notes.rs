//! The smallest engine that tells what matters: a set of notes, each of which says what its author knew.
//!
//! A note whose author knew something that is not there waits for it. So a log that is not causally closed is noticed, and so is a
//! note that a replica should not have.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sync_core::engine::{
    Document, Drained, Edited, Engine, EngineError, Imported, ReplicaSeed, ValidateLimits,
    Validator, Version, Wake,
};
use sync_core::ids::EngineId;

pub const ENGINE: &str = "notes";

/// Replica and count.
pub type Dot = (u64, u8);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    pub dot: Dot,
    pub label: u8,
    pub knew: BTreeSet<Dot>,
}

/// The engine. `rebases`: a note does not need earlier ones of its author, so that what was made after a refused one can
/// be made again.
#[derive(Debug, Clone, Copy)]
pub struct Notes {
    pub rebases: bool,
}

/// What checks notes on the server: it does not like some.
#[derive(Debug)]
pub struct Censor {
    pub bad: BTreeSet<u8>,
}

#[derive(Debug, Clone)]
pub struct NotesDocument {
    engine: Notes,
    replica: u64,
    last: u8,
    pub notes: BTreeMap<Dot, Note>,
    waiting: Vec<Note>,
    local: Vec<Bytes>,
}

impl Validator for Censor {
    fn engine(&self) -> EngineId {
        EngineId::new(ENGINE).unwrap()
    }

    fn validate(&self, change: &[u8], _: &ValidateLimits) -> Result<(), EngineError> {
        let notes = read(change)?;
        if notes.iter().any(|note| self.bad.contains(&note.label)) {
            return Err(EngineError::Rejected { what: "a bad note" });
        }
        Ok(())
    }
}

impl Engine for Notes {
    type Document = NotesDocument;
    type Read<'a> = NotesDocument;
    /// The label of the note to be made.
    type Edit<'a> = u8;

    fn id(&self) -> EngineId {
        EngineId::new(ENGINE).unwrap()
    }

    fn create(&self, seed: ReplicaSeed) -> Result<NotesDocument, EngineError> {
        Ok(NotesDocument {
            engine: *self,
            replica: (seed.0 >> 64) as u64,
            last: 0,
            notes: BTreeMap::new(),
            waiting: Vec::new(),
            local: Vec::new(),
        })
    }

    fn validate(&self, change: &[u8], _: &ValidateLimits) -> Result<(), EngineError> {
        read(change).map(drop)
    }

    fn read<R>(
        &self,
        document: &NotesDocument,
        f: impl FnOnce(&NotesDocument) -> R,
    ) -> Result<R, EngineError> {
        Ok(f(document))
    }

    fn edit<R>(
        &self,
        document: &mut NotesDocument,
        _: usize,
        f: impl FnOnce(&mut u8) -> R,
    ) -> Result<Edited<R>, EngineError> {
        let mut label = 0;
        let result = f(&mut label);
        document.write(label);
        Ok(Edited::Done(result))
    }
}

impl NotesDocument {
    fn write(&mut self, label: u8) {
        self.last += 1;
        let mut knew: BTreeSet<Dot> = self.notes.keys().copied().collect();
        if self.engine.rebases {
            knew.retain(|(replica, _)| *replica != self.replica);
        }
        let note = Note {
            dot: (self.replica, self.last),
            label,
            knew,
        };
        self.local.push(write([&note]));
        self.notes.insert(note.dot, note);
    }

    fn take(&mut self, bytes: &[u8]) -> Result<bool, EngineError> {
        let before = self.notes.len();
        for note in read(bytes)? {
            if !self.notes.contains_key(&note.dot) && !self.waiting.contains(&note) {
                self.waiting.push(note);
            }
        }
        while let Some(at) = self
            .waiting
            .iter()
            .position(|note| note.knew.iter().all(|dot| self.notes.contains_key(dot)))
        {
            let note = self.waiting.remove(at);
            self.notes.insert(note.dot, note);
        }
        Ok(self.notes.len() > before)
    }

    fn imported(&self, changed: bool) -> Imported {
        Imported::new(changed, !self.waiting.is_empty())
    }
}

impl Document for NotesDocument {
    fn version(&mut self) -> Version {
        Version(self.notes.keys().flat_map(write_dot).collect())
    }

    fn set_wake(&mut self, _: Wake) {}

    fn drain(&mut self) -> Drained {
        let mut drained = Drained::default();
        drained.local = std::mem::take(&mut self.local);
        drained
    }

    fn import(&mut self, changes: &[Bytes]) -> Result<Imported, EngineError> {
        let mut changed = false;
        for change in changes {
            changed |= self.take(change)?;
        }
        Ok(self.imported(changed))
    }

    fn import_snapshot(&mut self, snapshot: &[u8]) -> Result<Imported, EngineError> {
        let changed = self.take(snapshot)?;
        Ok(self.imported(changed))
    }

    fn since(&mut self, version: &Version) -> Result<Option<Bytes>, EngineError> {
        let known: BTreeSet<Dot> = version.0.chunks(9).map(read_dot).collect();
        let mut lacking = self
            .notes
            .values()
            .filter(|note| !known.contains(&note.dot));
        let lacking: Vec<_> = lacking.by_ref().collect();
        Ok((!lacking.is_empty()).then(|| write(lacking)))
    }

    fn snapshot(&mut self) -> Result<Bytes, EngineError> {
        Ok(write(self.notes.values().chain(&self.waiting)))
    }

    fn can_rebase(&self) -> bool {
        self.engine.rebases
    }
}

/// The notes of a change.
pub fn read(mut bytes: &[u8]) -> Result<Vec<Note>, EngineError> {
    let mut notes = Vec::new();
    while let Some((head, rest)) = bytes.split_at_checked(11) {
        let n = usize::from(head[10]) * 9;
        let Some((knew, rest)) = rest.split_at_checked(n) else {
            break;
        };
        notes.push(Note {
            dot: read_dot(&head[..9]),
            label: head[9],
            knew: knew.chunks(9).map(read_dot).collect(),
        });
        bytes = rest;
    }
    if !bytes.is_empty() {
        let (what, offset) = ("notes", 0);
        return Err(EngineError::Malformed { what, offset });
    }
    Ok(notes)
}

fn write<'a>(notes: impl IntoIterator<Item = &'a Note>) -> Bytes {
    let mut bytes = Vec::new();
    for note in notes {
        bytes.extend(write_dot(&note.dot));
        bytes.extend([note.label, note.knew.len() as u8]);
        bytes.extend(note.knew.iter().flat_map(write_dot));
    }
    bytes.into()
}

fn write_dot((replica, count): &Dot) -> [u8; 9] {
    let [a, b, c, d, e, f, g, h] = replica.to_be_bytes();
    [a, b, c, d, e, f, g, h, *count]
}

fn read_dot(bytes: &[u8]) -> Dot {
    let replica = bytes[..8].try_into().unwrap();
    (u64::from_be_bytes(replica), bytes[8])
}
