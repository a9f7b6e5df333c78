use std::time::Duration;

use bytes::Bytes;

use super::writer::Writer;
use super::{
    access_number, action_number, compression_number, continuation, kind, mode_number, reference,
    reset_number,
};
use crate::history::Cursor;
use crate::ids::{Author, Channel, OriginId};
use crate::wire::message::{
    Access, Ack, AuthoredChange, Broadcast, Changes, Closed, Continuation, ErrorMessage, FoldOffer,
    FoldRequest, Fragment, GoAway, Hello, Message, Open, Opened, PartialSnapshot, Pong, Presence,
    Push, Reference, Refuse, SnapshotMessage, Welcome, WelcomeLimits, WireNumber,
};

/// Bytes of everything in a message but its payloads and lists, usually.
const USUAL_BYTES: usize = 48;

/// Encodes a message: the payload of a frame, without the flag byte.
///
/// What the receiver would refuse is not checked: lists of more than [`super::LIST_ENTRIES_MAX`] entries, and
/// extensions of a type below 128, are the caller's fault.
#[must_use]
pub fn encode(message: &Message) -> Bytes {
    let mut out = Writer::with_capacity(size_hint(message));
    write_message(&mut out, message);
    out.into_vec().into()
}

/// About how many bytes the message takes, so that payloads are copied once.
pub(in crate::wire) fn size_hint(message: &Message) -> usize {
    let payload = match message {
        Message::Push(m) => m.changes.iter().map(|bytes| bytes.len() + 5).sum(),
        Message::Changes(m) => m.changes.iter().map(|change| change.bytes.len() + 15).sum(),
        Message::Snapshot(m) => m.bytes.len(),
        Message::FoldOffer(m) => m.bytes.len(),
        Message::Broadcast(m) => m.bytes.len() + m.topic.len(),
        Message::Fragment(m) => m.bytes.len(),
        Message::Extension(m) => m.bytes.len(),
        _ => 0,
    };
    payload + USUAL_BYTES
}

pub(in crate::wire) fn write_message(out: &mut Writer, message: &Message) {
    match message {
        Message::Hello(m) => hello(out, m),
        Message::Welcome(m) => welcome(out, m),
        Message::Open(m) => open(out, m),
        Message::Opened(m) => opened(out, m),
        Message::Push(m) => push(out, m),
        Message::Changes(m) => changes(out, m),
        Message::Ack(m) => ack(out, *m),
        Message::Refuse(m) => refuse(out, m),
        Message::Snapshot(m) => snapshot(out, m),
        Message::FoldRequest(m) => fold_request(out, *m),
        Message::FoldOffer(m) => fold_offer(out, m),
        Message::Presence(m) => presence(out, m),
        Message::Broadcast(m) => broadcast(out, m),
        Message::Auth(m) => {
            head(out, kind::AUTH, 1);
            out.bytes(&m.credentials);
        }
        Message::Access(m) => access(out, *m),
        Message::Close(m) => {
            head(out, kind::CLOSE, 1);
            out.uint(m.channel.0);
        }
        Message::Closed(m) => closed(out, m),
        Message::Ping(m) => {
            head(out, kind::PING, 1);
            out.uint(m.nonce);
        }
        Message::Pong(m) => pong(out, m),
        Message::GoAway(m) => go_away(out, *m),
        Message::Error(m) => error(out, m),
        Message::Fragment(m) => fragment(out, m),
        Message::Author(m) => {
            head(out, kind::AUTHOR, 3);
            out.uint(m.channel.0);
            origin(out, m.origin);
            out.uint(m.author.0);
        }
        Message::Extension(m) => {
            debug_assert!(m.kind >= 128, "types below 128 belong to the protocol");
            head(out, m.kind, 2);
            out.optional(m.channel, |out, channel| out.uint(channel.0));
            out.bytes(&m.bytes);
        }
        Message::Ignored { kind } => head(out, *kind, 0),
    }
}

fn head(out: &mut Writer, kind: u8, fields: usize) {
    out.array(fields + 1);
    out.uint(kind);
}

fn hello(out: &mut Writer, m: &Hello) {
    head(out, kind::HELLO, 7);
    out.array(2);
    out.uint(m.versions.min);
    out.uint(m.versions.max);
    out.string(&m.software);
    origin(out, m.origin);
    out.uint(m.connection);
    out.optional(m.credentials.as_deref(), Writer::bytes);
    out.list(&m.compression, |out, compression| {
        out.uint(compression_number(*compression))
    });
    out.optional(m.resume.as_deref(), Writer::bytes);
}

