//! What each operation does.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sync_core::error::ErrorCode;
use sync_core::history::Seq;
use sync_core::transport::DialError;
use sync_core::wire::AccessLevel;

use super::{Runner, id_of, name_of, weather_of};
use crate::content::{Content, Mark};
use crate::model::Violation;
use crate::plan::{Level, Op};
use crate::world::{CrashPoint, RegistryFaults, Restored, WorldRegistry, wait};

impl<C: Content> Runner<C> {
    pub(super) fn perform(&mut self, op: Op) -> Result<(), Violation> {
        match op {
            Op::Edit {
                client,
                document,
                n,
            } => {
                for _ in 0..n {
                    self.edit(self.client(client), document % self.documents);
                }
            }
            Op::Forge {
                client,
                other,
                document,
            } => {
                let (client, other) = (self.client(client), self.client(other));
                self.forge(client, other, document % self.documents);
            }
            Op::EditBadly { client, document } => {
                self.watched.has_bad = true;
                let (client, document) = (self.client(client), document % self.documents);
                self.edit_by(client, document, C::leave_badly);
            }
            Op::EditLargely { client, document } => {
                let (client, document) = (self.client(client), document % self.documents);
                self.edit_by(client, document, C::leave_largely);
            }
            Op::Open { client, document } => {
                self.open(self.client(client), document % self.documents);
            }
            Op::Close { client, document } => {
                self.close(self.client(client), document % self.documents);
            }
            Op::DropRefused { client, document } => {
                let (client, name) = (self.client(client), self.name(document));
                for change in self.world.refused(client, &name) {
                    self.world.drop_refused(client, &name, change.id);
                }
            }
            Op::Show {
                client,
                document,
                says,
            } => self.show(self.client(client), document % self.documents, says),
            Op::Broadcast { client, document } => {
                let (client, name) = (self.client(client), self.name(document));
                let bytes = Bytes::from_static(b"hello");
                // Where it cannot, it says so.
                let _ = self.world.broadcast(client, &name, bytes.clone());
                let _ = self.world.extend(client, Some(&name), bytes);
            }
            op => return self.perform_on_network(op),
        }
        Ok(())
    }

    fn perform_on_network(&mut self, op: Op) -> Result<(), Violation> {
        match op {
            Op::Cut { client } => self.world.cut(self.client(client)),
            Op::GoOffline { client } => self.world.set_online(self.client(client), false),
            Op::GoOnline { client } => self.world.set_online(self.client(client), true),
            Op::Disconnect { client } => self.world.disconnect(self.client(client)),
            Op::Reconnect { client } => self.reconnect(self.client(client)),
            Op::CutBehind { client } => self.world.cut_behind(self.client(client)),
            Op::Deafen {
                client,
                server,
                both,
            } => {
                let client = self.client(client);
                self.world.deafen(client, server || both, !server || both);
            }
            Op::CutInMessage { client } => self.world.cut_in_message(self.client(client)),
            Op::Stall { client, ms } => {
                let client = self.client(client);
                self.world.stall(client, Duration::from_millis(ms));
            }
            Op::SlowDown { client, ms } => {
                let client = self.client(client);
                if ms > 0 {
                    self.watched.slow.insert(client);
                } else {
                    self.watched.slow.remove(&client);
                }
                self.world.slow_down(client, Duration::from_millis(ms));
            }
            Op::FailDial { client } => {
                let error = DialError::Unreachable("a plan says so".into());
                self.world.fail_dial(self.client(client), error);
            }
            Op::EndSession { client } => {
                let client = self.client(client);
                self.world.end_session(client, ErrorCode::Internal);
            }
            Op::CloseConnection { client } => {
                self.world.close_connection(self.client(client), 1012);
            }
            Op::Weather { sky } => self.world.weather = weather_of(sky),
            op => return self.perform_on_devices(op),
        }
        Ok(())
    }

    fn perform_on_devices(&mut self, op: Op) -> Result<(), Violation> {
        match op {
            Op::RestartClient { client } => {
                let client = self.client(client);
                self.world.kill_client(client);
                self.ended(client, &BTreeSet::new())?;
                self.world.start_client(client);
            }
            Op::KillClient { client } => {
                let client = self.client(client);
                self.world.kill_client(client);
                self.ended(client, &BTreeSet::new())?;
            }
            Op::StartClient { client } => self.start(self.client(client)),
            Op::LosePower { client } => {
                let client = self.client(client);
                let lost = self.world.lose_power(client);
                let lost = lost.iter().flat_map(|(_, change)| marks_of(&change.bytes));
                self.ended(client, &lost.collect())?;
            }
            Op::BackupStore { client } => {
                let client = self.client(client);
                if let Some(store) = self.world.backup_store(client) {
                    self.stores.insert(client, store);
                }
            }
            Op::RestoreStore { client } => {
                let client = self.client(client);
                if let Some(store) = self.stores.get(&client).cloned() {
                    self.world.restore_store(client, store);
                    let all = self.model.edits.keys().copied().collect();
                    self.ended(client, &all)?;
                }
            }
            Op::FailStore { client, fails } => {
                let client = self.client(client);
                if let Some(store) = &mut self.world.clients[client].store {
                    store.fails = fails;
                }
            }
            Op::SetClock { client, ahead_ms } => {
                self.world.set_clock(self.client(client), ahead_ms);
            }
            Op::SetNodeClock { node, ahead_ms } => {
                self.world.set_node_clock(node % self.nodes, ahead_ms);
            }
            op => self.perform_on_server(op),
        }
        Ok(())
    }

