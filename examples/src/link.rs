//! Connections that are counted and can be broken: a dialer around another dialer.
//!
//! This is all it takes to put something between a client and its transport.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::task::AtomicWaker;
use sync_client::transport::{DialError, Dialer, Transport, TransportError};
use tokio::sync::watch;

/// All connections of the dialers that it made. Clones are the same connections.
#[derive(Debug, Clone)]
pub struct Links {
    live: Arc<Mutex<Vec<Arc<Link>>>>,
    n_live: watch::Sender<usize>,
    counters: Arc<Counters>,
}

/// What went over WebSocket connections: frames, and their bytes with the headers of RFC 6455, as clients see them.
///
/// Not counted: TCP and IP, the HTTP request that opens a connection, WebSocket's own pings and closes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Connections made.
    pub connections: u64,
    /// Frames from clients to the server.
    pub frames_up: u64,
    /// Their bytes.
    pub bytes_up: u64,
    /// Frames from the server to clients.
    pub frames_down: u64,
    /// Their bytes.
    pub bytes_down: u64,
}

impl Links {
    /// No connections yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            live: Arc::default(),
            n_live: watch::channel(0).0,
            counters: Arc::default(),
        }
    }

    /// The same connections, where those made from here on through the one returned count apart.
    #[must_use]
    pub fn counted_apart(&self) -> Self {
        Self {
            counters: Arc::default(),
            ..self.clone()
        }
    }

    /// A dialer whose connections are counted here.
    pub fn dialer(&self, dialer: impl Dialer) -> LinkDialer {
        LinkDialer {
            dialer: Box::new(dialer),
            links: self.clone(),
        }
    }

    /// What went over all of them so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Traffic {
            connections: count(&self.counters.connections),
            frames_up: count(&self.counters.frames_up),
            bytes_up: count(&self.counters.bytes_up),
            frames_down: count(&self.counters.frames_down),
            bytes_down: count(&self.counters.bytes_down),
        }
    }

    /// Breaks one live connection, waiting for one if there is none: what is on its way either way is lost.
    ///
    /// `choose` is given their number, and says which.
    ///
    /// # Cancellation
    /// Safe: no connection is broken.
    pub async fn cut_one(&self, choose: impl Fn(usize) -> usize) {
        let mut n_live = self.n_live.subscribe();
        loop {
            // `self` holds the sender, so this does not fail.
            let _ = n_live.wait_for(|n| *n > 0).await;
            let link = {
                let live = lock(&self.live);
                live.get(choose(live.len())).cloned()
            };
            if let Some(link) = link {
                self.forget(&link);
                link.is_cut.store(true, Ordering::Release);
                link.reader.wake();
                return;
            }
        }
    }

    /// Breaks all live connections at once: what is on its way is lost. Says how many.
    pub fn cut_all(&self) -> usize {
        let cut = std::mem::take(&mut *lock(&self.live));
        self.n_live.send_replace(0);
        for link in &cut {
            link.is_cut.store(true, Ordering::Release);
            link.reader.wake();
        }
        cut.len()
    }

    fn add(&self, link: &Arc<Link>) {
        self.counters.connections.fetch_add(1, Ordering::Relaxed);
        let mut live = lock(&self.live);
        live.push(link.clone());
        self.n_live.send_replace(live.len());
    }

    fn forget(&self, link: &Arc<Link>) {
        let mut live = lock(&self.live);
        live.retain(|other| !Arc::ptr_eq(other, link));
        self.n_live.send_replace(live.len());
    }
}

impl Default for Links {
    fn default() -> Self {
        Self::new()
    }
}

/// Dials with another dialer, which it was made from by [`Links::dialer`].
pub struct LinkDialer {
    dialer: Box<dyn Dialer>,
    links: Links,
}

impl fmt::Debug for LinkDialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkDialer").finish_non_exhaustive()
    }
}

#[async_trait]
impl Dialer for LinkDialer {
    async fn dial(&self) -> Result<Box<dyn Transport>, DialError> {
        let transport = self.dialer.dial().await?;
        let link = Arc::new(Link::default());
        self.links.add(&link);
        Ok(Box::new(LinkTransport {
            transport,
            link,
            links: self.links.clone(),
        }))
    }
}

#[derive(Debug, Default)]
struct Link {
    is_cut: AtomicBool,
    /// Whoever waits for a frame: it must hear of the cut.
    reader: AtomicWaker,
}

#[derive(Debug, Default)]
struct Counters {
    connections: AtomicU64,
    frames_up: AtomicU64,
    bytes_up: AtomicU64,
    frames_down: AtomicU64,
    bytes_down: AtomicU64,
}

struct LinkTransport {
    transport: Box<dyn Transport>,
    link: Arc<Link>,
    links: Links,
}

impl LinkTransport {
    fn check(&self) -> Result<(), TransportError> {
        if self.link.is_cut.load(Ordering::Acquire) {
            Err(TransportError::Lost(None))
        } else {
            Ok(())
        }
    }
}

impl Transport for LinkTransport {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, TransportError>>> {
        self.link.reader.register(cx.waker());
        if let Err(lost) = self.check() {
            return Poll::Ready(Some(Err(lost)));
        }
        let received = self.transport.poll_receive(cx);
        if let Poll::Ready(Some(Ok(frame))) = &received {
            let counters = &self.links.counters;
            counters.frames_down.fetch_add(1, Ordering::Relaxed);
            let bytes = frame.len() + header_bytes(frame.len());
            counters
                .bytes_down
                .fetch_add(wide(bytes), Ordering::Relaxed);
        }
        received
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.check()?;
        self.transport.poll_ready(cx)
    }

    fn start_send(&mut self, frame: Bytes) -> Result<(), TransportError> {
        self.check()?;
        let counters = &self.links.counters;
        counters.frames_up.fetch_add(1, Ordering::Relaxed);
        let bytes = frame.len() + header_bytes(frame.len()) + MASK_BYTES;
        counters.bytes_up.fetch_add(wide(bytes), Ordering::Relaxed);
        self.transport.start_send(frame)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.check()?;
        self.transport.poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>, code: u16) -> Poll<()> {
        if self.check().is_err() {
            return Poll::Ready(());
        }
        self.transport.poll_close(cx, code)
    }

    fn close_code(&self) -> Option<u16> {
        self.transport.close_code()
    }
}

impl Drop for LinkTransport {
    fn drop(&mut self) {
        self.links.forget(&self.link);
    }
}

/// What a client puts into each header besides (RFC 6455 section 5.2).
const MASK_BYTES: usize = 4;

/// Header of a WebSocket frame of `len` bytes without mask (RFC 6455 section 5.2).
const fn header_bytes(len: usize) -> usize {
    match len {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    }
}

fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
