//! What goes in and comes out of a document.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;

use super::world::World;
use super::{Hostile, Probe, add, assert_equal, below, content, edit, has, loaded, ok, replica};
use crate::engine::{
    Document, Edited, Engine, EngineError, Folder, Source, ValidateLimits, Version,
};

pub(super) fn one_closure_is_one_change<P: Probe>() {
    let (mut a, mut b) = (replica::<P>(1), replica::<P>(2));
    let edited = P::engine().edit(&mut a, usize::MAX, |edit| {
        for number in 0..5 {
            P::add(edit, number);
        }
        7
    });
    assert_eq!(edited, Ok(Edited::Done(7)));
    let drained = a.drain();
    assert_eq!(drained.local.len(), 1, "changes of one closure");
    let sources: Vec<Source> = drained.events.iter().map(|event| event.source).collect();
    assert_eq!(sources, [Source::Local], "events of one closure");
    for change in &drained.local {
        ok(P::engine().validate(change, &ValidateLimits::default()));
    }
    ok(b.import(&drained.local));
    assert!((0..5).all(|number| has::<P>(&b, number)));
    assert_equal::<P>("one change", &mut [&mut a, &mut b]);
}

pub(super) fn a_closure_that_does_nothing_makes_no_change<P: Probe>() {
    let mut a = replica::<P>(1);
    let before = a.version();
    assert_eq!(edit::<P>(&mut a, |_| ()), None);
    assert_eq!(a.drain(), crate::engine::Drained::default());
    assert_eq!(a.version(), before);
    add::<P>(&mut a, 1);
    assert_ne!(a.version(), before);
}

pub(super) fn an_import_never_comes_out_as_local<P: Probe>() {
    let (mut a, mut b) = (replica::<P>(1), replica::<P>(2));
    let change = add::<P>(&mut a, 1);
    let imported = ok(b.import(std::slice::from_ref(&change)));
    assert!(imported.changed && !imported.pending);
    let drained = b.drain();
    assert_eq!(drained.local, Vec::<Bytes>::new());
    let sources: Vec<Source> = drained.events.iter().map(|event| event.source).collect();
    assert_eq!(sources, [Source::Remote], "events of an import");
    assert!(
        !ok(b.import(&[change])).changed,
        "a repeat changed something"
    );
    assert_eq!(b.drain(), crate::engine::Drained::default());
}

pub(super) fn replicas_of_one_state_write_under_ids_of_their_own<P: Probe>() {
    let mut a = replica::<P>(1);
    add::<P>(&mut a, 1);
    let state = ok(a.snapshot());
    let (mut b, mut c) = (loaded::<P>(2, &state), loaded::<P>(3, &state));
    let changes = [add::<P>(&mut b, 2), add::<P>(&mut c, 3)];
    ok(b.import(&changes));
    ok(c.import(&changes));
    assert!((1..=3).all(|number| has::<P>(&b, number)));
    assert_equal::<P>("both wrote", &mut [&mut b, &mut c]);
}

pub(super) fn a_panicking_closure_leaves_the_document_usable<P: Probe>() {
    let (mut a, mut b) = (replica::<P>(1), replica::<P>(2));
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _ = P::engine().edit(&mut a, usize::MAX, |edit| {
            P::add(edit, 1);
            panic!("by the application");
        });
    }));
    assert!(panicked.is_err(), "the panic did not go on to the caller");
    let mut changes = a.drain().local;
    changes.push(add::<P>(&mut a, 2));
    ok(b.import(&changes));
    assert!(has::<P>(&b, 2));
    assert_equal::<P>("after a panic", &mut [&mut a, &mut b]);
}

/// An engine whose changes do not need each other has nothing to wait for.
pub(super) fn what_waits_survives_in_the_snapshot<P: Probe>() {
    let (mut a, mut b) = (replica::<P>(1), replica::<P>(2));
    let changes = [add::<P>(&mut a, 1), add::<P>(&mut a, 2)];
    let (first, second) = changes.split_at(1);
    let is_waiting = ok(b.import(second)).pending;
    let mut c = replica::<P>(3);
    assert_eq!(
        ok(c.import_snapshot(&ok(b.snapshot()))).pending,
        is_waiting,
        "what the snapshot holds"
    );
    assert_eq!(
        is_waiting,
        P::engine().fold(None, second) == Err(EngineError::Incomplete),
        "what waits is not folded"
    );
    for replica in [&mut b, &mut c] {
        assert!(
            !ok(replica.import(first)).pending,
            "a change waits for ever"
        );
    }
    assert_equal::<P>("all arrived", &mut [&mut a, &mut b, &mut c]);
}

