//! Connections that break in ways that one end does not notice, and readers that do not read.

use std::time::Duration;

use sync_core::client::Status;
use sync_core::error::ErrorCode;
use sync_core::transport::{CertificateProblem, DialError};
use sync_sim::world::maps::{DOC, keys, set, world};
use sync_sim::world::{CALM, ROUGH, in_memory};

#[test]
fn who_hears_nothing_any_more_gives_the_connection_up_and_comes_back() {
    for (server, client) in [(true, false), (false, true), (true, true)] {
        let mut world = world(in_memory(), 1, 2, CALM);
        world.settle(DOC);
        world.deafen(0, server, client);
        set(&mut world, 0, 0, 0);
        set(&mut world, 1, 1, 1);
        world.run_for(Duration::from_secs(90));
        world.settle(DOC);
        world.assert_converged(DOC);
        assert_eq!(keys(&world, 0), [0, 1].into());
        assert_eq!(world.connections_of(0), 1, "server: {server}");
    }
}

#[test]
fn a_client_whose_server_end_is_gone_finds_out_by_its_silence() {
    let mut world = world(in_memory(), 2, 2, CALM);
    world.settle(DOC);
    world.cut_behind(0);
    set(&mut world, 0, 0, 0);
    world.run_for(Duration::from_secs(5));
    assert!(world.status(0).is_connected(), "nobody has told it");
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.counts[&("ended", "silence")], 1);
    world.settle(DOC);
    world.assert_converged(DOC);
}

#[test]
fn a_connection_that_the_server_still_has_is_doubled_until_the_newer_one_takes_over() {
    let mut world = world(in_memory(), 3, 1, ROUGH);
    world.settle(DOC);
    let mut was_doubled = false;
    for n in 0..20 {
        set(&mut world, 0, n, n);
        world.cut(0);
        for _ in 0..20 {
            world.run_for(Duration::from_millis(100));
            was_doubled |= world.connections_of(0) > 1;
        }
    }
    assert!(was_doubled);
    assert!(world.counts[&("closed by server", "Superseded")] > 0);
    world.settle(DOC);
    assert_eq!(world.log(DOC).len(), 20);
}

#[test]
fn a_connection_that_breaks_in_a_message_delivers_it_on_the_next_one() {
    let mut world = world(in_memory(), 4, 2, CALM);
    world.settle(DOC);
    // A change that is cut into pieces.
    world.limits.change_bytes_max = 1 << 20;
    world.cut_in_message(0);
    world.cut_in_message(1);
    for n in 0..20_000 {
        world.edit(0, DOC, |map| map.insert(n, n * n).unwrap());
    }
    world.settle(DOC);
    world.assert_converged(DOC);
    assert_eq!(keys(&world, 1).len(), 20_000);
}

/// Scenario 48.
#[test]
fn a_reader_that_stops_reading_is_not_buffered_for_and_catches_up() {
    let mut world = world(in_memory(), 5, 2, CALM);
    world.weather.buffer_bytes = 1_000;
    world.ring_bytes = 2_000;
    world.settle(DOC);
    world.stall(1, Duration::from_secs(8));
    for n in 0..500 {
        set(&mut world, 0, n, n);
        world.run_for(Duration::from_millis(10));
        let session = world.session_of(1).unwrap();
        let held = world.bytes_for(session);
        assert!(held < 1_000 + 64 * 1024, "{held} bytes wait for it");
    }
    world.settle(DOC);
    world.assert_converged(DOC);
    assert_eq!(keys(&world, 1).len(), 500);
}

#[test]
fn slow_readers_of_a_busy_document_arrive() {
    let mut world = world(in_memory(), 6, 2, CALM);
    world.weather.buffer_bytes = 200;
    world.ring_bytes = 500;
    world.catch_up_bytes = 400;
    world.folding = Some((20, 200));
    world.settle(DOC);
    world.slow_down(1, Duration::from_millis(50));
    for n in 0..300 {
        set(&mut world, 0, n % 50, n);
        world.run_for(Duration::from_millis(15));
    }
    world.settle(DOC);
    world.assert_converged(DOC);
}

#[test]
fn attempts_that_fail_are_made_again_unless_that_makes_no_sense() {
    let mut world = world(in_memory(), 7, 1, CALM);
    world.settle(DOC);
    let again = [
        DialError::Unreachable("no".into()),
        DialError::Untrusted(CertificateProblem::Expired),
    ];
    for error in again {
        world.fail_dial(0, error);
        world.cut(0);
        world.run_for(Duration::from_secs(30));
        assert!(world.status(0).is_connected());
    }
    let never = [
        DialError::Unauthenticated("no".into()),
        DialError::Refused("no".into()),
    ];
    for error in never {
        world.fail_dial(0, error);
        world.cut(0);
        world.run_for(Duration::from_secs(30));
        assert!(matches!(world.status(0), Status::Failed(_)));
        world.reconnect(0);
        world.settle(DOC);
    }
    world.weather.dial_failures = 700;
    world.cut(0);
    world.run_for(Duration::from_secs(600));
    assert!(world.status(0).is_connected());
}

/// A session that is ended for whatever reason takes nothing from an outbox, and one for which trying again makes sense comes
/// back.
#[test]
fn a_session_ended_with_any_code_loses_nothing() {
    for code in ErrorCode::ALL {
        let mut world = world(in_memory(), 8, 1, CALM);
        world.settle(DOC);
        set(&mut world, 0, 0, 0);
        world.end_session(0, *code);
        world.run_for(Duration::from_secs(60));
        world.reconnect(0);
        world.settle(DOC);
        assert_eq!(world.refused(0, DOC), [], "{code}");
        assert_eq!(world.log(DOC).len(), 1, "{code}");
        assert!(
            world
                .counts
                .contains_key(&("closed by server", code.name()))
        );
    }
}

#[test]
fn a_connection_that_something_in_between_closes_is_made_again() {
    for code in [1000, 1001, 1006, 1011, 1012, 1013, 3000, 4000] {
        let mut world = world(in_memory(), 9, 1, CALM);
        world.settle(DOC);
        set(&mut world, 0, 0, 0);
        world.close_connection(0, code);
        world.run_for(Duration::from_secs(60));
        world.settle(DOC);
        assert_eq!(world.log(DOC).len(), 1, "{code}");
    }
}

/// What a room keeps for readers that have stopped is bounded, however many they are.
#[test]
fn many_readers_that_stop_share_what_waits_for_them() {
    let mut world = world(in_memory(), 10, 40, CALM);
    world.weather.buffer_bytes = 500;
    world.ring_bytes = 2_000;
    world.catch_up_bytes = 1_000;
    world.settle(DOC);
    (1..40).for_each(|client| world.stall(client, Duration::from_secs(9)));
    let mut most = 0;
    for n in 0..400 {
        set(&mut world, 0, n, n);
        world.run_for(Duration::from_millis(20));
        most = most.max(world.bytes_of_room(0, DOC));
        let for_one = world.bytes_by_session().map(|(_, bytes)| bytes).max();
        assert!(for_one < Some(20_000), "{for_one:?}");
    }
    assert!(world.bytes_of_log(DOC) > 8_000);
    // The ring, the change being appended, and a read of the log each.
    assert!(most < 2_000 + 40 * 1_500, "{most}");
    assert_eq!(world.bytes_of_client(1), 0);
    world.settle(DOC);
    world.assert_converged(DOC);
}
