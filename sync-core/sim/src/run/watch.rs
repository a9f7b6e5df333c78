//! What has to be so at every moment.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use sync_core::client::{RefusedReason, SyncPhase};
use sync_core::error::ErrorCode;
use sync_core::history::Epoch;
use sync_core::time::Time;

use super::{Runner, id_of, name_of};
use crate::content::{Content, Mark, marks_in};
use crate::model::{Fate, Violation};
use crate::world::{WorldRegistry, wait};

/// How long after a change was committed nobody can say any more that they have all there is and not have it: a ping, the
/// time to miss its answer, and the slowest network.
const STALE: Duration = Duration::from_secs(60);

/// What was seen so far.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    pub(crate) counts: BTreeMap<String, u64>,
    /// When a document was first seen to have a head, in an epoch.
    heads: BTreeMap<usize, Vec<(Time, Epoch, u64)>>,
    phases: BTreeMap<(usize, usize), &'static str>,
    /// Edits in the name of somebody else's replica.
    pub(crate) forged: BTreeSet<Mark>,
    /// Whether there were changes that no server takes, hooks that vetoed changes, and users who were not allowed something.
    pub(crate) has_bad: bool,
    pub(crate) has_vetoed: bool,
    pub(crate) has_denied: bool,
    /// Clients that read slowly.
    pub(crate) slow: BTreeSet<usize>,
}

impl Watched {
    /// A document has another history.
    pub(crate) fn rewritten(&mut self, document: usize) {
        self.heads.remove(&document);
    }

    fn phase(&mut self, client: usize, document: usize, phase: &'static str) {
        let before = self.phases.insert((client, document), phase);
        if before != Some(phase) {
            let before = before.unwrap_or("none");
            *self
                .counts
                .entry(format!("phase: {before} to {phase}"))
                .or_default() += 1;
        }
    }
}

impl<C: Content> Runner<C> {
    /// Looks at everything.
    pub(super) fn watch(&mut self) -> Result<(), Violation> {
        for document in 0..self.documents {
            self.watch_phases(document);
            self.watch_log(document)?;
            self.watch_edits(document)?;
            self.watch_refusals(document)?;
            self.watch_content(document)?;
            self.watch_heads(document)?;
        }
        Ok(())
    }

    fn watch_phases(&mut self, document: usize) {
        for client in self.clients() {
            let state = &self.world.clients[client].state;
            let phase = match state.sync_state(&id_of(document)).map(|it| it.phase) {
                None => "none",
                Some(SyncPhase::Offline) => "offline",
                Some(SyncPhase::CatchingUp { .. }) => "catching up",
                Some(SyncPhase::Live) => "live",
                Some(SyncPhase::Refused(_)) => "refused",
                Some(SyncPhase::Closed) => "closed",
                Some(_) => "otherwise",
            };
            self.watched.phase(client, document, phase);
        }
    }

    /// Each change is in the log once.
    fn watch_log(&self, document: usize) -> Result<(), Violation> {
        let doubled = self.registry.with(&id_of(document), |committed| {
            if committed.is_restored {
                return None;
            }
            let mut changes = committed.changes.iter();
            let (bytes, n) = changes.find(|(_, n)| **n > 1)?;
            Some((marks_in(bytes), *n))
        });
        match doubled {
            Some((marks, n)) => self.violation(
                "doubled",
                format!(
                    "the change of edits {marks:?} is {n} times in the log of document {document}"
                ),
            ),
            None => Ok(()),
        }
    }

