//! The engines of this crate.

use super::Probe;
use super::hostile::{self, Hostile};
use crate::engine::opaque::{Opaque, OpaqueEdit, OpaqueLog};
use crate::engine::typed::Typed;
use crate::mergeable::LwwMap;
use crate::rng::Rng;

/// Mergeable documents: a map.
#[derive(Debug)]
pub struct TypedProbe;

impl Probe for TypedProbe {
    type Engine = Typed<LwwMap<u64, u64>>;

    const HAS_UNDO: bool = true;

    fn engine() -> Self::Engine {
        Typed::new().keep_undo()
    }

    fn hostile_changes() -> Vec<Hostile> {
        hostile::typed::changes()
    }

    fn edit(map: &mut LwwMap<u64, u64>, random: &mut Rng) {
        let key = random.next_u64() % 5;
        if random.next_u64().is_multiple_of(3) {
            let _ = map.remove(&key);
        } else {
            let _ = map.insert(key, random.next_u64());
        }
    }

    fn add(map: &mut LwwMap<u64, u64>, number: u64) {
        let _ = map.insert(1_000 + number, number);
    }

    fn remove(map: &mut LwwMap<u64, u64>, number: u64) -> bool {
        map.remove(&(1_000 + number)).is_ok()
    }

    fn has(map: &LwwMap<u64, u64>, number: u64) -> bool {
        map.get(&(1_000 + number)).is_some()
    }

    fn content(map: &LwwMap<u64, u64>) -> String {
        format!("{:?}", map.iter().collect::<Vec<_>>())
    }
}

/// Opaque documents: numbers, pushed. Their order is the log's affair, which the suite has none of.
#[derive(Debug)]
pub struct OpaqueProbe;

impl Probe for OpaqueProbe {
    type Engine = Opaque;

    fn engine() -> Opaque {
        Opaque::new()
    }

    fn edit(log: &mut OpaqueEdit<'_>, random: &mut Rng) {
        if !random.next_u64().is_multiple_of(4) {
            log.push(format!("word {}", random.next_u64() % 5));
        }
    }

    fn add(log: &mut OpaqueEdit<'_>, number: u64) {
        log.push(number.to_string());
    }

    fn has(log: &OpaqueLog, number: u64) -> bool {
        let number = number.to_string();
        log.changes().chain(log.pending()).any(|it| *it == number)
    }

    fn content(log: &OpaqueLog) -> String {
        let mut all: Vec<_> = log.changes().chain(log.pending()).collect();
        all.sort_unstable();
        format!("{all:?}")
    }
}

/// What random edits insert: of one and of two UTF-16 units, and characters made of several.
#[cfg(any(feature = "yrs", feature = "loro", feature = "automerge"))]
fn word(random: &mut Rng) -> &'static str {
    const WORDS: [&str; 8] = ["a", "hello ", "😀", "e\u{301}", "👩‍👩‍👧", "äö", "x\ny", "한국"];
    WORDS
        .get(super::below(random, WORDS.len()))
        .copied()
        .unwrap_or_default()
}

#[cfg(feature = "yrs")]
pub use self::yrs::YrsProbe;

#[cfg(feature = "yrs")]
mod yrs {
    use ::yrs::types::ToJson;
    use ::yrs::{
        Array, GetString, Map, ReadTxn, Text, TextPrelim, Transaction, TransactionMut, WriteTxn,
    };

    use super::super::hostile::{self, Hostile};
    use super::super::{Probe, below};
    use super::word;
    use crate::engine::yrs::Yrs;
    use crate::rng::Rng;

    /// yrs documents: a text, a map and an array.
    #[derive(Debug)]
    pub struct YrsProbe;

    impl Probe for YrsProbe {
        type Engine = Yrs;

        const HAS_UNDO: bool = true;
        const HAS_HISTORY: bool = true;

        fn engine() -> Yrs {
            Yrs::new().keep_history()
        }

        fn hostile_changes() -> Vec<Hostile> {
            hostile::yrs::changes()
        }

        fn hostile_snapshots() -> Vec<Hostile> {
            hostile::yrs::snapshots()
        }

        fn edit(txn: &mut TransactionMut<'_>, random: &mut Rng) {
            let text = txn.get_or_insert_text("text");
            let map = txn.get_or_insert_map("map");
            let array = txn.get_or_insert_array("array");
            let key = format!("k{}", below(random, 5));
            match below(random, 8) {
                0..=2 => {
                    let at = position(&text.get_string(txn), random);
                    text.insert(txn, at, word(random));
                }
                3 => {
                    let content = text.get_string(txn);
                    let (from, to) = (position(&content, random), position(&content, random));
                    let (from, to) = (from.min(to), from.max(to));
                    text.remove_range(txn, from, to - from);
                }
                4 => {
                    map.insert(txn, key, word(random));
                }
                5 => {
                    map.remove(txn, &key);
                }
                6 => {
                    let at = random.next_u64() % (u64::from(array.len(txn)) + 1);
                    let at = u32::try_from(at).unwrap_or_default();
                    array.insert(txn, at, TextPrelim::new(word(random)));
                }
                _ => {
                    if array.len(txn) > 0 {
                        array.remove(txn, array.len(txn) / 2);
                    }
                }
            }
        }

