//! The task that reads the clock, moves bytes, and does what the machine asks for.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use sync_core::client::{AttemptId, ClientEvent, ClientState, Extension, Output, StoreWrite};
use sync_core::error::{ErrorCode, PeerError};
use sync_core::ids::DocumentId;
use sync_core::time::Time;
use sync_core::transport::{DialError, Dialer, Transport, TransportError};
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::cell::{Entry, lock};
use crate::credentials::{Asking, Credentials};
use crate::shared::Shared;
use crate::store::{ClientStore, StoreError};

/// Frames taken from the transport in one turn, before others get the thread.
const FRAMES_PER_TURN: usize = 64;

/// Delay before a write that failed is made again.
const RETRY_STORE: Duration = Duration::from_secs(1);

/// Time that a connection has for its last frames and its goodbye.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// Time after which a document is tried again that a transaction of the application held.
const BUSY_DELAY: Duration = Duration::from_millis(5);

type Storing = Pin<Box<dyn Future<Output = Stored> + Send>>;

/// A write that the store has carried out, or not.
type Stored = (DocumentId, u64, StoreWrite, Result<(), StoreError>);

type Dialing = Pin<Box<dyn Future<Output = Dialed> + Send>>;

/// A connection, and the credentials for it, if there are fresh ones.
type Dialed = Result<(Box<dyn Transport>, Option<Bytes>), DialError>;

/// Runs until the client is dropped or shut down.
pub(crate) async fn drive(
    shared: Arc<Shared>,
    dialer: Arc<dyn Dialer>,
    credentials: Option<Credentials>,
) {
    let mut driver = Driver {
        shared,
        dialer,
        credentials,
        asking: None,
        dialing: None,
        connection: None,
        unwritten: VecDeque::new(),
        storing: None,
        ending: None,
        has_saved: false,
    };
    if let Some(store) = driver.shared.store.clone()
        && let Err(error) = deliver(&driver.shared, &*store).await
    {
        driver.shared.store_failed(&error);
    }
    while driver.turn() {
        let deadline = {
            let core = driver.shared.core();
            let deadline = core.state.poll_timeout().into_iter();
            deadline
                .chain(driver.ending)
                .min()
                .map(|at| core.instant(at))
        };
        let input = driver.next_input(deadline).await;
        driver.handle(input);
    }
    driver.finish_writing().await;
    driver.shared.ended.set(Some(driver.has_saved));
}

struct Driver {
    shared: Arc<Shared>,
    dialer: Arc<dyn Dialer>,
    credentials: Option<Credentials>,
    /// Fresh credentials for the connection that is there.
    asking: Option<Asking>,
    dialing: Option<(AttemptId, Dialing)>,
    connection: Option<Connection>,
    /// Writes that the store has not carried out, in order; neighbours of one document are one.
    unwritten: VecDeque<(DocumentId, u64, StoreWrite)>,
    storing: Option<Storing>,
    /// A shutdown is waiting for the outbox, until then.
    ending: Option<Time>,
    /// Whether the server had everything when it ended.
    has_saved: bool,
}

struct Connection {
    attempt: AttemptId,
    transport: Box<dyn Transport>,
    /// Frames that the transport has not taken. At most the push window, what opens documents, and as many broadcasts as
    /// the [backlog](Shared::backlog) allows.
    unsent: VecDeque<Bytes>,
    unsent_bytes: usize,
    /// Who is told how many bytes wait, as long as this is the connection.
    shared: Option<Arc<Shared>>,
    unflushed: bool,
    /// Found out behind frames that had to be handed over first.
    end: Option<Input>,
}

enum Input {
    Woken,
    Timeout,
    Dialed(AttemptId, Dialed),
    Credentials(Bytes),
    Frames(AttemptId, Vec<Bytes>),
    Lost(AttemptId, Option<u16>),
    Broken(AttemptId, PeerError),
    Stored(Box<Stored>),
}

