//! Things that happen: bounded streams of events.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use futures_core::{FusedStream, Stream};

use crate::watch::lock;

/// What can be sent through [`Events`]: each enum of events has a variant for what its reader lost.
pub trait Event: Clone {
    /// Stands in the place of `missed` events that were dropped because the reader fell behind.
    fn lagged(missed: u64) -> Self;
}

/// Sends events to the subscribers there are. Dropping it ends their streams after what they have not read yet.
///
/// Nobody is ever waited for: a subscriber that falls behind by more than the capacity loses the oldest
/// events and is told how many. Costs a lock and nothing else while nobody is subscribed.
pub struct EventSender<T> {
    source: EventSource<T>,
}

impl<T: Event> EventSender<T> {
    /// A sender whose subscribers may each be `capacity` events behind, at least one.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let state = State {
            capacity: capacity.max(1),
            first: 0,
            kept: VecDeque::new(),
            closed: false,
            next_key: 0,
            readers: BTreeMap::new(),
        };
        Self {
            source: EventSource {
                shared: Arc::new(Mutex::new(state)),
            },
        }
    }

    /// Sends one event to every subscriber.
    pub fn send(&self, event: T) {
        let mut state = self.source.lock();
        if state.readers.is_empty() {
            return;
        }
        let dropped = if state.kept.len() == state.capacity {
            state.first += 1;
            state.kept.pop_front()
        } else {
            None
        };
        state.kept.push_back(event);
        let wakers = state.wakers();
        drop(state);
        drop(dropped);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Whether anybody would receive an event sent now; for events that are dear to make.
    #[must_use]
    pub fn has_subscribers(&self) -> bool {
        !self.source.lock().readers.is_empty()
    }

    /// A stream of the events sent from now on.
    #[must_use]
    pub fn subscribe(&self) -> Events<T> {
        self.source.subscribe()
    }

    /// Something that subscribes, and does not keep the streams from ending.
    #[must_use]
    pub fn source(&self) -> EventSource<T> {
        self.source.clone()
    }
}

impl<T> Drop for EventSender<T> {
    fn drop(&mut self) {
        let mut state = self.source.lock();
        state.closed = true;
        let wakers = state.wakers();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl<T> fmt::Debug for EventSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventSender").finish_non_exhaustive()
    }
}

/// Subscribes to the events of an [`EventSender`] that somebody else holds.
pub struct EventSource<T> {
    shared: Arc<Mutex<State<T>>>,
}

impl<T> EventSource<T> {
    /// A stream of the events sent from now on; of none if the sender is gone.
    #[must_use]
    pub fn subscribe(&self) -> Events<T> {
        let mut state = self.lock();
        state.next_key += 1;
        let key = state.next_key;
        let next = state.end();
        state.readers.insert(key, Reader { next, waker: None });
        drop(state);
        Events {
            source: self.clone(),
            key,
            ended: false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        lock(&self.shared)
    }
}

impl<T> Clone for EventSource<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T> fmt::Debug for EventSource<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventSource").finish_non_exhaustive()
    }
}

/// A bounded stream of events, from the subscription on.
///
/// A reader that falls too far behind loses the oldest events and finds one `Lagged { missed }` in their
/// place: read the state that the events are about again. Nothing that matters is only an event.
pub struct Events<T> {
    source: EventSource<T>,
    key: u64,
    /// The stream has ended.
    ended: bool,
}

impl<T: Event> Events<T> {
    /// The next event; `None` when there will be no more.
    ///
    /// # Cancellation
    /// Safe: no event is lost.
    pub async fn next(&mut self) -> Option<T> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    /// The next event if there is one now. For loops that look once per frame.
    pub fn try_next(&mut self) -> Option<T> {
        let mut state = self.source.lock();
        let (event, read) = state.take(self.key);
        drop(state);
        drop(read);
        event
    }

    /// [`next`](Self::next) for code that polls.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.source.lock();
        let (event, read) = state.take(self.key);
        if event.is_some() {
            drop(state);
            drop(read);
            return Poll::Ready(event);
        }
        if state.closed {
            self.ended = true;
            return Poll::Ready(None);
        }
        let waker = cx.waker().clone();
        let replaced = state
            .readers
            .get_mut(&self.key)
            .and_then(|reader| reader.waker.replace(waker));
        drop(state);
        drop(replaced);
        Poll::Pending
    }
}

impl<T> Drop for Events<T> {
    fn drop(&mut self) {
        let mut state = self.source.lock();
        let reader = state.readers.remove(&self.key);
        let read = state.forget_read();
        drop(state);
        drop((reader, read));
    }
}

impl<T: Event> Stream for Events<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.poll_event(cx)
    }
}

impl<T: Event> FusedStream for Events<T> {
    fn is_terminated(&self) -> bool {
        self.ended
    }
}

impl<T> fmt::Debug for Events<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

/// One ring for all subscribers, each with its place in it: an event is stored once, however many read it.
struct State<T> {
    /// Events in `kept` at most, at least 1.
    capacity: usize,
    /// Number of the first event in `kept`; events are numbered from 0.
    first: u64,
    /// Events that some reader has not read yet, oldest first.
    kept: VecDeque<T>,
    closed: bool,
    next_key: u64,
    readers: BTreeMap<u64, Reader>,
}

struct Reader {
    /// Number of the event to read next; smaller than `first` if it lags.
    next: u64,
    waker: Option<Waker>,
}

impl<T> State<T> {
    /// Number that the next event will have.
    fn end(&self) -> u64 {
        self.first
            .saturating_add(u64::try_from(self.kept.len()).unwrap_or(u64::MAX))
    }