    fn perform_on_server(&mut self, op: Op) {
        match op {
            Op::KillNode { node } => self.world.kill_node(node % self.nodes),
            Op::LoseNode { node } => self.world.lose_node(node % self.nodes),
            Op::CrashAtCall { after, is_done } => {
                self.world.faults.crash = Some(CrashPoint {
                    after_calls: after,
                    is_carried_out: is_done,
                });
            }
            Op::StartNode { node } => self.world.start_node(node % self.nodes),
            Op::DrainNode { node, ms } => {
                let within = Duration::from_millis(ms);
                self.world.drain_node(node % self.nodes, within);
            }
            Op::DialNode { client, node } => {
                let client = self.client(client);
                self.world.dial_node(client, Some(node % self.nodes));
            }
            Op::Fold { after, keep_bytes } => {
                self.world.folding = (after > 0).then_some((after, keep_bytes));
            }
            Op::Trouble {
                failed,
                slow,
                unknown,
            } => {
                self.world.faults = RegistryFaults {
                    unavailable: failed,
                    unknown: unknown / 2,
                    lost: unknown / 2,
                    slow,
                    slow_max: Duration::from_secs(20),
                    ..self.world.faults
                };
            }
            Op::Fill { is_full } => self.world.faults.is_full = is_full,
            Op::HoldAppends { document, ms } => {
                let time = Duration::from_millis(ms);
                self.world.hold_appends(&self.name(document), time);
            }
            op => self.perform_on_history(op),
        }
    }

    fn perform_on_history(&mut self, op: Op) {
        match op {
            Op::Backup => self.backup = Some(Arc::new(self.registry.copy())),
            Op::Restore => {
                if let Some(backup) = &self.backup {
                    let copy = Arc::new(backup.copy());
                    self.replace_registry(copy);
                }
            }
            Op::LoseEverything => {
                let empty = Arc::new(self.registry.begin_anew());
                self.replace_registry(empty);
            }
            Op::RestoreDocument {
                document,
                same_epoch,
            } => {
                let document = document % self.documents;
                let id = id_of(document);
                let epoch_of =
                    |registry: &dyn WorldRegistry| wait(registry.meta(&id)).map(|it| it.epoch).ok();
                // A copy of files has the epoch that they had.
                let is_same = self
                    .backup
                    .as_ref()
                    .is_some_and(|backup| epoch_of(&**backup) == epoch_of(self.registry_trait()));
                let restored = if same_epoch && is_same {
                    Restored::SameEpoch
                } else {
                    Restored::NewEpoch
                };
                if let Some(backup) = self.backup.clone() {
                    let name = name_of(document);
                    let before = self.committed(document);
                    if self.world.restore_document(&name, &*backup, restored) {
                        self.rewritten(document, false, &before);
                    }
                }
            }
            Op::Rewind { document, changes } => {
                let document = document % self.documents;
                let head = wait(self.registry_trait().meta(&id_of(document)));
                let head = head.map_or(0, |meta| meta.head.0);
                let through = Seq(head.saturating_sub(changes));
                let before = self.committed(document);
                if self.world.rewind(&name_of(document), through) {
                    self.rewritten(document, true, &before);
                }
            }
            Op::Trim {
                node,
                document,
                keep,
            } => {
                // Some engines cannot, and some documents are not there.
                let name = self.name(document);
                if self.world.trim(node % self.nodes, &name, keep).is_ok() {
                    self.model.trimmed(document % self.documents);
                }
            }
            op => self.perform_on_permissions(op),
        }
    }

    fn perform_on_permissions(&mut self, op: Op) {
        match op {
            Op::Permit {
                client,
                level,
                is_told,
            } => {
                let level = match level {
                    Level::Nothing => AccessLevel::None,
                    Level::Reading => AccessLevel::Read,
                    Level::Writing => AccessLevel::Maintain,
                };
                self.watched.has_denied |= level < AccessLevel::Write;
                self.world.permit(self.client(client), level, is_told);
            }
            Op::Leave { is_away } => self.world.permits.is_away = is_away,
            Op::Reauthorize { document } => {
                self.world.reauthorize_document(&self.name(document));
            }
            Op::TakeCredentials { client, are_taken } => {
                self.world.take_credentials(self.client(client), are_taken);
            }
            Op::Veto { per_mille } => {
                self.watched.has_vetoed |= per_mille > 0;
                self.world.permits.vetoes = (per_mille > 0).then_some(per_mille);
            }
            other => unreachable!("{other:?}"),
        }
    }

    fn client(&self, client: usize) -> usize {
        client % self.world.clients.len()
    }

