//! Undo, and views of earlier versions.

use super::world::World;
use super::{Probe, add, assert_equal, below, content, edit, has, loaded, ok, replica};
use crate::engine::{Document, Engine, EngineError, Version};

/// Scenario 76.
pub(super) fn undo_and_redo_touch_only_ones_own_edits<P: Probe>() {
    let (mut a, mut b) = (replica::<P>(1), replica::<P>(2));
    if !P::HAS_UNDO {
        assert!(matches!(a.undo(), Err(EngineError::Unsupported { .. })));
        assert!(matches!(a.redo(), Err(EngineError::Unsupported { .. })));
        return;
    }
    assert_eq!((a.undo(), a.redo()), (Ok(false), Ok(false)));
    let mut changes = vec![add::<P>(&mut a, 1)];
    ok(b.import(&changes));
    let theirs = [add::<P>(&mut b, 2), add::<P>(&mut b, 4)];
    changes.push(add::<P>(&mut a, 3));
    ok(a.import(&theirs));
    drop(a.drain());
    let shows = |document: &_| [1, 2, 3].map(|number| has::<P>(document, number));
    assert_eq!(shows(&a), [true, true, true]);

    let steps: [(bool, [bool; 3]); 5] = [
        (false, [true, true, false]),
        (false, [false, true, false]),
        (true, [true, true, false]),
        (true, [true, true, true]),
        (false, [true, true, false]),
    ];
    for (index, (is_redo, expected)) in steps.into_iter().enumerate() {
        let can = if is_redo { a.can_redo() } else { a.can_undo() };
        assert!(can, "step {index}");
        assert_eq!(if is_redo { a.redo() } else { a.undo() }, Ok(true));
        assert_eq!(shows(&a), expected);
        let drained = a.drain();
        assert_eq!(drained.local.len(), 1, "an undo is one change");
        assert_eq!(drained.events.len(), 1, "and one event");
        changes.extend(drained.local);
    }
    ok(b.import(&changes));
    assert_eq!(shows(&b), [true, true, false]);
    assert_equal::<P>("after undo", &mut [&mut a, &mut b]);
}

pub(super) fn an_edit_after_an_undo_leaves_nothing_to_redo<P: Probe>() {
    if !P::HAS_UNDO {
        return;
    }
    let mut a = replica::<P>(1);
    add::<P>(&mut a, 1);
    add::<P>(&mut a, 2);
    assert_eq!(a.undo(), Ok(true));
    drop(a.drain());
    add::<P>(&mut a, 3);
    assert_eq!((a.can_redo(), a.redo()), (false, Ok(false)));
    assert_eq!(
        (a.undo(), a.undo(), a.undo()),
        (Ok(true), Ok(true), Ok(false))
    );
    assert!((1..=3).all(|number| !has::<P>(&a, number)));
}

pub(super) fn nothing_of_others_and_nothing_loaded_can_be_undone<P: Probe>() {
    if !P::HAS_UNDO {
        return;
    }
    let mut a = replica::<P>(1);
    let change = add::<P>(&mut a, 1);
    let state = ok(a.snapshot());
    let mut b = replica::<P>(2);
    ok(b.import(&[change]));
    for mut other in [b, loaded::<P>(3, &state)] {
        assert_eq!((other.can_undo(), other.undo()), (false, Ok(false)));
        assert!(has::<P>(&other, 1));
    }
}

pub(super) fn undoing_everything_and_redoing_it_leaves_the_same<P: Probe>(seed: u64) {
    if !P::HAS_UNDO {
        return;
    }
    let mut world = World::<P>::new(seed);
    let state = world.states().pop().unwrap_or_default();
    let mut a = loaded::<P>(world.seed(), &state);
    let mut shown = vec![content::<P>(&a)];
    let mut changes = Vec::new();
    for _ in 0..below(&mut world.random, 8) {
        let random = &mut world.random;
        if let Some(change) = edit::<P>(&mut a, |lent| P::edit(lent, random)) {
            shown.push(content::<P>(&a));
            changes.push(change);
        }
    }
    while a.can_undo() && ok(a.undo()) {}
    assert_eq!(
        Some(&content::<P>(&a)),
        shown.first(),
        "all undone, seed {seed}"
    );
    while a.can_redo() && ok(a.redo()) {}
    assert_eq!(
        Some(&content::<P>(&a)),
        shown.last(),
        "all redone, seed {seed}"
    );
    let mut b = loaded::<P>(world.seed(), &state);
    changes.extend(a.drain().local);
    ok(b.import(&changes));
    assert_equal::<P>(&format!("seed {seed}"), &mut [&mut a, &mut b]);
}

/// Scenario 77.
pub(super) fn an_earlier_version_shows_what_was_seen_then<P: Probe>(seed: u64) {
    let mut world = World::<P>::new(seed);
    let Some(a) = world.replicas.first_mut() else {
        return;
    };
    if !P::HAS_HISTORY {
        let version = a.version();
        for result in [
            a.readable_version().map(drop),
            P::engine().read_at(a, &version, |_| ()),
        ] {
            assert!(matches!(result, Err(EngineError::Unsupported { .. })));
        }
        return;
    }
    let mut views: Vec<(Version, String)> = Vec::new();
    for number in 0..4 {
        views.push((ok(a.readable_version()), content::<P>(a)));
        let random = &mut world.random;
        edit::<P>(a, |lent| {
            P::edit(lent, random);
            P::add(lent, number);
        });
    }
    for (version, seen) in views {
        let shown = P::engine().read_at(a, &version, |read| P::content(read));
        assert_eq!(shown, Ok(seen), "seed {seed}");
    }
    let version = ok(a.readable_version());
    let mut other = replica::<P>(world.seed());
    let shown = P::engine().read_at(&mut other, &version, |_| ());
    assert_eq!(shown, Err(EngineError::Incomplete));
}