    fn wakers(&mut self) -> Vec<Waker> {
        self.readers
            .values_mut()
            .filter_map(|reader| reader.waker.take())
            .collect()
    }

    /// Takes out what every reader has read, for the caller to drop outside the lock.
    fn forget_read(&mut self) -> Vec<T> {
        let end = self.end();
        let needed = self
            .readers
            .values()
            .map(|reader| reader.next)
            .min()
            .unwrap_or(end)
            .max(self.first);
        let read = usize::try_from(needed - self.first)
            .unwrap_or(usize::MAX)
            .min(self.kept.len());
        self.first = needed;
        self.kept.drain(..read).collect()
    }
}

impl<T: Event> State<T> {
    /// The reader's next event, and those that nobody needs any more.
    fn take(&mut self, key: u64) -> (Option<T>, Vec<T>) {
        let first = self.first;
        let Some(reader) = self.readers.get_mut(&key) else {
            return (None, Vec::new());
        };
        let was = reader.next;
        if was < first {
            reader.next = first;
            return (Some(T::lagged(first - was)), Vec::new());
        }
        let Some(event) = usize::try_from(was - first)
            .ok()
            .and_then(|at| self.kept.get(at))
            .cloned()
        else {
            return (None, Vec::new());
        };
        reader.next += 1;
        // Only the reader of the oldest event can have been the last to need it.
        let read = if was == first {
            self.forget_read()
        } else {
            Vec::new()
        };
        (Some(event), read)
    }
}

#[cfg(test)]
mod tests {
    use futures_executor::block_on;
    use futures_util::{FutureExt, StreamExt};

    use super::*;

    #[derive(Debug, Clone, PartialEq, Eq)]
    enum Happened {
        Number(u32),
        Lagged { missed: u64 },
    }
    use Happened::{Lagged, Number};

    impl Event for Happened {
        fn lagged(missed: u64) -> Self {
            Lagged { missed }
        }
    }

    fn all(events: &mut Events<Happened>) -> Vec<Happened> {
        std::iter::from_fn(|| events.try_next()).collect()
    }

    #[test]
    fn every_subscriber_gets_what_was_sent_since_it_subscribed() {
        let sender = EventSender::new(8);
        assert!(!sender.has_subscribers());
        sender.send(Number(0));
        let mut first = sender.subscribe();
        sender.send(Number(1));
        let mut second = sender.source().subscribe();
        sender.send(Number(2));
        assert!(sender.has_subscribers());
        assert_eq!(all(&mut first), [Number(1), Number(2)]);
        assert_eq!(all(&mut second), [Number(2)]);
    }

    #[test]
    fn a_slow_subscriber_loses_the_oldest_and_is_told_how_many_in_their_place() {
        let sender = EventSender::new(2);
        let (mut slow, mut quick) = (sender.subscribe(), sender.subscribe());
        for number in 0..5 {
            sender.send(Number(number));
            assert_eq!(all(&mut quick), [Number(number)]);
        }
        assert_eq!(all(&mut slow), [Lagged { missed: 3 }, Number(3), Number(4)]);
        sender.send(Number(5));
        assert_eq!(all(&mut slow), [Number(5)]);
    }

    #[test]
    fn events_lost_while_lagging_count_into_the_same_notice() {
        let sender = EventSender::new(1);
        let mut slow = sender.subscribe();
        for number in 0..3 {
            sender.send(Number(number));
        }
        assert_eq!(slow.try_next(), Some(Lagged { missed: 2 }));
        sender.send(Number(3));
        assert_eq!(all(&mut slow), [Lagged { missed: 1 }, Number(3)]);
    }

    #[test]
    fn the_stream_ends_after_what_was_sent_before_the_sender_was_dropped() {
        let sender = EventSender::new(8);
        let source = sender.source();
        let mut events = sender.subscribe();
        assert!(events.next().now_or_never().is_none());
        sender.send(Number(1));
        drop(sender);
        assert_eq!(events.next().now_or_never(), Some(Some(Number(1))));
        assert!(!events.is_terminated());
        assert_eq!(StreamExt::next(&mut events).now_or_never(), Some(None));
        assert!(events.is_terminated());
        assert_eq!(source.subscribe().next().now_or_never(), Some(None));
    }

    #[test]
    fn nothing_is_kept_that_every_subscriber_has_read_or_left_behind() {
        let sender = EventSender::new(8);
        let (mut first, mut second) = (sender.subscribe(), sender.subscribe());
        for number in 0..4 {
            sender.send(Number(number));
        }
        assert_eq!(all(&mut first).len(), 4);
        assert_eq!(sender.source.lock().kept.len(), 4);
        second.try_next();
        assert_eq!(sender.source.lock().kept.len(), 3);
        drop(second);
        assert_eq!(sender.source.lock().kept.len(), 0);
        drop(first);
        sender.send(Number(4));
        assert!(sender.source.lock().kept.is_empty() && sender.source.lock().readers.is_empty());
    }

    #[test]
    fn a_waiting_subscriber_is_woken_from_another_thread_and_counts_add_up() {
        let sender = EventSender::new(16);
        let mut events = sender.subscribe();
        std::thread::scope(|scope| {
            let reader = scope.spawn(move || {
                let (mut seen, mut expected) = (0_u64, 0_u32);
                while let Some(event) = block_on(events.next()) {
                    match event {
                        Number(number) => {
                            assert_eq!(number, expected);
                            expected += 1;
                            seen += 1;
                        }
                        Lagged { missed } => {
                            expected += u32::try_from(missed).unwrap();
                            seen += missed;
                        }
                    }
                }
                seen
            });
            for number in 0..10_000 {
                sender.send(Number(number));
            }
            drop(sender);
            assert_eq!(reader.join().unwrap(), 10_000);
        });
    }
}
