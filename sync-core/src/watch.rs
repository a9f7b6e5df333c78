//! State that is true now: one value, readable at once, that says when it changes.

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use futures_core::{FusedStream, Stream};

use crate::maybe_send::{MaybeSend, MaybeSync};

/// A new value to watch: the half that changes it, and one that reads it.
pub fn watch<T>(initial: T) -> (WatchSender<T>, Watch<T>) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            value: initial,
            version: 1,
            closed: false,
            next_key: 0,
            waiting: BTreeMap::new(),
            callbacks: BTreeMap::new(),
        }),
    });
    let reader = Watch::new(Arc::clone(&shared));
    (WatchSender { shared }, reader)
}

/// Changes the value of the [`Watch`]es made from it. Dropping it closes them; the last value stays readable.
pub struct WatchSender<T> {
    shared: Arc<Shared<T>>,
}

impl<T> WatchSender<T> {
    /// Replaces the value and tells every watcher, also if it is the same.
    pub fn send(&self, value: T) {
        let mut state = self.shared.lock();
        let old = std::mem::replace(&mut state.value, value);
        let listeners = state.changed();
        drop(state);
        // Dropped here, because its destructor may be anybody's.
        drop(old);
        listeners.tell();
    }

    /// Replaces the value; tells the watchers only if it differs, and returns whether it does.
    pub fn set(&self, value: T) -> bool
    where
        T: PartialEq,
    {
        let mut state = self.shared.lock();
        if state.value == value {
            return false;
        }
        let old = std::mem::replace(&mut state.value, value);
        let listeners = state.changed();
        drop(state);
        drop(old);
        listeners.tell();
        true
    }

    /// Changes the value in place; tells the watchers if `change` returns true. Returns what `change` returned.
    ///
    /// `change` runs while the value is locked: it must not use this watch.
    pub fn send_if_changed(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        let mut state = self.shared.lock();
        if !change(&mut state.value) {
            return false;
        }
        let listeners = state.changed();
        drop(state);
        listeners.tell();
        true
    }

    /// The current value.
    #[must_use]
    pub fn get(&self) -> T
    where
        T: Clone,
    {
        self.shared.lock().value.clone()
    }

    /// A reader that has seen nothing yet.
    #[must_use]
    pub fn watch(&self) -> Watch<T> {
        Watch::new(Arc::clone(&self.shared))
    }
}

impl<T> Drop for WatchSender<T> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed = true;
        let listeners = state.listeners();
        drop(state);
        listeners.tell();
    }
}

impl<T> fmt::Debug for WatchSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchSender").finish_non_exhaustive()
    }
}

/// A value that is true now, and changes.
///
/// Each `Watch` remembers which value it gave out last. A new one has given out none, so the first
/// [`changed`](Self::changed), [`take_changed`](Self::take_changed) or stream item is the current value:
/// reading first and waiting then misses nothing. Values that follow each other quickly may be skipped, the
/// last one never. A clone has seen what the original has. No lock can be held through a `Watch`.
///
/// As a [`Stream`] it gives the current value, then later ones, and ends when the writer is gone.
pub struct Watch<T> {
    shared: Arc<Shared<T>>,
    /// Version given out last, 0 for none.
    seen: u64,
    /// Key of our waker in `State::waiting`, once we had to wait.
    key: Option<u64>,
    /// The stream has ended.
    ended: bool,
}

impl<T> Watch<T> {
    fn new(shared: Arc<Shared<T>>) -> Self {
        Self {
            shared,
            seen: 0,
            key: None,
            ended: false,
        }
    }

    /// Whether the writer is gone, so that the value will not change any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.lock().closed
    }

    /// Calls `callback` after every change, and when the writer is gone, until the subscription is dropped.
    ///
    /// It is told that there is something new, not what: read the watch, here or later. It runs on the thread
    /// that makes the change, with no lock of ours held, so it should only signal. Changes made while it runs
    /// are told once more afterwards, together; it never runs twice at a time. If it panics, the panic stops
    /// there. It is not called for the value that is current now.
    pub fn notify(&self, callback: impl Fn() + MaybeSend + MaybeSync + 'static) -> Subscription
    where
        T: MaybeSend + 'static,
    {
        let callback = Arc::new(Callback {
            phase: Mutex::new(Phase::Idle),
            run: Box::new(callback),
        });
        let mut state = self.shared.lock();
        let key = state.key();
        state.callbacks.insert(key, Arc::clone(&callback));
        drop(state);
        let shared: Weak<dyn Forget> = Arc::<Shared<T>>::downgrade(&self.shared);
        Subscription {
            shared,
            key,
            callback,
        }
    }
}

