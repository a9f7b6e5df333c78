//! The checks that every transport passes, on any executor. Run them over your own:
//!
//! ```
//! # futures_executor::block_on(async {
//! use sync_core::transport::{memory, suite::Suite};
//! Suite::new(|| async { memory::pair(64 * 1024) }).run().await;
//! # });
//! ```
#![expect(clippy::panic, reason = "a check says that it failed by panicking")]

use std::future::{Future, poll_fn};
use std::task::Poll;

use bytes::Bytes;
use futures_util::future::join;

use super::{Transport, TransportError};

/// Runs the checks over connections made by a closure, which returns both ends of a new one each time.
///
/// A check that fails panics and says what it saw. One that never ends has found a connection that hangs:
/// bound the time from outside.
#[derive(Debug)]
pub struct Suite<F> {
    connect: F,
    close_codes: bool,
}

impl<F, Fut, A, B> Suite<F>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = (A, B)>,
    A: Transport,
    B: Transport,
{
    /// A suite over what `connect` makes.
    #[must_use]
    pub const fn new(connect: F) -> Self {
        Self {
            connect,
            close_codes: true,
        }
    }

    /// For a transport without close codes: the other side only needs to see the end.
    #[must_use]
    pub const fn without_close_codes(mut self) -> Self {
        self.close_codes = false;
        self
    }

    /// Runs every check, each over new connections and in both directions.
    ///
    /// # Panics
    /// If a check fails.
    pub async fn run(&mut self) {
        self.frames_arrive_whole_and_in_order().await;
        self.many_frames_leave_with_one_flush().await;
        self.a_waiting_receiver_is_woken().await;
        self.a_sender_waits_for_a_receiver_that_does_not_read()
            .await;
        self.large_flows_both_ways_do_not_block_each_other().await;
        self.what_was_sent_before_a_close_arrives_and_then_its_code()
            .await;
        self.a_dropped_side_is_noticed_by_receiver_and_sender()
            .await;
    }

    /// Frames of any size up to 64 KiB, empty ones included, arrive as they were sent.
    ///
    /// # Panics
    /// If they do not.
    pub async fn frames_arrive_whole_and_in_order(&mut self) {
        for (mut from, mut to) in self.both_directions().await {
            for (n, size) in [0, 1, 2, 125, 126, 1023, 1024, 65_535, 65_536, 0, 7]
                .into_iter()
                .enumerate()
            {
                let sent = pattern(n, size);
                let (_, received) = join(send(&mut from, sent.clone()), receive(&mut to)).await;
                assert!(
                    received == sent,
                    "a frame of {size} bytes arrived as one of {}",
                    received.len()
                );
            }
        }
    }

    /// Frames handed over after one `poll_ready`, 20 KiB together, leave with one flush, in order.
    ///
    /// # Panics
    /// If they do not.
    pub async fn many_frames_leave_with_one_flush(&mut self) {
        for (mut from, mut to) in self.both_directions().await {
            let sending = async {
                ready(&mut from).await;
                (0..MANY).for_each(|n| start_send(&mut from, pattern(n, 40)));
                flush(&mut from).await;
            };
            join(sending, receive_patterns(&mut to, MANY, 40)).await;
        }
    }

    /// A receiver that began to wait before anything was sent is woken by what is sent.
    ///
    /// # Panics
    /// If it does not get it.
    pub async fn a_waiting_receiver_is_woken(&mut self) {
        for (mut from, mut to) in self.both_directions().await {
            let sending = async {
                for n in 0..3 {
                    yield_now().await;
                    send(&mut from, pattern(n, 10)).await;
                }
            };
            join(receive_patterns(&mut to, 3, 10), sending).await;
        }
    }

    /// A sender is made to wait, after a bounded number of bytes, by a receiver that does not read; nothing is
    /// lost, and it goes on when the receiver does.
    ///
    /// # Panics
    /// If 64 MiB are taken without a wait, or what was taken does not arrive.
    pub async fn a_sender_waits_for_a_receiver_that_does_not_read(&mut self) {
        const FRAME_BYTES: usize = 16 * 1024;
        for (mut from, mut to) in self.both_directions().await {
            let mut sent = 0;
            while is_ready_soon(&mut from).await {
                start_send(&mut from, pattern(sent, FRAME_BYTES));
                sent += 1;
                assert!(
                    sent * FRAME_BYTES <= 64 * 1024 * 1024,
                    "{sent} frames were taken that nobody reads"
                );
            }
            join(
                flush(&mut from),
                receive_patterns(&mut to, sent, FRAME_BYTES),
            )
            .await;
            join(
                send(&mut from, pattern(0, 1)),
                receive_patterns(&mut to, 1, 1),
            )
            .await;
        }
    }

    /// Two sides that both send more than the connection holds, and read meanwhile, both get through.
    ///
    /// # Panics
    /// If frames are damaged; it hangs if they block each other.
    pub async fn large_flows_both_ways_do_not_block_each_other(&mut self) {
        let (mut first, mut second) = (self.connect)().await;
        join(exchange(&mut first), exchange(&mut second)).await;
    }

    /// Closing delivers everything sent before, then the end, and the code if the transport has codes.
    ///
    /// # Panics
    /// If anything of that does not arrive.
    pub async fn what_was_sent_before_a_close_arrives_and_then_its_code(&mut self) {
        const CODE: u16 = 4403;
        let close_codes = self.close_codes;
        for (mut from, mut to) in self.both_directions().await {
            let closing = async {
                ready(&mut from).await;
                (0..3).for_each(|n| start_send(&mut from, pattern(n, 100)));
                poll_fn(|cx| from.poll_close(cx, CODE)).await;
            };
            let receiving = async {
                receive_patterns(&mut to, 3, 100).await;
                let end = poll_fn(|cx| to.poll_receive(cx)).await;
                assert!(
                    end.is_none(),
                    "instead of the end after a close came {end:?}"
                );
                if close_codes {
                    assert_eq!(to.close_code(), Some(CODE));
                }
                drop(to);
            };
            join(closing, receiving).await;
        }
    }

    /// When one side is dropped without closing, the other finds the end or an error, and cannot send for ever.
    ///
    /// # Panics
    /// If it gets something else, or can send 64 MiB.
    pub async fn a_dropped_side_is_noticed_by_receiver_and_sender(&mut self) {
        for (from, mut to) in self.both_directions().await {
            drop(from);
            let end = poll_fn(|cx| to.poll_receive(cx)).await;
            assert!(
                matches!(end, None | Some(Err(TransportError::Lost(_)))),
                "instead of a loss came {end:?}"
            );
        }
        for (mut from, to) in self.both_directions().await {
            drop(to);
            let mut sent = 0;
            while try_send(&mut from, pattern(sent, 64 * 1024)).await.is_ok() {
                sent += 1;
                assert!(sent <= 1024, "{sent} frames were sent to nobody");
            }
        }
    }

    async fn both_directions(&mut self) -> [(Box<dyn Transport>, Box<dyn Transport>); 2] {
        let (first, second) = (self.connect)().await;
        let (third, fourth) = (self.connect)().await;
        [
            (Box::new(first), Box::new(second)),
            (Box::new(fourth), Box::new(third)),
        ]
    }
}

