//! The life of the connection: attempts, loss, timers (protocol.md section 6).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::ephemeral::Buckets;
use super::{AttemptId, ClientState, Link, Output, Up};
use crate::client::event::{ClientEvent, EndReason, FailedReason};
use crate::client::session::{ClientSession, Due, Received};
use crate::error::{ErrorCode, PeerError};
use crate::ids::{Channel, DocumentId};
use crate::rate::TokenBucket;
use crate::time::Time;
use crate::transport::DialError;
use crate::wire::{ErrorMessage, Hello, Message, Reference};

/// Close code of a connection in whose place there will be another one.
const RETURNS: u16 = 4000;

impl ClientState {
    /// The connection asked for is there.
    pub fn handle_connected(&mut self, now: Time, attempt: AttemptId) {
        let Link::Dialing { deadline } = self.link else {
            return self.outputs.push_back(Output::Hangup {
                attempt,
                code: 1000,
            });
        };
        if attempt.0 != self.attempt {
            return self.outputs.push_back(Output::Hangup {
                attempt,
                code: 1000,
            });
        }
        let session = ClientSession::new(
            now,
            &self.config.limits,
            deadline.since(now),
            self.config.ping_timeout,
        );
        self.link = Link::Up(Box::new(Up {
            session,
            welcomed: None,
            presences: TokenBucket::new(self.config.limits.presence_rate),
            channels: BTreeMap::new(),
            requests: BTreeMap::new(),
            leave_at: None,
            pushing: VecDeque::new(),
            is_pushing: BTreeSet::new(),
            in_flight: 0,
            buckets: Buckets::default(),
        }));
        let hello = Message::Hello(Hello {
            versions: self.config.versions,
            software: self.config.software.clone(),
            origin: self.config.origin,
            connection: self.attempt,
            credentials: self.config.credentials.clone(),
            compression: self.config.compression.clone(),
            resume: self.resume.clone(),
        });
        self.send(&hello, Channel(0), false);
    }

    /// No connection could be made.
    pub fn handle_dial_failed(&mut self, now: Time, attempt: AttemptId, error: DialError) {
        if attempt.0 != self.attempt || !matches!(self.link, Link::Dialing { .. }) {
            return;
        }
        self.event(ClientEvent::SessionEnded(match error {
            DialError::Untrusted(problem) => EndReason::Untrusted(problem),
            DialError::Unreachable(_) | DialError::Unauthenticated(_) | DialError::Refused(_) => {
                EndReason::Lost { close_code: None }
            }
        }));
        match error {
            // The next attempt asks for others first.
            DialError::Unauthenticated(_) if self.config.refreshes => {
                self.wait(now, Duration::ZERO);
            }
            DialError::Unauthenticated(why) | DialError::Refused(why) => {
                self.forget_presence();
                self.set_link(Link::Failed(FailedReason::Refused(why.into())));
            }
            DialError::Unreachable(_) | DialError::Untrusted(_) => self.wait(now, Duration::ZERO),
        }
    }

    /// A frame arrived.
    pub fn handle_frame(&mut self, now: Time, attempt: AttemptId, frame: Bytes) {
        if attempt.0 != self.attempt {
            return;
        }
        let Link::Up(up) = &mut self.link else { return };
        match up.session.handle_frame(now, frame) {
            Ok(Received::Nothing) => {}
            Ok(Received::Welcome(welcome)) => self.handle_welcome(now, &welcome),
            Ok(Received::Message(message)) => self.handle_message(now, message),
            Err(error) => self.protocol_error(now, error),
        }
        self.pump(now);
    }

    /// The connection closed or broke.
    pub fn handle_lost(&mut self, now: Time, attempt: AttemptId, close_code: Option<u16>) {
        if attempt.0 != self.attempt || !matches!(self.link, Link::Up(_)) {
            return;
        }
        match close_code.and_then(ErrorCode::from_close_code) {
            Some(code) => {
                let error = PeerError::new(code, "the server closed the connection");
                self.session_error(now, error, code.action());
            }
            None => self.lost(now, EndReason::Lost { close_code }, RETURNS),
        }
    }