impl<T: Clone> Watch<T> {
    /// The current value. Does not count as given out.
    #[must_use]
    pub fn get(&self) -> T {
        self.shared.lock().value.clone()
    }

    /// The current value if this `Watch` has not given it out yet. For loops that look once per frame.
    pub fn take_changed(&mut self) -> Option<T> {
        let state = self.shared.lock();
        if state.version == self.seen {
            return None;
        }
        self.seen = state.version;
        Some(state.value.clone())
    }

    /// Waits for a value that this `Watch` has not given out yet: at once, if there is one.
    ///
    /// # Errors
    /// [`Closed`] if the writer is gone and its last value was given out.
    ///
    /// # Cancellation
    /// Safe: a value counts as given out only when this returns it.
    pub async fn changed(&mut self) -> Result<T, Closed> {
        poll_fn(|cx| self.poll_changed(cx)).await
    }

    /// Waits until the value, the current one included, satisfies the condition, and returns it.
    ///
    /// # Errors
    /// [`Closed`] if the writer is gone and its last value does not satisfy it.
    ///
    /// # Cancellation
    /// Safe; values looked at count as given out.
    pub async fn wait_for(&mut self, mut condition: impl FnMut(&T) -> bool) -> Result<T, Closed> {
        let mut value = self.get();
        loop {
            if condition(&value) {
                return Ok(value);
            }
            value = self.changed().await?;
        }
    }

    /// [`changed`](Self::changed) for code that polls.
    pub fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, Closed>> {
        let mut state = self.shared.lock();
        if state.version != self.seen {
            self.seen = state.version;
            return Poll::Ready(Ok(state.value.clone()));
        }
        if state.closed {
            return Poll::Ready(Err(Closed));
        }
        let key = *self.key.get_or_insert_with(|| state.key());
        let replaced = state.waiting.insert(key, cx.waker().clone());
        drop(state);
        drop(replaced);
        Poll::Pending
    }
}

impl<T> Clone for Watch<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            seen: self.seen,
            key: None,
            ended: self.ended,
        }
    }
}

impl<T> Drop for Watch<T> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let waker = self.shared.lock().waiting.remove(&key);
            drop(waker);
        }
    }
}

impl<T: Clone> Stream for Watch<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.poll_changed(cx).map(|value| {
            self.ended = value.is_err();
            value.ok()
        })
    }
}

impl<T: Clone> FusedStream for Watch<T> {
    fn is_terminated(&self) -> bool {
        self.ended
    }
}

impl<T: fmt::Debug> fmt::Debug for Watch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.lock();
        f.debug_struct("Watch")
            .field("value", &state.value)
            .field("closed", &state.closed)
            .finish_non_exhaustive()
    }
}

/// The writer of a [`Watch`] is gone and its last value was given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nothing changes this value any more")]
pub struct Closed;

/// Keeps a callback of [`Watch::notify`] alive. Dropping it ends the calls; one that runs on another thread at
/// that moment is not waited for.
#[must_use = "the callback is called until this is dropped"]
pub struct Subscription {
    shared: Weak<dyn Forget>,
    key: u64,
    callback: Arc<Callback>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // A change under way may hold the callback already.
        *lock(&self.callback.phase) = Phase::Over;
        if let Some(shared) = self.shared.upgrade() {
            shared.forget(self.key);
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}

struct Shared<T> {
    state: Mutex<State<T>>,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        lock(&self.state)
    }
}

struct State<T> {
    value: T,
    /// Counts changes from 1.
    version: u64,
    closed: bool,
    /// For the next entry of `waiting` or `callbacks`.
    next_key: u64,
    /// At most one per reader.
    waiting: BTreeMap<u64, Waker>,
    callbacks: BTreeMap<u64, Arc<Callback>>,
}

impl<T> State<T> {
    fn key(&mut self) -> u64 {
        self.next_key += 1;
        self.next_key
    }

    fn changed(&mut self) -> Listeners {
        self.version += 1;
        self.listeners()
    }

