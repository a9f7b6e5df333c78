//! Every message survives the wire, and no bytes make the decoder panic.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use sync_core::error::{Action, ErrorCode};
use sync_core::history::{Cursor, Digest, Epoch, EpochMode, Seq};
use sync_core::ids::{Author, Channel, DocumentId, EngineId, OriginId, RequestId, SessionId};
use sync_core::limits::Limits;
use sync_core::wire::*;

const BYTES_MAX: usize = 1024 * 1024;

proptest! {
    #[test]
    fn every_message_survives_encoding(message in message()) {
        prop_assert_eq!(decode(encode(&message)), Ok(message));
    }

    #[test]
    fn every_message_survives_frames(message in message()) {
        for compression in [Compression::None, Compression::Gzip] {
            prop_assert_eq!(decode_frame(encode_frame(&message, compression), BYTES_MAX), Ok(message.clone()));
        }
    }

    #[test]
    fn unknown_trailing_fields_are_ignored(message in message(), extra in vec(any::<u8>(), 0..200)) {
        // `Changes` is the one message that cannot grow: its values after the check are changes.
        prop_assume!(!matches!(message, Message::Changes(_)));
        let mut payload = encode(&message).to_vec();
        // No message has more than 14 fields, so its header is one byte.
        payload[0] += 1;
        payload.extend_from_slice(&[0xc4, extra.len().try_into().unwrap()]);
        payload.extend_from_slice(&extra);
        prop_assert_eq!(decode(payload.into()), Ok(message));
    }

    /// Scenario 45, the codec's part.
    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        let _ = decode(bytes.clone().into());
        let _ = decode_frame(bytes.into(), BYTES_MAX);
    }

    /// Scenario 45, the codec's part: arrays of the right type and number of values, so that fields are reached.
    #[test]
    fn random_values_never_panic(kind: u8, values in vec(value(), 0..9)) {
        let mut payload = vec![0x90 + u8::try_from(values.len() + 1).unwrap(), 0xcc, kind];
        payload.extend(values.into_iter().flatten());
        let _ = decode(payload.into());
    }

    #[test]
    fn random_fragments_never_panic_and_hold_no_more_than_arrived(
        fragments in vec((0..3_u32, 0..3_u32, 0..4_u32, 0..4_u32, 0..20_usize), 0..40),
    ) {
        let mut reassembler = Reassembler::new(&Limits::default());
        let mut arrived = 0;
        for (channel, id, index, total, length) in fragments {
            arrived += length;
            let bytes = Bytes::from(vec![0x5a; length]);
            let _ = reassembler.handle(Fragment { channel: Channel(channel), id, index, total, bytes });
            prop_assert!(reassembler.bytes_held() <= arrived);
        }
        (0..3).for_each(|channel| reassembler.close_channel(Channel(channel)));
        prop_assert_eq!(reassembler.bytes_held(), 0);
    }

    #[test]
    fn a_change_number_means_itself_in_the_shorter_form(number in integer(), seq in integer()) {
        let wire = WireNumber::new(number, Seq(seq));
        prop_assert_eq!(wire.resolve(Seq(seq)), Some(number));
        prop_assert!(wire.encoded_len() <= WireNumber::Number(number).encoded_len());
    }

    #[test]
    fn changes_from_parts_are_the_frame_of_the_message(
        channel: u32,
        first in 1..u64::MAX / 2,
        changes in vec((any::<u32>(), integer(), vec(any::<u8>(), 0..400)), 0..20),
    ) {
        let parts = changes.iter().map(|(author, number, bytes)| (Author(*author), *number, bytes.as_slice()));
        let frame = changes_frame(Channel(channel), Seq(first), parts);
        let mut seq = Seq(first);
        let mut size = 0;
        let changes = changes.into_iter().map(|(author, number, bytes)| {
            let change = AuthoredChange {
                author: Author(author),
                number: WireNumber::new(number, seq),
                bytes: bytes.into(),
            };
            size += change_bytes(change.author, number, seq, change.bytes.len());
            seq = seq.next();
            change
        });
        let message = Changes { channel: Channel(channel), check: check_of(Seq(first)), changes: changes.collect() };
        prop_assert_eq!(encode_frame(&Message::Changes(message), Compression::None), frame.clone());
        prop_assert!(frame.len() >= size && frame.len() <= size + CHANGES_OVERHEAD_BYTES_MAX);
    }
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        sessions(),
        documents(),
        changes(),
        states(),
        ephemeral(),
        control()
    ]
}

