use std::time::Duration;

use bytes::Bytes;

use super::reader::{Fields, Integer, Reader, check_entries};
use super::{
    FIRST_IGNORED, LAST_KIND, access_from, action_from, compression_from, continuation, kind,
    mode_from, reference, reset_from,
};
use crate::error::ErrorCode;
use crate::history::{Cursor, Digest, Epoch, Seq};
use crate::ids::{Author, Channel, DocumentId, EngineId, OriginId, RequestId, SessionId};
use crate::wire::DecodeError;
use crate::wire::message::{
    Access, Ack, Auth, AuthorMessage, AuthoredChange, Broadcast, Changes, Close, Closed,
    Continuation, ErrorMessage, Extension, FIRST_EXTENSION, FoldOffer, FoldRequest, Fragment,
    GoAway, Hello, Message, Open, Opened, PartialSnapshot, Ping, Pong, Presence, PresenceDelta,
    Push, Reference, Refuse, Reset, SnapshotMessage, VersionRange, Welcome, WelcomeLimits,
    WireNumber,
};

/// Largest check: 7 bits.
const CHECK_MAX: u64 = 0x7f;

/// Decodes the payload of a frame, without the flag byte.
///
/// Payloads in the message are slices of `payload` and keep all of it alive.
///
/// # Errors
/// [`DecodeError`] if the bytes are not one message of this version. Nothing is allocated for what they merely
/// announce.
pub fn decode(payload: Bytes) -> Result<Message, DecodeError> {
    let mut reader = Reader::new(payload);
    let mut fields = reader.array("message")?;
    let kind = fields.u64("type")?;
    let message = match u8::try_from(kind) {
        Ok(kind) => message(kind, &mut fields)?,
        Err(_) => {
            return Err(DecodeError::OutOfRange {
                field: "type",
                found: kind,
                limit: LAST_KIND,
            });
        }
    };
    fields.finish()?;
    reader.finish()?;
    Ok(message)
}

/// The message type of a payload, if it has one; nothing else is looked at.
pub(in crate::wire) fn kind_of(payload: &Bytes) -> Option<u8> {
    let kind = Reader::new(payload.clone())
        .array("message")
        .and_then(|mut fields| fields.u8("type"));
    kind.ok()
}

fn message(kind: u8, f: &mut Fields<'_>) -> Result<Message, DecodeError> {
    Ok(match kind {
        kind::HELLO => Message::Hello(hello(f)?),
        kind::WELCOME => Message::Welcome(welcome(f)?),
        kind::OPEN => Message::Open(open(f)?),
        kind::OPENED => Message::Opened(opened(f)?),
        kind::PUSH => Message::Push(push(f)?),
        kind::CHANGES => Message::Changes(changes(f)?),
        kind::ACK => Message::Ack(ack(f)?),
        kind::REFUSE => Message::Refuse(refuse(f)?),
        kind::SNAPSHOT => Message::Snapshot(snapshot(f)?),
        kind::FOLD_REQUEST => Message::FoldRequest(FoldRequest {
            channel: Channel(f.u32("fold_request.channel")?),
            seq: Seq(f.u64("fold_request.seq")?),
        }),
        kind::FOLD_OFFER => Message::FoldOffer(fold_offer(f)?),
        kind::PRESENCE => Message::Presence(presence(f)?),
        kind::BROADCAST => Message::Broadcast(broadcast(f)?),
        kind::AUTH => Message::Auth(Auth {
            credentials: f.bytes("auth.credentials")?,
        }),
        kind::ACCESS => Message::Access(Access {
            channel: Channel(f.u32("access.channel")?),
            access: f.choice("access.access", access_from)?,
            from: Seq(f.u64("access.from")?),
        }),
        kind::CLOSE => Message::Close(Close {
            channel: Channel(f.u32("close.channel")?),
        }),
        kind::CLOSED => Message::Closed(closed(f)?),
        kind::PING => Message::Ping(Ping {
            nonce: f.u64("ping.nonce")?,
        }),
        kind::PONG => Message::Pong(pong(f)?),
        kind::GO_AWAY => Message::GoAway(GoAway {
            reconnect_within: duration(f, "go_away.reconnect_within")?,
        }),
        kind::ERROR => Message::Error(error(f)?),
        kind::FRAGMENT => Message::Fragment(fragment(f)?),
        kind::AUTHOR => Message::Author(AuthorMessage {
            channel: Channel(f.u32("author.channel")?),
            origin: origin(f, "author.origin")?,
            author: Author(f.u32("author.author")?),
        }),
        _ if kind >= FIRST_EXTENSION => Message::Extension(Extension {
            kind,
            channel: f
                .optional("extension.channel", |f| f.u32("extension.channel"))?
                .map(Channel),
            bytes: f.bytes("extension.bytes")?,
        }),
        _ if u64::from(kind) >= FIRST_IGNORED => Message::Ignored { kind },
        _ => return Err(DecodeError::UnknownMessage { kind: kind.into() }),
    })
}

