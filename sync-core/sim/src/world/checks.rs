//! What has to be so in a world that has come to rest.

use std::time::Duration;

use sync_core::engine::{Engine, Validator};

use super::{World, id};

impl<E: Engine + Validator> World<E> {
    /// Runs until every client that is online is caught up and has nothing unsaved.
    #[track_caller]
    pub fn settle(&mut self, document: &str) {
        self.run_until(
            Duration::from_secs(300),
            "everybody is caught up and saved",
            |world| {
                world.members(document).iter().all(|client| {
                    let state = world.sync_state(*client, document);
                    state.is_caught_up() && state.is_saved()
                }) && {
                    let head = world.meta(document).head;
                    world.members(document).iter().all(|client| {
                        world
                            .cursor(*client, document)
                            .is_some_and(|c| c.seq == head)
                    })
                }
            },
        );
    }

    /// Clients that are online and have something open.
    pub fn online(&self) -> Vec<usize> {
        (0..self.clients.len())
            .filter(|client| {
                self.clients[*client].online && !self.clients[*client].replicas.is_empty()
            })
            .collect()
    }

    /// Who is online and has the document open.
    pub fn members(&self, document: &str) -> Vec<usize> {
        let mut members = self.online();
        members.retain(|client| self.clients[*client].replicas.contains_key(&id(document)));
        members
    }

    /// Everybody online has the same version, and stands at the registry's head with its digest.
    #[track_caller]
    pub fn assert_converged(&mut self, document: &str) {
        let meta = self.meta(document);
        let online = self.members(document);
        let first = self.version(online[0], document);
        for client in online {
            assert_eq!(self.version(client, document), first, "client {client}");
            let cursor = self.cursor(client, document).unwrap();
            assert_eq!(
                (cursor.epoch, cursor.seq, cursor.digest),
                (meta.epoch, meta.head, meta.digest),
                "client {client}"
            );
        }
    }
}