fn welcome(out: &mut Writer, m: &Welcome) {
    head(out, kind::WELCOME, 8);
    out.uint(m.version);
    out.uint(m.session.0);
    out.string(&m.user);
    out.optional(m.resume.as_deref(), Writer::bytes);
    out.uint(compression_number(m.compression));
    let WelcomeLimits {
        message_bytes_max,
        change_bytes_max,
        push_window_bytes,
        documents_max,
        broadcast_bytes_max,
        broadcasts_per_second,
        broadcasts_burst,
        extension_bytes_max,
        extensions_per_second,
        extensions_burst,
        presence_bytes_max,
        presence_interval,
        presences_per_second,
        presences_burst,
    } = m.limits;
    out.array(14);
    out.uint(message_bytes_max);
    out.uint(change_bytes_max);
    out.uint(push_window_bytes);
    out.uint(documents_max);
    out.uint(broadcast_bytes_max);
    out.uint(broadcasts_per_second);
    out.uint(broadcasts_burst);
    out.uint(extension_bytes_max);
    out.uint(extensions_per_second);
    out.uint(extensions_burst);
    out.uint(presence_bytes_max);
    duration(out, presence_interval);
    out.uint(presences_per_second);
    out.uint(presences_burst);
    duration(out, m.ping_interval);
    out.uint(m.server_time_ms);
}

fn open(out: &mut Writer, m: &Open) {
    head(out, kind::OPEN, 8);
    out.uint(m.request.0);
    out.string(m.document.as_str());
    out.string(m.engine.as_str());
    out.optional(m.cursor, cursor);
    out.list(&m.origins, |out, (id, number)| {
        out.array(2);
        origin(out, *id);
        out.uint(*number);
    });
    out.uint(access_number(m.access));
    out.bool(m.create);
    out.optional(
        m.partial,
        |out,
         PartialSnapshot {
             seq,
             offset,
             digest,
         }| {
            out.array(3);
            out.uint(seq.0);
            out.uint(offset);
            out.uint(digest.0);
        },
    );
}

fn opened(out: &mut Writer, m: &Opened) {
    head(out, kind::OPENED, 8);
    out.uint(m.request.0);
    out.uint(m.channel.0);
    out.uint(m.epoch.0);
    out.uint(mode_number(m.mode));
    out.uint(m.head.0);
    out.uint(access_number(m.access));
    match m.next {
        Continuation::Resume => head(out, continuation::RESUME, 0),
        Continuation::Snapshot { total_bytes } => {
            head(out, continuation::SNAPSHOT, 1);
            out.uint(total_bytes);
        }
        Continuation::Reset { reset, total_bytes } => {
            head(out, continuation::RESET, 2);
            out.uint(reset_number(reset));
            out.uint(total_bytes);
        }
        Continuation::Wait => head(out, continuation::WAIT, 0),
    }
    out.list(&m.origins, |out, (id, number, author)| {
        out.array(3);
        origin(out, *id);
        out.uint(*number);
        out.uint(author.0);
    });
}

fn push(out: &mut Writer, m: &Push) {
    head(out, kind::PUSH, 5);
    out.uint(m.channel.0);
    origin(out, m.origin);
    out.uint(m.first_number);
    out.list(&m.changes, |out, bytes| out.bytes(bytes));
    out.bool(m.reconciling);
}

fn changes(out: &mut Writer, m: &Changes) {
    let each = m.changes.iter().map(
        |AuthoredChange {
             author,
             number,
             bytes,
         }| (*author, *number, bytes.as_ref()),
    );
    write_changes(out, m.channel, m.check, each);
}

/// `Changes`, without a [`Changes`] having been built.
pub(in crate::wire) fn write_changes<'a>(
    out: &mut Writer,
    channel: Channel,
    check: u8,
    changes: impl ExactSizeIterator<Item = (Author, WireNumber, &'a [u8])>,
) {
    head(out, kind::CHANGES, 2 + 3 * changes.len());
    out.uint(channel.0);
    out.uint(check);
    for (author, number, bytes) in changes {
        out.uint(author.0);
        match number {
            WireNumber::Number(number) => out.uint(number),
            WireNumber::BelowSeq(distance) => out.negative(distance),
        }
        out.bytes(bytes);
    }
}