fn hello(f: &mut Fields<'_>) -> Result<Hello, DecodeError> {
    let mut versions = f.nested("hello.versions")?;
    let range = VersionRange {
        min: versions.u16("hello.versions.min")?,
        max: versions.u16("hello.versions.max")?,
    };
    versions.finish()?;
    Ok(Hello {
        versions: range,
        software: f.string("hello.software")?,
        origin: origin(f, "hello.origin")?,
        connection: f.u64("hello.connection")?,
        credentials: f.optional("hello.credentials", |f| f.bytes("hello.credentials"))?,
        compression: {
            let offers = f.list("hello.compression", |f| f.u64("hello.compression"))?;
            offers.into_iter().filter_map(compression_from).collect()
        },
        resume: f.optional("hello.resume", |f| f.bytes("hello.resume"))?,
    })
}

fn welcome(f: &mut Fields<'_>) -> Result<Welcome, DecodeError> {
    Ok(Welcome {
        version: f.u16("welcome.version")?,
        session: SessionId(f.u64("welcome.session")?),
        user: f.string("welcome.user")?,
        resume: f.optional("welcome.resume", |f| f.bytes("welcome.resume"))?,
        compression: f.choice("welcome.compression", compression_from)?,
        limits: {
            let mut limits = f.nested("welcome.limits")?;
            let read = WelcomeLimits {
                message_bytes_max: limits.u64("welcome.limits.message_bytes_max")?,
                change_bytes_max: limits.u64("welcome.limits.change_bytes_max")?,
                push_window_bytes: limits.u64("welcome.limits.push_window_bytes")?,
                documents_max: limits.u64("welcome.limits.documents_max")?,
                broadcast_bytes_max: limits.u64("welcome.limits.broadcast_bytes_max")?,
                broadcasts_per_second: limits.u64("welcome.limits.broadcasts_per_second")?,
                broadcasts_burst: limits.u64("welcome.limits.broadcasts_burst")?,
                extension_bytes_max: limits.u64("welcome.limits.extension_bytes_max")?,
                extensions_per_second: limits.u64("welcome.limits.extensions_per_second")?,
                extensions_burst: limits.u64("welcome.limits.extensions_burst")?,
                presence_bytes_max: limits.u64("welcome.limits.presence_bytes_max")?,
                presence_interval: duration(&mut limits, "welcome.limits.presence_interval")?,
                presences_per_second: limits.u64("welcome.limits.presences_per_second")?,
                presences_burst: limits.u64("welcome.limits.presences_burst")?,
            };
            limits.finish()?;
            read
        },
        ping_interval: duration(f, "welcome.ping_interval")?,
        server_time_ms: f.u64("welcome.server_time")?,
    })
}

fn open(f: &mut Fields<'_>) -> Result<Open, DecodeError> {
    Ok(Open {
        request: RequestId(f.u32("open.request")?),
        document: DocumentId::new(f.string("open.document")?).map_err(DecodeError::DocumentId)?,
        engine: {
            let name = f.string("open.engine")?;
            let found = name.len();
            let wrong = DecodeError::WrongLength {
                field: "open.engine",
                found,
                expected: "1 to 32",
            };
            EngineId::new(name).ok_or(wrong)?
        },
        cursor: f.optional("open.cursor", cursor)?,
        origins: f.list("open.origins", |f| {
            let mut entry = f.nested("open.origins")?;
            let read = (
                origin(&mut entry, "open.origins.origin")?,
                entry.u64("open.origins.acknowledged")?,
            );
            entry.finish()?;
            Ok(read)
        })?,
        access: f.choice("open.access", access_from)?,
        create: f.bool("open.create")?,
        partial: f.optional("open.partial", |f| {
            let mut partial = f.nested("open.partial")?;
            let read = PartialSnapshot {
                seq: Seq(partial.u64("open.partial.seq")?),
                offset: partial.u64("open.partial.offset")?,
                digest: Digest(partial.u64("open.partial.digest")?),
            };
            partial.finish()?;
            Ok(read)
        })?,
    })
}

fn opened(f: &mut Fields<'_>) -> Result<Opened, DecodeError> {
    Ok(Opened {
        request: RequestId(f.u32("opened.request")?),
        channel: Channel(f.u32("opened.channel")?),
        epoch: Epoch(f.u64("opened.epoch")?),
        mode: f.choice("opened.mode", mode_from)?,
        head: Seq(f.u64("opened.head")?),
        access: f.choice("opened.access", access_from)?,
        next: continuation(f)?,
        origins: f.list("opened.origins", |f| {
            let mut entry = f.nested("opened.origins")?;
            let read = (
                origin(&mut entry, "opened.origins.origin")?,
                entry.u64("opened.origins.last_number")?,
                Author(entry.u32("opened.origins.author")?),
            );
            entry.finish()?;
            Ok(read)
        })?,
    })
}

