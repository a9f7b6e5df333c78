//! Connections inside one process, with the buffers and the failures of real ones.

mod network;

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;

pub use self::network::{MemoryAcceptor, MemoryDialer, MemoryNetwork};
use super::{Transport, TransportError};
use crate::watch::lock;

/// Two connected transports. Each direction holds about `capacity` bytes (and always takes one frame), as much
/// again before it is flushed; then the sender waits for the receiver.
///
/// Dropping one side without closing it is a lost connection to the other, once it has read what had arrived.
#[must_use]
pub fn pair(capacity: usize) -> (MemoryTransport, MemoryTransport) {
    connect(capacity, Arc::default())
}

fn connect(capacity: usize, traffic: Arc<Mutex<Traffic>>) -> (MemoryTransport, MemoryTransport) {
    let wire = Wire {
        up: Pipe::default(),
        down: Pipe::default(),
        cut: false,
        stalled: false,
        capacity,
        traffic,
    };
    let link = MemoryLink {
        wire: Arc::new(Mutex::new(wire)),
    };
    let end = |side| MemoryTransport {
        link: link.clone(),
        side,
        capacity,
        staged: VecDeque::new(),
        staged_cost: 0,
        close_code: None,
    };
    (end(Side::First), end(Side::Second))
}

/// One end of a connection in memory.
pub struct MemoryTransport {
    link: MemoryLink,
    side: Side,
    capacity: usize,
    /// Handed over and not flushed: the other side does not see it, as with a real connection.
    staged: VecDeque<Bytes>,
    staged_cost: usize,
    close_code: Option<u16>,
}

impl MemoryTransport {
    /// What breaks and holds up this connection.
    #[must_use]
    pub fn link(&self) -> MemoryLink {
        self.link.clone()
    }

    /// Moves staged frames on until they cost less than `limit`, or nothing is staged.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        limit: usize,
    ) -> Poll<Result<(), TransportError>> {
        let mut wire = lock(&self.link.wire);
        if wire.is_lost_to_writer(self.side) {
            return Poll::Ready(Err(TransportError::Lost(None)));
        }
        let mut moved = false;
        while let Some(frame) = self.staged.pop_front() {
            match wire.push(self.side, frame) {
                Ok(cost) => {
                    self.staged_cost -= cost;
                    moved = true;
                }
                Err(frame) => {
                    self.staged.push_front(frame);
                    break;
                }
            }
        }
        let (outgoing, _) = wire.pipes(self.side);
        let reader = if moved { outgoing.reader.take() } else { None };
        let written = self.staged.is_empty() || self.staged_cost < limit;
        let replaced = if written {
            None
        } else {
            outgoing.writer.replace(cx.waker().clone())
        };
        drop(wire);
        drop(replaced);
        if let Some(reader) = reader {
            reader.wake();
        }
        if written {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }
}

impl Transport for MemoryTransport {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, TransportError>>> {
        let mut wire = lock(&self.link.wire);
        if wire.cut {
            return Poll::Ready(Some(Err(TransportError::Lost(None))));
        }
        let stalled = wire.stalled;
        let (_, incoming) = wire.pipes(self.side);
        if !stalled {
            if let Some(frame) = incoming.frames.pop_front() {
                incoming.cost -= cost(&frame);
                let writer = incoming.writer.take();
                drop(wire);
                if let Some(writer) = writer {
                    writer.wake();
                }
                return Poll::Ready(Some(Ok(frame)));
            }
            match incoming.end {
                Some(End::Closed(code)) => {
                    self.close_code = Some(code);
                    return Poll::Ready(None);
                }
                Some(End::Dropped) => return Poll::Ready(Some(Err(TransportError::Lost(None)))),
                None => {}
            }
        }
        let replaced = incoming.reader.replace(cx.waker().clone());
        drop(wire);
        drop(replaced);
        Poll::Pending
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        if self.staged_cost < self.capacity.max(1) {
            let lost = lock(&self.link.wire).is_lost_to_writer(self.side);
            return Poll::Ready(if lost {
                Err(TransportError::Lost(None))
            } else {
                Ok(())
            });
        }
        self.poll_write(cx, self.capacity.max(1))
    }

    fn start_send(&mut self, frame: Bytes) -> Result<(), TransportError> {
        if lock(&self.link.wire).is_lost_to_writer(self.side) {
            return Err(TransportError::Lost(None));
        }
        self.staged_cost += cost(&frame);
        self.staged.push_back(frame);
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.poll_write(cx, 0)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>, code: u16) -> Poll<()> {
        if ready!(self.poll_flush(cx)).is_ok() {
            let mut wire = lock(&self.link.wire);
            let (outgoing, _) = wire.pipes(self.side);
            outgoing.end.get_or_insert(End::Closed(code));
            let reader = outgoing.reader.take();
            drop(wire);
            if let Some(reader) = reader {
                reader.wake();
            }
        }
        Poll::Ready(())
    }

    fn close_code(&self) -> Option<u16> {
        self.close_code
    }
}

