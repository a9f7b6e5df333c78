//! The ledger lets every honest change follow its log, and none that would ruin the document.

#![cfg(feature = "yrs")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test harness")]

mod yrs_common;

use bytes::Bytes;
use proptest::prelude::*;
use sync_core::engine::yrs::{Yrs, YrsDocument};
use sync_core::engine::{Document, Engine, EngineError, Ledger, Taken};
use sync_core::ids::User;
use sync_core::yrs::{Array, ArrayPrelim, Map, MapPrelim, Out, ReadTxn, Text, WriteTxn};
use yrs_common::{UNLIMITED, any_op, config, edit, replica};

/// What one replica does next.
#[derive(Debug, Clone)]
struct Turn {
    author: usize,
    /// Before it edits, it imports what the others have logged.
    imports: bool,
    /// Its outbox goes into the log.
    pushes: bool,
    ops: Vec<yrs_common::Op>,
}

fn any_turn() -> impl Strategy<Value = Turn> {
    let ops = proptest::collection::vec(any_op(), 1..4);
    (0..3_usize, any::<bool>(), any::<bool>(), ops).prop_map(|(author, imports, pushes, ops)| {
        Turn {
            author,
            imports,
            pushes,
            ops,
        }
    })
}

fn new_ledger() -> Box<dyn Ledger> {
    Yrs::new().ledger().unwrap()
}

/// Asks about a push of a user.
fn check(ledger: &mut Box<dyn Ledger>, change: &[u8], author: usize) -> Result<Taken, EngineError> {
    ledger.check(&Bytes::copy_from_slice(change), &user(author), false)
}

/// Asks about a reconciling push of a user.
fn reconcile(
    ledger: &mut Box<dyn Ledger>,
    change: &[u8],
    author: usize,
) -> Result<Taken, EngineError> {
    ledger.check(&Bytes::copy_from_slice(change), &user(author), true)
}

const FOREIGN: EngineError = EngineError::Rejected {
    what: "the change writes as a replica of another user",
};

fn user(author: usize) -> User {
    User::new(format!("user {author}"))
}

proptest! {
    #![proptest_config(config(300))]

    /// Scenario 88.
    #[test]
    fn whatever_honest_replicas_push_may_follow(turns in proptest::collection::vec(any_turn(), 1..25)) {
        let mut replicas = [replica(1), replica(2), replica(3)];
        let mut outboxes: [Vec<Bytes>; 3] = Default::default();
        let mut log: Vec<Bytes> = Vec::new();
        let mut ledger = new_ledger();
        for turn in &turns {
            let author = turn.author;
            if turn.imports {
                replicas[author].import(&log).unwrap();
            }
            edit(&mut replicas[author], &turn.ops);
            outboxes[author].extend(replicas[author].drain().local);
            if turn.pushes {
                for change in outboxes[author].drain(..) {
                    prop_assert!(check(&mut ledger, &change, author).is_ok());
                    log.push(change);
                }
            }
        }
        // What a server knows that has loaded the document: from a snapshot, or from the log.
        let mut server = replica(4);
        server.import(&log).unwrap();
        let mut of_snapshot = new_ledger();
        of_snapshot.load(&server.snapshot().unwrap()).unwrap();
        let mut of_log = new_ledger();
        for change in &log {
            of_log.admit(change, None).unwrap();
        }
        for (author, outbox) in outboxes.iter().enumerate() {
            for change in outbox {
                prop_assert!(check(&mut of_snapshot, change, author).is_ok());
                prop_assert!(check(&mut of_log, change, author).is_ok());
                // Delivered again, under another id.
                prop_assert_eq!(check(&mut of_log, change, author), Ok(Taken::Known));
            }
        }
    }

    /// Scenarios 61 and 88.
    #[test]
    fn a_server_that_lost_a_part_is_brought_it_by_anybody(
        turns in proptest::collection::vec(any_turn(), 1..25),
        kept in any::<proptest::sample::Index>(),
    ) {
        let mut replicas = [replica(1), replica(2), replica(3)];
        let mut log: Vec<Bytes> = Vec::new();
        for turn in &turns {
            replicas[turn.author].import(&log).unwrap();
            edit(&mut replicas[turn.author], &turn.ops);
            log.extend(replicas[turn.author].drain().local);
        }
        let kept = kept.index(log.len() + 1);
        let (mut ledger, mut server) = (new_ledger(), replica(4));
        for change in &log[..kept] {
            ledger.admit(change, None).unwrap();
        }
        server.import(&log[..kept]).unwrap();
        replicas[0].import(&log).unwrap();
        if let Some(lacking) = replicas[0].since(&server.version()).unwrap() {
            prop_assert!(reconcile(&mut ledger, &lacking, 0).is_ok());
            // And those whose blocks they are go on.
            for (author, replica) in replicas.iter_mut().enumerate() {
                replica.import(&log).unwrap();
                replica.drain();
                push_text(replica, "more");
                for change in replica.drain().local {
                    prop_assert_eq!(check(&mut ledger, &change, author), Ok(Taken::New));
                }
            }
        }
    }
}