fn continuation(f: &mut Fields<'_>) -> Result<Continuation, DecodeError> {
    const TOTAL: &str = "opened.next.total_bytes";
    let mut next = f.nested("opened.next")?;
    let read = match next.choice("opened.next.kind", |number| u8::try_from(number).ok())? {
        continuation::RESUME => Continuation::Resume,
        continuation::SNAPSHOT => Continuation::Snapshot {
            total_bytes: next.u64(TOTAL)?,
        },
        continuation::RESET => {
            let reset: Reset = next.choice("opened.next.reset", reset_from)?;
            Continuation::Reset {
                reset,
                total_bytes: next.u64(TOTAL)?,
            }
        }
        continuation::WAIT => Continuation::Wait,
        other => {
            return Err(DecodeError::UnknownValue {
                field: "opened.next.kind",
                found: other.into(),
            });
        }
    };
    next.finish()?;
    Ok(read)
}

fn push(f: &mut Fields<'_>) -> Result<Push, DecodeError> {
    Ok(Push {
        channel: Channel(f.u32("push.channel")?),
        origin: origin(f, "push.origin")?,
        first_number: f.u64("push.first_number")?,
        changes: f.list("push.changes", |f| f.bytes("push.changes"))?,
        reconciling: f.bool("push.reconciling")?,
    })
}

fn changes(f: &mut Fields<'_>) -> Result<Changes, DecodeError> {
    let channel = Channel(f.u32("changes.channel")?);
    let check = check(f, "changes.check")?;
    let values = f.left();
    if !values.is_multiple_of(3) {
        return Err(DecodeError::UnevenChanges {
            values: values.into(),
        });
    }
    let count = check_entries("changes", values / 3)?;
    let mut changes = Vec::new();
    for _ in 0..count {
        changes.push(AuthoredChange {
            author: Author(f.u32("changes.author")?),
            number: match f.integer("changes.number")? {
                Integer::NonNegative(number) => WireNumber::Number(number),
                // `-1 - distance` is the bitwise complement.
                Integer::Negative(value) => {
                    WireNumber::BelowSeq(u64::try_from(!value).unwrap_or(0))
                }
            },
            bytes: f.bytes("changes.bytes")?,
        });
    }
    Ok(Changes {
        channel,
        check,
        changes,
    })
}

fn ack(f: &mut Fields<'_>) -> Result<Ack, DecodeError> {
    Ok(Ack {
        channel: Channel(f.u32("ack.channel")?),
        check: check(f, "ack.check")?,
        number: f.u64("ack.number")?,
        count: f.u64("ack.count")?,
    })
}

fn refuse(f: &mut Fields<'_>) -> Result<Refuse, DecodeError> {
    Ok(Refuse {
        channel: Channel(f.u32("refuse.channel")?),
        origin: origin(f, "refuse.origin")?,
        number: f.u64("refuse.number")?,
        code: ErrorCode::from_number(f.u16("refuse.code")?),
        message: f.string("refuse.message")?,
    })
}

fn snapshot(f: &mut Fields<'_>) -> Result<SnapshotMessage, DecodeError> {
    Ok(SnapshotMessage {
        channel: Channel(f.u32("snapshot.channel")?),
        epoch: Epoch(f.u64("snapshot.epoch")?),
        seq: Seq(f.u64("snapshot.seq")?),
        digest: Digest(f.u64("snapshot.digest")?),
        codec: f.u8("snapshot.codec")?,
        offset: f.u64("snapshot.offset")?,
        total_bytes: f.u64("snapshot.total_bytes")?,
        bytes: f.bytes("snapshot.bytes")?,
    })
}

fn fold_offer(f: &mut Fields<'_>) -> Result<FoldOffer, DecodeError> {
    Ok(FoldOffer {
        channel: Channel(f.u32("fold_offer.channel")?),
        epoch: Epoch(f.u64("fold_offer.epoch")?),
        seq: Seq(f.u64("fold_offer.seq")?),
        digest: Digest(f.u64("fold_offer.digest")?),
        bytes: f.bytes("fold_offer.bytes")?,
    })
}

fn presence(f: &mut Fields<'_>) -> Result<Presence, DecodeError> {
    Ok(Presence {
        channel: Channel(f.u32("presence.channel")?),
        deltas: f.list("presence.deltas", |f| {
            let mut delta = f.nested("presence.deltas")?;
            let read = PresenceDelta {
                session: SessionId(delta.u64("presence.deltas.session")?),
                user: delta.string("presence.deltas.user")?,
                state: delta.optional("presence.deltas.state", |f| {
                    f.bytes("presence.deltas.state")
                })?,
            };
            delta.finish()?;
            Ok(read)
        })?,
        table_version: f.u64("presence.table_version")?,
    })
}

