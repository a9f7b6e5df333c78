//! The client's half of the protocol over one connection: greeting, liveness, frames.
//!
//! ```text
//! Greeting ── Welcome ──▶ Live ── error, silence, loss ──▶ gone
//! ```

use std::time::Duration;

use bytes::Bytes;

use crate::error::{ErrorCode, PeerError};
use crate::ids::Channel;
use crate::limits::{FRAGMENT_BYTES, Limits};
use crate::time::Time;
use crate::wire::{self, Compression, DecodeError, Message, Ping, Reassembler, Welcome};

/// The client's half of the protocol over one connection.
#[derive(Debug, Clone)]
pub(crate) struct ClientSession {
    phase: Phase,
    reassembler: Reassembler,
    limits: Limits,
    ping_timeout: Duration,
    /// A ping since which nothing has been heard: when it was sent.
    pinged: Option<Time>,
    nonce: u64,
    next_fragmented: u32,
}

#[derive(Debug, Clone)]
enum Phase {
    Greeting {
        deadline: Time,
    },
    /// Pings go out at fixed times, also while data arrives: the server hears nothing else from a mere reader.
    Live {
        compression: Compression,
        ping_interval: Duration,
        next_ping: Time,
    },
}

/// What a frame was.
#[derive(Debug, Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "taken apart at once: a box would cost an allocation for each message"
)]
pub(crate) enum Received {
    /// A fragment, or something else that needs no answer.
    Nothing,
    Welcome(Box<Welcome>),
    Message(Message),
}

/// What the passing of time asks for.
#[derive(Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "taken apart at once")]
pub(crate) enum Due {
    Nothing,
    Ping(Message),
    HandshakeTimeout,
    Silence,
}

impl ClientSession {
    pub(crate) fn new(
        now: Time,
        limits: &Limits,
        handshake_timeout: Duration,
        ping_timeout: Duration,
    ) -> Self {
        Self {
            phase: Phase::Greeting {
                deadline: now + handshake_timeout,
            },
            reassembler: Reassembler::new(limits),
            limits: limits.clone(),
            ping_timeout,
            pinged: None,
            nonce: 0,
            next_fragmented: 0,
        }
    }

    /// Takes a frame.
    pub(crate) fn handle_frame(&mut self, now: Time, frame: Bytes) -> Result<Received, PeerError> {
        self.pinged = None;
        let message = self
            .decode(frame)
            .map_err(|error| self.peer_error(&error))?;
        match (&self.phase, message) {
            (_, None) => Ok(Received::Nothing),
            (Phase::Greeting { .. }, Some(Message::Welcome(welcome))) => {
                self.phase = Phase::Live {
                    compression: welcome.compression,
                    ping_interval: welcome.ping_interval,
                    next_ping: now + welcome.ping_interval,
                };
                // Frames are shared between recipients, so a client accepts what the server does (design 5).
                self.limits.message_bytes_max =
                    usize::try_from(welcome.limits.message_bytes_max).unwrap_or(usize::MAX);
                self.reassembler = Reassembler::new(&self.limits);
                Ok(Received::Welcome(Box::new(welcome)))
            }
            (Phase::Greeting { .. }, Some(Message::Error(error))) => {
                Ok(Received::Message(Message::Error(error)))
            }
            (Phase::Greeting { .. }, Some(_)) => Err(PeerError::new(
                ErrorCode::WrongProtocol,
                "the server's first message is not Welcome",
            )),
            (Phase::Live { .. }, Some(Message::Welcome(_))) => Err(PeerError::new(
                ErrorCode::UnexpectedMessage,
                "a second Welcome",
            )),
            (Phase::Live { .. }, Some(message)) => {
                if let Message::Closed(closed) = &message {
                    // What was on its way there does not come any more (protocol.md section 5).
                    self.reassembler.close_channel(closed.channel);
                }
                Ok(Received::Message(message))
            }
        }
    }

    fn decode(&mut self, frame: Bytes) -> Result<Option<Message>, DecodeError> {
        match wire::decode_frame(frame, self.limits.message_bytes_max)? {
            Message::Fragment(fragment) => match self.reassembler.handle(fragment)? {
                Some(whole) => wire::decode_frame(whole, self.limits.message_bytes_max).map(Some),
                None => Ok(None),
            },
            message => Ok(Some(message)),
        }
    }

    fn peer_error(&self, error: &DecodeError) -> PeerError {
        let code = match self.phase {
            Phase::Greeting { .. } => ErrorCode::WrongProtocol,
            Phase::Live { .. } => error.code(),
        };
        PeerError::new(code, error.to_string())
    }

    /// Encodes a message into the frames that carry it: more than one if it is over 64 KiB.
    pub(crate) fn encode(&mut self, message: &Message, channel: Channel) -> Vec<Bytes> {
        let compression = match self.phase {
            Phase::Greeting { .. } => Compression::None,
            Phase::Live { compression, .. } => compression,
        };
        let frame = wire::encode_frame(message, compression);
        if frame.len() <= FRAGMENT_BYTES {
            return vec![frame];
        }
        self.next_fragmented = self.next_fragmented.wrapping_add(1);
        wire::split(frame, channel, self.next_fragmented).collect()
    }

