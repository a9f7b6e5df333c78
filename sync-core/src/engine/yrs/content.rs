//! A document's content as JSON.

use ::yrs::branch::BranchPtr;
use ::yrs::types::ToJson;
use ::yrs::{Any, ArrayRef, GetString, Map, MapRef, Out, ReadTxn, TextRef};

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
        let value = match value {
            Out::UndefinedRef(branch) => untyped(branch, txn),
            value => value.to_json(txn),
        };
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

fn untyped(branch: BranchPtr, txn: &impl ReadTxn) -> Any {
    let map = MapRef::from(branch);
    if map.len(txn) > 0 {
        return map.to_json(txn);
    }
    match TextRef::from(branch).get_string(txn) {
        text if text.is_empty() => ArrayRef::from(branch).to_json(txn),
        text => Any::from(text),
    }
}
