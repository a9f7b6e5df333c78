//! What frames cost, and that compression neither costs nor hurts.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::io::Write;

use bytes::Bytes;
use flate2::write::GzEncoder;
use sync_core::client::ClientConfig;
use sync_core::error::ErrorCode;
use sync_core::history::{Digest, Epoch, Seq};
use sync_core::ids::{Author, Channel, OriginId};
use sync_core::limits::{COMPRESS_BYTES_MIN, FRAGMENT_BYTES, Limits};
use sync_core::wire::*;

const BYTES_MAX: usize = 64 * 1024 * 1024;

/// Header of an unmasked WebSocket message with less than 126 bytes (RFC 6455 section 5.2).
const WEBSOCKET_HEADER_BYTES: usize = 2;

/// Bytes that each recipient of a one-character edit costs: 18 bytes of yrs change, at sequence 100,000 and
/// channel 3,000.
fn edit_bytes(number: u64) -> usize {
    let change = [0x5a; 18];
    let frame = changes_frame(
        Channel(3_000),
        Seq(100_000),
        [(Author(1), number, &change[..])],
    );
    WEBSOCKET_HEADER_BYTES + frame.len()
}

#[test]
fn a_one_character_edit_costs_at_most_33_bytes() {
    assert_eq!(edit_bytes(100_000), 31, "the document's only author");
    assert_eq!(edit_bytes(99_000), 33, "nearly its only author");
    assert_eq!(edit_bytes(1), 31, "an author's first change");
    assert_eq!(edit_bytes(50_000), 33, "half of it");
    assert_eq!(edit_bytes(65_535), 33, "the last number of two bytes");
    assert_eq!(edit_bytes(67_233), 33, "the furthest distance of two bytes");
    // Neither the number nor the distance fits into two bytes.
    let dearer: Vec<_> = (1..=100_000)
        .filter(|number| edit_bytes(*number) > 33)
        .collect();
    assert_eq!(dearer, (65_536..=67_232).collect::<Vec<_>>());
    assert!(dearer.into_iter().all(|number| edit_bytes(number) == 35));
}

/// Scenario 74, the frame's part.
#[test]
fn gzip_saves_60_percent_on_batches_of_text() {
    let message = text_batch(300);
    let plain = encode_frame(&message, Compression::None);
    let gzip = encode_frame(&message, Compression::Gzip);
    assert!(
        gzip.len() * 10 <= plain.len() * 4,
        "{} of {} bytes",
        gzip.len(),
        plain.len()
    );
    assert_eq!(decode_frame(gzip, BYTES_MAX), Ok(message));
}

/// Scenario 74, the frame's part.
#[test]
fn tiny_frames_and_frames_that_do_not_shrink_stay_plain() {
    for length in [0, 18, 400] {
        let tiny = encode_frame(&snapshot(vec![0; length]), Compression::Gzip);
        assert_eq!(tiny[0], 0, "{length} bytes");
    }
    let header = encode_frame(&snapshot(vec![0; 500]), Compression::None).len() - 500;
    let below = encode_frame(
        &snapshot(vec![0; COMPRESS_BYTES_MIN - header - 1]),
        Compression::Gzip,
    );
    assert_eq!((below.len(), below[0]), (COMPRESS_BYTES_MIN - 1, 0));
    let at = encode_frame(
        &snapshot(vec![0; COMPRESS_BYTES_MIN - header]),
        Compression::Gzip,
    );
    assert_eq!(at[0], 1);

    let noise = snapshot(noise(2_000));
    assert_eq!(
        encode_frame(&noise, Compression::Gzip),
        encode_frame(&noise, Compression::None)
    );
}

/// Scenario 74, the frame's part: one room encodes once and compresses once.
#[test]
fn a_plain_frame_is_compressed_for_those_who_take_it() {
    let plain = encode_frame(&text_batch(100), Compression::None);
    let gzip = compress_frame(&plain).unwrap();
    assert_eq!(
        decode_frame(gzip.clone(), BYTES_MAX),
        decode_frame(plain, BYTES_MAX)
    );
    assert_eq!(
        compress_frame(&gzip),
        None,
        "a compressed frame is not compressed again"
    );
}

#[test]
fn credentials_and_fragments_are_never_compressed() {
    let secret = Bytes::from(vec![b'x'; 2_000]);
    let hello = Message::Hello(Hello {
        versions: PROTOCOL_VERSIONS,
        software: String::new(),
        origin: OriginId(1),
        connection: 1,
        credentials: Some(secret.clone()),
        compression: Vec::new(),
        resume: None,
    });
    let auth = Message::Auth(Auth {
        credentials: secret.clone(),
    });
    let fragment = Message::Fragment(Fragment {
        channel: Channel(1),
        id: 1,
        index: 0,
        total: 2,
        bytes: secret,
    });
    for message in [hello, auth, fragment] {
        assert_eq!(
            encode_frame(&message, Compression::Gzip)[0],
            0,
            "{message:?}"
        );
    }
}