fn ack(out: &mut Writer, m: Ack) {
    head(out, kind::ACK, 4);
    out.uint(m.channel.0);
    out.uint(m.check);
    out.uint(m.number);
    out.uint(m.count);
}

fn refuse(out: &mut Writer, m: &Refuse) {
    head(out, kind::REFUSE, 5);
    out.uint(m.channel.0);
    origin(out, m.origin);
    out.uint(m.number);
    out.uint(m.code.number());
    out.string(&m.message);
}

fn snapshot(out: &mut Writer, m: &SnapshotMessage) {
    head(out, kind::SNAPSHOT, 8);
    out.uint(m.channel.0);
    out.uint(m.epoch.0);
    out.uint(m.seq.0);
    out.uint(m.digest.0);
    out.uint(m.codec);
    out.uint(m.offset);
    out.uint(m.total_bytes);
    out.bytes(&m.bytes);
}

fn fold_request(out: &mut Writer, m: FoldRequest) {
    head(out, kind::FOLD_REQUEST, 2);
    out.uint(m.channel.0);
    out.uint(m.seq.0);
}

fn fold_offer(out: &mut Writer, m: &FoldOffer) {
    head(out, kind::FOLD_OFFER, 5);
    out.uint(m.channel.0);
    out.uint(m.epoch.0);
    out.uint(m.seq.0);
    out.uint(m.digest.0);
    out.bytes(&m.bytes);
}

fn presence(out: &mut Writer, m: &Presence) {
    head(out, kind::PRESENCE, 3);
    out.uint(m.channel.0);
    out.list(&m.deltas, |out, delta| {
        out.array(3);
        out.uint(delta.session.0);
        out.string(&delta.user);
        out.optional(delta.state.as_deref(), Writer::bytes);
    });
    out.uint(m.table_version);
}

fn broadcast(out: &mut Writer, m: &Broadcast) {
    head(out, kind::BROADCAST, 5);
    out.uint(m.channel.0);
    out.string(&m.topic);
    out.bytes(&m.bytes);
    out.optional(m.sender.as_ref(), |out, (session, user)| {
        out.array(2);
        out.uint(session.0);
        out.string(user);
    });
    out.uint(m.missed);
}

fn access(out: &mut Writer, m: Access) {
    head(out, kind::ACCESS, 3);
    out.uint(m.channel.0);
    out.uint(access_number(m.access));
    out.uint(m.from.0);
}

fn closed(out: &mut Writer, m: &Closed) {
    head(out, kind::CLOSED, 3);
    out.uint(m.channel.0);
    out.optional(m.reason, |out, code| out.uint(code.number()));
    out.string(&m.message);
}

fn pong(out: &mut Writer, m: &Pong) {
    head(out, kind::PONG, 2);
    out.uint(m.nonce);
    out.list(&m.heads, |out, (channel, seq)| {
        out.array(2);
        out.uint(channel.0);
        out.uint(seq.0);
    });
}

fn go_away(out: &mut Writer, m: GoAway) {
    head(out, kind::GO_AWAY, 1);
    duration(out, m.reconnect_within);
}

fn error(out: &mut Writer, m: &ErrorMessage) {
    head(out, kind::ERROR, 6);
    out.uint(m.code.number());
    out.bool(m.retryable);
    out.uint(action_number(m.action));
    out.optional(m.retry_after, duration);
    out.string(&m.message);
    match m.reference {
        Reference::Session => head(out, reference::SESSION, 0),
        Reference::Request(request) => {
            head(out, reference::REQUEST, 1);
            out.uint(request.0);
        }
        Reference::Channel(channel) => {
            head(out, reference::CHANNEL, 1);
            out.uint(channel.0);
        }
        Reference::Change(channel, number) => {
            head(out, reference::CHANGE, 2);
            out.uint(channel.0);
            out.uint(number);
        }
    }
}

fn fragment(out: &mut Writer, m: &Fragment) {
    head(out, kind::FRAGMENT, 5);
    out.uint(m.channel.0);
    out.uint(m.id);
    out.uint(m.index);
    out.uint(m.total);
    out.bytes(&m.bytes);
}

fn cursor(out: &mut Writer, cursor: Cursor) {
    out.array(3);
    out.uint(cursor.epoch.0);
    out.uint(cursor.seq.0);
    out.uint(cursor.digest.0);
}

fn origin(out: &mut Writer, origin: OriginId) {
    out.bytes(&origin.0.to_be_bytes());
}

fn duration(out: &mut Writer, duration: Duration) {
    out.uint(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
}
