//! What must be so: in every state, and when everything has come to rest.

use std::collections::BTreeSet;

use sync_core::client::SyncPhase;
use sync_core::ids::ChangeId;
use sync_core::registry::NewChange;

use super::client::label;
use super::{Changes, State};
use crate::notes::{self, Dot};

impl Changes {
    /// After a refusal nothing is taken on that channel until the document is opened again (design 2.2).
    pub(super) fn check_append(&self, state: &State, changes: &[NewChange]) -> Result<(), String> {
        for change in changes {
            let labels = labels(&change.bytes);
            if !labels.is_disjoint(&self.bounds.bad) {
                return Err(format!("a bad note is appended: {labels:?}"));
            }
            let mut links = state.links.values();
            let refused = links.find(|link| {
                state.clients[link.client].user.id == change.user.id && link.refused.is_some()
            });
            if let Some(link) = refused {
                return Err(format!(
                    "{:?} was refused, and {:?} is appended before the document is opened again",
                    link.refused, change.id
                ));
            }
        }
        Ok(())
    }

    pub(super) fn check(&self, state: &State) -> Result<(), String> {
        self.check_log(state)?;
        for (index, client) in state.clients.iter().enumerate() {
            for (n, &ordinal) in (1..).zip(&client.ordinals) {
                let label = label(index, n);
                let is_there = state.committed.contains(&label);
                match client.state.settled(&self.document, ordinal, ordinal) {
                    Some(Ok(())) if !is_there => {
                        return Err(format!("note {label} is acknowledged, and in no log"));
                    }
                    Some(Err(_)) if is_there && self.bounds.restores == 0 => {
                        return Err(format!("note {label} is handed back, and in the log"));
                    }
                    _ => {}
                }
            }
            let notes = client.replica.read(|notes| notes.notes.clone()).unwrap();
            for note in notes.values() {
                let is_own = note.label / 10 == index as u8;
                if !is_own && !state.committed.contains(&note.label) {
                    return Err(format!(
                        "client {index} has note {}, which nobody committed",
                        note.label
                    ));
                }
            }
        }
        Ok(())
    }

    /// The log is closed, holds nothing twice, and each author's notes in their order.
    fn check_log(&self, state: &State) -> Result<(), String> {
        let mut ids: BTreeSet<ChangeId> = BTreeSet::new();
        let mut dots: BTreeSet<Dot> = BTreeSet::new();
        let mut last = vec![0; self.bounds.clients];
        for row in state.registry.log() {
            if !ids.insert(row.id) {
                return Err(format!("{:?} is in the log twice", row.id));
            }
            let notes = notes::read(&row.bytes).unwrap();
            let together: BTreeSet<Dot> = notes.iter().map(|note| note.dot).collect();
            for note in notes {
                if !note
                    .knew
                    .iter()
                    .all(|dot| dots.contains(dot) || together.contains(dot))
                {
                    return Err(format!(
                        "note {} is in the log before what it follows",
                        note.label
                    ));
                }
                // After a loss, what was lost may come from several who have it.
                if !dots.insert(note.dot) && self.bounds.restores == 0 {
                    return Err(format!("note {} is in the log twice", note.label));
                }
                let last = &mut last[usize::from(note.label / 10)];
                if note.label <= *last && self.bounds.restores == 0 {
                    return Err(format!(
                        "note {} is in the log behind note {last}",
                        note.label
                    ));
                }
                *last = note.label;
            }
        }
        Ok(())
    }

    /// Why not everybody has everything, if so.
    pub(super) fn unsettled(&self, state: &State) -> Option<String> {
        state
            .clients
            .iter()
            .enumerate()
            .find_map(|(index, client)| {
                let it = client.state.sync_state(&self.document)?;
                let head = state.registry.document.as_ref().map(|it| it.meta.head);
                let cursor = client.state.cursor(&self.document).map(|it| it.seq);
                let is_settled = it.phase == SyncPhase::Live
                    && it.unsaved == 0
                    && client.state.status().is_connected()
                    && cursor == head;
                (!is_settled)
                    .then(|| format!("client {index} stands at {cursor:?} of {head:?}: {it:?}"))
            })
    }

    /// Everybody has what the log has, and every note is there once or was handed back.
    pub(super) fn check_settled(&self, state: &State) -> Result<(), String> {
        let Some(document) = &state.registry.document else {
            return Err("there is no document".into());
        };
        let meta = &document.meta;
        let logged = document.log.iter().flat_map(|row| labels(&row.bytes));
        let logged: BTreeSet<u8> = logged.collect();
        for (index, client) in state.clients.iter().enumerate() {
            let cursor = client.state.cursor(&self.document).unwrap();
            if (cursor.epoch, cursor.seq, cursor.digest) != (meta.epoch, meta.head, meta.digest) {
                return Err(format!(
                    "client {index} is settled at {cursor:?} of {meta:?}"
                ));
            }
            let notes = client.replica.read(|notes| notes.notes.clone()).unwrap();
            let here: BTreeSet<u8> = notes.values().map(|note| note.label).collect();
            if here != logged {
                return Err(format!("client {index} has {here:?}, the log {logged:?}"));
            }
            let refused = client.state.refused(&self.document);
            let back = refused.iter().flat_map(|change| labels(&change.bytes));
            let back: BTreeSet<u8> = back.collect();
            for n in 1..=client.edits {
                let label = label(index, n);
                match (logged.contains(&label), back.contains(&label)) {
                    (true, false) | (false, true) => {}
                    (is_logged, is_back) => {
                        return Err(format!(
                            "note {label}: logged {is_logged}, handed back {is_back}"
                        ));
                    }
                }
            }
        }
        Ok(())
    }
}

fn labels(bytes: &[u8]) -> BTreeSet<u8> {
    notes::read(bytes)
        .unwrap()
        .iter()
        .map(|note| note.label)
        .collect()
}
