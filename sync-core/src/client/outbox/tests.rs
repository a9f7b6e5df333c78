//! The outbox by itself.

use super::*;
use crate::limits::change_charge;

const A: OriginId = OriginId(1);
const B: OriginId = OriginId(2);

fn outbox(n: usize) -> Outbox {
    let mut outbox = Outbox::new(A);
    for i in 0..n {
        outbox.push(Bytes::from(vec![0; i + 1]));
    }
    outbox
}

fn numbers(outbox: &Outbox) -> Vec<u64> {
    outbox.pending().map(|entry| entry.id.number).collect()
}

#[test]
fn pushes_are_runs_of_one_origin_and_bounded() {
    let mut outbox = outbox(4);
    outbox.restart(B);
    outbox.push(Bytes::from_static(b"b"));
    let batch = outbox.take_push(6, usize::MAX).unwrap();
    assert_eq!(
        (batch.first.number, batch.changes.len(), batch.charge),
        (1, 3, 96)
    );
    let batch = outbox.take_push(6, usize::MAX).unwrap();
    assert_eq!(
        (batch.first, batch.changes.len()),
        (
            ChangeId {
                origin: A,
                number: 4
            },
            1
        )
    );
    assert_eq!(
        outbox.take_push(6, usize::MAX).unwrap().first,
        ChangeId {
            origin: B,
            number: 1
        }
    );
    assert_eq!(outbox.take_push(6, usize::MAX), None);
}

#[test]
fn one_change_over_the_bound_travels_alone() {
    let mut outbox = outbox(4);
    assert_eq!(outbox.take_push(0, usize::MAX).unwrap().changes.len(), 1);
}

#[test]
fn what_the_registry_has_is_not_sent_again() {
    let mut outbox = outbox(4);
    outbox.take_push(100, usize::MAX);
    assert_eq!(outbox.reconcile_with(&[(A, 2)]), Standing::Known);
    assert_eq!(numbers(&outbox), [3, 4]);
    assert_eq!(outbox.take_push(100, usize::MAX).unwrap().first.number, 3);
}

/// Scenario 80 (the client's half).
#[test]
fn a_registry_that_forgot_makes_everything_pending_be_issued_again_with_the_same_bytes() {
    let mut outbox = outbox(4);
    assert!(outbox.pass_front(1, 2).is_some());
    let before = outbox.bytes();
    assert_eq!(outbox.reconcile_with(&[(A, 1)]), Standing::Forgotten);
    outbox.reissue(B);
    assert_eq!(outbox.bytes(), before);
    assert_eq!(outbox.origins(), [(B, 0)]);
    assert_eq!(numbers(&outbox), [1, 2]);
    assert_eq!(
        outbox.push(Bytes::new()),
        ChangeId {
            origin: B,
            number: 3
        }
    );
}

/// Scenario 80: a store may know the change and not what was acknowledged before it.
#[test]
fn what_comes_before_the_first_change_of_an_origin_was_acknowledged() {
    let mut outbox = Outbox::new(B);
    let id = ChangeId {
        origin: A,
        number: 6,
    };
    outbox.restore([OutboxChange::new(id, 0, Bytes::new(), false)], []);
    assert_eq!(outbox.origins(), [(A, 5)]);
    assert_eq!(outbox.reconcile_with(&[(A, 0)]), Standing::Forgotten);
    assert_eq!(outbox.reconcile_with(&[(A, 5)]), Standing::Known);
}

/// Writes the id in front.
#[derive(Debug)]
struct Labels;

impl Sealer for Labels {
    fn seal(&self, id: ChangeId, _: &Bytes) -> Bytes {
        Bytes::from(format!("{}:{}", id.origin.0, id.number))
    }

    fn is_current(&self, change: &Bytes) -> bool {
        change.contains(&b':')
    }
}