impl Drop for MemoryTransport {
    fn drop(&mut self) {
        let mut wire = lock(&self.link.wire);
        let (outgoing, incoming) = wire.pipes(self.side);
        outgoing.end.get_or_insert(End::Dropped);
        incoming.reader_gone = true;
        let unread = incoming.clear();
        let wakers = wire.wakers();
        drop(wire);
        drop(unread);
        wake(wakers);
    }
}

impl fmt::Debug for MemoryTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryTransport")
            .field("staged", &self.staged.len())
            .finish_non_exhaustive()
    }
}

/// Breaks and holds up one connection, from outside of it.
#[derive(Clone)]
pub struct MemoryLink {
    wire: Arc<Mutex<Wire>>,
}

impl MemoryLink {
    /// Breaks the connection at once: what had not been read is gone, and both sides find it lost.
    pub fn cut(&self) {
        let mut wire = lock(&self.wire);
        wire.cut = true;
        let unread = (wire.up.clear(), wire.down.clear());
        let wakers = wire.wakers();
        drop(wire);
        drop(unread);
        wake(wakers);
    }

    /// Holds the connection up, or lets it go on. While it is held up nothing arrives, neither frames nor the
    /// news that the other side closed or is gone, and nothing fails: what a half-open connection looks like.
    pub fn stall(&self, stalled: bool) {
        let mut wire = lock(&self.wire);
        wire.stalled = stalled;
        let wakers = wire.wakers();
        drop(wire);
        wake(wakers);
    }

    /// Whether it is neither cut, nor closed, nor dropped by either side.
    #[must_use]
    pub fn is_live(&self) -> bool {
        let wire = lock(&self.wire);
        !wire.cut && wire.up.end.is_none() && wire.down.end.is_none()
    }

    /// What went through it so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        let wire = lock(&self.wire);
        *lock(&wire.traffic)
    }
}

impl fmt::Debug for MemoryLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryLink")
            .field("live", &self.is_live())
            .finish_non_exhaustive()
    }
}

/// What was sent over one or several connections, counted when it leaves the sender.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// From the side that dialed; the first of a [`pair`].
    pub up: Count,
    /// To the side that dialed.
    pub down: Count,
}

/// A number of frames and their bytes together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Number of frames.
    pub frames: u64,
    /// Bytes in them.
    pub bytes: u64,
}

#[derive(Clone, Copy)]
enum Side {
    First,
    Second,
}

struct Wire {
    /// From the first side to the second.
    up: Pipe,
    down: Pipe,
    cut: bool,
    stalled: bool,
    /// What each pipe may cost.
    capacity: usize,
    traffic: Arc<Mutex<Traffic>>,
}

#[derive(Default)]
struct Pipe {
    frames: VecDeque<Bytes>,
    /// Sum over `frames`.
    cost: usize,
    /// Why no more frames follow.
    end: Option<End>,
    reader_gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Clone, Copy)]
enum End {
    Closed(u16),
    Dropped,
}

impl Wire {
    /// Outgoing and incoming, as this side sees them.
    const fn pipes(&mut self, side: Side) -> (&mut Pipe, &mut Pipe) {
        match side {
            Side::First => (&mut self.up, &mut self.down),
            Side::Second => (&mut self.down, &mut self.up),
        }
    }

    const fn is_lost_to_writer(&self, side: Side) -> bool {
        let outgoing = match side {
            Side::First => &self.up,
            Side::Second => &self.down,
        };
        self.cut || (outgoing.reader_gone && !self.stalled)
    }

    /// Puts a frame into the side's outgoing pipe and returns its cost, or gives it back if there is no room.
    fn push(&mut self, side: Side, frame: Bytes) -> Result<usize, Bytes> {
        let (cost, capacity) = (cost(&frame), self.capacity);
        let (outgoing, _) = self.pipes(side);
        if !outgoing.frames.is_empty() && outgoing.cost.saturating_add(cost) > capacity {
            return Err(frame);
        }
        let bytes = u64::try_from(frame.len()).unwrap_or(u64::MAX);
        outgoing.frames.push_back(frame);
        outgoing.cost += cost;
        let mut traffic = lock(&self.traffic);
        let count = match side {
            Side::First => &mut traffic.up,
            Side::Second => &mut traffic.down,
        };
        count.frames += 1;
        count.bytes += bytes;
        Ok(cost)
    }

    /// Those of everybody who waits, to wake outside the lock.
    fn wakers(&mut self) -> [Option<Waker>; 4] {
        [
            self.up.reader.take(),
            self.up.writer.take(),
            self.down.reader.take(),
            self.down.writer.take(),
        ]
    }
}

impl Pipe {
    /// Takes what is in it, to drop outside the lock.
    fn clear(&mut self) -> VecDeque<Bytes> {
        self.cost = 0;
        std::mem::take(&mut self.frames)
    }
}

fn wake(wakers: [Option<Waker>; 4]) {
    wakers.into_iter().flatten().for_each(Waker::wake);
}

/// What a frame counts against a capacity: empty ones take room too.
fn cost(frame: &Bytes) -> usize {
    const PER_FRAME: usize = 16;
    frame.len() + PER_FRAME
}

#[cfg(test)]
mod tests;
