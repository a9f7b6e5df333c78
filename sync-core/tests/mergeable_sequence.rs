//! What people see who write into one text or list at the same time.

#![allow(clippy::unwrap_used, reason = "test harness")]
#![allow(clippy::indexing_slicing, reason = "test harness")]

mod mergeable_support;

use bytes::Bytes;
use mergeable_support::Random;
use sync_core::engine::typed::{Typed, TypedDocument};
use sync_core::engine::{Document, Edited, Engine, EngineError, Folder, ReplicaSeed};
use sync_core::mergeable::{MergeableValidator, Sequence, ValueError};

type Text = TypedDocument<Sequence<char>>;

fn text(seed: u128) -> Text {
    Typed::new().create(ReplicaSeed(seed)).unwrap()
}

fn edit(text: &mut Text, f: impl FnOnce(&mut Sequence<char>)) -> Vec<Bytes> {
    let outcome = Typed::new().edit(text, usize::MAX, f);
    assert_eq!(outcome, Ok(Edited::Done(())));
    text.drain().local
}

fn read(text: &Text) -> String {
    Typed::new().read(text, |text| text.to_string()).unwrap()
}

/// Writes a word at an index, one change for each letter; from its last letter, if not `forwards`.
fn type_word(text: &mut Text, at: usize, word: &str, forwards: bool) -> Vec<Bytes> {
    let letters: Vec<char> = word.chars().collect();
    let mut changes = Vec::new();
    for step in 0..letters.len() {
        let (index, letter) = if forwards {
            (at + step, letters[step])
        } else {
            (at, letters[letters.len() - 1 - step])
        };
        changes.extend(edit(text, |text| text.insert(index, letter).unwrap()));
    }
    changes
}

/// Scenario 12.
#[test]
fn words_written_at_one_place_at_the_same_time_are_not_interleaved() {
    let words = ["milk", "eggs", "rice"];
    let mut random = Random(12);
    for round in 0..200 {
        let base = ["", "[]", "[some text]"][round % 3];
        let mut first = text(9);
        let start = edit(&mut first, |text| text.insert_str(0, base).unwrap());
        let at = base.len().min(1);
        let mut log = start.clone();
        for (seed, word) in (1..).zip(words) {
            let mut writer = text(seed);
            writer.import(&start).unwrap();
            let mut changes = type_word(&mut writer, at, word, random.below(2) == 0);
            // Some of them change their minds on the way.
            if random.below(3) == 0 {
                changes.extend(edit(&mut writer, |text| {
                    text.insert_str(at + 2, "--").unwrap();
                }));
                changes.extend(edit(&mut writer, |text| {
                    text.remove_range(at + 2..at + 4);
                }));
            }
            log.extend(changes);
        }
        let mut in_order = text(20);
        in_order.import(&log).unwrap();
        random.shuffle(&mut log);
        let mut shuffled = text(21);
        shuffled.import(&log).unwrap();
        let merged = read(&in_order);
        assert_eq!(merged, read(&shuffled));
        for word in words {
            assert!(merged.contains(word), "{word} in {merged:?}");
        }
        assert!(
            merged.starts_with(base.split_at(at).0) && merged.ends_with(base.split_at(at).1),
            "{merged:?}"
        );
    }
}

/// Scenario 12: characters of any size, and what is made of several, come through.
#[test]
fn emoji_and_combining_characters_round_trip() {
    let (mut ours, mut theirs) = (text(1), text(2));
    let family = "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467} e\u{301} \u{0}\u{10ffff}";
    let changes = edit(&mut ours, |text| text.insert_str(0, family).unwrap());
    theirs.import(&changes).unwrap();
    assert_eq!(read(&theirs), family);
    let mut loaded = text(3);
    loaded.import_snapshot(&theirs.snapshot().unwrap()).unwrap();
    assert_eq!(read(&loaded), family);
}

/// Scenario 14.
#[test]
fn inserts_at_one_index_keep_their_order() {
    let mut ours = text(1);
    type_word(&mut ours, 0, "drow", false);
    assert_eq!(read(&ours), "drow");
    for letter in "word".chars() {
        edit(&mut ours, |text| text.insert(0, letter).unwrap());
    }
    assert_eq!(read(&ours), "drowdrow");
}