#[test]
fn changes_are_sealed_for_the_ids_that_they_have_and_again_for_others() {
    let mut outbox = outbox(3);
    outbox.take_push(100, usize::MAX);
    outbox.commit_front_through(1);
    assert!(outbox.is_sealed());
    outbox.set_sealer(Arc::new(Labels));
    assert!(!outbox.is_sealed());
    outbox.reseal(B);
    assert!(outbox.is_sealed());
    outbox.push(Bytes::from_static(b"new"));
    outbox.push_front_reconciling(Bytes::from_static(b"lacking"), OriginId(3));
    let expected = ["\0", "3:1", "2:1", "2:2", "2:3"];
    assert_eq!(outbox.bytes(), expected, "what is committed stays");
    assert_eq!(outbox.take_push(100, usize::MAX).unwrap().changes, ["3:1"]);
    outbox.reissue(OriginId(4));
    assert_eq!(outbox.bytes(), ["4:1", "4:2", "4:3", "4:4", "4:5"]);
}

#[test]
fn an_ack_must_name_the_front() {
    let mut outbox = outbox(4);
    assert_eq!(outbox.pass_front(2, 1), None);
    assert_eq!(outbox.pass_front(1, 5), None);
    assert_eq!(outbox.pass_front(1, 2).unwrap().len(), 2);
    assert_eq!(numbers(&outbox), [3, 4]);
}

#[test]
fn a_repeat_is_kept_until_the_stream_passes_it() {
    let mut outbox = outbox(3);
    outbox.commit_front_through(2);
    assert_eq!(numbers(&outbox), [3]);
    assert_eq!(outbox.pass_front(1, 2).unwrap().len(), 2);
    assert_eq!(outbox.bytes().len(), 1);
}

#[test]
fn a_refusal_takes_everything_behind_over_all_origins() {
    let mut outbox = outbox(3);
    outbox.restart(B);
    outbox.push(Bytes::from_static(b"b"));
    outbox.commit_before(ChangeId {
        origin: A,
        number: 2,
    });
    let taken = outbox.take_from(ChangeId {
        origin: A,
        number: 2,
    });
    assert_eq!(
        taken.iter().map(|e| e.id.number).collect::<Vec<_>>(),
        [2, 3, 1]
    );
    assert_eq!(numbers(&outbox), [0_u64; 0]);
}

fn ids(entries: &[Entry]) -> Vec<(OriginId, u64)> {
    let id = |entry: &Entry| (entry.id.origin, entry.id.number);
    entries.iter().map(id).collect()
}

#[test]
fn what_a_store_knows_to_be_acknowledged_is_not_pending_and_new_edits_come_behind() {
    let mut outbox = Outbox::new(B);
    let stored = (1..=3).map(|number| {
        let id = ChangeId { origin: A, number };
        OutboxChange::new(id, 10 + i64::try_from(number).unwrap(), Bytes::new(), false)
    });
    outbox.restore(stored, [(A, 2)]);
    assert_eq!(numbers(&outbox), [3]);
    assert_eq!(outbox.take_push(100, usize::MAX).unwrap().first.number, 3);
    assert_eq!(outbox.last().unwrap().position, 13);
    outbox.push(Bytes::new());
    assert!(outbox.last().unwrap().position > 13);
}

#[test]
fn places_in_a_store_ascend_with_room_in_between() {
    let mut outbox = outbox(2);
    assert_eq!(outbox.last().unwrap().id.number, 2);
    let through = outbox.last_position();
    assert!(outbox.iter().all(|entry| entry.position <= through));
    outbox.commit_front_through(1);
    outbox.push_front_reconciling(Bytes::new(), B);
    outbox.push(Bytes::new());
    assert!(outbox.last().unwrap().position > through);
    let places = outbox.iter().map(|entry| entry.position);
    assert!(places.is_sorted_by(|a, b| a < b));
}

#[test]
fn edits_are_counted_from_one_and_the_newest_pending_is_known() {
    let mut outbox = Outbox::new(A);
    assert_eq!((outbox.last_ordinal(), outbox.last_pending()), (0, None));
    for _ in 0..3 {
        outbox.push(Bytes::new());
    }
    assert_eq!((outbox.last_ordinal(), outbox.last_pending()), (3, Some(3)));
    outbox.commit_front_through(3);
    assert_eq!((outbox.last_ordinal(), outbox.last_pending()), (3, None));
}

