//! Asking: changes that somebody outside has a say in (hooks) before they line up.
//!
//! Each session has a line of its own here, in front of the document's, so that an answer that takes long holds up only
//! those who wait for it: what others sent later may be committed before.

use std::collections::{BTreeMap, VecDeque};

use super::member::Writing;
use super::push::{Item, ItemKind};
use super::{Room, RoomOutput};
use crate::error::{ErrorCode, PeerError};
use crate::ids::SessionId;
use crate::registry::NewChange;
use crate::server::registry::RequestNumber;
use crate::time::Time;

/// Changes of one session that may or may not go on; see [`RoomOutput::Ask`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AskRequest {
    /// The session.
    pub session: SessionId,
    /// The changes, in the order in which they are to be appended.
    pub changes: Vec<NewChange>,
}

/// The lines of those who have something in them.
#[derive(Debug, Clone, Default)]
pub(super) struct Asks {
    lines: BTreeMap<(SessionId, u32), Line>,
    running: BTreeMap<RequestNumber, (SessionId, u32)>,
}

#[derive(Debug, Clone, Default)]
struct Line {
    waiting: VecDeque<Item>,
    /// Those that are being asked about, before all that wait.
    running: Option<(RequestNumber, Vec<Item>)>,
}

impl Asks {
    /// What is in it.
    pub(super) fn items(&self) -> impl Iterator<Item = &Item> {
        self.lines.values().flat_map(|line| {
            let running = line.running.iter().flat_map(|(_, items)| items);
            line.waiting.iter().chain(running)
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// What has not been answered.
    pub(super) fn items_mut(&mut self) -> impl Iterator<Item = &mut Item> {
        self.lines.values_mut().flat_map(|line| {
            let running = line.running.iter_mut().flat_map(|(_, items)| items);
            running.chain(&mut line.waiting)
        })
    }
}

impl Room {
    /// Takes the answer to a [`RoomOutput::Ask`]: how many of the changes may go on, from the first, and what is the
    /// matter with the one after those, if that is not all of them. An error whose code is final refuses that change for good;
    /// any other has the session open the document again and try later.
    pub fn handle_asked(
        &mut self,
        now: Time,
        number: RequestNumber,
        accepted: usize,
        error: Option<PeerError>,
    ) {
        if let Some(key) = self.asks.running.remove(&number)
            && let Some(line) = self.asks.lines.get_mut(&key)
            && let Some((_, items)) = line.running.take_if(|(running, _)| *running == number)
        {
            self.take_answer(key, items, accepted, error);
        }
        self.turn(now);
    }

    /// Puts something at the end of its session's line, or of the document's if nobody has a say.
    pub(super) fn hand_in(&mut self, item: Item) {
        if self.config.asks {
            let line = self.asks.lines.entry(item.member).or_default();
            line.waiting.push_back(item);
        } else {
            self.line_up(item);
        }
    }

    /// Asks about what waits, one request for each session at a time.
    pub(super) fn start_asks(&mut self) {
        if self.asks.is_empty() {
            return;
        }
        let idle = |(key, line): (&(SessionId, u32), &Line)| line.running.is_none().then_some(*key);
        let keys: Vec<_> = self.asks.lines.iter().filter_map(idle).collect();
        for key in keys {
            self.start_ask(key);
        }
    }

    fn start_ask(&mut self, key: (SessionId, u32)) {
        let items = self.next_asked(key);
        let change = |item: &Item| match &item.kind {
            ItemKind::Change { change, .. } => Some(change.clone()),
            _ => None,
        };
        let changes: Vec<_> = items.iter().filter_map(change).collect();
        if changes.is_empty() {
            // An end, or a refusal: everything before it has been handed on.
            self.asks.lines.remove(&key);
            return items.into_iter().for_each(|item| self.line_up(item));
        }
        self.next_request += 1;
        let number = RequestNumber(self.next_request);
        if let Some(line) = self.asks.lines.get_mut(&key) {
            line.running = Some((number, items));
        }
        self.asks.running.insert(number, key);
        let session = key.0;
        let request = AskRequest { session, changes };
        self.outputs.push_back(RoomOutput::Ask(number, request));
    }

    /// As much as one append takes. Nothing, or no changes, only if there are none in the line.
    fn next_asked(&mut self, key: (SessionId, u32)) -> Vec<Item> {
        let (changes_max, bytes_max) =
            (self.config.append_changes_max, self.config.append_bytes_max);
        let Some(line) = self.asks.lines.get_mut(&key) else {
            return Vec::new();
        };
        let (mut n, mut bytes) = (0_usize, 0_usize);
        let fits = |item: &Item| {
            if let ItemKind::Change { change, .. } = &item.kind {
                bytes = bytes.saturating_add(change.bytes.len());
                n += 1;
                return n == 1 || (n <= changes_max && bytes <= bytes_max);
            }
            true
        };
        let end = line.waiting.iter().map(fits).position(|fits| !fits);
        let end = end.unwrap_or(line.waiting.len());
        line.waiting.drain(..end).collect()
    }

    fn take_answer(
        &mut self,
        key: (SessionId, u32),
        items: Vec<Item>,
        accepted: usize,
        error: Option<PeerError>,
    ) {
        let mut left = accepted;
        let mut items = items.into_iter();
        while let Some(item) = items.next() {
            let ItemKind::Change { change, .. } = &item.kind else {
                self.line_up(item);
                continue;
            };
            if left > 0 {
                left -= 1;
                self.line_up(item);
                continue;
            }
            let error = error.unwrap_or_else(unanswered);
            let kind = if error.code.is_final() {
                let change = change.id;
                ItemKind::Refuse { change, error }
            } else {
                ItemKind::Error(error)
            };
            self.line_up(Item { kind, ..item });
            if let Some(member) = self.live(key) {
                member.writing = Writing::Closed;
            }
            items.for_each(|item| self.settle(&item));
            return self.drop_asked(Some(key));
        }
        if self
            .asks
            .lines
            .get(&key)
            .is_some_and(|line| line.waiting.is_empty())
        {
            self.asks.lines.remove(&key);
        }
    }

    /// Forgets what has not been answered, of one member or of all.
    pub(super) fn drop_asked(&mut self, key: Option<(SessionId, u32)>) {
        let keys: Vec<_> = match key {
            Some(key) => vec![key],
            None => self.asks.lines.keys().copied().collect(),
        };
        for key in keys {
            for item in self.take_asked(key) {
                self.settle(&item);
            }
        }
    }

    /// Takes what has not been answered of one member, in order.
    pub(super) fn take_asked(
        &mut self,
        key: (SessionId, u32),
    ) -> impl Iterator<Item = Item> + use<> {
        let line = self.asks.lines.remove(&key).unwrap_or_default();
        let running = line.running.map_or_else(Vec::new, |(number, items)| {
            self.asks.running.remove(&number);
            items
        });
        running.into_iter().chain(line.waiting)
    }
}

fn unanswered() -> PeerError {
    PeerError::new(ErrorCode::HookUnavailable, "nobody could be asked")
}
