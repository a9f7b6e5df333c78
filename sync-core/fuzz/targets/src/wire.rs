//! Frames: what is decoded, put together and inflated.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use bytes::Bytes;
use flate2::read::DeflateDecoder;
use flate2::{Crc, write::GzEncoder};
use sync_core::ids::Channel;
use sync_core::limits::Limits;
use sync_core::wire::{
    Compression, DecodeError, Fragment, Message, Reassembler, compress_frame, decode_frame, encode,
    encode_frame,
};

use crate::input::Input;
use crate::memory::bounded;

const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// What inflating takes besides what comes out: its window and tables.
const INFLATE_STATE_BYTES: usize = 128 * 1024;

/// Any bytes as a frame: what is decoded is encoded, and that is the same message; in memory that follows the bytes.
pub fn frame(bytes: &[u8]) {
    let frame = Bytes::copy_from_slice(bytes);
    // Lists of the smallest entries there are, one byte each, and vectors grow by doubling.
    let inflated = if bytes.first() == Some(&1) {
        INFLATE_STATE_BYTES + 2 * MESSAGE_BYTES_MAX + 256 * MESSAGE_BYTES_MAX
    } else {
        0
    };
    let bytes_max = 256 * bytes.len() + 4096 + inflated;
    let decoded = bounded(bytes_max, "decoding a frame", || {
        decode_frame(frame, MESSAGE_BYTES_MAX)
    });
    let Ok(message) = decoded else {
        return;
    };
    if matches!(message, Message::Ignored { .. }) {
        return;
    }
    agrees(&message);
    let _ = (format!("{message:?}"), message.name());
}

/// Encoding and decoding are each other's opposite, compressed or not.
fn agrees(message: &Message) {
    let plain = encode_frame(message, Compression::None);
    assert_eq!(plain[1..], encode(message)[..]);
    assert_eq!(
        decode_frame(plain.clone(), usize::MAX - 1).as_ref(),
        Ok(message)
    );
    if let Some(gzip) = compress_frame(&plain) {
        assert!(gzip.len() < plain.len());
        assert_eq!(decode_frame(gzip, plain.len()).as_ref(), Ok(message));
    }
}

/// Any bytes as gzip: nothing is inflated beyond the limit, and what is inflated is what was compressed.
pub fn gzip(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let how = input.below(4);
    let bytes_max = usize::from(input.short());
    let rest = input.rest();
    let (stream, honest) = match how {
        // As it is.
        0 => (rest.to_vec(), None),
        // A stream of its own making, with a trailer that is right, or lies about the size.
        1 => deflated(rest, false),
        2 => deflated(rest, true),
        _ => {
            let mut out = GzEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(rest).unwrap();
            (out.finish().unwrap(), Some(rest.to_vec()))
        }
    };
    let frame: Bytes = [&[1], stream.as_slice()].concat().into();
    // What comes out is small: a message has a list of 65,535 entries of a byte each at most.
    let memory_max = INFLATE_STATE_BYTES + 300 * bytes_max + 4096;
    let decoded = bounded(memory_max, "inflating a frame", || {
        decode_frame(frame, bytes_max)
    });
    match (&decoded, &honest) {
        (Ok(message), _) => agrees(message),
        (Err(DecodeError::InvalidGzip), Some(payload)) if payload.len() <= bytes_max => {
            panic!("an honest stream is refused")
        }
        (Err(DecodeError::InflatesTooLarge { bytes, limit }), _) => {
            assert!(bytes > limit);
            assert_eq!(*limit, bytes_max);
        }
        _ => {}
    }
    if let Some(payload) = honest
        && payload.len() <= bytes_max
        && stream.len() <= bytes_max
    {
        let plain = [&[0], payload.as_slice()].concat().into();
        match (decoded, decode_frame(plain, bytes_max)) {
            (Err(DecodeError::MustBePlain { .. }), _) => {}
            (gzip, plain) => assert_eq!(gzip, plain),
        }
    }
}