fn push_text(document: &mut YrsDocument, text: &str) {
    Yrs::new()
        .edit(document, UNLIMITED, |txn| {
            txn.get_or_insert_text("text").push(txn, text);
        })
        .unwrap();
}

/// The one change that came of an edit.
fn written(document: &mut YrsDocument, text: &str) -> Bytes {
    push_text(document, text);
    let local = document.drain().local;
    assert_eq!(local.len(), 1);
    local[0].clone()
}

/// Scenario 88: after the document has been loaded, too.
#[test]
fn a_log_says_whose_replicas_are_whose_and_what_repaired_it_does_not() {
    let mut ours = replica(1);
    let [first, second, third] = ["first", "second", "third"].map(|text| written(&mut ours, text));
    let mut ledger = new_ledger();
    ledger.admit(&first, Some(&user(1))).unwrap();
    assert_eq!(check(&mut ledger, &second, 2), Err(FOREIGN));
    // Brought by somebody else on a server's behalf, or so long ago that nobody knows: it stays whose it was.
    ledger.admit(&second, None).unwrap();
    assert_eq!(check(&mut ledger, &third, 2), Err(FOREIGN));
    assert_eq!(check(&mut ledger, &third, 1), Ok(Taken::New));
    // Who repaired a server claims nothing, and refuses the owner nothing.
    let mut repaired = new_ledger();
    repaired.admit(&first, None).unwrap();
    assert_eq!(check(&mut repaired, &second, 1), Ok(Taken::New));
    assert_eq!(check(&mut repaired, &third, 2), Err(FOREIGN));
}

/// Scenario 88.
#[test]
fn what_nobody_has_written_cannot_be_referred_to() {
    let mut a = replica(1);
    let first = written(&mut a, "first");
    let second = written(&mut a, "second");
    let mut ledger = new_ledger();
    assert_eq!(check(&mut ledger, &second, 1), Err(EngineError::Incomplete));
    // 14 bytes that would wait for ever: one character to the right of what is not there.
    let orphan = [1, 1, 7, 0, 0x84, 9, 3, 1, b'x', 0];
    assert_eq!(
        reconcile(&mut ledger, &orphan, 1),
        Err(EngineError::Incomplete)
    );
    // A deletion of it.
    assert_eq!(
        reconcile(&mut ledger, &[0, 1, 9, 1, 0, 1], 1),
        Err(EngineError::Incomplete)
    );
    // A child of it.
    let child = [1, 1, 7, 0, 4, 0, 9, 3, 1, b'x', 0];
    assert_eq!(check(&mut ledger, &child, 1), Err(EngineError::Incomplete));
    // Blocks of two replicas, each to the right of the other.
    let circle = [
        2, 1, 8, 0, 0x84, 7, 0, 1, b'x', 1, 7, 0, 0x84, 8, 0, 1, b'y', 0,
    ];
    assert_eq!(
        reconcile(&mut ledger, &circle, 1),
        Err(EngineError::Incomplete)
    );
    assert_eq!(check(&mut ledger, &first, 1), Ok(Taken::New));
    assert_eq!(check(&mut ledger, &second, 1), Ok(Taken::New));
}