        fn add(txn: &mut TransactionMut<'_>, number: u64) {
            let map = txn.get_or_insert_map("numbers");
            map.insert(txn, number.to_string(), true);
        }

        fn remove(txn: &mut TransactionMut<'_>, number: u64) -> bool {
            let map = txn.get_or_insert_map("numbers");
            map.remove(txn, &number.to_string()).is_some()
        }

        fn has(txn: &Transaction<'_>, number: u64) -> bool {
            txn.get_map("numbers")
                .is_some_and(|map| map.contains_key(txn, &number.to_string()))
        }

        fn content(txn: &Transaction<'_>) -> String {
            let text = txn.get_text("text").map(|text| text.get_string(txn));
            let array = txn.get_array("array").map(|array| array.to_json(txn));
            let mut entries = Vec::new();
            for name in ["map", "numbers"] {
                let map = txn.get_map(name);
                entries.extend(
                    map.iter()
                        .flat_map(|map| map.iter(txn))
                        .map(|(key, value)| format!("{name} {key} {}", value.to_json(txn))),
                );
            }
            entries.sort_unstable();
            let array = array.map(|array| array.to_string());
            format!(
                "{:?} {:?} {entries:?}",
                text.unwrap_or_default(),
                array.filter(|array| array != "[]").unwrap_or_default()
            )
        }
    }

    /// An offset between two characters, in UTF-16 units.
    fn position(text: &str, random: &mut Rng) -> u32 {
        let n = below(random, text.chars().count() + 1);
        let before = text.chars().take(n).map(char::len_utf16).sum::<usize>();
        u32::try_from(before).unwrap_or_default()
    }
}

#[cfg(feature = "loro")]
pub use self::loro::LoroProbe;

#[cfg(feature = "loro")]
mod loro {
    use ::loro::{LoroDoc, LoroText, LoroValue, TreeParentId};

    use super::super::hostile::{self, Hostile};
    use super::super::{Probe, below};
    use super::word;
    use crate::engine::loro::Loro;
    use crate::rng::Rng;

    /// Loro documents: a text, a map, a movable list, a tree and a counter.
    #[derive(Debug)]
    pub struct LoroProbe;

    impl Probe for LoroProbe {
        type Engine = Loro;

        const HAS_UNDO: bool = true;
        const HAS_HISTORY: bool = true;

        fn engine() -> Loro {
            Loro::new().keep_undo()
        }

        fn hostile_changes() -> Vec<Hostile> {
            hostile::loro::changes()
        }

        fn edit(doc: &mut LoroDoc, random: &mut Rng) {
            let (text, map) = (doc.get_text("text"), doc.get_map("map"));
            let (list, tree) = (doc.get_movable_list("list"), doc.get_tree("tree"));
            let (text_len, list_len) = (text.len_unicode(), list.len());
            let key = format!("k{}", below(random, 5));
            let word = word(random);
            // What cannot be done, such as moving a node into itself, is left.
            let _ = match below(random, 12) {
                0..=2 => text.insert(below(random, text_len + 1), word),
                3 => {
                    let (from, to) = (below(random, text_len + 1), below(random, text_len + 1));
                    text.delete(from.min(to), from.abs_diff(to))
                }
                4 => map.insert(&key, word),
                5 => map.delete(&key),
                6 => map.insert_container(&key, LoroText::new()).map(drop),
                7 => list.insert(below(random, list_len + 1), word),
                8 if list_len > 0 => list.mov(below(random, list_len), below(random, list_len)),
                9 if list_len > 0 => list.delete(below(random, list_len), 1),
                10 => {
                    let nodes: Vec<_> = tree.children(TreeParentId::Root).unwrap_or_default();
                    match (nodes.first(), nodes.last(), below(random, 3)) {
                        (Some(&first), Some(&last), 0) => tree.mov(first, last),
                        (Some(&first), _, 1) => tree.delete(first),
                        _ => tree.create(TreeParentId::Root).map(drop),
                    }
                }
                _ => doc.get_counter("counter").increment(1.0),
            };
        }

        fn add(doc: &mut LoroDoc, number: u64) {
            let _ = doc.get_map("numbers").insert(&number.to_string(), true);
        }