    /// Those to tell, outside the lock. Allocates nothing if there are none.
    fn listeners(&mut self) -> Listeners {
        Listeners {
            wakers: std::mem::take(&mut self.waiting),
            callbacks: self.callbacks.values().cloned().collect(),
        }
    }
}

struct Listeners {
    wakers: BTreeMap<u64, Waker>,
    callbacks: Vec<Arc<Callback>>,
}

impl Listeners {
    fn tell(self) {
        for waker in self.wakers.into_values() {
            waker.wake();
        }
        for callback in self.callbacks {
            callback.call();
        }
    }
}

trait Notify: Fn() + MaybeSend + MaybeSync {}
impl<F: Fn() + MaybeSend + MaybeSync> Notify for F {}

struct Callback {
    phase: Mutex<Phase>,
    run: Box<dyn Notify>,
}

/// ```text
/// Idle ── change ──▶ Running ── change ──▶ Again
///   ◀──── done ─────────┘  ◀──── done ──────┘       any ── subscription dropped ──▶ Over
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Running,
    /// Running, and something changed since it began.
    Again,
    Over,
}

impl Callback {
    fn call(&self) {
        {
            let mut phase = lock(&self.phase);
            match *phase {
                Phase::Idle => *phase = Phase::Running,
                Phase::Running | Phase::Again => {
                    *phase = Phase::Again;
                    return;
                }
                Phase::Over => return,
            }
        }
        loop {
            // The panic hook has reported it; it must not end the task that made the change.
            let _ = catch_unwind(AssertUnwindSafe(|| (self.run)()));
            let mut phase = lock(&self.phase);
            match *phase {
                Phase::Again => *phase = Phase::Running,
                Phase::Running => {
                    *phase = Phase::Idle;
                    return;
                }
                Phase::Idle | Phase::Over => return,
            }
        }
    }
}

/// What a [`Subscription`] needs of a watch, whatever its type.
trait Forget: MaybeSend + MaybeSync {
    fn forget(&self, key: u64);
}

impl<T: MaybeSend> Forget for Shared<T> {
    fn forget(&self, key: u64) {
        let callback = self.lock().callbacks.remove(&key);
        drop(callback);
    }
}

