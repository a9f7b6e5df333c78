//! Keeping up with other servers that use the same registry: a task that polls heads and reads hints, for as long as anybody
//! has a document open.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_core::stream::BoxStream;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use sync_core::history::Cursor;
use sync_core::ids::DocumentId;
use sync_core::registry::{RegistryError, RegistryEvent};
use sync_core::server::{HeadsConfig, HeadsOutput, HeadsPoll, RequestNumber};
use sync_core::time::Time;

use super::rooms::{caught, sleep_until};
use super::{Phase, Shared, lock};
use crate::registry::ServerRegistry;

type Hints = BoxStream<'static, RegistryEvent>;
type Call = BoxFuture<'static, (RequestNumber, Result<Vec<Option<Cursor>>, RegistryError>)>;

/// What a server does about others that write to its registry.
#[derive(Debug)]
pub(super) struct Nodes {
    state: Mutex<State>,
    /// Time until hints are asked for again that ended.
    rewatch_after: Duration,
}

#[derive(Debug)]
struct State {
    poll: HeadsPoll,
    /// Whether there is a task.
    is_running: bool,
}

impl Nodes {
    pub(super) fn new(config: HeadsConfig) -> Self {
        Self {
            rewatch_after: config.interval,
            state: Mutex::new(State {
                poll: HeadsPoll::new(config),
                is_running: false,
            }),
        }
    }

    fn next_output(&self) -> Option<HeadsOutput> {
        lock(&self.state).poll.poll_output()
    }
}

impl Shared {
    /// Sees to it that what others do is noticed: somebody opens a document.
    pub(super) fn keep_up(self: &Arc<Self>) {
        let Some(nodes) = &self.nodes else {
            return;
        };
        let mut state = lock(&nodes.state);
        state.poll.handle_open(self.clock.now());
        if !std::mem::replace(&mut state.is_running, true) {
            tokio::spawn(Follower::new(self).run());
        }
    }
}

/// The task.
struct Follower {
    server: Arc<Shared>,
    /// What is being asked; one that takes too long is given up for the next.
    call: Option<Call>,
    hints: Option<Hints>,
    /// When hints are asked for again.
    rewatch_at: Option<Time>,
}

impl Follower {
    fn new(server: &Arc<Shared>) -> Self {
        Self {
            server: Arc::clone(server),
            call: None,
            hints: None,
            rewatch_at: None,
        }
    }

    async fn run(mut self) {
        let server = Arc::clone(&self.server);
        let Some(nodes) = &server.nodes else {
            return;
        };
        let instant = |time| server.clock.instant(time);
        let mut phase = server.phase.subscribe();
        self.watch(nodes);
        loop {
            while let Some(output) = nodes.next_output() {
                self.perform(nodes, output);
            }
            let timeout = {
                let mut state = lock(&nodes.state);
                if state.poll.is_asleep() || server.is_closing() {
                    // Whoever wakes it from now on starts another task.
                    state.is_running = false;
                    return;
                }
                state.poll.poll_timeout()
            };
            tokio::select! {
                (number, answer) = called(&mut self.call) => {
                    if let Err(error) = &answer {
                        tracing::warn!(%error, "what other servers did could not be read");
                    }
                    self.turn(nodes, |poll, now| poll.handle_heads(now, number, answer));
                }
                hint = heard(&mut self.hints) => match hint {
                    Some(hint) => self.turn(nodes, |poll, now| poll.handle_event(now, hint)),
                    // The poll finds what hints would have told meanwhile.
                    None => {
                        self.hints = None;
                        self.rewatch_at = Some(self.server.clock.now() + nodes.rewatch_after);
                    }
                },
                () = sleep_until(timeout.map(instant)), if timeout.is_some() => {
                    self.turn(nodes, |poll, now| poll.handle_timeout(now));
                }
                () = sleep_until(self.rewatch_at.map(instant)), if self.rewatch_at.is_some() => {
                    self.watch(nodes);
                }
                // An error means that nobody tells any more.
                _ = phase.wait_for(|phase| *phase == Phase::Closing) => {}
            }
        }
    }

    fn turn(&self, nodes: &Nodes, f: impl FnOnce(&mut HeadsPoll, Time)) {
        let mut state = lock(&nodes.state);
        // Read under the lock, so that time does not run backwards.
        f(&mut state.poll, self.server.clock.now());
    }

    /// Asks for hints.
    fn watch(&mut self, nodes: &Nodes) {
        let registry = &self.server.registry;
        let watched = std::panic::catch_unwind(AssertUnwindSafe(|| registry.watch()));
        match watched {
            Ok(hints) => (self.hints, self.rewatch_at) = (hints, None),
            Err(_) => self.rewatch_at = Some(self.server.clock.now() + nodes.rewatch_after),
        }
    }

    fn perform(&mut self, nodes: &Nodes, output: HeadsOutput) {
        let rooms = &self.server.rooms;
        match output {
            HeadsOutput::Collect => {
                let rooms = rooms.all();
                let live = rooms.iter().filter_map(|room| {
                    let (n_members, position) = room.position();
                    (n_members > 0).then(|| (room.document().clone(), position))
                });
                let live = live.collect();
                self.turn(nodes, |poll, now| poll.handle_collected(now, live));
            }
            HeadsOutput::Ask(number, documents) => {
                self.call = Some(heads(&self.server, number, documents));
            }
            HeadsOutput::Head(document, head) => {
                if let Some(room) = rooms.live(&document) {
                    room.hear(head);
                }
            }
            HeadsOutput::Replaced(document) => self.server.look_again(&document),
            _ => {}
        }
    }
}

/// Asks the registry.
fn heads(server: &Arc<Shared>, number: RequestNumber, documents: Vec<DocumentId>) -> Call {
    let server = Arc::clone(server);
    async move {
        let heads = caught(server.registry.heads(&documents));
        (number, server.calls.heads.time(heads).await)
    }
    .boxed()
}

/// The answer to what is being asked, if anything is.
async fn called(
    call: &mut Option<Call>,
) -> (RequestNumber, Result<Vec<Option<Cursor>>, RegistryError>) {
    match call {
        Some(asked) => {
            let answer = asked.await;
            *call = None;
            answer
        }
        None => std::future::pending().await,
    }
}

/// The next hint; `None` once there are no more.
async fn heard(hints: &mut Option<Hints>) -> Option<RegistryEvent> {
    match hints {
        Some(hints) => AssertUnwindSafe(hints.next())
            .catch_unwind()
            .await
            .unwrap_or(None),
        None => std::future::pending().await,
    }
}
