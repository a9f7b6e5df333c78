//! Random edits of every kind, and a reading of a document that can be compared.

#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use sync_core::engine::yrs::{Yrs, YrsDocument};
use sync_core::engine::{Edited, Engine, ReplicaSeed};
use sync_core::yrs::types::text::YChange;
use sync_core::yrs::types::{Attrs, ToJson};
use sync_core::yrs::{
    Any, Array, ArrayPrelim, ClientID, Doc, GetString, In, Map, MapPrelim, Options, Out, ReadTxn,
    Text, TextPrelim, Transaction, TransactionMut, WriteTxn, Xml, XmlElementPrelim, XmlFragment,
    XmlTextPrelim, uuid_v4_from,
};

/// Failures are made into named tests, not kept in files.
pub(crate) fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

pub(crate) const UNLIMITED: usize = usize::MAX;

/// One random edit; what it does depends on what is there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Op {
    pub(crate) kind: u8,
    pub(crate) at: u16,
    pub(crate) n: u8,
}

pub(crate) fn ops(n: impl Into<proptest::collection::SizeRange>) -> impl Strategy<Value = Vec<Op>> {
    proptest::collection::vec(any_op(), n)
}

pub(crate) fn any_op() -> impl Strategy<Value = Op> {
    (0..KINDS, any::<u16>(), any::<u8>()).prop_map(|(kind, at, n)| Op { kind, at, n })
}

pub(crate) const KINDS: u8 = 18;
const WORDS: [&str; 8] = ["a", "hello ", "😀", "e\u{301}", "👩‍👩‍👧", "äö", "x\ny", "한국"];

/// UTF-16 offsets between the characters of a text.
fn boundaries(text: &str) -> Vec<u32> {
    let mut at = 0;
    let mut found = vec![0];
    for c in text.chars() {
        at += u32::try_from(c.len_utf16()).unwrap();
        found.push(at);
    }
    found
}

impl Op {
    pub(crate) fn apply(self, txn: &mut TransactionMut<'_>) {
        let text = txn.get_or_insert_text("text");
        let map = txn.get_or_insert_map("map");
        let array = txn.get_or_insert_array("array");
        let xml = txn.get_or_insert_xml_fragment("xml");
        let word = WORDS[usize::from(self.n) % WORDS.len()];
        let key = format!("k{}", self.n % 5);
        let at = |len: u32| u32::from(self.at) % (len + 1);
        let spots = boundaries(&text.get_string(txn).replace('\u{fffc}', "."));
        let from = usize::from(self.at) % spots.len();
        let to = (from + 1 + usize::from(self.n % 7)).min(spots.len() - 1);
        let (start, len) = (spots[from], spots[to].saturating_sub(spots[from]));
        match self.kind {
            0..=2 => text.insert(txn, start, word),
            3 | 4 => text.remove_range(txn, start, len),
            5 => {
                let attributes = match self.n % 3 {
                    0 => Attrs::from([("bold".into(), Any::from(true))]),
                    1 => Attrs::from([("bold".into(), Any::Null)]),
                    _ => {
                        Attrs::from([("link".into(), Any::from(Vec::from(["a\"\\\u{1}😀", "b"])))])
                    }
                };
                text.format(txn, start, len, attributes);
            }
            6 => text.insert_with_attributes(
                txn,
                start,
                word,
                Attrs::from([("size".into(), Any::from(f64::from(self.n) / 3.0))]),
            ),
            7 => {
                map.insert(txn, key, word);
            }
            8 => {
                let inner = Any::from_json("{\"a\":[1,2.5,null,{\"b\":\"c\"},true]}").unwrap();
                map.insert(txn, key, inner);
            }
            9 => {
                map.remove(txn, &key);
            }
            10 => {
                map.insert(
                    txn,
                    key,
                    MapPrelim::from([("inner", In::from(i32::from(self.n)))]),
                );
            }
            11 => {
                let values: Vec<Any> = vec![
                    Any::from(i64::from(self.at) << 40),
                    Any::Undefined,
                    Any::from(word),
                    Any::from(-1.5),
                ];
                array.insert_range(txn, at(array.len(txn)), values);
            }
            12 => {
                let len = array.len(txn);
                if len > 0 {
                    let start = u32::from(self.at) % len;
                    array.remove_range(txn, start, (len - start).min(u32::from(self.n % 3) + 1));
                }
            }
            13 => {
                array.insert(txn, at(array.len(txn)), TextPrelim::new(word));
            }
            14 => {
                array.insert(
                    txn,
                    at(array.len(txn)),
                    In::Array(ArrayPrelim::from([In::from(true), In::from(word)])),
                );
            }
            15 => {
                // Inside whatever container comes first.
                let inner = array.iter(txn).find_map(|value| {
                    if let Out::YText(text) = value {
                        Some(text)
                    } else {
                        None
                    }
                });
                match inner {
                    Some(inner) => inner.push(txn, word),
                    None => {
                        array.insert(txn, 0, self.n.to_le_bytes().to_vec());
                    }
                }
            }
            16 => {
                let element = xml.insert(txn, at(xml.len(txn)), XmlElementPrelim::empty("p"));
                element.insert_attribute(txn, "id", word);
                element.insert(txn, 0, XmlTextPrelim::new(word));
            }
            _ => {
                if self.n.is_multiple_of(4) {
                    let id = uuid_v4_from(u128::from(self.at));
                    let client = ClientID::new(u64::from(self.at));
                    let options = Options::with_guid_and_client_id(id, client);
                    map.insert(txn, "subdocument", Doc::with_options(options));
                } else if xml.len(txn) > 0 {
                    let start = u32::from(self.at) % xml.len(txn);
                    xml.remove_range(txn, start, 1);
                }
            }
        }
    }
}