        fn remove(doc: &mut LoroDoc, number: u64) -> bool {
            doc.get_map("numbers").delete(&number.to_string()).is_ok()
        }

        fn has(doc: &LoroDoc, number: u64) -> bool {
            doc.get_map("numbers").get(&number.to_string()).is_some()
        }

        fn content(doc: &LoroDoc) -> String {
            canonical(&doc.get_deep_value())
        }
    }

    /// A value as text, the same for equal values. Roots that were only looked at are empty.
    fn canonical(value: &LoroValue) -> String {
        match value {
            LoroValue::Map(map) => {
                let mut entries: Vec<String> = map
                    .iter()
                    .map(|(key, value)| (key, canonical(value)))
                    .filter(|(key, value)| {
                        key.starts_with('k') || !matches!(value.as_str(), "" | "[]" | "{}" | "0.0")
                    })
                    .map(|(key, value)| format!("{key}: {value}"))
                    .collect();
                entries.sort_unstable();
                format!("{{{}}}", entries.join(", "))
            }
            LoroValue::List(list) => {
                format!(
                    "[{}]",
                    list.iter().map(canonical).collect::<Vec<_>>().join(", ")
                )
            }
            LoroValue::String(text) => text.to_string(),
            LoroValue::Double(number) => format!("{number:?}"),
            other => format!("{other:?}"),
        }
    }
}

#[cfg(feature = "automerge")]
pub use self::automerge::AutomergeProbe;

#[cfg(feature = "automerge")]
mod automerge {
    use ::automerge::transaction::Transactable;
    use ::automerge::{AutoCommit, ObjId, ObjType, ROOT, ReadDoc, ScalarValue, Value};

    use super::super::hostile::{self, Hostile};
    use super::super::{Probe, below};
    use super::word;
    use crate::engine::automerge::Automerge;
    use crate::rng::Rng;

    /// Automerge documents: a text, a list, and entries of the root.
    #[derive(Debug)]
    pub struct AutomergeProbe;

    impl Probe for AutomergeProbe {
        type Engine = Automerge;

        const HAS_HISTORY: bool = true;

        fn engine() -> Automerge {
            Automerge::new()
        }

        fn hostile_changes() -> Vec<Hostile> {
            hostile::automerge::changes()
        }

        fn hostile_snapshots() -> Vec<Hostile> {
            hostile::automerge::snapshots()
        }

        fn edit(doc: &mut AutoCommit, random: &mut Rng) {
            let (Some(text), Some(list)) = (
                object(doc, "text", ObjType::Text),
                object(doc, "list", ObjType::List),
            ) else {
                return;
            };
            let (text_len, list_len) = (doc.length(&text), doc.length(&list));
            let key = format!("k{}", below(random, 5));
            let word = word(random);
            // What cannot be done is left.
            let _ = match below(random, 8) {
                0..=2 => doc.splice_text(&text, below(random, text_len + 1), 0, word),
                3 if text_len > 0 => {
                    let at = below(random, text_len);
                    let n = 1 + below(random, text_len - at);
                    doc.splice_text(&text, at, isize::try_from(n).unwrap_or(1), "")
                }
                4 => doc.put(ROOT, key, word),
                5 => doc.delete(ROOT, key),
                6 if list_len > 0 => doc.delete(&list, below(random, list_len)),
                _ => doc.insert(&list, below(random, list_len + 1), ScalarValue::counter(1)),
            };
        }

        fn add(doc: &mut AutoCommit, number: u64) {
            let _ = doc.put(ROOT, number.to_string(), true);
        }

        fn remove(doc: &mut AutoCommit, number: u64) -> bool {
            doc.delete(ROOT, number.to_string()).is_ok()
        }

        fn has(doc: &AutoCommit, number: u64) -> bool {
            matches!(doc.get(ROOT, number.to_string()), Ok(Some(_)))
        }

        fn content(doc: &AutoCommit) -> String {
            let mut entries = Vec::new();
            for key in doc.keys(ROOT) {
                let Ok(Some((value, object))) = doc.get(ROOT, &key) else {
                    continue;
                };
                let value = match value {
                    Value::Object(ObjType::Text) => doc.text(&object).unwrap_or_default(),
                    Value::Object(_) => format!("{:?}", doc.values(&object).count()),
                    Value::Scalar(scalar) => format!("{scalar:?}"),
                };
                entries.push(format!("{key}: {value}"));
            }
            entries.join(", ")
        }
    }

    /// An object of the root, made if it is not there.
    fn object(doc: &mut AutoCommit, name: &str, kind: ObjType) -> Option<ObjId> {
        match doc.get(ROOT, name) {
            Ok(Some((Value::Object(_), object))) => Some(object),
            _ => doc.put_object(ROOT, name, kind).ok(),
        }
    }
}