    /// Asks for a sign of life now, whatever the interval: the network has changed.
    pub(crate) fn probe(&mut self, now: Time) -> Option<Message> {
        matches!(self.phase, Phase::Live { .. }).then(|| self.ping(now))
    }

    fn ping(&mut self, now: Time) -> Message {
        if let Phase::Live {
            ping_interval,
            next_ping,
            ..
        } = &mut self.phase
        {
            *next_ping = now + *ping_interval;
        }
        self.nonce += 1;
        // A ping that is still unanswered keeps its deadline.
        self.pinged.get_or_insert(now);
        Message::Ping(Ping { nonce: self.nonce })
    }

    pub(crate) fn handle_timeout(&mut self, now: Time) -> Due {
        if self.next_deadline() > now {
            return Due::Nothing;
        }
        match (&self.phase, self.pinged) {
            (Phase::Greeting { .. }, _) => Due::HandshakeTimeout,
            (Phase::Live { .. }, Some(pinged)) if pinged + self.ping_timeout <= now => Due::Silence,
            (Phase::Live { .. }, _) => Due::Ping(self.ping(now)),
        }
    }

    pub(crate) fn next_deadline(&self) -> Time {
        match (&self.phase, self.pinged) {
            (Phase::Greeting { deadline }, _) => *deadline,
            (Phase::Live { next_ping, .. }, Some(pinged)) => {
                (*next_ping).min(pinged + self.ping_timeout)
            }
            (Phase::Live { next_ping, .. }, None) => *next_ping,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Auth;

    const SECOND: Duration = Duration::from_secs(1);

    fn after(time: Duration) -> Time {
        Time::ZERO + time
    }

    /// Pings each second, and is given up after three.
    fn live() -> ClientSession {
        let mut session = ClientSession::new(Time::ZERO, &Limits::default(), SECOND, 3 * SECOND);
        session.phase = Phase::Live {
            compression: Compression::None,
            ping_interval: SECOND,
            next_ping: after(SECOND),
        };
        session
    }

    fn nonce(due: &Due) -> u64 {
        match due {
            Due::Ping(Message::Ping(ping)) => ping.nonce,
            other => panic!("expected a ping, got {other:?}"),
        }
    }

    #[test]
    fn a_message_of_which_a_part_came_before_its_channel_was_closed_may_begin_anew() {
        let mut session = live();
        let channel = Channel(7);
        let large = Message::Auth(Auth {
            credentials: Bytes::from(vec![0; 100_000]),
        });
        let frame = wire::encode_frame(&large, Compression::None);
        let pieces: Vec<_> = wire::split(frame, channel, 1).collect();
        let closed = Message::Closed(wire::Closed {
            channel,
            reason: None,
            message: String::new(),
        });
        let closed = wire::encode_frame(&closed, Compression::None);
        for frame in [pieces[0].clone(), closed, pieces[0].clone()] {
            assert!(session.handle_frame(Time::ZERO, frame).is_ok());
        }
        let last = session.handle_frame(Time::ZERO, pieces[1].clone());
        assert!(matches!(last, Ok(Received::Message(Message::Auth(_)))));
    }

    #[test]
    fn an_early_call_does_nothing_and_a_late_one_what_was_due() {
        let mut session = ClientSession::new(Time::ZERO, &Limits::default(), SECOND, SECOND);
        let early = after(SECOND - Duration::from_micros(1));
        assert_eq!(session.handle_timeout(early), Due::Nothing);
        assert_eq!(session.handle_timeout(after(SECOND)), Due::HandshakeTimeout);
        assert_eq!(
            session.handle_timeout(after(60 * SECOND)),
            Due::HandshakeTimeout
        );
        assert_eq!(live().handle_timeout(after(SECOND / 2)), Due::Nothing);
        assert_eq!(nonce(&live().handle_timeout(after(60 * SECOND))), 1);
    }

    /// Scenario 38: an interval that is shorter than the timeout.
    #[test]
    fn pings_go_on_while_one_is_unanswered_and_the_first_of_them_counts() {
        let mut session = live();
        let pings = [1, 2, 3].map(|n| nonce(&session.handle_timeout(after(n * SECOND))));
        assert_eq!(pings, [1, 2, 3], "each is another one");
        assert_eq!(session.next_deadline(), after(4 * SECOND));
        assert_eq!(session.handle_timeout(after(4 * SECOND)), Due::Silence);
    }

    #[test]
    fn a_large_message_leaves_in_fragments_of_its_own_id_and_a_small_one_whole() {
        let mut session = live();
        let message = |bytes: usize| {
            Message::Auth(Auth {
                credentials: vec![0; bytes].into(),
            })
        };
        assert_eq!(
            session
                .encode(&message(FRAGMENT_BYTES / 2), Channel(0))
                .len(),
            1
        );
        let mut ids = Vec::new();
        for _ in 0..2 {
            let frames = session.encode(&message(2 * FRAGMENT_BYTES), Channel(0));
            assert!(frames.iter().all(|frame| frame.len() <= FRAGMENT_BYTES));
            let first = wire::decode_frame(frames[0].clone(), FRAGMENT_BYTES).unwrap();
            let Message::Fragment(first) = first else {
                panic!("expected a fragment, got {first:?}");
            };
            ids.push(first.id);
        }
        assert_ne!(ids[0], ids[1]);
    }
}