/// Frames of 40 bytes that one `poll_ready` must take.
const MANY: usize = 500;

/// Different for each number, and at each place.
fn pattern(n: usize, size: usize) -> Bytes {
    (0..size)
        .map(|at| u8::try_from((n.wrapping_mul(31) ^ at) % 251).unwrap_or_default())
        .collect()
}

async fn try_send(to: &mut impl Transport, frame: Bytes) -> Result<(), TransportError> {
    poll_fn(|cx| to.poll_ready(cx)).await?;
    to.start_send(frame)?;
    poll_fn(|cx| to.poll_flush(cx)).await
}

async fn send(to: &mut impl Transport, frame: Bytes) {
    passes(try_send(to, frame).await);
}

async fn ready(to: &mut impl Transport) {
    passes(poll_fn(|cx| to.poll_ready(cx)).await);
}

fn start_send(to: &mut impl Transport, frame: Bytes) {
    passes(to.start_send(frame));
}

async fn flush(to: &mut impl Transport) {
    passes(poll_fn(|cx| to.poll_flush(cx)).await);
}

async fn receive(from: &mut impl Transport) -> Bytes {
    received(poll_fn(|cx| from.poll_receive(cx)).await)
}

async fn receive_patterns(from: &mut impl Transport, count: usize, size: usize) {
    for n in 0..count {
        assert!(
            receive(from).await == pattern(n, size),
            "frame {n} of {count} is damaged or out of order"
        );
    }
}

/// Whether the transport is ready, now or after the executor had some turns for its other tasks.
async fn is_ready_soon(to: &mut impl Transport) -> bool {
    // A transport may be busy for a moment without being full.
    const TURNS: usize = 64;
    for _ in 0..TURNS {
        let ready = poll_fn(|cx| Poll::Ready(to.poll_ready(cx))).await;
        if let Poll::Ready(ready) = ready {
            passes(ready);
            return true;
        }
        yield_now().await;
    }
    false
}

/// Sends and receives 16 MiB in one task, as a driver does.
async fn exchange(transport: &mut impl Transport) {
    const COUNT: usize = 256;
    const FRAME_BYTES: usize = 64 * 1024;
    let (mut sent, mut flushed, mut arrived) = (0, false, 0);
    poll_fn(|cx| {
        while arrived < COUNT
            && let Poll::Ready(frame) = transport.poll_receive(cx)
        {
            assert!(
                received(frame) == pattern(arrived, FRAME_BYTES),
                "frame {arrived} is damaged"
            );
            arrived += 1;
        }
        while sent < COUNT
            && let Poll::Ready(ready) = transport.poll_ready(cx)
        {
            passes(ready);
            passes(transport.start_send(pattern(sent, FRAME_BYTES)));
            sent += 1;
        }
        if !flushed && let Poll::Ready(result) = transport.poll_flush(cx) {
            passes(result);
            flushed = sent == COUNT;
        }
        if arrived == COUNT && flushed {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn passes<T>(result: Result<T, TransportError>) -> T {
    result.unwrap_or_else(|error| panic!("a live connection failed: {error:?}"))
}

fn received(frame: Option<Result<Bytes, TransportError>>) -> Bytes {
    passes(frame.unwrap_or_else(|| panic!("a live connection ended")))
}