/// The bytes as a deflate stream in a gzip member with a right trailer, if they are one that inflates to little.
fn deflated(bytes: &[u8], lies: bool) -> (Vec<u8>, Option<Vec<u8>>) {
    let mut payload = Vec::new();
    let mut inflater = DeflateDecoder::new(bytes);
    let whole = inflater.by_ref().take(1 << 20).read_to_end(&mut payload);
    let consumed = usize::try_from(inflater.total_in()).unwrap();
    let is_whole = whole.is_ok() && consumed == bytes.len() && payload.len() < 1 << 20;
    let mut crc = Crc::new();
    crc.update(&payload);
    let size = u32::try_from(payload.len()).unwrap();
    let size = if lies { size / 2 } else { size };
    let mut stream = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    stream.extend_from_slice(bytes);
    stream.extend_from_slice(&crc.sum().to_le_bytes());
    stream.extend_from_slice(&size.to_le_bytes());
    (stream, (is_whole && !lies).then_some(payload))
}

/// Fragments in any order on any channel: what is held is bounded, and what is whole is what a far simpler model says.
pub fn reassembly(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut limits = Limits::default();
    limits.message_bytes_max = usize::from(input.short());
    limits.fragmented_messages_max = usize::from(input.below(6));
    let (bytes_max, messages_max) = (limits.message_bytes_max, limits.fragmented_messages_max);
    let mut reassembler = Reassembler::new(&limits);
    let mut model: BTreeMap<(u8, u8), (u32, u32, Vec<u8>)> = BTreeMap::new();
    while !input.is_empty() {
        let (channel, id) = (input.below(4), input.below(4));
        let key = (channel, id);
        let known = model.get(&key).map(|(total, next, _)| (*total, *next));
        // What continues a message, if that is not to be made up.
        let (index, total) = match (input.below(8), known) {
            (0, _) => (u32::from(input.byte()), u32::from(input.byte())),
            (1, _) => (0, 0),
            (2, _) => {
                reassembler.close_channel(Channel(channel.into()));
                model.retain(|(of, _), _| *of != channel);
                continue;
            }
            (3, _) => (u32::MAX, u32::MAX),
            (_, Some((total, next))) => (next, total),
            (_, None) => (0, u32::from(input.below(8))),
        };
        let n = usize::from(input.byte());
        let piece = match n {
            // Many bytes from few.
            250.. => vec![input.byte(); (n - 249) * 5000],
            _ => input.take(n).to_vec(),
        };
        let fragment = Fragment {
            channel: Channel(channel.into()),
            id: id.into(),
            index,
            total,
            bytes: piece.clone().into(),
        };
        let as_sent = encode_frame(&Message::Fragment(fragment.clone()), Compression::None);
        assert_eq!(
            decode_frame(as_sent, usize::MAX - 1),
            Ok(Message::Fragment(fragment.clone()))
        );
        let held: usize = model.values().map(|(_, _, bytes)| bytes.len()).sum();
        // Growing doubles, and what is whole is handed over.
        let memory_max = 4 * (bytes_max + piece.len()) + 4096;
        let outcome = bounded(memory_max, "a fragment", || reassembler.handle(fragment));
        let (known_total, expected) = known.unwrap_or((total, 0));
        match outcome {
            Ok(_) if total == 0 => {
                model.remove(&key);
            }
            Ok(whole) => {
                assert_eq!((index, total), (expected, known_total));
                assert!(!piece.is_empty() && held + piece.len() <= bytes_max + 1);
                let (_, next, bytes) = model.entry(key).or_insert((total, 0, Vec::new()));
                *next += 1;
                bytes.extend_from_slice(&piece);
                assert_eq!(whole.is_some(), *next == total);
                if let Some(whole) = whole {
                    assert_eq!(whole, model.remove(&key).unwrap().2);
                    frame(&whole);
                }
                assert!(model.len() <= messages_max);
            }
            // The session is closed.
            Err(error) => {
                let fits = held + piece.len() <= bytes_max + 1;
                let is_next = (index, total) == (expected, known_total) && total > 0;
                let room = known.is_some() || total == 1 || model.len() < messages_max;
                let is_last = total == 1 || known.is_some_and(|(total, next)| next + 1 == total);
                let honest = fits && is_next && room && !piece.is_empty();
                assert!(
                    !honest || (is_last && matches!(error, DecodeError::NestedFragment { .. })),
                    "an honest fragment is refused: {error}"
                );
                let _ = (error.code(), error.to_string());
                return;
            }
        }
        let held: usize = model.values().map(|(_, _, bytes)| bytes.len()).sum();
        assert_eq!(reassembler.bytes_held(), held);
    }
}
