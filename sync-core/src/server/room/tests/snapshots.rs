//! Snapshots on their way: in pieces, once for all, and on from where a cut left off.

use super::*;
use crate::limits::{FRAGMENT_BYTES, SNAPSHOT_PIECE_BYTES};
use crate::wire::PartialSnapshot;

const PIECE: usize = SNAPSHOT_PIECE_BYTES;

/// Three pieces and a bit, which do not compress to nothing.
fn state() -> Bytes {
    (0..3 * PIECE + 100)
        .map(|at| u8::try_from(at * at % 251).unwrap())
        .collect()
}

/// A document whose first six of ten changes are in a snapshot.
fn folded() -> World {
    let mut world = World::new().with_log((1..=10).map(|n| n.to_string()));
    let digest = world.registry.digest(6);
    world.registry.snapshot = Some(Snapshot::new(Seq(6), digest, state()));
    world.registry.log_start = 6;
    world
}

impl World {
    fn open_holding(&mut self, session: SessionId, partial: Option<PartialSnapshot>) -> Opened {
        let mut request = self.request(session);
        request.partial = partial;
        self.open_with(session, request)
    }

    fn reads(&self) -> usize {
        self.events
            .iter()
            .filter(|event| matches!(event, RoomEvent::SnapshotRead { .. }))
            .count()
    }
}

/// Offsets of the pieces that come next.
fn offsets(messages: &[Message]) -> Vec<u64> {
    messages
        .iter()
        .filter_map(|message| match message {
            Message::Snapshot(piece) => Some(piece.offset),
            _ => None,
        })
        .collect()
}

fn piece(n: usize) -> u64 {
    (n * PIECE).try_into().unwrap()
}

#[test]
fn each_piece_fits_into_a_transport_message_and_they_are_the_state() {
    for compression in [Compression::None, Compression::Gzip] {
        let mut world = folded();
        world.compression = compression;
        world.open_holding(ADA, None);
        let mut messages = Vec::new();
        while let Some(frame) = world.next_frame(ADA) {
            assert!(frame.len() <= FRAGMENT_BYTES);
            messages.push(decode_frame(frame, FRAGMENT_BYTES).unwrap());
        }
        let (sent, after) = snapshot_in(&messages);
        assert_eq!(sent, state());
        assert_eq!(texts(&after[0]), [&b"7"[..], b"8", b"9", b"10"]);
    }
}

#[test]
fn members_at_different_places_share_one_read_and_the_snapshot_goes_with_the_last_of_them() {
    let mut world = folded();
    world.compression = Compression::Gzip;
    world.open_holding(ADA, None);
    let first = world.next_frame(ADA).unwrap();
    world.open_holding(BOB, None);
    assert_eq!(
        world.next_frame(BOB).unwrap().as_ptr(),
        first.as_ptr(),
        "compressed once"
    );
    world.all(ADA);
    assert!(world.room.snapshot.is_some(), "Bob is not done");
    world.open_holding(CYD, None);
    world.all(CYD);
    assert_eq!(world.reads(), 1);
    world.all(BOB);
    assert!(world.room.snapshot.is_none());
}

/// Scenario 35, the server's side of a cut in the middle.
#[test]
fn a_client_that_holds_a_part_is_sent_the_rest() {
    let mut world = folded();
    for n in 1..=3 {
        let held = PartialSnapshot::of(Seq(6), &state()[..n * PIECE]);
        let opened = world.open_holding(ADA, Some(held));
        let total_bytes = state().len().try_into().unwrap();
        assert_eq!(opened.next, Continuation::Snapshot { total_bytes });
        let messages = world.all(ADA);
        let expected: Vec<_> = (n..=3).map(piece).collect();
        assert_eq!(offsets(&messages), expected);
        assert_eq!(texts(&messages[4 - n]), [&b"7"[..], b"8", b"9", b"10"]);
    }
}

#[test]
fn a_part_counts_whatever_reset_or_cursor_the_open_ends_in() {
    let mut world = folded();
    let held = PartialSnapshot::of(Seq(6), &state()[..2 * PIECE]);
    let mut request = world.request(ADA);
    request.partial = Some(held);
    request.cursor = Some(Cursor {
        epoch: Epoch(99),
        ..world.cursor(3)
    });
    let opened = world.open_with(ADA, request);
    assert!(matches!(opened.next, Continuation::Reset { .. }));
    assert_eq!(offsets(&world.all(ADA)), [piece(2), piece(3)]);
    let mut request = world.request(BOB);
    request.partial = Some(held);
    request.cursor = Some(world.cursor(7));
    assert_eq!(world.open_with(BOB, request).next, Continuation::Resume);
    assert_eq!(offsets(&world.all(BOB)), [0_u64; 0]);
}

#[test]
fn a_part_that_is_not_the_beginning_of_this_snapshot_is_sent_again_and_harms_nobody() {
    let all = [0, 1, 2, 3].map(piece);
    let honest = PartialSnapshot::of(Seq(6), &state()[..2 * PIECE]);
    let lie = |change: fn(&mut PartialSnapshot)| {
        let mut partial = honest;
        change(&mut partial);
        partial
    };
    let mut world = folded();
    world.open_holding(BOB, None);
    let mut before = vec![world.next(BOB).unwrap()];
    for partial in [
        lie(|partial| partial.seq = Seq(5)),
        lie(|partial| partial.digest = Digest(1)),
        lie(|partial| partial.offset = 0),
        lie(|partial| partial.offset -= 1),
        lie(|partial| partial.offset = piece(1)),
        lie(|partial| partial.offset = piece(4)),
        lie(|partial| partial.offset = u64::MAX),
        PartialSnapshot::of(Seq(6), &state()),
        PartialSnapshot::of(Seq(6), &state()[..2 * PIECE - 1]),
        PartialSnapshot::of(Seq(6), b""),
    ] {
        world.open_holding(ADA, Some(partial));
        assert_eq!(offsets(&world.all(ADA)), all, "{partial:?}");
    }
    before.extend(world.all(BOB));
    assert_eq!(snapshot_in(&before).0, state());
}

#[test]
fn a_part_of_an_older_snapshot_does_not_count() {
    let mut world = folded();
    let held = PartialSnapshot::of(Seq(6), &state()[..2 * PIECE]);
    let digest = world.registry.digest(8);
    world.registry.snapshot = Some(Snapshot::new(Seq(8), digest, state()));
    world.open_holding(ADA, Some(held));
    let messages = world.all(ADA);
    assert_eq!(offsets(&messages), [0, 1, 2, 3].map(piece));
    assert_eq!(texts(&messages[4]), [b"9", &b"10"[..]]);
}
