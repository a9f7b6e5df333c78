//! A document's content as JSON.

use std::sync::Arc;

use ::yrs::branch::BranchPtr;
use ::yrs::types::ToJson;
use ::yrs::{Any, Array, ArrayRef, GetString, Map, MapRef, Out, ReadTxn, TextRef};

/// The roots by their names. Of what types they are is no part of a document: it shows in what they hold.
pub(super) fn to_json(txn: &impl ReadTxn) -> String {
    let mut roots: Vec<_> = txn.root_refs().collect();
    roots.sort_by_key(|(name, _)| *name);
    let mut json = String::from("{");
    for (name, value) in roots {
        if json.len() > 1 {
            json.push(',');
        }
        json.push_str(&encoded(&Any::from(name)));
        json.push(':');
        let value = any(&value, txn);
        json.push_str(&encoded(&value));
    }
    json.push('}');
    json
}

/// `Any::to_json` writes over what the string holds, from its start.
fn encoded(value: &Any) -> String {
    let mut json = String::new();
    value.to_json(&mut json);
    json
}

/// As yrs has it, but for arrays.
fn any(value: &Out, txn: &impl ReadTxn) -> Any {
    match value {
        Out::UndefinedRef(branch) => {
            let map = MapRef::from(*branch);
            if map.len(txn) > 0 {
                entries(&map, txn)
            } else {
                elements(*branch, txn)
            }
        }
        Out::YMap(map) => entries(map, txn),
        Out::YArray(array) => elements(BranchPtr::from(array.as_ref()), txn),
        other => other.to_json(txn),
    }
}

fn entries(map: &MapRef, txn: &impl ReadTxn) -> Any {
    let entries = map
        .iter(txn)
        .map(|(key, value)| (key.to_owned(), any(&value, txn)));
    Any::Map(Arc::new(entries.collect()))
}

/// A list that somebody has written text into is that text: yrs counts it in UTF-16 and reads it by characters, and an array
/// with a character of two never comes to its end.
fn elements(branch: BranchPtr, txn: &impl ReadTxn) -> Any {
    let text = TextRef::from(branch).get_string(txn);
    if !text.is_empty() {
        return Any::from(text);
    }
    let array = ArrayRef::from(branch);
    let elements: Vec<Any> = array.iter(txn).map(|value| any(&value, txn)).collect();
    Any::from(elements)
}