/// Scenarios 51 and 88: yrs refuses an update that does it, and a client that meets one in the log stops there for good.
#[test]
fn a_change_that_puts_something_into_what_is_no_container_does_not_follow() {
    let no_container = Err(EngineError::Rejected {
        what: "the change puts something into what is no container",
    });
    let text = [1, 1, 7, 0, 4, 1, 1, b'r', 2, b'a', b'b', 0];
    let container = [1, 1, 7, 2, 0x27, 1, 1, b'r', 1, b'k', 1, 0];
    let child = |of: u8| [1, 1, 8, 0, 4, 0, 7, of, 1, b'x', 0];
    // In one change, too: the parent comes first.
    let both = [1, 2, 9, 0, 3, 1, 1, b'r', 1, 0, 4, 0, 9, 0, 1, b'x', 0];
    let mut ledger = new_ledger();
    assert_eq!(check(&mut ledger, &text, 1), Ok(Taken::New));
    assert_eq!(check(&mut ledger, &container, 1), Ok(Taken::New));
    assert_eq!(check(&mut ledger, &child(0), 1), no_container);
    assert_eq!(reconcile(&mut ledger, &child(1), 1), no_container);
    assert_eq!(check(&mut ledger, &both, 1), no_container);
    // What has been deleted may have been one.
    let mut of_state = new_ledger();
    let collected = [1, 2, 7, 0, 0, 1, 1, 1, 1, b'r', 2, 0];
    of_state.load(&collected).unwrap();
    assert_eq!(check(&mut of_state, &child(0), 1), Ok(Taken::New));
    assert_eq!(check(&mut ledger, &child(2), 1), Ok(Taken::New));
    // yrs agrees.
    for (of, is_taken) in [(0, false), (2, true)] {
        let mut document = replica(3);
        for change in [&text[..], &container] {
            document.import(&[Bytes::copy_from_slice(change)]).unwrap();
        }
        let imported = document.import(&[Bytes::copy_from_slice(&child(of))]);
        assert_eq!(imported.is_ok(), is_taken, "{imported:?}");
    }
}

/// Scenario 88.
#[test]
fn nobody_writes_as_a_replica_of_another_user() {
    let mut a = replica(1);
    let first = written(&mut a, "first");
    let second = written(&mut a, "second");
    let mut ledger = new_ledger();
    assert_eq!(check(&mut ledger, &first, 1), Ok(Taken::New));
    assert_eq!(check(&mut ledger, &second, 2), Err(FOREIGN));
    // What is known changes nothing.
    assert_eq!(check(&mut ledger, &first, 2), Ok(Taken::Known));
    // Who reconciles brings everybody's, and makes it nobody's.
    assert_eq!(reconcile(&mut ledger, &second, 2), Ok(Taken::New));
    let third = written(&mut a, "third");
    assert_eq!(check(&mut ledger, &third, 2), Err(FOREIGN));
    assert_eq!(check(&mut ledger, &third, 1), Ok(Taken::New));
}

/// Scenario 88.
#[test]
fn containers_do_not_nest_deeper_change_by_change() {
    let (mut a, mut ledger) = (replica(1), new_ledger());
    let deepen = |document: &mut YrsDocument| {
        Yrs::new()
            .edit(document, UNLIMITED, |txn| {
                let map = txn.get_or_insert_map("map");
                let Some(Out::YArray(mut inner)) = map.get(txn, "inner") else {
                    map.insert(txn, "inner", ArrayPrelim::default());
                    return;
                };
                while let Some(Out::YArray(next)) = inner.get(txn, 0) {
                    inner = next;
                }
                inner.insert(txn, 0, ArrayPrelim::default());
            })
            .unwrap();
        document.drain().local.remove(0)
    };
    for level in 0..=64 {
        assert_eq!(
            check(&mut ledger, &deepen(&mut a), 1),
            Ok(Taken::New),
            "level {level}"
        );
    }
    let snapshot = a.snapshot().unwrap();
    let deeper = deepen(&mut a);
    let too_deep = EngineError::LimitExceeded {
        what: "nesting of containers",
        value: 65,
        max: 64,
    };
    assert_eq!(check(&mut ledger, &deeper, 1), Err(too_deep.clone()));
    // Nor for somebody else who has it from a snapshot.
    let mut of_snapshot = new_ledger();
    of_snapshot.load(&snapshot).unwrap();
    let mut b = replica(2);
    b.import_snapshot(&snapshot).unwrap();
    assert_eq!(check(&mut of_snapshot, &deepen(&mut b), 2), Err(too_deep));
    // The ledger is as it was.
    let beside = written_beside(&mut replica(3));
    assert_eq!(check(&mut ledger, &beside, 3), Ok(Taken::New));
}

fn written_beside(document: &mut YrsDocument) -> Bytes {
    Yrs::new()
        .edit(document, UNLIMITED, |txn| {
            let map = txn.get_or_insert_map("map");
            map.insert(txn, "beside", MapPrelim::default());
            assert!(txn.get_map("map").is_some());
        })
        .unwrap();
    document.drain().local.remove(0)
}
