//! The end of a plan: everything works again, and within bounded time everybody has everything.

use std::collections::BTreeSet;
use std::time::Duration;

use sync_core::client::SyncPhase;
use sync_core::ids::SessionId;
use sync_core::wire::AccessLevel;

use super::{Runner, id_of, name_of, weather_of};
use crate::content::{Content, marks_in};
use crate::model::{Fate, Violation};
use crate::plan::Sky;
use crate::world::{RegistryFaults, WorldRegistry, wait};

/// In which everything comes to rest.
const REST_MAX: Duration = Duration::from_secs(600);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(500);

impl<C: Content> Runner<C> {
    pub(super) fn come_to_rest(&mut self) -> Result<(), Violation> {
        self.heal();
        self.wait_for_rest()?;
        // Somebody who was never there sees the same as everybody.
        let late = self.world.add_client();
        for document in 0..self.documents {
            self.open(late, document);
        }
        self.wait_for_rest()?;
        // Whoever has gone is forgotten.
        self.world.run_for(Duration::from_secs(40));
        self.wait_for_rest()?;
        for document in 0..self.documents {
            self.check_content(late, document)?;
            self.check_presence(document)?;
        }
        Ok(())
    }

    fn heal(&mut self) {
        self.world.weather = weather_of(Sky::Fair);
        self.world.faults = RegistryFaults::default();
        self.world.permits.is_away = false;
        self.world.permits.vetoes = None;
        self.world.start_server();
        for client in self.clients() {
            if let Some(store) = &mut self.world.clients[client].store {
                store.fails = false;
            }
            self.world.permit(client, AccessLevel::Maintain, true);
            self.world.take_credentials(client, true);
            self.world.slow_down(client, Duration::ZERO);
            self.world.dial_node(client, None);
            self.start(client);
            self.world.set_online(client, true);
            self.world.reconnect(client);
            for document in 0..self.documents {
                if !self.world.has_open(client, &name_of(document))
                    || self.is_closed(client, document)
                {
                    self.open(client, document);
                }
            }
        }
    }

    fn is_closed(&self, client: usize, document: usize) -> bool {
        let state = &self.world.clients[client].state;
        let state = state.sync_state(&id_of(document));
        state.is_none_or(|state| state.phase == SyncPhase::Closed)
    }

    fn wait_for_rest(&mut self) -> Result<(), Violation> {
        let end = self.world.now + REST_MAX;
        let mut n = 0;
        loop {
            let Some(restless) = self.restless() else {
                return self.watch();
            };
            if self.world.now > end {
                return self.violation("does not come to rest", restless);
            }
            self.world.run_for(LOOK);
            n += 1;
            if n % 10 == 0 {
                self.watch()?;
                self.open_refused();
                self.world.start_server();
            }
        }
    }

    /// Whoever was told that there was no document, or that it might not be opened, asks again.
    fn open_refused(&mut self) {
        for client in self.clients() {
            for document in 0..self.documents {
                let state = &self.world.clients[client].state;
                let state = state.sync_state(&id_of(document));
                if state.is_none_or(|it| matches!(it.phase, SyncPhase::Refused(_))) {
                    self.open(client, document);
                }
            }
        }
    }

    /// Somebody who does not have everything, or has not delivered everything.
    fn restless(&self) -> Option<String> {
        for document in 0..self.documents {
            let id = id_of(document);
            let registry = &*self.registry as &dyn WorldRegistry;
            let Ok(meta) = wait(registry.meta(&id)) else {
                return Some(format!("there is no document {document}"));
            };
            for client in self.clients() {
                let state = &self.world.clients[client].state;
                let Some(sync) = state.sync_state(&id) else {
                    return Some(format!(
                        "client {client} has not opened document {document}"
                    ));
                };
                let cursor = state.cursor(&id);
                let is_there = cursor.is_some_and(|cursor| {
                    (cursor.epoch, cursor.seq, cursor.digest)
                        == (meta.epoch, meta.head, meta.digest)
                });
                if !(sync.is_caught_up() && sync.is_saved() && is_there) {
                    return Some(format!(
                        "client {client}, {:?}, document {document}: {sync:?} at {cursor:?}; the registry is at {:?}, {:?}, {:?}",
                        state.status(),
                        meta.epoch,
                        meta.head,
                        meta.digest
                    ));
                }
            }
        }
        None
    }

    fn check_content(&mut self, late: usize, document: usize) -> Result<(), Violation> {
        let shown = self.shown(late, document).unwrap_or_default();
        for client in self.clients() {
            let theirs = self.shown(client, document).unwrap_or_default();
            let is_same = if C::IS_EXACT {
                theirs == shown
            } else {
                marks_in(&theirs) == marks_in(&shown)
            };
            if !is_same {
                return self.violation(
                    "diverged",
                    format!(
                        "at rest, in document {document}: client {client} shows {}, who has just come {}",
                        String::from_utf8_lossy(&theirs),
                        String::from_utf8_lossy(&shown)
                    ),
                );
            }
        }
        let there = marks_in(&shown);
        let handed_back = self.model.handed_back.iter();
        let has_refused: BTreeSet<usize> = handed_back
            .filter(|(_, of)| *of == document)
            .map(|(client, _)| *client)
            .collect();
        let mut problem = None;
        for (mark, edit) in self.model.of(document) {
            let is_there = there.contains(&mark);
            let kind = match (&edit.fate, is_there) {
                (Fate::Saved, false) => "an acknowledged edit is lost",
                // A replica that is rebuilt without a refused change brings nothing back.
                (Fate::Returning(holders), false) if holders.is_subset(&has_refused) => continue,
                (Fate::Returning(_), false) => "an edit that clients have does not come back",
                (Fate::Pending, _) => "an edit is pending at rest",
                (Fate::Refused, true) => "a refused edit is there",
                _ => continue,
            };
            problem = Some((
                kind,
                format!(
                    "edit {mark} of client {}, document {document}: {:?}",
                    edit.author, edit.fate
                ),
            ));
            break;
        }
        match problem {
            Some((kind, what)) => self.violation(kind, what),
            None => Ok(()),
        }
    }

    fn check_presence(&mut self, document: usize) -> Result<(), Violation> {
        let name = name_of(document);
        let shown = &self.model.shown;
        for client in self.clients() {
            // Presence does not go from node to node here: that is the backplane's.
            let node = self.world.node_of(client);
            let expected: BTreeSet<SessionId> = self
                .clients()
                .filter(|other| self.world.node_of(*other) == node)
                .filter(|other| shown.contains(&(*other, document)))
                .filter_map(|other| self.world.session_of(other))
                .collect();
            let roster = self.world.roster(client, &name);
            let seen: BTreeSet<SessionId> = roster.iter().map(|peer| peer.session).collect();
            if seen != expected {
                return self.violation(
                    "presence",
                    format!("client {client} sees {seen:?} in document {document}; there are {expected:?}"),
                );
            }
        }
        Ok(())
    }
}
