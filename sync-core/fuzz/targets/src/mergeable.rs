//! Mergeable documents and opaque ones: what the validator lets pass, merges, and what it refuses leaves no trace.

use bytes::Bytes;
use sync_core::engine::opaque::Opaque;
use sync_core::engine::typed::Typed;
use sync_core::engine::{
    Document, Engine, EngineError, Folder, ReplicaSeed, ValidateLimits, Validator,
};
use sync_core::mergeable::{
    Counter, Dictionary, LwwMap, Mergeable, MergeableValidator, OrMap, OrSet, Register, Sequence,
};

use crate::input::Input;
use crate::memory::bounded;

const BYTES_PER_BYTE: usize = 4096;
const BYTES_ANYWAY: usize = 256 * 1024;
const PIECES_MAX: usize = 40;

/// Any bytes as changes and states of a document of one of the types.
pub fn mergeable(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    match input.below(7) {
        0 => document::<Register<u8>>(&mut input),
        1 => document::<Counter>(&mut input),
        2 => document::<LwwMap<u8, String>>(&mut input),
        3 => document::<OrSet<u8>>(&mut input),
        4 => document::<OrMap<u8, Counter>>(&mut input),
        5 => document::<Dictionary<u8, Sequence<char>>>(&mut input),
        _ => document::<Sequence<char>>(&mut input),
    }
}

fn document<T: Mergeable>(input: &mut Input<'_>) {
    let engine = Typed::<T>::new();
    let server = MergeableValidator::new();
    let limits = ValidateLimits::default();
    let mut document = engine.create(ReplicaSeed(1)).unwrap();
    let (mut log, mut len) = (Vec::new(), 0);
    // A forged state may hold what it does not say that it holds: then nobody knows what a replica of it has.
    let mut is_told = true;
    for _ in 0..PIECES_MAX {
        if input.is_empty() {
            break;
        }
        let is_state = input.below(4) == 0;
        let piece = Bytes::copy_from_slice(input.piece());
        len += piece.len();
        let bytes_max = BYTES_PER_BYTE * len + BYTES_ANYWAY;
        let verdict = bounded(bytes_max, "validating a change", || {
            Validator::validate(&server, &piece, &limits)
        });
        assert_eq!(Engine::validate(&engine, &piece, &limits), verdict);
        let before = (document.version(), document.snapshot());
        let imported = bounded(bytes_max, "importing a change", || {
            if is_state {
                document.import_snapshot(&piece)
            } else {
                document.import(std::slice::from_ref(&piece))
            }
        });
        match imported {
            Ok(_) => {
                assert_eq!(verdict, Ok(()));
                is_told &= !matches!(piece.first(), Some(2 | 4));
                log.push(piece);
            }
            // A horizon beside ours cannot be seen in the bytes alone.
            Err(EngineError::Incomplete) => assert_eq!(verdict, Ok(())),
            Err(error) => {
                assert_eq!(verdict, Err(error));
                assert_eq!((document.version(), document.snapshot()), before);
            }
        }
    }
    let state = document.snapshot().unwrap();
    assert_eq!(Validator::validate(&server, &state, &limits), Ok(()));
    let mut loaded = engine.create(ReplicaSeed(2)).unwrap();
    loaded.import_snapshot(&state).unwrap();
    if is_told {
        assert_eq!(loaded.version(), document.version());
        assert_eq!(loaded.since(&document.version()), Ok(None));
    }
    let _ = server.fold(None, &log);
}

/// Any bytes as changes and states of an opaque document.
pub fn opaque(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let engine = Opaque::new();
    let mut document = engine.create(ReplicaSeed(1)).unwrap();
    let mut len = 0;
    for _ in 0..PIECES_MAX {
        if input.is_empty() {
            break;
        }
        let how = input.below(4);
        let piece = Bytes::copy_from_slice(input.piece());
        len += piece.len();
        let bytes_max = BYTES_PER_BYTE * len + BYTES_ANYWAY;
        let valid = Engine::validate(&engine, &piece, &ValidateLimits::default());
        let before = document.version();
        let imported = bounded(bytes_max, "importing a change", || match how {
            0 => document.import_snapshot(&piece),
            1 => document.import_pending(std::slice::from_ref(&piece)),
            _ => document.import(std::slice::from_ref(&piece)),
        });
        if imported.is_err() {
            assert_eq!(document.version(), before);
        } else if how > 1 {
            assert_eq!(valid, Ok(()));
        }
        if how == 3 {
            let edit = |log: &mut sync_core::engine::opaque::OpaqueEdit<'_>| log.push("mine");
            engine.edit(&mut document, usize::MAX, edit).unwrap();
            document.drain();
        }
    }
    let state = document.snapshot().unwrap();
    let mut loaded = engine.create(ReplicaSeed(2)).unwrap();
    loaded
        .import_snapshot(&state)
        .expect("what is written is read");
    assert_eq!(loaded.version(), document.version());
}
