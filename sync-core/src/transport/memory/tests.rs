use std::future::{Future, poll_fn};

use futures_util::FutureExt;

use super::*;
use crate::transport::suite::Suite;
use crate::transport::{Acceptor, DialError, Dialer};

/// The result of what must be ready without anybody else's doing, `None` if it is not.
fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    future.now_or_never()
}

fn receive(transport: &mut dyn Transport) -> Option<Option<Result<Bytes, TransportError>>> {
    now(poll_fn(|cx| transport.poll_receive(cx)))
}

fn send(transport: &mut dyn Transport, frame: &'static [u8]) -> Option<Result<(), TransportError>> {
    transport.start_send(Bytes::from_static(frame)).unwrap();
    now(poll_fn(|cx| transport.poll_flush(cx)))
}

fn is_lost(received: Option<Option<Result<Bytes, TransportError>>>) -> bool {
    matches!(received, Some(Some(Err(TransportError::Lost(_)))))
}

fn frame(received: Option<Option<Result<Bytes, TransportError>>>) -> Bytes {
    received.unwrap().unwrap().unwrap()
}

fn connection(
    network: &MemoryNetwork,
    acceptor: &mut MemoryAcceptor,
) -> (Box<dyn Transport>, Box<dyn Transport>) {
    let dialed = now(network.dialer().dial()).unwrap().unwrap();
    (dialed, now(acceptor.accept()).unwrap().unwrap().unwrap().0)
}

#[test]
fn what_is_not_flushed_does_not_arrive() {
    let (mut first, mut second) = pair(1024);
    first.start_send(Bytes::from_static(b"a")).unwrap();
    assert!(receive(&mut second).is_none());
    now(poll_fn(|cx| first.poll_flush(cx))).unwrap().unwrap();
    assert_eq!(frame(receive(&mut second)), "a");
}

#[test]
fn a_full_connection_makes_the_sender_wait_and_empty_frames_fill_it_too() {
    let (mut first, mut second) = pair(64);
    let mut sent = 0;
    while now(poll_fn(|cx| first.poll_ready(cx))).is_some() {
        assert!(sent < 100, "the sender is never made to wait");
        let _ = send(&mut first, b"");
        sent += 1;
    }
    let mut received = 0;
    while received < sent {
        match receive(&mut second) {
            Some(_) => received += 1,
            None => now(poll_fn(|cx| first.poll_flush(cx))).map_or((), |flushed| flushed.unwrap()),
        }
    }
    assert!(receive(&mut second).is_none());
    assert!(now(poll_fn(|cx| first.poll_ready(cx))).is_some());
}

#[test]
fn a_frame_larger_than_the_connection_passes_alone() {
    let (mut first, mut second) = pair(1);
    assert!(send(&mut first, b"larger than one byte").is_some());
    assert!(send(&mut first, b"next").is_none());
    assert_eq!(frame(receive(&mut second)), "larger than one byte");
    now(poll_fn(|cx| first.poll_flush(cx))).unwrap().unwrap();
    assert_eq!(frame(receive(&mut second)), "next");
}

#[test]
fn a_cut_is_a_lost_connection_at_both_sides_even_for_what_had_arrived() {
    let (mut first, mut second) = pair(1024);
    send(&mut first, b"a").unwrap().unwrap();
    let link = first.link();
    assert!(link.is_live());
    link.cut();
    assert!(!link.is_live());
    assert!(is_lost(receive(&mut first)) && is_lost(receive(&mut second)));
    assert!(matches!(
        second.start_send(Bytes::new()),
        Err(TransportError::Lost(_))
    ));
    assert!(matches!(
        now(poll_fn(|cx| first.poll_flush(cx))),
        Some(Err(TransportError::Lost(_)))
    ));
    assert_eq!(now(poll_fn(|cx| first.poll_close(cx, 4400))), Some(()));
}

#[test]
fn a_stalled_connection_tells_nothing_and_goes_on_where_it_stood() {
    let (mut first, mut second) = pair(1024);
    send(&mut first, b"before").unwrap().unwrap();
    first.link().stall(true);
    assert!(send(&mut first, b"during").is_some());
    assert!(receive(&mut second).is_none() && receive(&mut first).is_none());
    let link = second.link();
    drop(first);
    assert!(receive(&mut second).is_none());
    assert!(send(&mut second, b"to nobody").is_some());
    link.stall(false);
    assert_eq!(frame(receive(&mut second)), "before");
    assert_eq!(frame(receive(&mut second)), "during");
    assert!(is_lost(receive(&mut second)));
    assert!(second.start_send(Bytes::new()).is_err());
}