impl Driver {
    /// Does what the machine asks for. Whether to go on.
    fn turn(&mut self) -> bool {
        let mut touched = false;
        loop {
            let outputs: Vec<Output> = {
                let mut core = self.shared.core();
                std::iter::from_fn(|| core.state.poll_output()).collect()
            };
            if outputs.is_empty() {
                break;
            }
            for output in outputs {
                touched |= self.perform(output);
            }
        }
        for document in self.shared.take_woken() {
            if let Some(entry) = self.shared.entry(&document)
                && entry.claim_dirty()
            {
                self.run_jobs(entry);
            }
        }
        if touched {
            self.publish();
        }
        if let Some(deadline) = self.shared.take_ending() {
            self.ending = Some(self.shared.core().now() + deadline);
        }
        let (saved, now) = {
            let core = self.shared.core();
            (core.state.unsaved().next().is_none(), core.now())
        };
        let ends = self.ending.is_some_and(|at| saved || at <= now);
        if !ends && !self.shared.is_stopped() {
            return true;
        }
        self.stop();
        self.has_saved = saved;
        false
    }

    fn stop(&mut self) {
        self.shared.stop();
        self.shared.core().state.disconnect();
        let outputs: Vec<Output> = {
            let mut core = self.shared.core();
            std::iter::from_fn(|| core.state.poll_output()).collect()
        };
        for output in outputs {
            self.perform(output);
        }
        self.publish();
        // Whoever waits on a document is told that nothing will come.
        let entries = std::mem::take(&mut *lock(&self.shared.documents));
        for entry in entries.into_values() {
            self.shared.update(&entry);
        }
    }

    fn publish(&self) {
        let status = self.shared.core().state.status();
        self.shared.status.set(status);
        self.shared.update_unsaved();
    }

    /// Whether what the application can watch may have changed.
    fn perform(&mut self, output: Output) -> bool {
        match output {
            Output::Dial(attempt) => {
                let dialing = dial(self.dialer.clone(), self.credentials.clone());
                self.dialing = Some((attempt, Box::pin(dialing)));
                true
            }
            Output::Credentials => {
                self.asking = self.credentials.as_ref().map(Credentials::ask);
                false
            }
            Output::Send {
                attempt,
                frame,
                urgent,
            } => {
                if let Some(connection) = self.connection.as_mut().filter(|c| c.attempt == attempt)
                {
                    connection.count(|bytes| bytes.saturating_add(frame.len()));
                    if urgent {
                        connection.unsent.push_front(frame);
                    } else {
                        connection.unsent.push_back(frame);
                    }
                }
                false
            }
            Output::Hangup { attempt, code } => {
                self.dialing.take_if(|(dialing, _)| *dialing == attempt);
                if let Some(connection) = self.connection.take_if(|c| c.attempt == attempt) {
                    tokio::spawn(connection.say_goodbye(code));
                }
                true
            }
            Output::Job {
                document,
                number,
                job,
            } => {
                if let Some(entry) = self.shared.entry(&document)
                    && entry.queue(number, job)
                {
                    self.run_jobs(entry);
                }
                false
            }
            Output::Store {
                document,
                number,
                write,
            } => {
                match self.unwritten.back_mut() {
                    Some((last, through, before)) if *last == document => {
                        *through = number;
                        before.merge(*write);
                    }
                    _ => self.unwritten.push_back((document, number, *write)),
                }
                false
            }
            Output::Broadcast {
                document,
                broadcast,
            } => {
                if let Some(entry) = self.shared.entry(&document) {
                    entry.broadcasts.deliver(broadcast);
                }
                false
            }
            Output::Extension(extension) => {
                match extension {
                    Extension::Received { kind, .. }
                        if !self.shared.extensions.has_subscribers() =>
                    {
                        self.shared.events.send(ClientEvent::Ignored { kind });
                    }
                    extension => self.shared.extensions.send(extension),
                }
                false
            }
            Output::Event(event) => {
                self.shared.events.send(event);
                true
            }
            Output::DocumentEvent { document, event } => {
                if let Some(entry) = self.shared.entry(&document) {
                    entry.happened(event);
                }
                false
            }
            Output::Touched(document) => {
                if let Some(entry) = self.shared.entry(&document) {
                    self.shared.update(&entry);
                }
                true
            }
            Output::Presence(document) => {
                if let Some(entry) = self.shared.entry(&document) {
                    entry.rosters.update(&self.shared, &entry);
                }
                false
            }
            Output::Forgotten(document) => {
                let mut documents = lock(&self.shared.documents);
                // It may have been opened again meanwhile.
                if self.shared.live_entry(&documents, &document).is_none() {
                    documents.remove(&document);
                }
                true
            }
            _ => false,
        }
    }

    fn run_jobs(&self, entry: Arc<Entry>) {
        run_jobs(self.shared.clone(), entry);
    }

