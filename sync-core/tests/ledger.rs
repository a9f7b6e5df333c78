//! Checking changes by importing them, and reading a log as JSON.
#![cfg(feature = "yrs")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use bytes::Bytes;
use serde_json::json;
use sync_core::engine::yrs::Yrs;
use sync_core::engine::{
    Document, Edited, Engine, EngineError, Folder, ImportLedger, Ledger, ReplicaSeed, Taken,
};
use sync_core::ids::User;
use sync_core::yrs::{Array, Map, Text, TransactionMut, WriteTxn};

/// The changes that these edits make, one by one, and the document's state after all of them.
fn edited(edits: &[&dyn Fn(&mut TransactionMut<'_>)]) -> (Vec<Bytes>, Bytes) {
    let engine = Yrs::new();
    let mut replica = engine.create(ReplicaSeed(1)).unwrap();
    for edit in edits {
        let edited = engine.edit(&mut replica, usize::MAX, |txn| edit(txn));
        assert_eq!(edited, Ok(Edited::Done(())));
    }
    (replica.drain().local, replica.snapshot().unwrap())
}

fn typed(n: usize) -> (Vec<Bytes>, Bytes) {
    let edit: &dyn Fn(&mut TransactionMut<'_>) =
        &|txn| txn.get_or_insert_text("body").push(txn, "x");
    edited(&vec![edit; n])
}

fn ledger() -> ImportLedger<sync_core::engine::yrs::YrsDocument> {
    ImportLedger::new(&Yrs::new()).unwrap()
}

#[test]
fn what_follows_is_taken_once_and_what_lacks_something_never() {
    let ada = User::new("ada");
    let (changes, _) = typed(3);
    let mut ledger = ledger();
    ledger.admit(&changes[0], None).unwrap();
    assert_eq!(ledger.check(&changes[0], &ada, false), Ok(Taken::Known));
    assert_eq!(ledger.check(&changes[1], &ada, false), Ok(Taken::New));
    assert_eq!(ledger.check(&changes[1], &ada, false), Ok(Taken::Known));
    assert!(!ledger.is_spent());

    let mut ledger = self::ledger();
    let orphan = ledger.check(&changes[2], &ada, false);
    assert_eq!(orphan, Err(EngineError::Incomplete));
    assert!(ledger.is_spent(), "it waits in the replica");
}

/// Not everything that is in a log came through a ledger.
#[test]
fn a_log_in_which_something_waits_takes_what_follows() {
    let ada = User::new("ada");
    let (changes, _) = typed(4);
    let mut ledger = ledger();
    ledger.admit(&changes[0], None).unwrap();
    ledger.admit(&changes[3], None).unwrap();
    assert_eq!(ledger.check(&changes[1], &ada, false), Ok(Taken::New));
    assert_eq!(ledger.check(&changes[2], &ada, false), Ok(Taken::New));
    assert!(!ledger.is_spent());
    // Nothing waits any more.
    let (longer, _) = typed(6);
    assert_eq!(
        ledger.check(&longer[5], &ada, false),
        Err(EngineError::Incomplete)
    );
}

#[test]
fn a_ledger_goes_on_from_a_snapshot() {
    let ada = User::new("ada");
    let (_, snapshot) = typed(2);
    let (changes, _) = typed(3);
    let mut ledger = ledger();
    ledger.load(&snapshot).unwrap();
    assert_eq!(ledger.check(&changes[1], &ada, false), Ok(Taken::Known));
    assert_eq!(ledger.check(&changes[2], &ada, false), Ok(Taken::New));
}

#[test]
fn a_log_is_read_as_json_whatever_types_its_roots_have() {
    let (changes, snapshot) = edited(&[
        &|txn| txn.get_or_insert_text("body").push(txn, "hello"),
        &|txn| {
            let map = txn.get_or_insert_map("map");
            map.insert(txn, "n", 7);
        },
        &|txn| {
            let array = txn.get_or_insert_array("array");
            array.push_back(txn, true);
            array.push_back(txn, "x");
        },
    ]);
    let expected = json!({ "body": "hello", "map": { "n": 7 }, "array": [true, "x"] });
    for read in [
        Yrs::new().read_json(None, &changes),
        Yrs::new().read_json(Some(&snapshot), &changes[1..]),
    ] {
        let read: serde_json::Value = serde_json::from_str(&read.unwrap()).unwrap();
        assert_eq!(read, expected);
    }
}
