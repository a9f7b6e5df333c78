//! Carrying out what documents ask for: opening, pushing within the window, and what goes to the driver.

use std::collections::BTreeSet;

use super::{AttemptId, ClientState, Link, Output};
use crate::client::document::{DocumentState, Turn};
use crate::client::event::{ClientEvent, DocumentEvent};
use crate::ids::{Channel, DocumentId, RequestId};
use crate::limits::push_charge;
use crate::rng::Rng;
use crate::time::Time;
use crate::wire::Message;

impl ClientState {
    /// Runs something on a document's machine, carries out what it asks for, and moves on what has become possible.
    pub(super) fn turn<R>(
        &mut self,
        now: Time,
        document: &DocumentId,
        f: impl FnOnce(&mut DocumentState, &mut Rng, &mut Turn) -> R,
    ) -> Option<R> {
        let result = self.turn_only(document, f);
        self.pump(now);
        result
    }

    pub(super) fn turn_only<R>(
        &mut self,
        document: &DocumentId,
        f: impl FnOnce(&mut DocumentState, &mut Rng, &mut Turn) -> R,
    ) -> Option<R> {
        let state = self.documents.get_mut(document)?;
        let mut turn = Turn::default();
        let in_flight = state.in_flight_charge();
        let result = f(state, &mut self.rng, &mut turn);
        state.finish_progress();
        state.leave_if_done(&mut turn);
        let channel = state.channel();
        if let Link::Up(up) = &mut self.link {
            up.in_flight = (up.in_flight + state.in_flight_charge()).saturating_sub(in_flight);
        }
        self.outputs
            .extend(turn.jobs.into_iter().map(|(number, job)| Output::Job {
                document: document.clone(),
                number,
                job,
            }));
        for event in turn.events {
            if let DocumentEvent::Refused { count } = event {
                self.event(ClientEvent::Refused {
                    document: document.clone(),
                    count,
                });
            }
            self.outputs.push_back(Output::DocumentEvent {
                document: document.clone(),
                event,
            });
        }
        for message in turn.messages {
            self.send(&message, channel.or(turn.left).unwrap_or(Channel(0)), false);
        }
        if let (Some(left), Link::Up(up)) = (turn.left, &mut self.link) {
            up.channels.remove(&left);
        }
        if let Some((number, write)) = self
            .documents
            .get_mut(document)
            .and_then(DocumentState::take_write)
        {
            let write = Box::new(write);
            self.outputs.push_back(Output::Store {
                document: document.clone(),
                number,
                write,
            });
        }
        if turn.shows_presence {
            self.show_presence(document);
        }
        if turn.touched {
            self.touch(document);
        }
        Some(result)
    }

    pub(super) fn touch(&mut self, document: &DocumentId) {
        if let Link::Up(up) = &mut self.link
            && up.is_pushing.insert(document.clone())
        {
            up.pushing.push_back(document.clone());
        }
        if let Some(at) = self
            .documents
            .get(document)
            .and_then(DocumentState::next_deadline)
        {
            self.timers.insert((at, document.clone()));
        }
        self.due.insert(document.clone());
        self.outputs.push_back(Output::Touched(document.clone()));
    }

    /// Opens what is to be opened and pushes what the window allows. Forgets documents that are done.
    pub(super) fn pump(&mut self, now: Time) {
        let window = match &self.link {
            Link::Up(up) => up.welcomed.map(|limits| limits.push_window_bytes),
            _ => None,
        };
        while let Some((_, document)) = pop_due(&mut self.timers, now) {
            self.due.insert(document);
        }
        for document in std::mem::take(&mut self.due) {
            let Some(state) = self.documents.get(&document) else {
                continue;
            };
            if state.is_done() {
                if state.has_numbered() {
                    self.numbered.insert(document.clone());
                }
                if state.has_said() {
                    self.said.insert(document.clone());
                }
                self.documents.remove(&document);
                self.outputs.push_back(Output::Forgotten(document));
            } else if window.is_some() && state.wants_open(now) {
                self.open_document(&document);
            } else {
                self.say_presence(now, &document);
            }
        }
        if let Some(window) = window {
            self.push(usize::try_from(window).unwrap_or(usize::MAX));
        }
    }

    pub(super) fn open_document(&mut self, document: &DocumentId) {
        self.next_request = self.next_request.wrapping_add(1);
        let request = RequestId(self.next_request);
        if let Link::Up(up) = &mut self.link {
            up.requests.insert(request, document.clone());
        }
        self.turn_only(document, |state, _, turn| state.open(request, turn));
    }

    /// Documents take turns, one frame each, while the session's window has room.
    pub(super) fn push(&mut self, window: usize) {
        loop {
            let Link::Up(up) = &mut self.link else { return };
            let Some(id) = up.pushing.front() else { return };
            let document = self.documents.get_mut(id);
            let next = document
                .as_ref()
                .and_then(|document| document.next_push_charge());
            if next.is_some_and(|next| up.in_flight > 0 && up.in_flight + next > window) {
                return;
            }
            let room = window.saturating_sub(up.in_flight);
            let push = document
                .filter(|_| next.is_some())
                .and_then(|document| document.push(room));
            let Some(id) = up.pushing.pop_front() else {
                return;
            };
            let Some(push) = push else {
                up.is_pushing.remove(&id);
                continue;
            };
            up.pushing.push_back(id);
            up.in_flight += push_charge(&push.changes);
            let channel = push.channel;
            self.send(&Message::Push(push), channel, false);
        }
    }

    pub(super) fn send(&mut self, message: &Message, channel: Channel, urgent: bool) {
        let Link::Up(up) = &mut self.link else { return };
        let attempt = AttemptId(self.attempt);
        self.outputs.extend(
            up.session
                .encode(message, channel)
                .into_iter()
                .map(|frame| Output::Send {
                    attempt,
                    frame,
                    urgent,
                }),
        );
    }

    pub(super) fn event(&mut self, event: ClientEvent) {
        self.outputs.push_back(Output::Event(event));
    }

    pub(super) fn set_link(&mut self, link: Link) {
        self.link = link;
        self.tell_status();
    }

    pub(super) fn tell_status(&mut self) {
        let status = self.status();
        if self.told != status {
            self.told = status.clone();
            self.event(ClientEvent::StatusChanged(status));
        }
    }
}

fn pop_due(timers: &mut BTreeSet<(Time, DocumentId)>, now: Time) -> Option<(Time, DocumentId)> {
    timers
        .first()
        .is_some_and(|(at, _)| *at <= now)
        .then(|| timers.pop_first())
        .flatten()
}
