//! What each message of a live session does (`docs/protocol.md` section 7).

use super::{Paced, ServerSession, SessionEvent, SessionOutput};
use crate::error::{ErrorCode, PeerError};
use crate::ids::{Channel, DocumentId};
use crate::limits::push_charge;
use crate::time::Time;
use crate::wire::{Closed, Message, Open, Ping, Push, Reference};

/// Origins that one `Open` may name. Registries remember at most 100 of one user beside those in the log.
const OPEN_ORIGINS_MAX: usize = 10_000;

impl ServerSession {
    pub(super) fn on_live(&mut self, now: Time, message: Message) {
        match message {
            Message::Open(open) => self.on_open(open),
            Message::Push(push) => self.on_push(now, push),
            Message::Close(close) => self.on_close(close.channel),
            Message::Ping(Ping { nonce }) => {
                self.outputs.push_back(SessionOutput::Heads { nonce });
            }
            Message::Auth(auth) => self.on_auth(auth.credentials),
            Message::Presence(presence) => self.on_presence(now, presence),
            Message::Broadcast(broadcast) => self.on_broadcast(now, broadcast),
            Message::Extension(extension) => self.on_extension(now, extension),
            Message::FoldOffer(offer) if self.channels.contains_key(&offer.channel) => {
                self.outputs.push_back(SessionOutput::FoldOffer(offer));
            }
            Message::FoldOffer(offer) => self.not_open(offer.channel),
            Message::Error(error) if error.reference == Reference::Session => {
                self.event(SessionEvent::PeerReported(error.clone()));
                let reason = PeerError::new(error.code, error.message);
                self.close(reason);
            }
            // Nothing depends on them: a later version, an answer to a ping that this server never sends, a complaint about one document that is followed by an `Open`.
            Message::Ignored { .. } | Message::Pong(_) | Message::Error(_) => {
                self.event(SessionEvent::Ignored {
                    message: name_of(&message),
                });
            }
            Message::Hello(_)
            | Message::Welcome(_)
            | Message::Opened(_)
            | Message::Changes(_)
            | Message::Ack(_)
            | Message::Refuse(_)
            | Message::Snapshot(_)
            | Message::FoldRequest(_)
            | Message::Access(_)
            | Message::Closed(_)
            | Message::GoAway(_)
            | Message::Author(_)
            | Message::Fragment(_) => self.unexpected(name_of(&message)),
        }
    }

    fn on_open(&mut self, open: Open) {
        if open.origins.len() > OPEN_ORIGINS_MAX {
            return self.violation(PeerError::new(
                ErrorCode::MalformedFrame,
                format!(
                    "open.origins has {} entries, the limit is {OPEN_ORIGINS_MAX}",
                    open.origins.len()
                ),
            ));
        }
        self.opens.retain(|request, earlier| {
            *request != open.request && earlier.document != open.document
        });
        let is_open = self.documents.contains_key(&open.document);
        let pending = self
            .opens
            .values()
            .filter(|pending| !self.documents.contains_key(&pending.document))
            .count();
        let max = self.config.limits.documents_per_session_max;
        if !is_open && self.channels.len() + pending >= max {
            let error = PeerError::new(
                ErrorCode::TooManyDocuments,
                format!("{max} documents are open, which is the limit"),
            );
            return self.send_error(error, Reference::Request(open.request));
        }
        self.outputs.push_back(SessionOutput::Authorize {
            request: open.request,
            document: open.document.clone(),
        });
        self.opens.insert(open.request, open);
    }

    fn on_push(&mut self, now: Time, push: Push) {
        if !self.channels.contains_key(&push.channel) {
            return self.not_open(push.channel);
        }
        let limits = &self.config.limits;
        self.unsettled = self.unsettled.saturating_add(push_charge(&push.changes));
        // Generous, because both sides count at different moments.
        let max = limits
            .push_window_bytes
            .saturating_mul(2)
            .saturating_add(limits.message_bytes_max);
        if self.unsettled > max {
            return self.violation(PeerError::new(
                ErrorCode::WindowExceeded,
                format!(
                    "{} bytes of changes are not acknowledged, the window is {}",
                    self.unsettled, limits.push_window_bytes
                ),
            ));
        }
        let (channel, charge) = (push.channel, push_charge(&push.changes));
        let paced = self.pace.push(now, push);
        if paced == Paced::Ignored {
            self.handle_settled(charge);
        }
        self.carry_on(channel, paced);
    }

    /// Hands over the pushes whose turn it is.
    pub(super) fn release_pushes(&mut self, now: Time) {
        while let Some((channel, paced)) = self.pace.next(now) {
            self.carry_on(channel, paced);
        }
    }

    /// Forgets what a channel has sent and no room has been handed.
    pub(super) fn forget_pushes(&mut self, channel: Channel) {
        let charge = self.pace.forget(channel);
        self.handle_settled(charge);
    }

    fn carry_on(&mut self, channel: Channel, paced: Paced) {
        match paced {
            Paced::Go(push) => self.outputs.push_back(SessionOutput::Push(push)),
            Paced::Waits | Paced::Ignored => {}
            Paced::Refused(error, charge) => {
                self.handle_settled(charge);
                self.outputs
                    .push_back(SessionOutput::StopPush { channel, error });
            }
        }
    }

    fn on_close(&mut self, channel: Channel) {
        let Some(document) = self.leave(channel) else {
            return self.not_open(channel);
        };
        // One that was to open it again came before the close.
        self.opens.retain(|_, open| open.document != document);
        self.send(&Message::Closed(Closed {
            channel,
            reason: None,
            message: String::new(),
        }));
    }

    /// Leaves a document, if it is open.
    pub(super) fn leave(&mut self, channel: Channel) -> Option<DocumentId> {
        let document = self.channels.remove(&channel)?;
        self.documents.remove(&document);
        self.reassembler.close_channel(channel);
        self.forget_pushes(channel);
        self.outputs.push_back(SessionOutput::Leave(channel));
        Some(document)
    }

    pub(super) fn not_open(&mut self, channel: Channel) {
        let error = PeerError::new(
            ErrorCode::ChannelNotOpen,
            format!("channel {channel} is not open on this session"),
        );
        self.send_error(error, Reference::Channel(channel));
    }
}

pub(super) const fn name_of(message: &Message) -> &'static str {
    match message {
        Message::Hello(_) => "Hello",
        Message::Welcome(_) => "Welcome",
        Message::Open(_) => "Open",
        Message::Opened(_) => "Opened",
        Message::Push(_) => "Push",
        Message::Changes(_) => "Changes",
        Message::Ack(_) => "Ack",
        Message::Refuse(_) => "Refuse",
        Message::Snapshot(_) => "Snapshot",
        Message::FoldRequest(_) => "FoldRequest",
        Message::FoldOffer(_) => "FoldOffer",
        Message::Presence(_) => "Presence",
        Message::Broadcast(_) => "Broadcast",
        Message::Auth(_) => "Auth",
        Message::Access(_) => "Access",
        Message::Close(_) => "Close",
        Message::Closed(_) => "Closed",
        Message::Ping(_) => "Ping",
        Message::Pong(_) => "Pong",
        Message::GoAway(_) => "GoAway",
        Message::Error(_) => "Error",
        Message::Fragment(_) => "Fragment",
        Message::Author(_) => "Author",
        Message::Extension(_) => "Extension",
        Message::Ignored { .. } => "a message of a later version",
    }
}