/// A panic while one of our locks is held leaves its data whole: single assignments.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_executor::block_on;
    use futures_util::{FutureExt, StreamExt};

    use super::*;

    fn counter() -> (Arc<AtomicUsize>, impl Fn() + Send + Sync + 'static) {
        let calls = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&calls);
        (calls, move || {
            count.fetch_add(1, Ordering::SeqCst);
        })
    }

    #[test]
    fn a_new_watch_gives_the_current_value_first_and_each_value_once() {
        let (sender, mut watch) = watch(1);
        assert_eq!(watch.take_changed(), Some(1));
        assert_eq!(watch.take_changed(), None);
        assert!(watch.changed().now_or_never().is_none());
        sender.send(2);
        sender.send(3);
        assert_eq!(watch.changed().now_or_never(), Some(Ok(3)));
        assert_eq!(watch.take_changed(), None);
        assert_eq!(sender.watch().take_changed(), Some(3));
    }

    #[test]
    fn get_does_not_count_as_given_out() {
        let (_sender, mut watch) = watch(1);
        assert_eq!(watch.get(), 1);
        assert_eq!(watch.take_changed(), Some(1));
    }

    #[test]
    fn setting_the_same_value_tells_nobody_and_sending_it_does() {
        let (sender, mut watch) = watch(1);
        watch.take_changed();
        assert!(!sender.set(1));
        assert!(!sender.send_if_changed(|_| false));
        assert_eq!(watch.take_changed(), None);
        sender.send(1);
        assert_eq!(watch.take_changed(), Some(1));
        assert!(sender.set(2));
        assert!(sender.send_if_changed(|value| {
            *value += 1;
            true
        }));
        assert_eq!(watch.take_changed(), Some(3));
    }

    #[test]
    fn the_last_value_is_given_out_before_the_watch_says_closed() {
        let (sender, mut watch) = watch(1);
        assert!(!watch.is_closed());
        sender.send(2);
        drop(sender);
        assert!(watch.is_closed());
        assert_eq!(watch.changed().now_or_never(), Some(Ok(2)));
        assert_eq!(watch.changed().now_or_never(), Some(Err(Closed)));
        assert_eq!(watch.get(), 2);
        assert_eq!(
            watch.wait_for(|value| *value == 2).now_or_never(),
            Some(Ok(2))
        );
        assert_eq!(
            watch.wait_for(|value| *value == 3).now_or_never(),
            Some(Err(Closed))
        );
    }

    #[test]
    fn the_stream_starts_with_the_current_value_and_ends_with_the_writer() {
        let (sender, mut watch) = watch(1);
        assert_eq!(watch.next().now_or_never(), Some(Some(1)));
        assert!(watch.next().now_or_never().is_none());
        sender.send(2);
        drop(sender);
        assert_eq!(watch.next().now_or_never(), Some(Some(2)));
        assert!(!watch.is_terminated());
        assert_eq!(watch.next().now_or_never(), Some(None));
        assert!(watch.is_terminated());
    }

    #[test]
    fn a_clone_has_seen_what_the_original_has_and_goes_its_own_way() {
        let (sender, mut watch) = watch(1);
        let mut fresh = watch.clone();
        watch.take_changed();
        let mut seen = watch.clone();
        assert_eq!(fresh.take_changed(), Some(1));
        assert_eq!(seen.take_changed(), None);
        sender.send(2);
        assert_eq!(seen.take_changed(), Some(2));
        assert_eq!(watch.take_changed(), Some(2));
    }

    #[test]
    fn a_waiting_reader_is_woken_from_another_thread() {
        let (sender, watch) = watch(0_u32);
        let (told_sender, mut told) = super::watch(0_u32);
        std::thread::scope(|scope| {
            let mut reader = watch.clone();
            scope.spawn(move || {
                while let Ok(value) = block_on(reader.changed()) {
                    told_sender.send(value);
                }
            });
            for value in 1..=1000 {
                sender.send(value);
            }
            assert_eq!(block_on(told.wait_for(|value| *value == 1000)), Ok(1000));
            drop(sender);
            // The reader ends, and its sender with it.
            assert_eq!(block_on(told.wait_for(|value| *value > 1000)), Err(Closed));
        });
    }

    #[test]
    fn dropping_readers_and_subscriptions_leaves_nothing_behind() {
        let (sender, mut watch) = watch(0);
        watch.take_changed();
        for _ in 0..100 {
            let mut reader = watch.clone();
            assert!(reader.changed().now_or_never().is_none());
            let _subscription = reader.notify(|| {});
        }
        let state = sender.shared.lock();
        assert_eq!((state.waiting.len(), state.callbacks.len()), (0, 0));
    }

    #[test]
    fn a_callback_is_called_for_each_change_until_its_subscription_is_dropped() {
        let (sender, watch) = watch(0);
        let (calls, callback) = counter();
        let subscription = watch.notify(callback);
        assert_eq!(calls.load(Ordering::SeqCst), 0, "not for the current value");
        sender.set(1);
        sender.set(1);
        sender.set(2);
        assert_eq!(calls.load(Ordering::SeqCst), 2);
        drop(subscription);
        sender.set(3);
        assert_eq!(calls.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_callback_hears_of_the_end_and_may_outlive_the_watch() {
        let (sender, watch) = watch(0);
        let (calls, callback) = counter();
        let subscription = watch.notify(callback);
        drop(watch);
        drop(sender);
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        drop(subscription);
    }

    #[test]
    fn a_callback_may_use_the_watch_and_its_own_changes_are_told_once_more() {
        let (sender, watch) = watch(0);
        let sender = Arc::new(sender);
        let (calls, count) = counter();
        let (reader, writer) = (watch.clone(), Arc::clone(&sender));
        let _subscription = watch.notify(move || {
            count();
            if reader.get() < 3 {
                writer.send(2);
                writer.send(3);
            }
        });
        sender.send(1);
        assert_eq!(sender.get(), 3);
        assert_eq!(
            calls.load(Ordering::SeqCst),
            2,
            "the two changes inside are told together"
        );
    }

    #[test]
    fn a_panicking_callback_stops_neither_the_writer_nor_other_callbacks() {
        let (sender, watch) = watch(0);
        let _first = watch.notify(|| panic!("a user's bug"));
        let (calls, callback) = counter();
        let _second = watch.notify(callback);
        sender.send(1);
        sender.send(2);
        assert_eq!(calls.load(Ordering::SeqCst), 2);
    }
}