#[test]
fn payloads_are_slices_of_the_frame() {
    let frame = encode_frame(&snapshot(noise(5_000)), Compression::None);
    let inside = frame.as_ptr_range();
    let Ok(Message::Snapshot(snapshot)) = decode_frame(frame, BYTES_MAX) else {
        panic!("no snapshot")
    };
    assert_eq!(snapshot.bytes.len(), 5_000);
    assert!(inside.contains(&snapshot.bytes.as_ptr()));
}

/// Scenario 50.
#[test]
fn a_decompression_bomb_is_refused_before_it_is_inflated() {
    let bomb = gzip(&vec![0; BYTES_MAX + 1]);
    assert!(bomb.len() < 100_000, "{} bytes", bomb.len());
    let refused = decode_frame(bomb.clone().into(), BYTES_MAX).unwrap_err();
    assert_eq!(
        refused,
        DecodeError::InflatesTooLarge {
            bytes: BYTES_MAX + 1,
            limit: BYTES_MAX
        }
    );
    assert_eq!(refused.code(), ErrorCode::DecompressionFailed);

    // Nothing of it was inflated: its body need not even be gzip.
    let mut hollow = bomb.clone();
    let body = 1..hollow.len() - 4;
    hollow[body].fill(0xff);
    assert_eq!(decode_frame(hollow.into(), BYTES_MAX).unwrap_err(), refused);

    // One that lies about its size is inflated no further than the size that it claims.
    for claimed in [0_u32, 100, 64 * 1024 * 1024] {
        let mut liar = bomb.clone();
        let at = liar.len() - 4;
        liar[at..].copy_from_slice(&claimed.to_le_bytes());
        let refused = decode_frame(liar.into(), BYTES_MAX).unwrap_err();
        assert_eq!(
            refused.code(),
            ErrorCode::DecompressionFailed,
            "claims {claimed}"
        );
    }
}

#[test]
fn the_limit_is_on_the_inflated_message_and_exact() {
    let message = snapshot(vec![0; 3_000]);
    let size = encode(&message).len();
    for compression in [Compression::None, Compression::Gzip] {
        let frame = encode_frame(&message, compression);
        assert_eq!(decode_frame(frame.clone(), size).as_ref(), Ok(&message));
        assert!(decode_frame(frame, size - 1).is_err());
    }
}

#[test]
fn lists_longer_than_the_limit_are_refused() {
    let push = |count| {
        let changes = vec![Bytes::new(); count];
        encode(&Message::Push(Push {
            channel: Channel(1),
            origin: OriginId(1),
            first_number: 1,
            changes,
            reconciling: false,
        }))
    };
    assert!(decode(push(LIST_ENTRIES_MAX)).is_ok());
    let refused = decode(push(LIST_ENTRIES_MAX + 1)).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::FrameTooLarge);
    assert_eq!(
        refused.to_string(),
        "push.changes: 65537 entries, the limit is 65536"
    );
}

/// Scenario 45, the codec's part.
#[test]
fn unknown_values_nested_a_million_deep_are_passed_over_without_recursion() {
    let mut payload = vec![0x93, 18, 7];
    payload.extend(std::iter::repeat_n(0x91, 1_000_000));
    payload.push(0xc0);
    assert_eq!(decode(payload.into()), Ok(Message::Ping(Ping { nonce: 7 })));
}

#[test]
fn an_error_names_the_field_and_what_was_wrong() {
    let wrong = |payload: &[u8]| {
        decode(Bytes::copy_from_slice(payload))
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        wrong(&[0x92, 18, 0xc0]),
        "ping.nonce: expected integer, found nil"
    );
    assert_eq!(wrong(&[0x91, 18]), "ping.nonce is missing");
    assert_eq!(
        wrong(&[0x92, 16, 0xcf, 0, 0, 0, 1, 0, 0, 0, 0]),
        "close.channel: 4294967296 is over the limit of 4294967295"
    );
    assert_eq!(
        wrong(&[0x92, 14, 0xc4, 9, 1]),
        "auth.credentials: 9 more bytes or values announced, 1 bytes left"
    );
    assert_eq!(wrong(&[0x91, 63]), "unknown message type 63");
    let get = decode_frame(Bytes::from_static(b"GET / HTTP/1.1"), BYTES_MAX).unwrap_err();
    assert_eq!(get, DecodeError::UnknownFlags { flags: b'G' });
}

