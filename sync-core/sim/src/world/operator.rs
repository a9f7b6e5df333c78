//! What an operator does to documents and registries while nodes run, or in between.

use std::sync::Arc;
use std::time::Duration;

use sync_core::engine::{Engine, EngineError, Validator};
use sync_core::history::{Epoch, EpochMode, Seq};
use sync_core::ids::{DocumentId, User};
use sync_core::registry::{
    NewChange, NewDocument, RegistryError, RegistryEvent, Snapshot, StoredChange, Tail,
};

use super::{World, WorldRegistry, id, wait};

/// What a document is after it was put back to an older copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restored {
    /// A new history, as our tools have it.
    NewEpoch,
    /// The history that it was, which nobody has told that it lacks something: files were copied.
    SameEpoch,
}

impl<E: Engine + Validator> World<E> {
    /// A new, empty registry in the place of the old one.
    pub fn lose_everything(&mut self) {
        self.restore(self.registry.empty());
    }

    /// The server starts again on another registry.
    pub fn restore(&mut self, registry: Arc<dyn WorldRegistry>) {
        self.count("fault", "registry replaced");
        self.kill_server();
        // Nothing that was on its way to the old one arrives at this one.
        self.calls.clear();
        self.registry = registry;
        self.start_server();
    }

    /// Puts one document back to what an older copy of the registry has of it, while nodes serve it. Whether the copy has it.
    pub fn restore_document(
        &mut self,
        document: &str,
        backup: &dyn WorldRegistry,
        restored: Restored,
    ) -> bool {
        let id = id(document);
        let (Ok(meta), Ok(now)) = (wait(backup.meta(&id)), wait(self.registry.meta(&id))) else {
            return false;
        };
        self.count("fault", "document restored");
        let snapshot = wait(backup.snapshot(&id)).unwrap();
        let after = snapshot.as_ref().map_or(Seq::ZERO, |found| found.seq);
        let log = rows(backup, &id, after, meta.head);
        let mut new = NewDocument::new(id.clone(), meta.engine, now.epoch);
        new.snapshot = snapshot;
        if restored == Restored::NewEpoch {
            (new.epoch, new.mode) = (now.epoch.next(self.rng.next_u64()), EpochMode::Merge);
        } else {
            new.mode = now.mode;
            wait(self.registry.delete(&id)).unwrap();
        }
        let epoch = new.epoch;
        self.registry.replace(new, log).unwrap();
        self.tell_nodes(&RegistryEvent::Replaced {
            document: id,
            epoch,
        });
        true
    }

    /// Makes a document what it was at a sequence, to remove what came after it. Whether that is still known.
    pub fn rewind(&mut self, document: &str, through: Seq) -> bool {
        let id = id(document);
        let Ok(meta) = wait(self.registry.meta(&id)) else {
            return false;
        };
        if through < meta.snapshot_seq || through >= meta.head {
            return false;
        }
        self.count("operator", "rewound");
        let epoch = meta.epoch.next(self.rng.next_u64());
        let mut new = NewDocument::new(id.clone(), meta.engine, epoch);
        new.mode = EpochMode::Discard;
        new.snapshot = wait(self.registry.snapshot(&id)).unwrap();
        let log = rows(&*self.registry, &id, meta.snapshot_seq, through);
        let meta = self.registry.replace(new, log).unwrap();
        self.tell_nodes(&RegistryEvent::Replaced {
            document: id,
            epoch: meta.epoch,
        });
        true
    }

    /// Deletes a document. Whether there was one.
    pub fn delete(&mut self, document: &str) -> bool {
        let id = id(document);
        let is_deleted = wait(self.registry.delete(&id)).is_ok();
        if is_deleted {
            self.count("operator", "deleted");
            self.tell_nodes(&RegistryEvent::Deleted { document: id });
        }
        is_deleted
    }

    /// Trims a document, as the server does on one of its nodes: forgets history but for the last `keep` changes. The other
    /// nodes find out.
    ///
    /// # Errors
    ///
    /// What the registry or the engine says.
    pub fn trim(&mut self, node: usize, document: &str, keep: usize) -> Result<Epoch, TrimFailed> {
        let id = id(document);
        let registry = Arc::clone(&self.registry);
        let meta = wait(registry.meta(&id)).map_err(TrimFailed::Registry)?;
        let snapshot = wait(registry.snapshot(&id)).map_err(TrimFailed::Registry)?;
        let changes = rows_of(&*registry, &id, meta.snapshot_seq, meta.head);
        let changes: Vec<_> = changes.into_iter().map(|row| row.bytes).collect();
        let engines = self.engines();
        let validator = engines.validator(&meta.engine).flatten();
        let folder = validator.and_then(|validator| validator.folder());
        let folder = folder.ok_or(TrimFailed::Engine(EngineError::Unsupported {
            what: "forgetting history",
        }))?;
        let bytes = snapshot.as_ref().map(|found| &*found.bytes);
        let trimmed = folder.trim(bytes, &changes, keep);
        let trimmed = trimmed.map_err(TrimFailed::Engine)?;
        let next = meta.epoch.next(self.rng.next_u64());
        let snapshot = Snapshot::new(meta.head, meta.digest, trimmed);
        let trimmed = registry.trim(&id, meta.epoch, snapshot, next);
        wait(trimmed).map_err(TrimFailed::Registry)?;
        self.count("operator", "trimmed");
        if let Some(room) = self.nodes[node].rooms.get_mut(&id) {
            room.handle_trimmed(self.now, next);
            self.perform_room(node, &id);
        }
        let (document, epoch) = (id, next);
        self.hint(node, &RegistryEvent::Replaced { document, epoch });
        Ok(next)
    }

    /// The rooms of a document append nothing for so long.
    pub fn hold_appends(&mut self, document: &str, time: Duration) {
        let id = id(document);
        for node in 0..self.nodes.len() {
            if let Some(room) = self.nodes[node].rooms.get_mut(&id) {
                room.hold_appends(self.now, self.now + time);
                self.perform_room(node, &id);
            }
        }
    }

    fn tell_nodes(&mut self, event: &RegistryEvent) {
        for node in 0..self.nodes.len() {
            self.hint_node(node, event);
        }
    }
}

/// Why a document was not trimmed.
#[derive(Debug)]
pub enum TrimFailed {
    /// The registry did not do it.
    Registry(RegistryError),
    /// The engine did not.
    Engine(EngineError),
}

fn rows_of(
    registry: &dyn WorldRegistry,
    document: &DocumentId,
    after: Seq,
    through: Seq,
) -> Vec<StoredChange> {
    match wait(registry.tail(document, after, usize::MAX)).unwrap() {
        Tail::Changes { mut changes, .. } => {
            changes.retain(|row| row.seq <= through);
            changes
        }
        other => panic!("{other:?}"),
    }
}

/// Rows, to be written again.
fn rows(
    registry: &dyn WorldRegistry,
    document: &DocumentId,
    after: Seq,
    through: Seq,
) -> Vec<NewChange> {
    let user = |origin| {
        let entries = wait(registry.origins(document, &[origin])).unwrap();
        let entry = entries.into_iter().next().flatten();
        entry.map_or_else(|| User::new("somebody"), |entry| entry.user)
    };
    let rows = rows_of(registry, document, after, through).into_iter();
    rows.map(|row| {
        let change = NewChange::new(row.id, user(row.id.origin), row.bytes.clone());
        change.with_reconciling(row.reconciling)
    })
    .collect()
}
