//! The JSON form of messages in the vectors: `{"type": name, fields...}`. Bytes, origins, epochs, digests and
//! sessions are hexadecimal, durations are milliseconds, and what is missing is null.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use sync_core::error::{Action, ErrorCode};
use sync_core::history::{Cursor, Digest, Epoch, EpochMode, Seq};
use sync_core::ids::{Author, Channel, DocumentId, EngineId, OriginId, RequestId, SessionId};
use sync_core::wire::*;

/// The message that a vector describes.
pub(crate) fn message(v: &Value) -> Message {
    match text(v, "type").as_str() {
        "Hello" => Message::Hello(Hello {
            versions: VersionRange {
                min: int(&v["versions"], "min"),
                max: int(&v["versions"], "max"),
            },
            software: text(v, "software"),
            origin: origin(v),
            connection: int(v, "connection"),
            credentials: optional(&v["credentials"], bytes),
            compression: list(v, "compression", compression),
            resume: optional(&v["resume"], bytes),
        }),
        "Welcome" => Message::Welcome(Welcome {
            version: int(v, "version"),
            session: session(v),
            user: text(v, "user"),
            resume: optional(&v["resume"], bytes),
            compression: compression(&v["compression"]),
            limits: WelcomeLimits {
                message_bytes_max: int(&v["limits"], "message_bytes_max"),
                change_bytes_max: int(&v["limits"], "change_bytes_max"),
                push_window_bytes: int(&v["limits"], "push_window_bytes"),
                documents_max: int(&v["limits"], "documents_max"),
                broadcast_bytes_max: int(&v["limits"], "broadcast_bytes_max"),
                broadcasts_per_second: int(&v["limits"], "broadcasts_per_second"),
                broadcasts_burst: int(&v["limits"], "broadcasts_burst"),
                extension_bytes_max: int(&v["limits"], "extension_bytes_max"),
                extensions_per_second: int(&v["limits"], "extensions_per_second"),
                extensions_burst: int(&v["limits"], "extensions_burst"),
                presence_bytes_max: int(&v["limits"], "presence_bytes_max"),
                presence_interval: Duration::from_millis(int(&v["limits"], "presence_interval_ms")),
                presences_per_second: int(&v["limits"], "presences_per_second"),
                presences_burst: int(&v["limits"], "presences_burst"),
            },
            ping_interval: Duration::from_millis(int(v, "ping_interval_ms")),
            server_time_ms: int(v, "server_time_ms"),
        }),
        "Open" => Message::Open(Open {
            request: RequestId(int(v, "request")),
            document: DocumentId::new(text(v, "document")).unwrap(),
            engine: EngineId::new(text(v, "engine")).unwrap(),
            cursor: optional(&v["cursor"], |v| Cursor {
                epoch: epoch(v),
                seq: seq(v, "seq"),
                digest: digest(v),
            }),
            origins: list(v, "origins", |v| (origin(v), int(v, "acknowledged"))),
            access: access(v),
            create: boolean(v, "create"),
            partial: optional(&v["partial"], |v| PartialSnapshot {
                seq: seq(v, "seq"),
                offset: int(v, "offset"),
                digest: digest(v),
            }),
        }),
        "Opened" => Message::Opened(Opened {
            request: RequestId(int(v, "request")),
            channel: channel(v),
            epoch: epoch(v),
            mode: match text(v, "mode").as_str() {
                "New" => EpochMode::New,
                "Merge" => EpochMode::Merge,
                "Rebase" => EpochMode::Rebase,
                "Discard" => EpochMode::Discard,
                other => panic!("no mode {other}"),
            },
            head: seq(v, "head"),
            access: access(v),
            next: continuation(&v["next"]),
            origins: list(v, "origins", |v| {
                (origin(v), int(v, "last_number"), Author(int(v, "author")))
            }),
        }),
        "Push" => Message::Push(Push {
            channel: channel(v),
            origin: origin(v),
            first_number: int(v, "first_number"),
            changes: list(v, "changes", bytes),
            reconciling: boolean(v, "reconciling"),
        }),
        "Changes" => Message::Changes(Changes {
            channel: channel(v),
            check: int(v, "check"),
            changes: list(v, "changes", |v| AuthoredChange {
                author: Author(int(v, "author")),
                number: match v["number"]["below_seq"].as_u64() {
                    Some(distance) => WireNumber::BelowSeq(distance),
                    None => WireNumber::Number(int(&v["number"], "itself")),
                },
                bytes: bytes(&v["bytes"]),
            }),
        }),
        "Ack" => Message::Ack(Ack {
            channel: channel(v),
            check: int(v, "check"),
            number: int(v, "number"),
            count: int(v, "count"),
        }),
        "Refuse" => Message::Refuse(Refuse {
            channel: channel(v),
            origin: origin(v),
            number: int(v, "number"),
            code: code(&v["code"]),
            message: text(v, "message"),
        }),
        "Snapshot" => Message::Snapshot(SnapshotMessage {
            channel: channel(v),
            epoch: epoch(v),
            seq: seq(v, "seq"),
            digest: digest(v),
            codec: int(v, "codec"),
            offset: int(v, "offset"),
            total_bytes: int(v, "total_bytes"),
            bytes: bytes(&v["bytes"]),
        }),
        "FoldRequest" => Message::FoldRequest(FoldRequest {
            channel: channel(v),
            seq: seq(v, "seq"),
        }),
        "FoldOffer" => Message::FoldOffer(FoldOffer {
            channel: channel(v),
            epoch: epoch(v),
            seq: seq(v, "seq"),
            digest: digest(v),
            bytes: bytes(&v["bytes"]),
        }),
        "Presence" => Message::Presence(Presence {
            channel: channel(v),
            deltas: list(v, "deltas", |v| PresenceDelta {
                session: session(v),
                user: text(v, "user"),
                state: optional(&v["state"], bytes),
            }),
            table_version: int(v, "table_version"),
        }),
        "Broadcast" => Message::Broadcast(Broadcast {
            channel: channel(v),
            topic: text(v, "topic"),
            bytes: bytes(&v["bytes"]),
            sender: optional(&v["sender"], |v| (session(v), text(v, "user"))),
            missed: int(v, "missed"),
        }),
        "Auth" => Message::Auth(Auth {
            credentials: bytes(&v["credentials"]),
        }),
        "Access" => Message::Access(Access {
            channel: channel(v),
            access: access(v),
            from: seq(v, "from"),
        }),
        "Close" => Message::Close(Close {
            channel: channel(v),
        }),
        "Closed" => Message::Closed(Closed {
            channel: channel(v),
            reason: optional(&v["reason"], code),
            message: text(v, "message"),
        }),
        "Ping" => Message::Ping(Ping {
            nonce: int(v, "nonce"),
        }),
        "Pong" => Message::Pong(Pong {
            nonce: int(v, "nonce"),
            heads: list(v, "heads", |v| (channel(v), seq(v, "seq"))),
        }),
        "GoAway" => Message::GoAway(GoAway {
            reconnect_within: Duration::from_millis(int(v, "reconnect_within_ms")),
        }),
        "Error" => Message::Error(ErrorMessage {
            code: code(&v["code"]),
            retryable: boolean(v, "retryable"),
            action: match text(v, "action").as_str() {
                "Retry" => Action::Retry,
                "RefreshAuth" => Action::RefreshAuth,
                "Resync" => Action::Resync,
                "Refuse" => Action::Refuse,
                "Upgrade" => Action::Upgrade,
                "Stop" => Action::Stop,
                other => panic!("no action {other}"),
            },
            retry_after: optional(&v["retry_after_ms"], |v| {
                Duration::from_millis(v.as_u64().unwrap())
            }),
            message: text(v, "message"),
            reference: reference(&v["reference"]),
        }),
        "Fragment" => Message::Fragment(Fragment {
            channel: channel(v),
            id: int(v, "id"),
            index: int(v, "index"),
            total: int(v, "total"),
            bytes: bytes(&v["bytes"]),
        }),
        "Author" => Message::Author(AuthorMessage {
            channel: channel(v),
            origin: origin(v),
            author: Author(int(v, "author")),
        }),
        "Extension" => Message::Extension(Extension {
            kind: int(v, "kind"),
            channel: optional(&v["channel"], |v| {
                Channel(v.as_u64().unwrap().try_into().unwrap())
            }),
            bytes: bytes(&v["bytes"]),
        }),
        "Ignored" => Message::Ignored {
            kind: int(v, "kind"),
        },
        other => panic!("no message {other}"),
    }
}

