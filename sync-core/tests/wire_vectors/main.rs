//! The golden vectors in `tests/vectors`, which other implementations check themselves against too.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "tests"
)]

mod json;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::Value;
use sync_core::limits::Limits;
use sync_core::wire::{Compression, DecodeError};
use sync_core::wire::{Message, Reassembler, decode, decode_frame, encode, encode_frame};

const BYTES_MAX: usize = 64 * 1024 * 1024;

#[test]
fn every_message_vector_holds_in_both_directions() {
    for vector in message_vectors() {
        let message = json::message(&vector["message"]);
        let payload = json::bytes(&vector["payload"]);
        assert_eq!(
            decode(payload.clone()).as_ref(),
            Ok(&message),
            "{}",
            vector["name"]
        );
        if vector["decode_only"] != Value::Bool(true) {
            assert_eq!(encode(&message), payload, "{}", vector["name"]);
        }
    }
}

#[test]
fn every_message_of_the_protocol_has_vectors_under_its_number_and_name() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol.md");
    let text = std::fs::read_to_string(path).unwrap();
    let table = text
        .lines()
        .skip_while(|line| !line.starts_with("| type | message |"))
        .skip(2);
    let cells: Vec<_> = table
        .take_while(|line| line.starts_with('|'))
        .flat_map(|line| line.split('|'))
        .collect();
    let documented: BTreeSet<_> = cells
        .windows(2)
        .filter_map(|pair| {
            Some((
                pair[0].trim().parse().ok()?,
                pair[1].trim().trim_matches('`').to_owned(),
            ))
        })
        .collect();
    let found: BTreeSet<(u8, String)> = message_vectors()
        .iter()
        .map(|v| {
            (
                json::bytes(&v["payload"]),
                json::message(&v["message"]).name().to_owned(),
            )
        })
        // The type is the second byte where the header of the array is one byte, which every message has a vector for.
        .filter(|(payload, _)| matches!(payload[..], [0x90..=0x9f, 0..64, ..]))
        .map(|(payload, name)| (payload[1], name))
        .collect();
    assert_eq!(found, documented);
}

/// Scenario 45, the codec's part.
#[test]
fn a_message_cut_at_any_byte_is_an_error() {
    for vector in message_vectors() {
        let payload = json::bytes(&vector["payload"]);
        for end in 0..payload.len() {
            assert!(
                decode(payload.slice(..end)).is_err(),
                "{} cut at {end}",
                vector["name"]
            );
        }
    }
}

/// Scenario 45, the codec's part: a change of one byte may give another message, but never a panic.
#[test]
fn a_message_with_any_byte_changed_never_panics() {
    for vector in message_vectors() {
        let payload = json::bytes(&vector["payload"]).to_vec();
        for at in 0..payload.len() {
            for byte in 0..=u8::MAX {
                let mut changed = payload.clone();
                changed[at] = byte;
                if let Ok(message) = decode(changed.into()) {
                    // Whatever is understood can be said again, and means the same.
                    assert_eq!(
                        decode(encode(&message)).as_ref(),
                        Ok(&message),
                        "{} at {at}",
                        vector["name"]
                    );
                }
            }
        }
    }
}

#[test]
fn frame_vectors_decode() {
    for vector in entries("frames.json", "frames") {
        let message = json::message(&vector["message"]);
        let frame = json::bytes(&vector["frame"]);
        assert_eq!(
            decode_frame(frame.clone(), BYTES_MAX).as_ref(),
            Ok(&message),
            "{}",
            vector["name"]
        );
        for end in 0..frame.len() {
            assert!(
                decode_frame(frame.slice(..end), BYTES_MAX).is_err(),
                "{} cut at {end}",
                vector["name"]
            );
        }
        let again = encode_frame(&message, Compression::Gzip);
        assert_eq!(
            decode_frame(again, BYTES_MAX).as_ref(),
            Ok(&message),
            "{}",
            vector["name"]
        );
    }
}

/// Scenario 45, the codec's part.
#[test]
fn malformed_frames_are_refused_with_their_code() {
    for vector in entries("errors.json", "errors") {
        let bytes_max = vector["bytes_max"]
            .as_u64()
            .map_or(BYTES_MAX, |max| max.try_into().unwrap());
        let found =
            decode_frame(json::bytes(&vector["frame"]), bytes_max).map_err(|error| error.code());
        assert_eq!(
            found,
            Err(json::code(&vector["error"])),
            "{}",
            vector["name"]
        );
    }
}

#[test]
fn fragments_are_put_together() {
    for sequence in entries("reassembly.json", "sequences") {
        let name = &sequence["name"];
        let mut limits = Limits::default();
        if let Some(max) = sequence["bytes_max"].as_u64() {
            limits.message_bytes_max = max.try_into().unwrap();
        }
        let mut reassembler = Reassembler::new(&limits);
        for step in sequence["steps"].as_array().unwrap() {
            let result = reassemble(&mut reassembler, json::bytes(&step["frame"]));
            let found = result.map_err(|error| error.code());
            let expected = match (&step["message"], &step["error"]) {
                (Value::Null, Value::Null) => Ok(None),
                (message, Value::Null) => Ok(Some(json::message(message))),
                (_, error) => Err(json::code(error)),
            };
            assert_eq!(found, expected, "{name}");
        }
    }
}

fn reassemble(reassembler: &mut Reassembler, frame: Bytes) -> Result<Option<Message>, DecodeError> {
    let Message::Fragment(fragment) = decode_frame(frame, BYTES_MAX)? else {
        panic!("not a fragment");
    };
    reassembler
        .handle(fragment)?
        .map(|whole| decode_frame(whole, BYTES_MAX))
        .transpose()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

fn message_vectors() -> Vec<Value> {
    let files = std::fs::read_dir(folder())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap());
    let vectors: Vec<_> = files
        .filter(|file| file.ends_with(".json"))
        .flat_map(|file| entries(&file, "vectors"))
        .collect();
    assert!(!vectors.is_empty());
    vectors
}

fn entries(file: &str, key: &str) -> Vec<Value> {
    let file: Value = serde_json::from_slice(&std::fs::read(folder().join(file)).unwrap()).unwrap();
    file[key].as_array().cloned().unwrap_or_default()
}