#[test]
fn one_closure_is_one_change_whatever_it_does() {
    let (mut ours, mut theirs) = (text(1), text(2));
    let first = edit(&mut ours, |text| text.insert_str(0, "hello world").unwrap());
    let second = edit(&mut ours, |text| {
        text.insert_str(5, ", dear").unwrap();
        assert_eq!(text.remove_range(0..1), 1);
        text.insert(0, 'H').unwrap();
        assert_eq!(text.remove_range(12..), 5);
        text.insert_str(12, "all").unwrap();
        assert!(!text.remove(50));
        assert_eq!(text.get(0), Some('H'));
        assert_eq!((text.len(), text.get(99)), (15, None));
        assert_eq!(
            text.insert(16, 'x'),
            Err(ValueError::OutOfRange {
                index: 16,
                length: 15
            })
        );
        assert_eq!(text.to_string(), "Hello, dear all");
    });
    assert_eq!((first.len(), second.len()), (1, 1));
    theirs.import(&first).unwrap();
    theirs.import(&second).unwrap();
    assert_eq!(read(&theirs), "Hello, dear all");
    assert_eq!(theirs.snapshot(), ours.snapshot());
    // What came and went in one closure is no change.
    let nothing = edit(&mut ours, |text| {
        text.insert_str(3, "xyz").unwrap();
        text.remove_range(3..6);
    });
    assert!(nothing.is_empty());
}

/// Scenario 23: what waits is said to wait, is not shown, is not lost, and holds up nothing else.
#[test]
fn a_change_whose_base_is_missing_waits_for_it() {
    let mut ours = text(1);
    let mut changes = type_word(&mut ours, 0, "abc", true);
    changes.extend(edit(&mut ours, |text| assert!(text.remove(0))));
    let other = edit(&mut text(2), |text| text.insert(0, 'x').unwrap());

    let mut theirs = text(3);
    assert!(theirs.import(&changes[1..]).unwrap().pending);
    assert!(theirs.import(&other).unwrap().pending);
    assert_eq!(read(&theirs), "x");
    assert_eq!(
        MergeableValidator::new().fold(None, &changes[1..]),
        Err(EngineError::Incomplete)
    );
    // Also in a replica that got it from there.
    let mut fourth = text(4);
    assert!(
        fourth
            .import_snapshot(&theirs.snapshot().unwrap())
            .unwrap()
            .pending
    );
    for replica in [&mut theirs, &mut fourth] {
        assert!(!replica.import(&changes[..1]).unwrap().pending);
    }
    assert_eq!(read(&theirs), read(&fourth));
    assert_eq!(read(&theirs).replace('x', ""), "bc");
    assert_eq!(theirs.snapshot(), fourth.snapshot());
}

/// Scenario 68, for text: what was written and removed costs nothing in the end.
#[test]
fn removed_text_is_reclaimed() {
    let mut ours = text(1);
    edit(&mut ours, |text| text.insert_str(0, "The end.").unwrap());
    let small = ours.snapshot().unwrap().len();
    for round in 0..200 {
        edit(&mut ours, |text| {
            text.insert_str(round % 8, "more words").unwrap()
        });
        edit(&mut ours, |text| {
            text.remove_range(round % 8..round % 8 + 10);
        });
    }
    let grown = ours.snapshot().unwrap().len();
    assert!(grown > small + 400, "{grown}");
    let horizon = ours.version();
    ours.compact(&horizon).unwrap();
    let compacted = ours.snapshot().unwrap().len();
    assert!(compacted < small + 30, "{compacted} after {small}");
    assert_eq!(read(&ours), "The end.");
    // Work that was done on the state from before is not lost, even if its place is.
    assert_eq!(ours.compact(&text(5).version()), Ok(()));
    let mut behind = text(2);
    let ahead = ours.version();
    assert_eq!(behind.compact(&ahead), Err(EngineError::Incomplete));
}

/// A text as it is written costs about what is in it.
#[test]
fn typing_one_run_is_stored_as_one_run() {
    let mut ours = text(1);
    let mut largest = 0;
    for letter in "The quick brown fox jumps over the lazy dog. "
        .repeat(20)
        .chars()
    {
        let length = Typed::new().read(&ours, Sequence::len).unwrap();
        let change = edit(&mut ours, |text| text.insert(length, letter).unwrap());
        largest = largest.max(change[0].len());
    }
    assert!(largest <= 32, "{largest} bytes for a keystroke");
    assert!(ours.snapshot().unwrap().len() < 2 * 900 + 60);
    // And removed backwards, letter by letter, next to nothing.
    for length in (0..900).rev() {
        edit(&mut ours, |text| assert!(text.remove(length)));
    }
    assert!(ours.snapshot().unwrap().len() < 60);
}