pub(super) fn nothing_folds_to_no_snapshot<P: Probe>() {
    assert_eq!(P::engine().fold(None, &[]), Err(EngineError::Unproven));
}

/// Scenario 51.
pub(super) fn what_is_known_to_ruin_the_engine_is_refused<P: Probe>() {
    let mut a = replica::<P>(1);
    add::<P>(&mut a, 1);
    let version = a.version();
    for Hostile { what, bytes } in P::hostile_changes() {
        let validated = P::engine().validate(&bytes, &ValidateLimits::default());
        assert!(validated.is_err(), "{what}");
        assert!(a.import(&[bytes]).is_err(), "{what}");
        assert!(!a.is_poisoned() && a.version() == version, "{what}");
    }
    for Hostile { what, bytes } in P::hostile_snapshots() {
        for mut document in [replica::<P>(2), loaded::<P>(3, &ok(a.snapshot()))] {
            assert!(document.import_snapshot(&bytes).is_err(), "{what}");
            assert!(!document.is_poisoned(), "{what}");
            add::<P>(&mut document, 2);
        }
    }
}

pub(super) fn what_is_too_large_is_taken_back_whole<P: Probe>(seed: u64) {
    let mut world = World::<P>::new(seed);
    let spare = world.seed();
    let (random, replicas) = (&mut world.random, &mut world.replicas);
    let [a, b, ..] = replicas.as_mut_slice() else {
        return;
    };
    let (version, before) = (a.version(), content::<P>(a));
    let edited = ok(P::engine().edit(a, 0, |edit| {
        for _ in 0..=below(random, 6) {
            P::edit(edit, random);
        }
    }));
    assert_eq!(content::<P>(a), before, "seed {seed}");
    assert_eq!(a.version(), version, "seed {seed}");
    assert_eq!(a.drain(), crate::engine::Drained::default(), "seed {seed}");
    if let Edited::TakenBack { change, .. } = edited {
        // What others could have imported.
        let state = ok(a.snapshot());
        ok(loaded::<P>(spare, &state).import(&[change]));
    }
    let from_a: Vec<Bytes> = edit::<P>(a, |edit| P::edit(edit, random))
        .into_iter()
        .collect();
    let version = b.version();
    let lacking: Vec<Bytes> = ok(a.since(&version)).into_iter().collect();
    assert!(!ok(b.import(&lacking)).pending, "seed {seed}");
    assert!(!ok(b.import(&from_a)).changed, "seed {seed}");
    let version = a.version();
    let lacking: Vec<Bytes> = ok(b.since(&version)).into_iter().collect();
    ok(a.import(&lacking));
    assert_equal::<P>(&format!("seed {seed}"), &mut [a, b]);
}

/// Bytes that were damaged by accident: what an attacker can do is another matter.
pub(super) fn damaged_bytes_are_errors_and_leave_the_document_usable<P: Probe>(seed: u64) {
    let mut world = World::<P>::new(seed);
    let spare = world.seed();
    let state = world.states().pop().unwrap_or_default();
    let mut victim = loaded::<P>(spare, &state);
    let random = &mut world.random;
    let mut sources: Vec<Bytes> = world
        .changes
        .iter()
        .map(|change| change.bytes.clone())
        .collect();
    sources.extend([state.clone(), Bytes::new(), victim.version().0]);
    for source in sources {
        let mut damaged = source.to_vec();
        match below(random, 3) {
            0 => damaged.truncate(below(random, source.len())),
            1 => damaged.push(0),
            _ => {
                let at = below(random, damaged.len());
                let bit = below(random, 8);
                if let Some(byte) = damaged.get_mut(at) {
                    *byte ^= 1 << bit;
                }
            }
        }
        let damaged = Bytes::from(damaged);
        let _ = P::engine().validate(&damaged, &ValidateLimits::default());
        let limited = ValidateLimits {
            bytes_max: damaged.len().saturating_sub(1),
            ..ValidateLimits::default()
        };
        assert!(P::engine().validate(&damaged, &limited).is_err() || damaged.is_empty());
        let _ = victim.since(&Version(damaged.clone()));
        let version = victim.version();
        if victim.import(std::slice::from_ref(&damaged)).is_err()
            && victim.import_snapshot(&damaged).is_err()
            && !victim.is_poisoned()
        {
            assert_eq!(victim.version(), version, "after an error, seed {seed}");
        }
        if victim.is_poisoned() {
            victim = loaded::<P>(spare, &state);
        }
        drop(victim.drain());
    }
    add::<P>(&mut victim, 999);
    assert!(has::<P>(&victim, 999), "seed {seed}");
}
