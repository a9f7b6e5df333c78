//! What the room keeps in memory, counted on demand.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::Room;
use super::append::InFlight;
use super::member::{Member, MemberState};
use super::push::{Item, ItemKind};
use super::ring::Encoded;
use crate::ids::SessionId;

impl Room {
    /// Bytes of frames, changes and snapshots that the room keeps, about. What several sessions share counts once; so does
    /// what only one of them has yet to be sent. Looks at each session.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let in_flight = self.in_flight.iter().flat_map(InFlight::items);
        let line = self.queue.iter().chain(self.checks.items());
        let items = line.chain(self.asks.items()).chain(in_flight);
        let mut bytes = self.ring.bytes() + items.map(Item::bytes).sum::<usize>();
        let mut seen = BTreeSet::new();
        if let Some(snapshot) = &self.snapshot
            && seen.insert(Arc::as_ptr(snapshot).addr())
        {
            bytes += snapshot.held_bytes();
        }
        for member in self.members.values() {
            bytes += member.own_bytes();
            for frame in member.shared_frames() {
                if seen.insert(Arc::as_ptr(frame).addr()) {
                    bytes += frame.len();
                }
            }
            if let MemberState::Streaming(stream) = &member.state
                && let Some((snapshot, _)) = &stream.snapshot
                && seen.insert(Arc::as_ptr(snapshot).addr())
            {
                bytes += snapshot.held_bytes();
            }
        }
        bytes
    }

    /// Those that wait for one session, about, but for a snapshot and for what is kept for everybody.
    #[must_use]
    pub fn held_for(&self, session: SessionId) -> usize {
        let member = self.members.get(&session);
        member.map_or(0, |member| {
            let shared = member.shared_frames().map(|frame| frame.len());
            member.own_bytes() + shared.sum::<usize>()
        })
    }
}

impl Member {
    /// What others may have yet to be sent too.
    fn shared_frames(&self) -> impl Iterator<Item = &Arc<Encoded>> {
        let catch_up = match &self.state {
            MemberState::Streaming(stream) => Some(&stream.catch_up),
            _ => None,
        };
        let catch_up = catch_up.into_iter().flatten().map(|(frame, _)| frame);
        catch_up.chain(self.waiting.frames())
    }

    fn own_bytes(&self) -> usize {
        let prompt = self.abort.iter().chain(&self.prompt).map(Bytes::len);
        let controls = self.controls.iter().map(|control| control.frame.len());
        let withheld = self.permit.withheld.iter().map(Item::bytes);
        prompt.chain(controls).chain(withheld).sum()
    }
}

impl Item {
    fn bytes(&self) -> usize {
        match &self.kind {
            ItemKind::Change { change, .. } => change.bytes.len(),
            ItemKind::Refuse { .. } | ItemKind::Error(_) | ItemKind::Reconciled => 0,
        }
    }
}