#[test]
fn a_large_frame_is_cut_into_transport_messages_of_at_most_64_kib() {
    for length in [
        0,
        FRAGMENT_BYTES - 100,
        FRAGMENT_BYTES,
        3 * FRAGMENT_BYTES,
        5_000_000,
    ] {
        let message = snapshot(noise(length));
        let frame = encode_frame(&message, Compression::Gzip);
        let pieces = split(frame.clone(), Channel(u32::MAX), u32::MAX);
        assert_eq!(
            pieces.len(),
            if frame.len() <= FRAGMENT_BYTES {
                1
            } else {
                frame.len().div_ceil(65_510)
            }
        );
        let mut reassembler = Reassembler::new(&Limits::default());
        let mut received = Vec::new();
        for piece in pieces {
            assert!(piece.len() <= FRAGMENT_BYTES, "{} bytes", piece.len());
            received.extend(match decode_frame(piece, BYTES_MAX).unwrap() {
                Message::Fragment(fragment) => {
                    let whole = reassembler.handle(fragment).unwrap();
                    whole.map(|whole| decode_frame(whole, BYTES_MAX).unwrap())
                }
                whole => Some(whole),
            });
        }
        assert_eq!(received, [message]);
        assert_eq!(reassembler.bytes_held(), 0);
    }
}

#[test]
fn what_a_closed_channel_has_sent_is_dropped() {
    let mut reassembler = Reassembler::new(&Limits::default());
    let mut first = |channel, id| {
        let Ok(Message::Fragment(fragment)) = split(vec![0; 100_000].into(), Channel(channel), id)
            .next()
            .map(|f| decode_frame(f, BYTES_MAX))
            .unwrap()
        else {
            panic!("no fragment");
        };
        reassembler.handle(fragment).unwrap();
        reassembler.bytes_held()
    };
    let one = first(1, 0);
    first(1, u32::MAX);
    assert_eq!(first(2, 0), 3 * one);
    reassembler.close_channel(Channel(1));
    assert_eq!(reassembler.bytes_held(), one);
    let Ok(Message::Fragment(abort)) = decode_frame(abort_frame(Channel(2), 0), BYTES_MAX) else {
        panic!("no fragment");
    };
    assert_eq!(reassembler.handle(abort), Ok(None));
    assert_eq!(reassembler.bytes_held(), 0);
}

fn snapshot(bytes: Vec<u8>) -> Message {
    Message::Snapshot(SnapshotMessage {
        channel: Channel(3_000),
        epoch: Epoch(u64::MAX),
        seq: Seq(100_000),
        digest: Digest(u64::MAX),
        codec: 0,
        offset: 0,
        total_bytes: bytes.len().try_into().unwrap(),
        bytes: bytes.into(),
    })
}

/// Changes as they leave a busy room: a sentence typed in words, each insertion with an engine's header that names
/// a replica and a clock.
fn text_batch(changes: u64) -> Message {
    const SENTENCE: &str =
        "the quick brown fox jumps over the lazy dog while nobody in the room looks up";
    let words = SENTENCE.split_inclusive(' ').cycle();
    let changes = (1_u64..=changes).zip(words).map(|(number, word)| {
        let mut bytes = vec![1, 1, 0xf5, 0xa8, 0xc3, 0xd4, 0x0b];
        bytes.extend_from_slice(&number.to_le_bytes()[..2]);
        bytes.extend_from_slice(&[
            0x84,
            0xf5,
            0xa8,
            0xc3,
            0xd4,
            0x0b,
            word.len().try_into().unwrap(),
        ]);
        bytes.extend_from_slice(word.as_bytes());
        bytes.push(0);
        AuthoredChange {
            author: Author(0),
            number: WireNumber::new(number, Seq(number)),
            bytes: bytes.into(),
        }
    });
    Message::Changes(Changes {
        channel: Channel(3_000),
        check: 1,
        changes: changes.collect(),
    })
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    // splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27))
            .wrapping_mul(0x94d0_49bb_1331_11eb)
            .to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(vec![1], flate2::Compression::new(9));
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

#[test]
fn what_is_printed_has_no_credentials() {
    let secret = Bytes::from_static(b"open sesame");
    let mut config = ClientConfig::new(OriginId(1), 1);
    config.credentials = Some(secret.clone());
    let hello = Message::Hello(Hello {
        versions: PROTOCOL_VERSIONS,
        software: String::new(),
        origin: OriginId(1),
        connection: 1,
        credentials: Some(secret.clone()),
        compression: Vec::new(),
        resume: Some(secret.clone()),
    });
    let auth = Message::Auth(Auth {
        credentials: secret,
    });
    for printed in [
        format!("{config:?}"),
        format!("{hello:?}"),
        format!("{auth:?}"),
    ] {
        assert!(!printed.contains("sesame"), "{printed}");
        assert!(printed.contains("credentials"), "{printed}");
    }
}