pub(crate) fn replica(seed: u128) -> YrsDocument {
    Yrs::new().create(ReplicaSeed(seed)).unwrap()
}

/// Makes one change of some edits; and maybe another that deletes anything, and is taken back if it cuts a character.
pub(crate) fn edit(document: &mut YrsDocument, ops: &[Op]) {
    let edited = Yrs::new().edit(document, UNLIMITED, |txn| {
        for op in ops {
            op.apply(txn);
        }
    });
    assert_eq!(edited, Ok(Edited::Done(())));
    if let Some(op) = ops.first().filter(|op| op.kind == 4) {
        let edited = Yrs::new().edit(document, UNLIMITED, |txn| {
            let text = txn.get_or_insert_text("text");
            let spots = boundaries(&text.get_string(txn));
            let start = spots[usize::from(op.at) % spots.len()];
            text.remove_range(txn, start, (text.len(txn) - start).min(u32::from(op.n % 5)));
        });
        assert!(matches!(
            edited,
            Ok(Edited::Done(()) | Edited::TakenBack { .. })
        ));
    }
}

/// Formatting of each character of the text.
type Formatted = Vec<(String, BTreeMap<String, String>)>;

/// The content of all roots.
pub(crate) fn content(document: &YrsDocument) -> (BTreeMap<String, String>, Formatted) {
    Yrs::new().read(document, content_of).unwrap()
}

pub(crate) fn content_of(txn: &Transaction<'_>) -> (BTreeMap<String, String>, Formatted) {
    let mut values = BTreeMap::new();
    if let Some(map) = txn.get_map("map") {
        values.insert("map".to_owned(), canonical(&map.to_json(txn)));
    }
    if let Some(array) = txn.get_array("array") {
        values.insert("array".to_owned(), canonical(&array.to_json(txn)));
    }
    if let Some(xml) = txn.get_xml_fragment("xml") {
        values.insert("xml".to_owned(), xml.get_string(txn));
    }
    values.retain(|_, value| !matches!(value.as_str(), "{}" | "[]" | ""));
    (
        values,
        txn.get_text("text")
            .map(|text| formatted(&text, txn))
            .unwrap_or_default(),
    )
}

fn formatted(text: &impl Text, txn: &impl ReadTxn) -> Formatted {
    let mut characters = Vec::new();
    for part in text.diff(txn, YChange::identity) {
        let attributes: BTreeMap<String, String> = part
            .attributes
            .iter()
            .flat_map(|a| a.iter())
            .map(|(key, value)| (key.to_string(), canonical(value)))
            .collect();
        match part.insert {
            Out::Any(Any::String(text)) => {
                characters.extend(text.chars().map(|c| (c.to_string(), attributes.clone())));
            }
            other => characters.push((format!("{other:?}"), attributes)),
        }
    }
    characters
}

/// A value as text, the same for equal values.
fn canonical(value: &Any) -> String {
    match value {
        Any::Map(entries) => {
            let sorted: BTreeMap<&String, String> = entries
                .iter()
                .map(|(key, value)| (key, canonical(value)))
                .collect();
            format!("{sorted:?}")
        }
        Any::Array(items) => format!("{:?}", items.iter().map(canonical).collect::<Vec<_>>()),
        // The encoding has no large integers: what was one here is a float elsewhere.
        Any::Number(number) => format!("{:?}", number.as_f64()),
        other => format!("{other:?}"),
    }
}