fn sessions() -> impl Strategy<Value = Message> {
    let hello = (
        any::<(u16, u16)>(),
        text(),
        origin(),
        integer(),
        of(bytes()),
        vec(compression(), 0..4),
        of(bytes()),
    )
        .prop_map(
            |((min, max), software, origin, connection, credentials, compression, resume)| {
                let versions = VersionRange { min, max };
                Message::Hello(Hello {
                    versions,
                    software,
                    origin,
                    connection,
                    credentials,
                    compression,
                    resume,
                })
            },
        );
    let limits = std::array::from_fn::<_, 13, _>(|_| integer());
    let welcome = (
        any::<u16>(),
        session(),
        text(),
        of(bytes()),
        compression(),
        (limits, duration()),
        duration(),
        integer(),
    )
        .prop_map(
            |(
                version,
                session,
                user,
                resume,
                compression,
                (limits, presence_interval),
                ping_interval,
                server_time_ms,
            )| {
                let [
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
                    presences_per_second,
                    presences_burst,
                ] = limits;
                let limits = WelcomeLimits {
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
                };
                Message::Welcome(Welcome {
                    version,
                    session,
                    user,
                    resume,
                    compression,
                    limits,
                    ping_interval,
                    server_time_ms,
                })
            },
        );
    prop_oneof![hello, welcome]
}

fn documents() -> impl Strategy<Value = Message> {
    let document = "[a-z/ü]{1,40}".prop_map(|id| DocumentId::new(id).unwrap());
    let engine = "[a-z]{1,32}".prop_map(|name| EngineId::new(name).unwrap());
    let cursor =
        (epoch(), seq(), digest()).prop_map(|(epoch, seq, digest)| Cursor { epoch, seq, digest });
    let partial = (seq(), integer(), digest()).prop_map(|(seq, offset, digest)| PartialSnapshot {
        seq,
        offset,
        digest,
    });
    let origins = vec((origin(), integer()), 0..20);
    let open = (
        request(),
        document,
        engine,
        of(cursor),
        origins,
        access(),
        any::<bool>(),
        of(partial),
    )
        .prop_map(
            |(request, document, engine, cursor, origins, access, create, partial)| {
                Message::Open(Open {
                    request,
                    document,
                    engine,
                    cursor,
                    origins,
                    access,
                    create,
                    partial,
                })
            },
        );
    let mode = prop::sample::select(
        &[
            EpochMode::New,
            EpochMode::Merge,
            EpochMode::Rebase,
            EpochMode::Discard,
        ][..],
    );
    let reset = prop::sample::select(&[Reset::Merge, Reset::Rebase, Reset::Discard][..]);
    let next = prop_oneof![
        Just(Continuation::Resume),
        Just(Continuation::Wait),
        integer().prop_map(|total_bytes| Continuation::Snapshot { total_bytes }),
        (reset, integer())
            .prop_map(|(reset, total_bytes)| Continuation::Reset { reset, total_bytes }),
    ];
    let origins = vec((origin(), integer(), author()), 0..20);
    let opened = (
        request(),
        channel(),
        epoch(),
        mode,
        seq(),
        access(),
        next,
        origins,
    )
        .prop_map(
            |(request, channel, epoch, mode, head, access, next, origins)| {
                Message::Opened(Opened {
                    request,
                    channel,
                    epoch,
                    mode,
                    head,
                    access,
                    next,
                    origins,
                })
            },
        );
    let level = (channel(), access(), seq()).prop_map(|(channel, access, from)| {
        Message::Access(Access {
            channel,
            access,
            from,
        })
    });
    let close = channel().prop_map(|channel| Message::Close(Close { channel }));
    let closed = (channel(), of(code()), text()).prop_map(|(channel, reason, message)| {
        Message::Closed(Closed {
            channel,
            reason,
            message,
        })
    });
    prop_oneof![open, opened, level, close, closed]
}

