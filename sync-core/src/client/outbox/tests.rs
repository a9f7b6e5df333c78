//! The outbox by itself.

use super::*;

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