#[test]
fn cutting_wakes_whoever_waits() {
    let (mut first, second) = pair(1024);
    let link = second.link();
    std::thread::scope(|scope| {
        let waiting =
            scope.spawn(move || futures_executor::block_on(poll_fn(|cx| first.poll_receive(cx))));
        link.cut();
        assert!(matches!(
            waiting.join().unwrap(),
            Some(Err(TransportError::Lost(_)))
        ));
    });
    drop(second);
}

#[test]
fn frames_and_bytes_are_counted_each_way() {
    let network = MemoryNetwork::new();
    let mut acceptor = network.acceptor();
    let (mut dialed, mut accepted) = connection(&network, &mut acceptor);
    send(&mut dialed, b"abc").unwrap().unwrap();
    send(&mut accepted, b"d").unwrap().unwrap();
    send(&mut accepted, b"").unwrap().unwrap();
    let traffic = network.traffic();
    assert_eq!(
        traffic.up,
        Count {
            frames: 1,
            bytes: 3
        }
    );
    assert_eq!(
        traffic.down,
        Count {
            frames: 2,
            bytes: 1
        }
    );
}

#[test]
fn dials_fail_until_somebody_listens_and_while_the_network_is_down_or_refusing() {
    let network = MemoryNetwork::new();
    let dialer = network.dialer();
    let dial = || now(dialer.dial()).unwrap();
    assert!(matches!(dial(), Err(DialError::Unreachable(_))));
    let acceptor = network.acceptor();
    assert!(dial().is_ok());
    network.set_online(false);
    assert!(matches!(dial(), Err(DialError::Unreachable(_))));
    network.set_online(true);
    network.set_refusing(true);
    assert!(matches!(dial(), Err(DialError::Refused(_))));
    network.set_refusing(false);
    assert!(dial().is_ok());
    drop(acceptor);
    assert!(matches!(dial(), Err(DialError::Unreachable(_))));
    assert_eq!(network.dials(), 6);
}

#[test]
fn a_new_acceptor_takes_over_and_a_closed_network_ends_it() {
    let network = MemoryNetwork::new();
    let mut old = network.acceptor();
    let mut new = network.acceptor();
    assert!(now(old.accept()).unwrap().is_none());
    drop(old);
    let _dialed = now(network.dialer().dial()).unwrap().unwrap();
    assert!(now(new.accept()).unwrap().unwrap().is_ok());
    assert!(now(new.accept()).is_none());
    network.close();
    assert!(now(new.accept()).unwrap().is_none());
}

#[test]
fn connections_are_cut_all_together_or_one_by_one() {
    let network = MemoryNetwork::new();
    let mut acceptor = network.acceptor();
    let mut dial = || connection(&network, &mut acceptor);
    let mut connections: Vec<_> = (0..4).map(|_| dial()).collect();
    assert!(network.cut_nth(1));
    assert!(is_lost(receive(&mut connections[1].0)) && is_lost(receive(&mut connections[1].1)));
    assert!(receive(&mut connections[0].0).is_none());
    assert_eq!(network.connections(), 3);
    assert!(!network.cut_nth(3));
    assert!(network.cut_random(7));
    assert_eq!(network.cut(), 2);
    assert_eq!(network.connections(), 0);
    assert!(!network.cut_random(7));
    assert!(
        connections
            .iter_mut()
            .all(|(dialed, _)| is_lost(receive(dialed)))
    );
}

#[test]
fn stalling_the_network_holds_up_only_the_connections_there_are() {
    let network = MemoryNetwork::new();
    let mut acceptor = network.acceptor();
    let mut dial = || connection(&network, &mut acceptor);
    let (mut old, mut old_accepted) = dial();
    network.stall(true);
    let (mut new, mut new_accepted) = dial();
    send(&mut old, b"old").unwrap().unwrap();
    send(&mut new, b"new").unwrap().unwrap();
    assert!(receive(&mut old_accepted).is_none());
    assert_eq!(frame(receive(&mut new_accepted)), "new");
    network.stall(false);
    assert_eq!(frame(receive(&mut old_accepted)), "old");
}

/// Scenario 75.
#[test]
fn the_memory_transport_passes_the_transport_suite() {
    for capacity in [1, 1024, 256 * 1024] {
        futures_executor::block_on(Suite::new(|| async { pair(capacity) }).run());
    }
}

/// Scenario 75.
#[test]
fn connections_over_the_memory_network_pass_the_transport_suite() {
    let network = MemoryNetwork::new();
    let mut acceptor = network.acceptor();
    let connect = || {
        let both = connection(&network, &mut acceptor);
        async { both }
    };
    futures_executor::block_on(Suite::new(connect).run());
}
