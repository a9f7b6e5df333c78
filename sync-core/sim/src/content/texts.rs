//! Documents of yrs, which the server checks against what they hold.

use bytes::Bytes;
use sync_core::engine::NativeEngine;
use sync_core::engine::yrs::Yrs;
use yrs::updates::decoder::Decode;
use yrs::{Doc, Map as _, ReadTxn, StateVector, Transact, Update, WriteTxn};

use super::{Content, Mark, UNWANTED, much, text_of};

/// The root.
const MARKS: &str = "marks";

impl Content for Yrs {
    const IS_EXACT: bool = true;

    fn engine() -> Self {
        Self::new()
    }

    fn leave(txn: &mut Self::Edit<'_>, mark: Mark, place: u64) {
        let map = txn.get_or_insert_map(MARKS);
        map.insert(txn, text_of(mark), mark.to_string());
        map.insert(txn, format!("place {place}"), mark.to_string());
    }

    fn shown(txn: &Self::Read<'_>) -> Vec<u8> {
        let Some(map) = txn.get_map(MARKS) else {
            return Vec::new();
        };
        let entries = map.iter(txn);
        let entries = entries.map(|(key, value)| format!("{key}={};", value.to_string(txn)));
        let mut entries: Vec<String> = entries.collect();
        entries.sort_unstable();
        entries.concat().into_bytes()
    }

    fn leave_largely(txn: &mut Self::Edit<'_>, mark: Mark) {
        let map = txn.get_or_insert_map(MARKS);
        map.insert(txn, text_of(mark), much(mark));
    }

    fn leave_badly(txn: &mut Self::Edit<'_>, mark: Mark) {
        let map = txn.get_or_insert_map(MARKS);
        map.insert(txn, text_of(mark), UNWANTED);
    }

    /// At the next clock of their replica: what they write next would be something else at the same clocks.
    fn forge(theirs: &mut Self::Document, mark: Mark) -> Option<Bytes> {
        let theirs = Self::new().native(theirs);
        let (state, known) = {
            let txn = theirs.transact();
            let state = txn.encode_state_as_update_v1(&StateVector::default());
            (state, txn.state_vector())
        };
        // Whoever has written nothing yet has no clock that anybody could know of.
        if known.get(&theirs.client_id()) == 0 {
            return None;
        }
        let forger = Doc::with_client_id(theirs.client_id().get());
        let map = forger.get_or_insert_map(MARKS);
        let mut txn = forger.transact_mut();
        txn.apply_update(Update::decode_v1(&state).unwrap())
            .unwrap();
        map.insert(&mut txn, text_of(mark), "forged");
        Some(txn.encode_diff_v1(&known).into())
    }
}
