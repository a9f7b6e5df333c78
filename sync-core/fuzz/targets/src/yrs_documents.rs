//! yrs: whatever the validator and the ledger let pass, yrs takes, in memory that follows the bytes.

use std::sync::OnceLock;

use bytes::Bytes;
use sync_core::engine::yrs::{Yrs, YrsDocument};
use sync_core::engine::{Document, Edited, Engine, EngineError, ReplicaSeed, ValidateLimits};
use sync_core::ids::User;
use sync_core::yrs::updates::decoder::Decode;
use sync_core::yrs::{Array, ArrayPrelim, Map, MapPrelim, Text, Update, WriteTxn};

use crate::input::Input;
use crate::memory::bounded;

/// Of a change that may take about a kilobyte for five bytes: subdocuments do.
const BYTES_PER_BYTE: usize = 1024;
const BYTES_ANYWAY: usize = 256 * 1024;

fn replica(seed: u128) -> YrsDocument {
    Yrs::new().create(ReplicaSeed(seed)).unwrap()
}

fn validate(change: &[u8]) -> Result<(), EngineError> {
    Engine::validate(&Yrs::new(), change, &ValidateLimits::default())
}

fn edit(document: &mut YrsDocument) {
    let edited = Yrs::new().edit(document, usize::MAX, |txn| {
        txn.get_or_insert_text("text").push(txn, "more");
        txn.get_or_insert_map("map").insert(txn, "k0", "more");
    });
    assert_eq!(edited, Ok(Edited::Done(())));
}

/// A document with something of everything, which changes refer to.
fn base() -> &'static Bytes {
    static BASE: OnceLock<Bytes> = OnceLock::new();
    BASE.get_or_init(|| {
        let mut document = replica(1);
        edit(&mut document);
        Yrs::new()
            .edit(&mut document, usize::MAX, |txn| {
                let text = txn.get_or_insert_text("text");
                text.insert(txn, 2, "words");
                text.remove_range(txn, 1, 3);
                let map = txn.get_or_insert_map("map");
                map.insert(txn, "map", MapPrelim::default());
                let array = txn.get_or_insert_array("array");
                array.push_back(txn, 1);
                array.push_back(txn, ArrayPrelim::from([1, 2]));
            })
            .unwrap();
        document.drain();
        document.snapshot().unwrap()
    })
}

/// What passes the validator, yrs decodes and takes, and the document can be edited, saved and loaded after it.
pub fn yrs_update(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let on_base = input.flag();
    let change = Bytes::copy_from_slice(input.rest());
    let bytes_max = BYTES_PER_BYTE * change.len() + BYTES_ANYWAY;
    if bounded(bytes_max, "validating a change", || validate(&change)).is_err() {
        return;
    }
    bounded(bytes_max, "decoding a change", || {
        drop(Update::decode_v1(&change).expect("what passes, yrs decodes"));
    });
    let mut document = replica(3);
    if on_base {
        document.import_snapshot(base()).unwrap();
    }
    let imported = bounded(bytes_max, "importing a change", || {
        document.import(std::slice::from_ref(&change))
    });
    let imported = match imported {
        Ok(imported) => imported,
        // Only the document can tell what is a container, and which clocks are taken.
        Err(EngineError::Malformed {
            what: "parent of a block" | "clocks of a block",
            ..
        }) => return,
        Err(other) => panic!("{other:?}"),
    };
    edit(&mut document);
    let snapshot = document.snapshot().unwrap();
    assert_eq!(validate(&snapshot), Ok(()));
    let _ = Yrs::new().to_json(&document);
    let again = document.import(std::slice::from_ref(&change)).unwrap();
    assert!(!again.changed);
    if !imported.pending {
        let mut loaded = replica(4);
        loaded.import_snapshot(&snapshot).unwrap();
        assert_eq!(loaded.version(), document.version());
        assert_eq!(loaded.since(&document.version()), Ok(None));
    }
}

/// What the ledger lets follow, waits for nothing in any replica, and a ledger loaded from the log agrees.
pub fn yrs_ledger(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut ledger = Yrs::new().ledger().unwrap();
    let mut document = replica(3);
    let mut log: Vec<(Bytes, Option<User>)> = Vec::new();
    while !input.is_empty() {
        let (author, reconciling) = (input.below(3), input.below(8) == 0);
        let change = Bytes::copy_from_slice(input.piece());
        if validate(&change).is_err() {
            continue;
        }
        let user = User::new(format!("user {author}"));
        let before = ledger.bytes();
        let bytes_max = BYTES_PER_BYTE * change.len() + BYTES_ANYWAY;
        let checked = bounded(bytes_max, "checking a change", || {
            ledger.check(&change, &user, reconciling)
        });
        assert!(!ledger.is_spent());
        if checked.is_err() {
            assert!(ledger.bytes() <= before + 64 * change.len() + 1024);
            continue;
        }
        let imported = document.import(std::slice::from_ref(&change));
        let imported = match imported {
            Ok(imported) => imported,
            Err(other) => panic!("the ledger lets {change:?} follow, yrs does not: {other:?}"),
        };
        assert!(!imported.pending, "{change:?} waits for something");
        log.push((change, (!reconciling).then_some(user)));
    }
    let mut of_log = Yrs::new().ledger().unwrap();
    for (change, user) in &log {
        of_log.admit(change, user.as_ref()).unwrap();
    }
    edit(&mut document);
    let snapshot = document.snapshot().unwrap();
    let mut of_snapshot = Yrs::new().ledger().unwrap();
    of_snapshot.load(&snapshot).unwrap();
    // Whoever edits on top of all that may push it, whatever the ledger was made from.
    let user = User::new("another");
    for change in document.drain().local {
        for ledger in [&mut ledger, &mut of_log] {
            assert!(ledger.check(&change, &user, false).is_ok());
        }
        assert!(of_snapshot.check(&change, &user, false).is_ok());
    }
    for (change, _) in &log {
        let known = of_snapshot.check(change, &user, true);
        assert!(known.is_ok(), "{known:?}");
    }
}