    async fn next_input(&mut self, deadline: Option<Instant>) -> Input {
        let shared = self.shared.clone();
        let timeout = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = shared.wake.notified() => Input::Woken,
            input = poll_fn(|cx| self.poll_link(cx)) => input,
            () = timeout => Input::Timeout,
        }
    }

    fn poll_link(&mut self, cx: &mut Context<'_>) -> Poll<Input> {
        if let Poll::Ready(stored) = self.poll_store(cx) {
            return Poll::Ready(Input::Stored(Box::new(stored)));
        }
        if let Some((attempt, dialing)) = &mut self.dialing
            && let Poll::Ready(result) = dialing.as_mut().poll(cx)
        {
            let attempt = *attempt;
            self.dialing = None;
            return Poll::Ready(Input::Dialed(attempt, result));
        }
        if let Some(asking) = &mut self.asking
            && let Poll::Ready(answer) = asking.as_mut().poll(cx)
        {
            self.asking = None;
            match answer {
                Ok(credentials) => return Poll::Ready(Input::Credentials(credentials)),
                // The server asks once; when it ends the session, they are asked for again.
                Err(error) => tracing::warn!(%error, "no fresh credentials"),
            }
        }
        match &mut self.connection {
            Some(connection) => connection.poll(cx),
            None => Poll::Pending,
        }
    }

    /// One write at a time, so that they are carried out in order.
    fn poll_store(&mut self, cx: &mut Context<'_>) -> Poll<Stored> {
        let Some(store) = &self.shared.store else {
            return Poll::Pending;
        };
        if self.storing.is_none()
            && let Some((document, number, write)) = self.unwritten.pop_front()
        {
            self.storing = Some(write_to(
                store.clone(),
                document,
                number,
                write,
                Duration::ZERO,
            ));
        }
        let Some(storing) = &mut self.storing else {
            return Poll::Pending;
        };
        let stored = std::task::ready!(storing.as_mut().poll(cx));
        self.storing = None;
        Poll::Ready(stored)
    }

    /// Finishes what is to be written, unless the store fails.
    async fn finish_writing(&mut self) {
        while self.storing.is_some() || !self.unwritten.is_empty() {
            let (document, number, _, result) = poll_fn(|cx| self.poll_store(cx)).await;
            if let Err(error) = result {
                return self.shared.store_failed(&error);
            }
            let mut core = self.shared.core();
            let now = core.now();
            core.state.handle_stored(now, &document, number);
        }
    }

    fn handle(&mut self, input: Input) {
        let shared = self.shared.clone();
        let mut core = shared.core();
        let now = core.now();
        let state: &mut ClientState = &mut core.state;
        match input {
            Input::Woken => {}
            Input::Timeout => {}
            Input::Credentials(credentials) => state.handle_credentials(credentials),
            Input::Dialed(attempt, Ok((transport, credentials))) => {
                self.connection = Some(Connection {
                    attempt,
                    transport,
                    unsent: VecDeque::new(),
                    unsent_bytes: 0,
                    shared: Some(Arc::clone(&shared)),
                    unflushed: false,
                    end: None,
                });
                shared.backlog.store(0, Ordering::Relaxed);
                if let Some(credentials) = credentials {
                    state.set_credentials(credentials);
                }
                state.handle_connected(now, attempt);
            }
            Input::Dialed(attempt, Err(error)) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::debug!(%error, cause, "no connection");
                state.handle_dial_failed(now, attempt, error);
            }
            Input::Frames(attempt, frames) => {
                for frame in frames {
                    state.handle_frame(now, attempt, frame);
                }
            }
            Input::Stored(stored) => {
                let (document, number, write, result) = *stored;
                match (result, &shared.store) {
                    (Err(error), Some(store)) => {
                        // Nothing may overtake it, so it is made again until it succeeds.
                        let store = store.clone();
                        self.storing = Some(write_to(store, document, number, write, RETRY_STORE));
                        drop(core);
                        return shared.store_failed(&error);
                    }
                    _ => state.handle_stored(now, &document, number),
                }
            }
            Input::Lost(attempt, close_code) => {
                self.connection = None;
                state.handle_lost(now, attempt, close_code);
            }
            // The connection stays for the goodbye.
            Input::Broken(attempt, error) => state.handle_broken(now, attempt, error),
        }
        // Also when something else came first: a deadline may have passed meanwhile.
        state.handle_timeout(now);
    }
}

