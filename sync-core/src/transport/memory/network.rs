//! Dialers, an acceptor, and the network between them, which tests can break.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use async_trait::async_trait;

use super::{MemoryLink, MemoryTransport, Traffic, connect};
use crate::transport::{Acceptor, DialError, Dialer, PeerInfo, Transport, TransportError};
use crate::watch::lock;

/// Connects the dialers it makes with the acceptor it makes. Clones are the same network.
///
/// For tests: connections can be cut and held up, dials made to fail, and what passes is counted.
#[derive(Clone)]
pub struct MemoryNetwork {
    state: Arc<Mutex<State>>,
}

impl MemoryNetwork {
    /// A network on which nobody listens yet. Its connections hold 256 KiB each way, about as a socket does.
    #[must_use]
    pub fn new() -> Self {
        Self::with_capacity(256 * 1024)
    }

    /// A network whose connections hold about `capacity` bytes each way; see [`pair`](super::pair).
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        let state = State {
            capacity,
            online: true,
            refusing: false,
            closed: false,
            listener: None,
            next_listener: 0,
            waiting: VecDeque::new(),
            accepting: None,
            links: Vec::new(),
            dials: 0,
            traffic: Arc::default(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Something that dials over this network; all of them reach the same acceptor.
    #[must_use]
    pub fn dialer(&self) -> MemoryDialer {
        MemoryDialer {
            network: self.clone(),
        }
    }

    /// Listens from now on, in the place of an older acceptor, which ends. Until there is one, and after it is
    /// dropped, dials fail as unreachable.
    #[must_use]
    pub fn acceptor(&self) -> MemoryAcceptor {
        let mut state = lock(&self.state);
        state.next_listener += 1;
        let number = state.next_listener;
        state.listener = Some(number);
        let older = state.accepting.take();
        drop(state);
        if let Some(older) = older {
            older.wake();
        }
        MemoryAcceptor {
            network: self.clone(),
            number,
        }
    }

    /// Whether dials reach anybody: offline, they fail as unreachable. Connections that exist are left alone.
    pub fn set_online(&self, online: bool) {
        lock(&self.state).online = online;
    }

    /// Whether dials are refused for good ([`DialError::Refused`]).
    pub fn set_refusing(&self, refusing: bool) {
        lock(&self.state).refusing = refusing;
    }

    /// Cuts every connection and returns how many there were; see [`MemoryLink::cut`].
    pub fn cut(&self) -> usize {
        let live = self.live();
        live.iter().for_each(MemoryLink::cut);
        live.len()
    }

    /// Cuts one connection, the `n`-th live one in the order of dialing, from 0; false if there are not as many.
    pub fn cut_nth(&self, n: usize) -> bool {
        let live = self.live();
        let link = live.get(n);
        link.map(MemoryLink::cut);
        link.is_some()
    }

    /// Cuts one connection, chosen by the seed; false if there is none.
    pub fn cut_random(&self, seed: u64) -> bool {
        // Steele, Lea, Flood, "Fast splittable pseudorandom number generators": the finaliser of SplitMix64.
        let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let count = u64::try_from(self.connections()).unwrap_or(u64::MAX).max(1);
        usize::try_from((mixed ^ (mixed >> 31)) % count).is_ok_and(|n| self.cut_nth(n))
    }

    /// Holds up every connection there is, or lets them go on; see [`MemoryLink::stall`]. Connections made
    /// while others are held up are not.
    pub fn stall(&self, stalled: bool) {
        for link in self.live() {
            link.stall(stalled);
        }
    }

    /// Number of live connections, those not accepted yet included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.live().len()
    }

    /// The live connections in the order of dialing.
    #[must_use]
    pub fn links(&self) -> Vec<MemoryLink> {
        self.live()
    }

    /// How often anybody dialed, with or without success.
    #[must_use]
    pub fn dials(&self) -> u64 {
        lock(&self.state).dials
    }

    /// What went over all connections so far, those that are gone included.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        let state = lock(&self.state);
        *lock(&state.traffic)
    }