fn broadcast(f: &mut Fields<'_>) -> Result<Broadcast, DecodeError> {
    Ok(Broadcast {
        channel: Channel(f.u32("broadcast.channel")?),
        topic: f.string("broadcast.topic")?,
        bytes: f.bytes("broadcast.bytes")?,
        sender: f.optional("broadcast.sender", |f| {
            let mut sender = f.nested("broadcast.sender")?;
            let read = (
                SessionId(sender.u64("broadcast.sender.session")?),
                sender.string("broadcast.sender.user")?,
            );
            sender.finish()?;
            Ok(read)
        })?,
        missed: f.u64("broadcast.missed")?,
    })
}

fn closed(f: &mut Fields<'_>) -> Result<Closed, DecodeError> {
    Ok(Closed {
        channel: Channel(f.u32("closed.channel")?),
        reason: f
            .optional("closed.reason", |f| f.u16("closed.reason"))?
            .map(ErrorCode::from_number),
        message: f.string("closed.message")?,
    })
}

fn pong(f: &mut Fields<'_>) -> Result<Pong, DecodeError> {
    Ok(Pong {
        nonce: f.u64("pong.nonce")?,
        heads: f.list("pong.heads", |f| {
            let mut head = f.nested("pong.heads")?;
            let read = (
                Channel(head.u32("pong.heads.channel")?),
                Seq(head.u64("pong.heads.seq")?),
            );
            head.finish()?;
            Ok(read)
        })?,
    })
}

fn error(f: &mut Fields<'_>) -> Result<ErrorMessage, DecodeError> {
    Ok(ErrorMessage {
        code: ErrorCode::from_number(f.u16("error.code")?),
        retryable: f.bool("error.retryable")?,
        action: f.choice("error.action", action_from)?,
        retry_after: f.optional("error.retry_after", |f| duration(f, "error.retry_after"))?,
        message: f.string("error.message")?,
        reference: reference(f)?,
    })
}

fn reference(f: &mut Fields<'_>) -> Result<Reference, DecodeError> {
    const CHANNEL: &str = "error.reference.channel";
    let mut fields = f.nested("error.reference")?;
    let read = match fields.choice("error.reference.kind", |number| u8::try_from(number).ok())? {
        reference::SESSION => Reference::Session,
        reference::REQUEST => Reference::Request(RequestId(fields.u32("error.reference.request")?)),
        reference::CHANNEL => Reference::Channel(Channel(fields.u32(CHANNEL)?)),
        reference::CHANGE => Reference::Change(
            Channel(fields.u32(CHANNEL)?),
            fields.u64("error.reference.number")?,
        ),
        other => {
            return Err(DecodeError::UnknownValue {
                field: "error.reference.kind",
                found: other.into(),
            });
        }
    };
    fields.finish()?;
    Ok(read)
}

fn fragment(f: &mut Fields<'_>) -> Result<Fragment, DecodeError> {
    Ok(Fragment {
        channel: Channel(f.u32("fragment.channel")?),
        id: f.u32("fragment.id")?,
        index: f.u32("fragment.index")?,
        total: f.u32("fragment.total")?,
        bytes: f.bytes("fragment.bytes")?,
    })
}

fn cursor(f: &mut Fields<'_>) -> Result<Cursor, DecodeError> {
    let mut cursor = f.nested("open.cursor")?;
    let read = Cursor {
        epoch: Epoch(cursor.u64("open.cursor.epoch")?),
        seq: Seq(cursor.u64("open.cursor.seq")?),
        digest: Digest(cursor.u64("open.cursor.digest")?),
    };
    cursor.finish()?;
    Ok(read)
}

fn check(f: &mut Fields<'_>, field: &'static str) -> Result<u8, DecodeError> {
    let found = f.u8(field)?;
    if u64::from(found) > CHECK_MAX {
        return Err(DecodeError::OutOfRange {
            field,
            found: found.into(),
            limit: CHECK_MAX,
        });
    }
    Ok(found)
}

fn origin(f: &mut Fields<'_>, field: &'static str) -> Result<OriginId, DecodeError> {
    let bytes = f.bytes(field)?;
    let found = bytes.len();
    let id = <[u8; 16]>::try_from(bytes.as_ref()).map_err(|_| DecodeError::WrongLength {
        field,
        found,
        expected: "16",
    })?;
    Ok(OriginId(u128::from_be_bytes(id)))
}

fn duration(f: &mut Fields<'_>, field: &'static str) -> Result<Duration, DecodeError> {
    f.u64(field).map(Duration::from_millis)
}