    /// What became of each edit.
    fn watch_edits(&mut self, document: usize) -> Result<(), Violation> {
        let id = id_of(document);
        let mut outboxes: BTreeMap<usize, BTreeSet<Mark>> = BTreeMap::new();
        let mut refused: BTreeMap<usize, BTreeSet<Mark>> = BTreeMap::new();
        // What said what the server lacked, and was refused, has what others may have said, too.
        let mut refused_together: BTreeMap<usize, BTreeSet<Mark>> = BTreeMap::new();
        for client in self.clients() {
            let state = &self.world.clients[client].state;
            let pending = state.outbox_bytes(&id);
            outboxes.insert(client, pending.iter().flat_map(|it| marks_in(it)).collect());
            let mut back = state.refused(&id);
            let store = self.world.clients[client].store.as_ref();
            let stored = store.and_then(|store| store.documents.get(&id));
            back.extend(stored.iter().flat_map(|stored| stored.refused.clone()));
            if !back.is_empty() {
                self.model.handed_back.insert((client, document));
            }
            for change in back {
                let marks = marks_in(&change.bytes);
                let refused = if marks.len() > 1 {
                    &mut refused_together
                } else {
                    &mut refused
                };
                refused.entry(client).or_default().extend(marks);
            }
        }
        let registry = std::sync::Arc::clone(&self.registry);
        let is_restored = registry.with(&id, |committed| committed.is_restored);
        let mut problem = None;
        let forged = &self.watched.forged;
        let clients = &self.world.clients;
        for (mark, edit) in self.model.of(document) {
            let author = edit.author;
            // What is left of it is in the store, or on its way there.
            let is_forgotten =
                clients[author].store.is_some() && clients[author].state.sync_state(&id).is_none();
            let has = |marks: &BTreeMap<usize, BTreeSet<Mark>>| {
                marks
                    .get(&author)
                    .is_some_and(|marks| marks.contains(&mark))
            };
            let is_committed = || registry.with(&id, |committed| committed.marks.contains(&mark));
            match edit.fate {
                Fate::Pending if !clients[author].is_running => {}
                Fate::Pending if outboxes[&author].contains(&mark) => {
                    // It may be said to be saved before the log has passed by.
                    let state = clients[author].state.sync_state(&id);
                    let is_saved = state.is_some_and(|state| state.unsaved == 0);
                    if is_saved && !edit.was_committed && !is_committed() {
                        problem = Some((
                            "saved, and not committed",
                            format!("edit {mark} of client {author} in document {document}"),
                        ));
                        break;
                    }
                }
                // On its way back to a server that had lost it, it may be refused to one client and taken from another.
                Fate::Pending if has(&refused) && is_restored => edit.fate = Fate::Free,
                Fate::Pending if has(&refused) => edit.fate = Fate::Refused,
                // It changes nothing, if what it says was at clocks that are taken.
                Fate::Pending if forged.contains(&mark) && is_committed() => {
                    edit.fate = Fate::Free;
                }
                Fate::Pending if is_committed() => edit.fate = Fate::Saved,
                Fate::Pending if has(&refused_together) => edit.fate = Fate::Free,
                Fate::Pending if is_forgotten => {}
                Fate::Pending => {
                    let state = clients[author].state.sync_state(&id);
                    if edit.was_committed && state.is_none_or(|state| state.is_saved()) {
                        // It was told so before the server lost it.
                        edit.fate = Fate::Returning(BTreeSet::from([author]));
                    } else if state.is_none_or(|state| state.is_saved()) {
                        problem = Some((
                            "saved, and not committed",
                            format!("edit {mark} of client {author} in document {document}"),
                        ));
                        break;
                    }
                }
                Fate::Refused if is_committed() => {
                    problem = Some((
                        "refused, and committed",
                        format!("edit {mark} of client {author} in document {document}"),
                    ));
                    break;
                }
                Fate::Returning(_) if is_committed() => edit.fate = Fate::Saved,
                _ => {}
            }
        }
        match problem {
            Some((kind, what)) => self.violation(kind, what),
            None => Ok(()),
        }
    }