/// A code by its name in the table, or by number if it has none.
pub(crate) fn code(v: &Value) -> ErrorCode {
    match v.as_u64() {
        Some(number) => ErrorCode::from_number(number.try_into().unwrap()),
        None => *ErrorCode::ALL
            .iter()
            .find(|code| code.name() == v.as_str().unwrap())
            .unwrap(),
    }
}

/// Bytes in hexadecimal.
pub(crate) fn bytes(v: &Value) -> Bytes {
    let hex = v.as_str().unwrap();
    assert!(hex.len().is_multiple_of(2), "half a byte in {hex}");
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

fn continuation(v: &Value) -> Continuation {
    match text(v, "kind").as_str() {
        "Resume" => Continuation::Resume,
        "Snapshot" => Continuation::Snapshot {
            total_bytes: int(v, "total_bytes"),
        },
        "Reset" => Continuation::Reset {
            reset: match text(v, "reset").as_str() {
                "Merge" => Reset::Merge,
                "Rebase" => Reset::Rebase,
                "Discard" => Reset::Discard,
                other => panic!("no reset {other}"),
            },
            total_bytes: int(v, "total_bytes"),
        },
        "Wait" => Continuation::Wait,
        other => panic!("no continuation {other}"),
    }
}

fn reference(v: &Value) -> Reference {
    match text(v, "kind").as_str() {
        "Session" => Reference::Session,
        "Request" => Reference::Request(RequestId(int(v, "request"))),
        "Channel" => Reference::Channel(channel(v)),
        "Change" => Reference::Change(channel(v), int(v, "number")),
        other => panic!("no reference {other}"),
    }
}

fn compression(v: &Value) -> Compression {
    match v.as_str().unwrap() {
        "None" => Compression::None,
        "Gzip" => Compression::Gzip,
        other => panic!("no compression {other}"),
    }
}

fn access(v: &Value) -> AccessLevel {
    match text(v, "access").as_str() {
        "None" => AccessLevel::None,
        "Read" => AccessLevel::Read,
        "Write" => AccessLevel::Write,
        "Maintain" => AccessLevel::Maintain,
        other => panic!("no access {other}"),
    }
}

fn channel(v: &Value) -> Channel {
    Channel(int(v, "channel"))
}

fn origin(v: &Value) -> OriginId {
    OriginId(u128::from_str_radix(&text(v, "origin"), 16).unwrap())
}

fn session(v: &Value) -> SessionId {
    SessionId(hex64(v, "session"))
}

fn epoch(v: &Value) -> Epoch {
    Epoch(hex64(v, "epoch"))
}

fn digest(v: &Value) -> Digest {
    Digest(hex64(v, "digest"))
}

fn seq(v: &Value, field: &str) -> Seq {
    Seq(int(v, field))
}

fn hex64(v: &Value, field: &str) -> u64 {
    u64::from_str_radix(&text(v, field), 16).unwrap()
}

fn int<T: TryFrom<u64>>(v: &Value, field: &str) -> T {
    let number = v[field]
        .as_u64()
        .unwrap_or_else(|| panic!("{field} of {v} is no integer"));
    T::try_from(number).unwrap_or_else(|_| panic!("{field} is too large: {number}"))
}

fn boolean(v: &Value, field: &str) -> bool {
    v[field]
        .as_bool()
        .unwrap_or_else(|| panic!("{field} of {v} is no boolean"))
}

fn text(v: &Value, field: &str) -> String {
    v[field]
        .as_str()
        .unwrap_or_else(|| panic!("{field} of {v} is no text"))
        .to_owned()
}

fn optional<T>(v: &Value, read: impl FnOnce(&Value) -> T) -> Option<T> {
    (!v.is_null()).then(|| read(v))
}

fn list<T>(v: &Value, field: &str, read: impl FnMut(&Value) -> T) -> Vec<T> {
    v[field]
        .as_array()
        .unwrap_or_else(|| panic!("{field} of {v} is no list"))
        .iter()
        .map(read)
        .collect()
}