async fn dial(dialer: Arc<dyn Dialer>, credentials: Option<Credentials>) -> Dialed {
    let fresh = match credentials {
        Some(credentials) => {
            let asked = credentials.ask().await;
            Some(asked.inspect_err(|error| tracing::warn!(%error, "no credentials")))
        }
        None => None,
    };
    let fresh = fresh.transpose().map_err(DialError::Unreachable)?;
    Ok((dialer.dial().await?, fresh))
}

/// Engine work is done on a blocking thread, never on an async worker. While it runs the runtime is not idle, so a paused
/// clock waits for it too.
fn run_jobs(shared: Arc<Shared>, entry: Arc<Entry>) {
    tokio::task::spawn_blocking(move || {
        if entry.run(&shared) || shared.is_stopped() {
            return;
        }
        // Not waited for here: the application may need this lock to get on with its transaction.
        Handle::current().spawn(async move {
            tokio::time::sleep(BUSY_DELAY).await;
            run_jobs(shared, entry);
        });
    });
}

fn write_to(
    store: Arc<dyn ClientStore>,
    document: DocumentId,
    number: u64,
    write: StoreWrite,
    delay: Duration,
) -> Storing {
    Box::pin(async move {
        tokio::time::sleep(delay).await;
        let result = store.commit(&document, &write).await;
        (document, number, write, result)
    })
}

/// Hands the machine what the store has to deliver of documents that are not open. Whether that could be read.
async fn deliver(shared: &Shared, store: &dyn ClientStore) -> Result<(), StoreError> {
    for (document, outbox) in store.list().await? {
        if outbox > 0
            && shared.entry(&document).is_none()
            && let Some(stored) = store.load(&document).await?
        {
            shared.command(|state, now| state.deliver(now, &document, stored));
        }
    }
    Ok(())
}

impl Connection {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Input> {
        let mut frames = Vec::new();
        while self.end.is_none() && frames.len() < FRAMES_PER_TURN {
            match self.transport.poll_receive(cx) {
                Poll::Ready(Some(Ok(frame))) => frames.push(frame),
                Poll::Ready(Some(Err(error))) => self.end = Some(self.broken(&error)),
                Poll::Ready(None) => self.end = Some(self.lost()),
                Poll::Pending => break,
            }
        }
        if !frames.is_empty() {
            return Poll::Ready(Input::Frames(self.attempt, frames));
        }
        if let Some(end) = self.end.take() {
            return Poll::Ready(end);
        }
        match self.poll_send(cx) {
            Err(()) => Poll::Ready(Input::Lost(self.attempt, None)),
            Ok(()) => Poll::Pending,
        }
    }

    fn lost(&self) -> Input {
        Input::Lost(self.attempt, self.transport.close_code())
    }

    fn broken(&self, error: &TransportError) -> Input {
        let code = match error {
            TransportError::WrongProtocol(_) => ErrorCode::WrongProtocol,
            TransportError::TooLarge { .. } => ErrorCode::FrameTooLarge,
            _ => return self.lost(),
        };
        Input::Broken(self.attempt, PeerError::new(code, error.to_string()))
    }

    /// Sends what the transport takes. `Err` if it is broken.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), ()> {
        while !self.unsent.is_empty() {
            match self.transport.poll_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Err(()),
                Poll::Pending => return Ok(()),
            }
            if let Some(frame) = self.unsent.pop_front() {
                self.count(|bytes| bytes.saturating_sub(frame.len()));
                self.transport.start_send(frame).map_err(drop)?;
                self.unflushed = true;
            }
        }
        if self.unflushed {
            match self.transport.poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(_)) => return Err(()),
                Poll::Pending => {}
            }
        }
        Ok(())
    }

    fn count(&mut self, change: impl FnOnce(usize) -> usize) {
        self.unsent_bytes = change(self.unsent_bytes);
        if let Some(shared) = &self.shared {
            shared.backlog.store(self.unsent_bytes, Ordering::Relaxed);
        }
    }

    /// Sends what waits, then closes; not for long.
    async fn say_goodbye(mut self, code: u16) {
        self.shared = None;
        let goodbye = async {
            poll_fn(|cx| match self.poll_send(cx) {
                Ok(()) if self.unflushed || !self.unsent.is_empty() => Poll::Pending,
                _ => Poll::Ready(()),
            })
            .await;
            poll_fn(|cx| self.transport.poll_close(cx, code)).await;
        };
        // A peer that does not read its last frames misses them.
        let _ = tokio::time::timeout(GOODBYE_TIMEOUT, goodbye).await;
    }
}