    /// Nothing is handed back but for a reason.
    fn watch_refusals(&self, document: usize) -> Result<(), Violation> {
        let watched = &self.watched;
        for client in self.clients() {
            for change in self.world.clients[client].state.refused(&id_of(document)) {
                let marks = marks_in(&change.bytes);
                let is_forged = marks.iter().any(|mark| watched.forged.contains(mark));
                let has_reason = match change.reason {
                    RefusedReason::Code(ErrorCode::InvalidChange) => is_forged || watched.has_bad,
                    RefusedReason::Code(ErrorCode::MissingDependency) => is_forged,
                    RefusedReason::Code(ErrorCode::Vetoed) => watched.has_vetoed,
                    RefusedReason::Code(ErrorCode::AccessDenied) => watched.has_denied,
                    RefusedReason::Code(_) => false,
                    _ => true,
                };
                if !has_reason {
                    return self.violation(
                        "refused without a reason",
                        format!(
                            "edits {marks:?} of client {client} in document {document}: {:?}, {}",
                            change.reason, change.message
                        ),
                    );
                }
            }
        }
        Ok(())
    }

    /// Replicas of equal versions show the same; nobody shows what was handed back to somebody else.
    fn watch_content(&mut self, document: usize) -> Result<(), Violation> {
        let mut seen: BTreeMap<Bytes, (usize, Vec<u8>)> = BTreeMap::new();
        for client in self.clients() {
            let Some(shown) = self.shown(client, document) else {
                continue;
            };
            let marks = marks_in(&shown);
            for mark in &marks {
                let edit = self.model.edits.get(mark);
                let is_foreign = edit.is_some_and(|edit| edit.author != client);
                if is_foreign && self.watched.forged.contains(mark) {
                    return self.violation(
                        "forged, and shown",
                        format!("edit {mark} in document {document}, by client {client}"),
                    );
                }
                if edit.is_some_and(|edit| edit.fate == Fate::Refused && edit.author != client) {
                    return self.violation(
                        "refused, and shown",
                        format!("edit {mark} in document {document}, by client {client}"),
                    );
                }
            }
            let version = self.world.version(client, &name_of(document)).0;
            if let Some((other, theirs)) = seen.get(&version) {
                let is_same = if C::IS_EXACT {
                    *theirs == shown
                } else {
                    marks_in(theirs) == marks
                };
                if !is_same {
                    let (ours, theirs) = (lossy(&shown), lossy(theirs));
                    return self.violation(
                        "diverged",
                        format!("of one version, in document {document}: client {client} shows {ours}, client {other} {theirs}"),
                    );
                }
            } else {
                seen.insert(version, (client, shown));
            }
        }
        Ok(())
    }

    /// Nobody says for long that they have all there is when they do not.
    fn watch_heads(&mut self, document: usize) -> Result<(), Violation> {
        let registry = &*self.registry as &dyn WorldRegistry;
        let id = id_of(document);
        let Ok(meta) = wait(registry.meta(&id)) else {
            return Ok(());
        };
        let now = self.world.now;
        let heads = self.watched.heads.entry(document).or_default();
        if heads.last().map(|(_, epoch, head)| (*epoch, *head)) != Some((meta.epoch, meta.head.0)) {
            heads.push((now, meta.epoch, meta.head.0));
        }
        let old = heads
            .iter()
            .rev()
            .find(|(at, ..)| now.since(*at) > STALE)
            .copied();
        let Some((_, epoch, head)) = old else {
            return Ok(());
        };
        for client in self.clients() {
            let it = &self.world.clients[client];
            let Some(state) = it.state.sync_state(&id) else {
                continue;
            };
            let cursor = it.state.cursor(&id);
            let is_slow = self.watched.slow.contains(&client);
            let is_there =
                cursor.is_some_and(|cursor| cursor.epoch != epoch || cursor.seq.0 >= head);
            if state.is_caught_up() && !is_there && !is_slow {
                return self.violation(
                    "says it is caught up",
                    format!("client {client} at {cursor:?} in document {document}, whose head has been {head} for long"),
                );
            }
        }
        Ok(())
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