#[test]
fn each_origin_is_named_once_also_the_current_one_when_all_of_it_has_been_passed() {
    let mut outbox = outbox(2);
    outbox.commit_front_through(1);
    outbox.push_front_reconciling(Bytes::new(), B);
    assert_eq!(outbox.origins(), [(A, 1), (B, 0)]);
    assert_eq!(Outbox::new(A).origins(), []);
    let mut outbox = Outbox::new(A);
    outbox.push(Bytes::new());
    assert!(outbox.pass_front(1, 1).is_some());
    assert_eq!(outbox.origins(), [(A, 1)]);
}

/// What is seen in the stream while there is no replica stays, as committed.
#[test]
fn an_own_change_seen_in_the_stream_commits_what_comes_before_it_too() {
    let mut outbox = outbox(4);
    outbox.commit_own(ChangeId {
        origin: A,
        number: 2,
    });
    assert_eq!((numbers(&outbox), outbox.bytes().len()), (vec![3, 4], 4));
    outbox.commit_own(ChangeId {
        origin: B,
        number: 4,
    });
    assert_eq!(numbers(&outbox), [3, 4]);
}

#[test]
fn an_ack_that_commits_names_a_run_of_one_origin_from_the_first_that_is_pending() {
    let mut outbox = outbox(3);
    outbox.restart(B);
    outbox.push(Bytes::from_static(b"b"));
    let committed = outbox.commit_front(1, 2).unwrap();
    assert_eq!(ids(&committed), [(A, 1), (A, 2)]);
    assert_eq!((numbers(&outbox), outbox.bytes().len()), (vec![3, 1], 4));
    let repeated = outbox.commit_front(1, 2).unwrap();
    assert_eq!(ids(&repeated), ids(&committed), "told again");
    assert_eq!(numbers(&outbox), [3, 1]);
    assert_eq!(outbox.commit_front(3, 2), None, "the next is of another");
    assert_eq!(outbox.commit_front(1, 9), None, "so many there are not");
    assert_eq!(outbox.commit_front(7, 1), None);
    assert_eq!(numbers(&outbox), [3, 1]);
    assert_eq!(ids(&outbox.commit_front(3, 1).unwrap()), [(A, 3)]);
    let behind = outbox.commit_front(1, 1).unwrap();
    assert_eq!(ids(&behind), [(B, 1)], "pending before committed");
    assert_eq!(outbox.pending_count(), 0);
}

#[test]
fn what_is_in_flight_counts_until_it_is_committed_or_taken_out() {
    let charge = change_charge(&[0]);
    let mut outbox = outbox(4);
    assert_eq!(
        outbox.take_push(100, 3 * charge).unwrap().changes.len(),
        3,
        "as many as fit"
    );
    assert_eq!(outbox.in_flight_charge(), 3 * charge);
    outbox.commit_front_through(1);
    assert_eq!(outbox.in_flight_charge(), 2 * charge);
    assert_eq!(outbox.next_charge(), Some(charge));
    assert!(outbox.pass(ChangeId {
        origin: A,
        number: 2
    }));
    assert_eq!(outbox.in_flight_charge(), charge);
    outbox.commit_front_through(4);
    assert_eq!(outbox.in_flight_charge(), 0);
    assert_eq!(outbox.next_charge(), None);
}

#[test]
fn what_was_committed_before_the_open_is_taken_out_when_the_stream_has_passed_it() {
    let mut outbox = outbox(3);
    assert_eq!(outbox.reconcile_with(&[(A, 2)]), Standing::Known);
    assert_eq!(ids(&outbox.take_covered()), [(A, 1), (A, 2)]);
    assert_eq!(outbox.bytes().len(), 1);
    assert_eq!(outbox.take_covered(), []);
}

#[test]
fn what_is_pending_behind_an_edit_is_taken_out_and_what_is_committed_stays() {
    let bytes_of = |outbox: &Outbox| outbox.pending_bytes().iter().map(Bytes::len).collect();
    let mut first = outbox(4);
    first.commit_front_through(1);
    assert_eq!(ids(&first.take_pending_behind(Some(3))), [(A, 4)]);
    let left: Vec<usize> = bytes_of(&first);
    assert_eq!(left, [2, 3]);
    assert_eq!(ids(&first.take_pending_behind(Some(2))), [(A, 3)]);
    assert_eq!(ids(&first.take_pending_behind(None)), [(A, 2)]);
    assert_eq!((first.pending_count(), first.bytes().len()), (0, 1));
}