fn changes() -> impl Strategy<Value = Message> {
    let push = (
        channel(),
        origin(),
        integer(),
        vec(bytes(), 0..40),
        any::<bool>(),
    )
        .prop_map(|(channel, origin, first_number, changes, reconciling)| {
            Message::Push(Push {
                channel,
                origin,
                first_number,
                changes,
                reconciling,
            })
        });
    let number = prop_oneof![
        integer().prop_map(WireNumber::Number),
        integer().prop_map(|distance| WireNumber::BelowSeq(distance >> 1)),
    ];
    let change = (author(), number, bytes()).prop_map(|(author, number, bytes)| AuthoredChange {
        author,
        number,
        bytes,
    });
    let changes =
        (channel(), 0..128_u8, vec(change, 0..40)).prop_map(|(channel, check, changes)| {
            Message::Changes(Changes {
                channel,
                check,
                changes,
            })
        });
    let ack =
        (channel(), 0..128_u8, integer(), integer()).prop_map(|(channel, check, number, count)| {
            Message::Ack(Ack {
                channel,
                check,
                number,
                count,
            })
        });
    let refuse = (channel(), origin(), integer(), code(), text()).prop_map(
        |(channel, origin, number, code, message)| {
            Message::Refuse(Refuse {
                channel,
                origin,
                number,
                code,
                message,
            })
        },
    );
    let author = (channel(), origin(), author()).prop_map(|(channel, origin, author)| {
        Message::Author(AuthorMessage {
            channel,
            origin,
            author,
        })
    });
    prop_oneof![push, changes, ack, refuse, author]
}

fn states() -> impl Strategy<Value = Message> {
    let snapshot = (
        channel(),
        epoch(),
        seq(),
        digest(),
        any::<u8>(),
        (integer(), integer()),
        bytes(),
    )
        .prop_map(
            |(channel, epoch, seq, digest, codec, (offset, total_bytes), bytes)| {
                Message::Snapshot(SnapshotMessage {
                    channel,
                    epoch,
                    seq,
                    digest,
                    codec,
                    offset,
                    total_bytes,
                    bytes,
                })
            },
        );
    let request = (channel(), seq())
        .prop_map(|(channel, seq)| Message::FoldRequest(FoldRequest { channel, seq }));
    let offer = (channel(), epoch(), seq(), digest(), bytes()).prop_map(
        |(channel, epoch, seq, digest, bytes)| {
            Message::FoldOffer(FoldOffer {
                channel,
                epoch,
                seq,
                digest,
                bytes,
            })
        },
    );
    prop_oneof![snapshot, request, offer]
}

fn ephemeral() -> impl Strategy<Value = Message> {
    let delta = (session(), text(), of(bytes())).prop_map(|(session, user, state)| PresenceDelta {
        session,
        user,
        state,
    });
    let presence =
        (channel(), vec(delta, 0..20), integer()).prop_map(|(channel, deltas, table_version)| {
            Message::Presence(Presence {
                channel,
                deltas,
                table_version,
            })
        });
    let broadcast = (
        channel(),
        text(),
        bytes(),
        of((session(), text())),
        integer(),
    )
        .prop_map(|(channel, topic, bytes, sender, missed)| {
            Message::Broadcast(Broadcast {
                channel,
                topic,
                bytes,
                sender,
                missed,
            })
        });
    let extension = (128..=u8::MAX, of(channel()), bytes()).prop_map(|(kind, channel, bytes)| {
        Message::Extension(Extension {
            kind,
            channel,
            bytes,
        })
    });
    prop_oneof![presence, broadcast, extension]
}

