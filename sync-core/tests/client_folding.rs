//! Folds that a server asks a client for. A scripted server asks.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod client_harness;

use bytes::Bytes;
use client_harness::{CHANNEL, EPOCH, Harness, foreign_changes, id, replica};
use sync_core::client::{JobOutcome, SyncPhase};
use sync_core::engine::Document;
use sync_core::error::{ErrorCode, PeerError};
use sync_core::history::{Cursor, Seq};
use sync_core::wire::{
    Access, AccessLevel, Ack, ErrorMessage, FoldOffer, FoldRequest, Message, Reference, check_of,
};

const DOC: &str = "doc";

/// A client that may maintain the document and stands at sequence 3.
fn keeper() -> Harness {
    let mut client = Harness::live(DOC);
    client.receive(&Message::Access(Access {
        channel: CHANNEL,
        access: AccessLevel::Maintain,
        from: Seq::ZERO,
    }));
    client.changes(1, &foreign_changes(&["a", "b", "c"]));
    client.sent();
    client
}

fn ask(client: &mut Harness, seq: u64) {
    client.receive(&Message::FoldRequest(FoldRequest {
        channel: CHANNEL,
        seq: Seq(seq),
    }));
}

fn offers(client: &mut Harness) -> Vec<FoldOffer> {
    let offer = |message| match message {
        Message::FoldOffer(offer) => Some(offer),
        _ => None,
    };
    client.sent().into_iter().filter_map(offer).collect()
}

#[test]
fn a_client_that_stands_there_offers_a_snapshot_of_exactly_that() {
    let mut client = keeper();
    ask(&mut client, 3);
    let offered = offers(&mut client);
    let cursor = client.state.cursor(&id(DOC)).unwrap();
    let [offer] = offered.as_slice() else {
        unreachable!("one offer and not {}", offered.len());
    };
    let stands = Cursor {
        epoch: offer.epoch,
        seq: offer.seq,
        digest: offer.digest,
    };
    assert_eq!((stands, offer.epoch), (cursor, EPOCH));
    let mut loaded = replica();
    loaded.document().import_snapshot(&offer.bytes).unwrap();
    let ours = client.replicas.get_mut(&id(DOC)).unwrap();
    assert_eq!(loaded.document().version(), ours.document().version());
    assert_eq!(
        client.state.sync_state(&id(DOC)).unwrap().phase,
        SyncPhase::Live
    );
}

#[test]
fn a_client_that_may_not_or_stands_elsewhere_or_has_work_pending_says_nothing() {
    let mut client = keeper();
    for seq in [2, 4] {
        ask(&mut client, seq);
    }
    assert_eq!(offers(&mut client), []);
    client.edit(DOC, "d", "ours");
    ask(&mut client, 3);
    assert_eq!(offers(&mut client), []);
    let mut client = Harness::live(DOC);
    client.changes(1, &foreign_changes(&["a", "b", "c"]));
    ask(&mut client, 3);
    assert_eq!(offers(&mut client), [], "it may only write");
}

/// The edit is in the replica when the snapshot is made, and may be acknowledged before it is done.
#[test]
fn an_edit_between_the_request_and_the_snapshot_makes_it_worthless() {
    let mut client = keeper();
    client.hold_jobs = true;
    ask(&mut client, 3);
    client.edit(DOC, "d", "ours");
    client.receive(&Message::Ack(Ack {
        channel: CHANNEL,
        check: check_of(Seq(4)),
        number: 1,
        count: 1,
    }));
    let (_, _, job) = client.held_jobs.first().unwrap().clone();
    let replica = client.replicas.get_mut(&id(DOC)).unwrap();
    let outcome = replica.run(&job, Vec::new, Default::default).unwrap();
    client.finish_job(outcome);
    assert_eq!(offers(&mut client), []);
}

#[test]
fn a_refused_offer_leaves_the_document_open() {
    let mut client = keeper();
    ask(&mut client, 3);
    assert_eq!(offers(&mut client).len(), 1);
    let error = PeerError::new(ErrorCode::FoldRefused, "too late");
    client.receive(&Message::Error(ErrorMessage::new(
        error,
        Reference::Channel(CHANNEL),
    )));
    assert_eq!(client.n_opens(), 1);
    client.edit(DOC, "d", "ours");
    let names: Vec<_> = client.sent().iter().map(Message::name).collect();
    assert_eq!(names, ["Push"]);
}

#[test]
fn a_client_that_stands_elsewhere_or_has_nothing_to_offer_offers_nothing() {
    let mut client = keeper();
    for seq in [2, 4] {
        ask(&mut client, seq);
        assert!(offers(&mut client).is_empty());
    }
    client.hold_jobs = true;
    for folded in [None, Some(Bytes::new())] {
        ask(&mut client, 3);
        client.finish_job(JobOutcome::Snapshot(folded));
        assert!(offers(&mut client).is_empty());
    }
    ask(&mut client, 3);
    client.finish_job(JobOutcome::Snapshot(Some(Bytes::from_static(b"state"))));
    assert_eq!(offers(&mut client).len(), 1);
}
