//! The rooms of one node: which one a document has, and the numbers that tell them apart.

use std::collections::{BTreeMap, BTreeSet};

use super::stats::RoomCounters;
use crate::ids::{Channel, DocumentId};

/// The rooms of one node: at most one of each document, and no two with the same channel.
///
/// An open is to be done like this, whatever else goes on at the same time:
///
/// 1. [`enter`](Self::enter) gives the document's room, or makes it one;
/// 2. hand the open to that room ([`Room::handle_open`](super::Room::handle_open));
/// 3. if that says [`RoomUnloaded`](super::RoomUnloaded), [`forget`](Self::forget) that room, and begin again.
///
/// A room is forgotten by whoever first sees that it is [unloaded](super::RoomPhase::Unloaded), and by nobody before: then it has
/// nothing under way, and another one may begin. `H` is what its driver holds of a room.
#[derive(Debug, Clone)]
pub struct Rooms<H> {
    live: BTreeMap<DocumentId, (Channel, H)>,
    channels: BTreeSet<Channel>,
    last_channel: Channel,
    forgotten: RoomCounters,
}

impl<H> Default for Rooms<H> {
    fn default() -> Self {
        Self {
            live: BTreeMap::new(),
            channels: BTreeSet::new(),
            // That number means the session itself.
            last_channel: Channel(0),
            forgotten: RoomCounters::default(),
        }
    }
}

impl<H> Rooms<H> {
    /// The document's room, if it has one.
    #[must_use]
    pub fn get(&self, document: &DocumentId) -> Option<&H> {
        self.live.get(document).map(|(_, room)| room)
    }

    /// The document's room, or the one that is made for it, with a number that names no other.
    pub fn enter(&mut self, document: &DocumentId, make: impl FnOnce(Channel) -> H) -> &H {
        let (_, room) = self.live.entry(document.clone()).or_insert_with(|| {
            let channel = next_channel(&self.channels, self.last_channel);
            self.last_channel = channel;
            self.channels.insert(channel);
            (channel, make(channel))
        });
        room
    }

    /// Forgets the room of this channel, if it still is the document's: another one may have taken its place. Whether it
    /// was.
    ///
    /// `counted` gives what the room has counted; that goes into [`forgotten`](Self::forgotten) in the same moment, so that totals never go
    /// back.
    pub fn forget(
        &mut self,
        document: &DocumentId,
        channel: Channel,
        counted: impl FnOnce(&mut RoomCounters),
    ) -> bool {
        let is_its = |(theirs, _): &(Channel, H)| *theirs == channel;
        if !self.live.get(document).is_some_and(is_its) {
            return false;
        }
        self.live.remove(document);
        self.channels.remove(&channel);
        counted(&mut self.forgotten);
        true
    }

    /// What rooms counted that are no more.
    #[must_use]
    pub const fn forgotten(&self) -> &RoomCounters {
        &self.forgotten
    }

    /// All rooms, in the order of their documents' ids.
    pub fn iter(&self) -> impl Iterator<Item = &H> {
        self.live.values().map(|(_, room)| room)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }
}

/// The next number that no room has. Numbers come round only after four billion rooms: a frame for a room that is no
/// more cannot be taken for another's.
fn next_channel(taken: &BTreeSet<Channel>, last: Channel) -> Channel {
    let mut next = last;
    loop {
        next = Channel(next.0.wrapping_add(1));
        if next != Channel(0) && !taken.contains(&next) {
            return next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> DocumentId {
        DocumentId::new(name).unwrap()
    }

    #[test]
    fn a_document_has_one_room_until_that_is_forgotten() {
        let mut rooms = Rooms::default();
        let first = *rooms.enter(&id("a"), |channel| channel);
        assert_eq!(*rooms.enter(&id("a"), |_| panic!("it has one")), first);
        assert!(rooms.forget(&id("a"), first, |_| {}));
        let second = *rooms.enter(&id("a"), |channel| channel);
        assert_ne!(second, first);
        // Too late: that room has gone already, and this is another one.
        assert!(!rooms.forget(&id("a"), first, |_| panic!("counted twice")));
        assert_eq!(rooms.get(&id("a")), Some(&second));
    }

    #[test]
    fn what_a_room_has_counted_stays_when_it_is_forgotten() {
        let mut rooms = Rooms::default();
        let channel = *rooms.enter(&id("a"), |channel| channel);
        rooms.forget(&id("a"), channel, |total| total.changes += 3);
        assert_eq!(rooms.forgotten().changes, 3);
        assert!(rooms.is_empty());
    }

    #[test]
    fn numbers_that_come_round_pass_over_the_session_itself_and_over_rooms_that_live() {
        let mut rooms = Rooms::default();
        let old = *rooms.enter(&id("old"), |channel| channel);
        rooms.last_channel = Channel(u32::MAX - 1);
        assert_eq!(*rooms.enter(&id("a"), |channel| channel), Channel(u32::MAX));
        assert_eq!(old, Channel(1));
        assert_eq!(*rooms.enter(&id("b"), |channel| channel), Channel(2));
    }
}