fn control() -> impl Strategy<Value = Message> {
    let auth = bytes().prop_map(|credentials| Message::Auth(Auth { credentials }));
    let ping = integer().prop_map(|nonce| Message::Ping(Ping { nonce }));
    let pong = (integer(), vec((channel(), seq()), 0..20))
        .prop_map(|(nonce, heads)| Message::Pong(Pong { nonce, heads }));
    let go_away =
        duration().prop_map(|reconnect_within| Message::GoAway(GoAway { reconnect_within }));
    let action = prop::sample::select(
        &[
            Action::Retry,
            Action::RefreshAuth,
            Action::Resync,
            Action::Refuse,
            Action::Upgrade,
            Action::Stop,
        ][..],
    );
    let reference = prop_oneof![
        Just(Reference::Session),
        request().prop_map(Reference::Request),
        channel().prop_map(Reference::Channel),
        (channel(), integer()).prop_map(|(channel, number)| Reference::Change(channel, number)),
    ];
    let error = (
        code(),
        any::<bool>(),
        action,
        of(duration()),
        text(),
        reference,
    )
        .prop_map(
            |(code, retryable, action, retry_after, message, reference)| {
                Message::Error(ErrorMessage {
                    code,
                    retryable,
                    action,
                    retry_after,
                    message,
                    reference,
                })
            },
        );
    let fragment = (channel(), any::<(u32, u32, u32)>(), bytes()).prop_map(
        |(channel, (id, index, total), bytes)| {
            Message::Fragment(Fragment {
                channel,
                id,
                index,
                total,
                bytes,
            })
        },
    );
    let ignored = (64..128_u8).prop_map(|kind| Message::Ignored { kind });
    prop_oneof![auth, ping, pong, go_away, error, fragment, ignored]
}

/// One MessagePack value or something like it.
fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        any::<u64>().prop_map(|n| [&[0xcf][..], &n.to_be_bytes()].concat()),
        vec(any::<u8>(), 0..20)
            .prop_map(|b| [&[0xc4, b.len().try_into().unwrap()], &b[..]].concat()),
        vec(any::<u8>(), 0..16)
            .prop_map(|b| [&[0x90 + u8::try_from(b.len()).unwrap()], &b[..]].concat()),
        Just([&[0xc4, 16][..], &[7; 16]].concat()),
    ]
}

/// Integers of every width.
fn integer() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0..64_u32).prop_map(|(value, shift)| value >> shift)
}

fn bytes() -> impl Strategy<Value = Bytes> {
    prop_oneof![8 => vec(any::<u8>(), 0..40), 1 => vec(any::<u8>(), 200..700)].prop_map(Bytes::from)
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![8 => ".{0,40}", 1 => ".{200,300}"]
}

fn channel() -> impl Strategy<Value = Channel> {
    any::<u32>().prop_map(Channel)
}

fn author() -> impl Strategy<Value = Author> {
    any::<u32>().prop_map(Author)
}

fn request() -> impl Strategy<Value = RequestId> {
    any::<u32>().prop_map(RequestId)
}

fn origin() -> impl Strategy<Value = OriginId> {
    any::<u128>().prop_map(OriginId)
}

fn session() -> impl Strategy<Value = SessionId> {
    integer().prop_map(SessionId)
}

fn epoch() -> impl Strategy<Value = Epoch> {
    integer().prop_map(Epoch)
}

fn digest() -> impl Strategy<Value = Digest> {
    integer().prop_map(Digest)
}

fn seq() -> impl Strategy<Value = Seq> {
    integer().prop_map(Seq)
}

fn duration() -> impl Strategy<Value = Duration> {
    integer().prop_map(Duration::from_millis)
}

fn code() -> impl Strategy<Value = ErrorCode> {
    any::<u16>().prop_map(ErrorCode::from_number)
}

fn compression() -> impl Strategy<Value = Compression> {
    prop::sample::select(&[Compression::None, Compression::Gzip][..])
}

fn access() -> impl Strategy<Value = AccessLevel> {
    prop::sample::select(
        &[
            AccessLevel::None,
            AccessLevel::Read,
            AccessLevel::Write,
            AccessLevel::Maintain,
        ][..],
    )
}