    fn name(&self, document: usize) -> String {
        name_of(document % self.documents)
    }

    fn registry_trait(&self) -> &dyn WorldRegistry {
        &*self.registry
    }

    pub(super) fn edit(&mut self, client: usize, document: usize) {
        let name = name_of(document);
        let mark = self.model.next_mark();
        let place = mark % 5;
        let is_made = self
            .world
            .edit(client, &name, |edit| C::leave(edit, mark, place));
        if is_made {
            self.model.made(client, document);
        }
    }

    /// Nobody can know of a replica whose changes are still on their way.
    fn forge(&mut self, client: usize, other: usize, document: usize) {
        let (name, id) = (name_of(document), id_of(document));
        let theirs = &self.world.clients[other].state;
        let is_possible = self.world.checks
            && client != other
            && self.world.clients[client].store.is_none()
            && self.world.clients[client].state.edit_refusal(&id).is_none()
            && self.world.has_open(other, &name)
            && theirs.outbox_bytes(&id).is_empty();
        if !is_possible {
            return;
        }
        let mark = self.model.next_mark();
        let forged = |theirs: &mut C::Document| C::forge(theirs, mark);
        if let Some(bytes) = self.world.with_document(other, &name, forged) {
            self.model.made(client, document);
            self.watched.forged.insert(mark);
            self.world.inject(client, &name, bytes);
        }
    }

    fn edit_by(&mut self, client: usize, document: usize, leave: fn(&mut C::Edit<'_>, Mark)) {
        let mark = self.model.next_mark();
        let is_made = self
            .world
            .edit(client, &name_of(document), |edit| leave(edit, mark));
        if is_made {
            self.model.made(client, document);
        }
    }

    pub(super) fn open(&mut self, client: usize, document: usize) {
        let it = &mut self.world.clients[client];
        if !it.is_running {
            return;
        }
        if it.state.sync_state(&id_of(document)).is_none() {
            // Of what was closed and forgotten.
            it.replicas.remove(&id_of(document));
        }
        self.world.open(client, &name_of(document));
    }

    fn close(&mut self, client: usize, document: usize) {
        let name = name_of(document);
        if !self.world.has_open(client, &name) {
            return;
        }
        self.world.close(client, &name);
        self.model.shown.remove(&(client, document));
        let store = self.world.clients[client].store.as_ref();
        let stored = store.map(|store| self.stored(store));
        self.model.closed(client, document, stored.as_ref());
    }

    fn show(&mut self, client: usize, document: usize, says: bool) {
        let text = Bytes::from(format!("client {client}"));
        let said = self
            .world
            .set_presence(client, &name_of(document), says.then_some(text));
        if said.is_ok() {
            if says {
                self.model.shown.insert((client, document));
            } else {
                self.model.shown.remove(&(client, document));
            }
        }
    }

    fn reconnect(&mut self, client: usize) {
        if self.world.clients[client].is_running {
            self.world.reconnect(client);
        }
    }

    pub(super) fn start(&mut self, client: usize) {
        if !self.world.clients[client].is_running {
            self.world.start_client(client);
        }
    }

    /// A client's process has ended. `lost`: what its device may have lost with it.
    fn ended(&mut self, client: usize, lost: &BTreeSet<Mark>) -> Result<(), Violation> {
        self.arm_store(client);
        let store = self.world.clients[client].store.as_ref();
        let stored = store.map(|store| self.stored(store));
        let registry = Arc::clone(&self.registry);
        let committed =
            |document, mark| registry.with(&id_of(document), |found| found.marks.contains(&mark));
        let may_lose = |_, mark| lost.contains(&mark);
        let result = self
            .model
            .ended(client, stored.as_ref(), &committed, &may_lose);
        match result {
            Ok(()) => Ok(()),
            Err(what) => self.violation("lost with a process", what),
        }
    }

    fn replace_registry(&mut self, registry: Arc<crate::record::Recorded>) {
        let before: Vec<_> = (0..self.documents)
            .map(|document| self.committed(document))
            .collect();
        self.registry = Arc::clone(&registry);
        self.world.restore(registry);
        for (document, before) in before.iter().enumerate() {
            self.rewritten(document, false, before);
        }
    }

    fn committed(&self, document: usize) -> BTreeSet<Mark> {
        self.registry
            .with(&id_of(document), |committed| committed.marks.clone())
    }

    /// A document has another history. `is_wanted`: what is gone is to be gone.
    fn rewritten(&mut self, document: usize, is_wanted: bool, before: &BTreeSet<Mark>) {
        let holders = self.holders(document);
        let registry = Arc::clone(&self.registry);
        let committed = |mark| registry.with(&id_of(document), |found| found.marks.contains(&mark));
        let nobody = BTreeSet::new;
        let holders = |mark| holders.get(&mark).cloned().unwrap_or_else(nobody);
        self.model
            .rewritten(document, is_wanted, before, &committed, &holders);
        self.watched.rewritten(document);
    }
}

fn marks_of(bytes: &[u8]) -> BTreeSet<Mark> {
    crate::content::marks_in(bytes)
}