    /// What arrived is nothing that the transport can carry: whoever is there does not speak this protocol
    /// ([`ErrorCode::WrongProtocol`]), or breaks its limits.
    pub fn handle_broken(&mut self, now: Time, attempt: AttemptId, error: PeerError) {
        if attempt.0 == self.attempt && matches!(self.link, Link::Up(_)) {
            self.protocol_error(now, error);
        }
    }

    /// Time has passed. Early or repeated calls do nothing.
    pub fn handle_timeout(&mut self, now: Time) {
        if self.stale_until.is_some_and(|until| until <= now) {
            self.expire_presence();
        }
        match &mut self.link {
            Link::Offline | Link::Failed(_) => {}
            Link::Waiting { until, .. } if *until <= now => self.dial(now),
            Link::Dialing { deadline } if *deadline <= now => {
                self.lost(now, EndReason::HandshakeTimeout, RETURNS)
            }
            Link::Up(up) if up.leave_at.is_some_and(|at| at <= now) => {
                self.end(EndReason::Local, RETURNS);
                self.dial(now);
            }
            Link::Up(up) => match up.session.handle_timeout(now) {
                Due::Nothing => {}
                Due::Ping(ping) => self.send(&ping, Channel(0), true),
                Due::HandshakeTimeout => self.lost(now, EndReason::HandshakeTimeout, RETURNS),
                Due::Silence => self.lost(now, EndReason::Silence, RETURNS),
            },
            Link::Waiting { .. } | Link::Dialing { .. } => {}
        }
        self.pump(now);
    }

    pub(super) fn dial(&mut self, now: Time) {
        self.expect_presence(now);
        self.attempt += 1;
        self.set_link(Link::Dialing {
            deadline: now + self.config.handshake_timeout,
        });
        self.outputs
            .push_back(Output::Dial(AttemptId(self.attempt)));
    }

    /// The link is gone, and another one is tried after a delay.
    pub(super) fn lost(&mut self, now: Time, reason: EndReason, code: u16) {
        self.end(reason, code);
        self.wait(now, Duration::ZERO);
    }

    /// Before the next attempt, for as long as is drawn, but no shorter than the server asked for.
    pub(super) fn wait(&mut self, now: Time, at_least: Duration) {
        self.expect_presence(now);
        let next_in = self.backoff.next(&mut self.rng).max(at_least);
        self.set_link(Link::Waiting {
            until: now + next_in,
            attempt: self.backoff.attempts(),
            next_in,
        });
    }

    /// Ends the connection, or the attempt at one. What follows is the caller's.
    pub(super) fn end(&mut self, reason: EndReason, code: u16) {
        if !matches!(self.link, Link::Up(_) | Link::Dialing { .. }) {
            return;
        }
        self.link = Link::Offline;
        self.stale_until = None;
        self.outputs.push_back(Output::Hangup {
            attempt: AttemptId(self.attempt),
            code,
        });
        self.event(ClientEvent::SessionEnded(reason));
        let documents: Vec<DocumentId> = self.documents.keys().cloned().collect();
        for document in documents {
            self.turn_only(&document, |state, _, turn| state.handle_lost(turn));
        }
    }

    pub(super) fn protocol_error(&mut self, now: Time, error: PeerError) {
        let message = Message::Error(ErrorMessage::new(error.clone(), Reference::Session));
        self.send(&message, Channel(0), false);
        let code = error.code.close_code();
        if error.code == ErrorCode::WrongProtocol {
            self.end(EndReason::Protocol(error.clone()), code);
            self.forget_presence();
            self.set_link(Link::Failed(FailedReason::Server(error)));
        } else {
            self.lost(now, EndReason::Protocol(error), code);
        }
    }
}