    /// Ends the acceptor: it yields no more connections, and dials fail as unreachable from now on.
    pub fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        let (accepting, waiting) = (state.accepting.take(), std::mem::take(&mut state.waiting));
        drop(state);
        drop(waiting);
        if let Some(accepting) = accepting {
            accepting.wake();
        }
    }

    fn live(&self) -> Vec<MemoryLink> {
        let mut state = lock(&self.state);
        state.links.retain(MemoryLink::is_live);
        state.links.clone()
    }

    fn dial(&self) -> Result<MemoryTransport, DialError> {
        let mut state = lock(&self.state);
        state.dials += 1;
        if state.refusing {
            return Err(DialError::Refused("the network refuses connections".into()));
        }
        if !state.online || state.closed || state.listener.is_none() {
            let why = if state.online {
                "nobody listens"
            } else {
                "the network is down"
            };
            return Err(DialError::Unreachable(why.into()));
        }
        if state.waiting.len() >= BACKLOG_MAX {
            return Err(DialError::Unreachable(
                "too many connections wait to be accepted".into(),
            ));
        }
        let (dialed, accepted) = connect(state.capacity, Arc::clone(&state.traffic));
        state.links.retain(MemoryLink::is_live);
        state.links.push(dialed.link());
        state.waiting.push_back(accepted);
        let accepting = state.accepting.take();
        drop(state);
        if let Some(accepting) = accepting {
            accepting.wake();
        }
        Ok(dialed)
    }
}

impl Default for MemoryNetwork {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryNetwork")
            .field("connections", &self.connections())
            .finish_non_exhaustive()
    }
}

/// Dials over a [`MemoryNetwork`].
#[derive(Debug, Clone)]
pub struct MemoryDialer {
    network: MemoryNetwork,
}

#[cfg_attr(not(target_arch = "wasm32"), async_trait)]
#[cfg_attr(target_arch = "wasm32", async_trait(?Send))]
impl Dialer for MemoryDialer {
    async fn dial(&self) -> Result<Box<dyn Transport>, DialError> {
        Ok(Box::new(self.network.dial()?))
    }
}

/// Accepts what is dialed over a [`MemoryNetwork`]. Dropping it ends the connections that it had not accepted.
#[derive(Debug)]
pub struct MemoryAcceptor {
    network: MemoryNetwork,
    number: u64,
}

#[cfg_attr(not(target_arch = "wasm32"), async_trait)]
#[cfg_attr(target_arch = "wasm32", async_trait(?Send))]
impl Acceptor for MemoryAcceptor {
    async fn accept(&mut self) -> Option<Result<(Box<dyn Transport>, PeerInfo), TransportError>> {
        poll_fn(|cx| {
            let mut state = lock(&self.network.state);
            if state.closed || state.listener != Some(self.number) {
                return Poll::Ready(None);
            }
            if let Some(transport) = state.waiting.pop_front() {
                let transport: Box<dyn Transport> = Box::new(transport);
                return Poll::Ready(Some(Ok((transport, PeerInfo::default()))));
            }
            let replaced = state.accepting.replace(cx.waker().clone());
            drop(state);
            drop(replaced);
            Poll::Pending
        })
        .await
    }
}

impl Drop for MemoryAcceptor {
    fn drop(&mut self) {
        let mut state = lock(&self.network.state);
        if state.listener == Some(self.number) {
            state.listener = None;
            let waiting = std::mem::take(&mut state.waiting);
            drop(state);
            drop(waiting);
        }
    }
}

struct State {
    /// Of each direction of a connection, in bytes.
    capacity: usize,
    online: bool,
    refusing: bool,
    closed: bool,
    /// Number of the acceptor that is in charge.
    listener: Option<u64>,
    next_listener: u64,
    /// Dialed and not accepted yet, at most [`BACKLOG_MAX`].
    waiting: VecDeque<MemoryTransport>,
    /// The acceptor, if it waits.
    accepting: Option<Waker>,
    /// In the order of dialing; dead ones are removed at the next look.
    links: Vec<MemoryLink>,
    dials: u64,
    traffic: Arc<Mutex<Traffic>>,
}

/// As many connections as may wait to be accepted; chosen large enough for tests of thousands of clients.
const BACKLOG_MAX: usize = 16_384;
