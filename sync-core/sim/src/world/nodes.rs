//! The server's nodes: processes that share a registry, live and die, and hear of what the others append.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use sync_core::engine::{Engine, Validator};
use sync_core::error::{ErrorCode, PeerError};
use sync_core::history::Cursor;
use sync_core::ids::{Channel, DocumentId, OriginId, SessionId, User};
use sync_core::registry::{RegistryError, RegistryEvent};
use sync_core::server::{HeadsConfig, HeadsOutput, HeadsPoll, RequestNumber, Room, RoomPhase};
use sync_core::time::Time;

use super::calls::Step;
use super::check::Hot;
use super::devices::WallClock;
use super::links::Down;
use super::permits::Doubts;
use super::{DriverBug, Target, World, wait};

/// How long sessions, rooms and appends may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it is looked whether they have.
const END_LOOK: Duration = Duration::from_millis(50);

/// A node: the process that is there now, or none.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) phase: Phase,
    /// Counts its processes.
    pub(super) process: u64,
    pub(super) rooms: BTreeMap<DocumentId, Room>,
    pub(super) channels: BTreeMap<Channel, DocumentId>,
    pub(super) next_channel: u32,
    pub(super) owners: BTreeMap<(OriginId, User), (u64, SessionId)>,
    pub(super) doubts: Doubts,
    /// What checks keep of documents.
    pub(super) hot: BTreeMap<DocumentId, Hot>,
    /// What a node with a [bug](super::DriverBug) takes for committed.
    pub(super) uncommitted: BTreeMap<DocumentId, Vec<Bytes>>,
    pub(super) clock: WallClock,
    pub(super) heads: HeadsPoll,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Down,
    Serving,
    /// Clients have been told to go elsewhere, until then.
    Draining(Time),
    /// Every session has been ended; until then the rest may take.
    Closing(Time),
}

impl Node {
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Serving,
            process: 0,
            rooms: BTreeMap::new(),
            channels: BTreeMap::new(),
            // 0 means the session itself.
            next_channel: 1,
            owners: BTreeMap::new(),
            doubts: Doubts::default(),
            hot: BTreeMap::new(),
            uncommitted: BTreeMap::new(),
            clock: WallClock::default(),
            heads: HeadsPoll::new(HeadsConfig::new(0)),
        }
    }

    /// The process is no more.
    fn end(&mut self) {
        *self = Self {
            phase: Phase::Down,
            process: self.process + 1,
            clock: self.clock,
            ..Self::new()
        };
    }
}

impl<E: Engine + Validator> World<E> {
    /// Another node on the same registry. Returns its index; the first one is 0.
    pub fn add_node(&mut self) -> usize {
        self.nodes.push(Node::new());
        self.nodes.len() - 1
    }

    /// How many nodes there are, up or down.
    pub fn n_nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Whether clients can connect to a node.
    pub fn is_serving(&self, node: usize) -> bool {
        self.nodes[node].phase == Phase::Serving
    }

    /// The node at the other end of a client's connection.
    pub fn node_of(&self, client: usize) -> Option<usize> {
        let session = self.clients[client].link?;
        Some(self.links.get(&session)?.node)
    }

    /// Has a client connect to this node only, from the next time on; `None`: to any that is there.
    pub fn dial_node(&mut self, client: usize, node: Option<usize>) {
        self.clients[client].dials = node;
    }

    pub(super) fn choose_node(&mut self, client: usize) -> Option<usize> {
        if !self.clients[client].online {
            return None;
        }
        if let Some(node) = self.clients[client].dials {
            return Some(node).filter(|node| self.is_serving(*node));
        }
        let serving: Vec<_> = (0..self.nodes.len())
            .filter(|node| self.is_serving(*node))
            .collect();
        match serving.as_slice() {
            [] => None,
            [only] => Some(*only),
            several => {
                let n = u64::try_from(several.len()).unwrap();
                let at = usize::try_from(self.below(n)).unwrap();
                Some(several[at])
            }
        }
    }

    /// The processes of all nodes are killed: connections, rooms and calls under way are gone; the registry stays.
    pub fn kill_server(&mut self) {
        for node in 0..self.nodes.len() {
            self.kill_node(node);
        }
    }

    /// All nodes that are down start.
    pub fn start_server(&mut self) {
        for node in 0..self.nodes.len() {
            self.start_node(node);
        }
    }

    /// A node's process is killed. Its clients notice soon.
    pub fn kill_node(&mut self, node: usize) {
        self.count("fault", "node killed");
        self.end_node(node, true);
    }

    /// A node's machine is gone, with its network: no client is told.
    pub fn lose_node(&mut self, node: usize) {
        self.count("fault", "node lost");
        self.end_node(node, false);
    }

    fn end_node(&mut self, node: usize, is_noticed: bool) {
        self.nodes[node].end();
        // What is on its way to the registry is carried out or not.
        let under_way: BTreeSet<u64> = self
            .calls
            .iter()
            .filter(|(_, call)| call.caller.node == node)
            .map(|(number, _)| *number)
            .collect();
        for number in under_way {
            let is_request = matches!(self.calls[&number].step, Step::Execute(..));
            if !is_request || self.below(2) == 0 {
                self.calls.remove(&number);
            } else if self.nodes.len() == 1 {
                // Only a registry elsewhere can carry it out when there may be another process already.
                if let Some(call) = self.calls.remove(&number) {
                    self.run_call(call);
                }
            }
        }
        let sessions: Vec<SessionId> = self
            .links
            .iter()
            .filter(|(_, link)| link.node == node && link.has_server)
            .map(|(session, _)| *session)
            .collect();
        for session in sessions {
            self.leave_link(session, false);
            if is_noticed {
                self.put_down(session, Down::Close(None));
            }
        }
    }

    /// A node starts, if it is down.
    pub fn start_node(&mut self, node: usize) {
        if self.nodes[node].phase == Phase::Down {
            self.nodes[node].phase = Phase::Serving;
            self.registry.restarted();
        }
    }

    /// A node tells its clients to go elsewhere within so long, ends the sessions of those that have not by then, finishes
    /// what is under way, and ends.
    pub fn drain_node(&mut self, node: usize, within: Duration) {
        if !self.is_serving(node) {
            return;
        }
        self.count("fault", "node drained");
        let until = self.now + within;
        self.nodes[node].phase = Phase::Draining(until);
        for session in self.sessions_of(node) {
            if let Some(link) = self.links.get_mut(&session) {
                link.session.handle_go_away(self.now, within);
                self.perform_session(session);
            }
        }
        self.schedule(Some(until), Target::Drain(node));
    }

    pub(super) fn go_on_draining(&mut self, node: usize) {
        let now = self.now;
        match self.nodes[node].phase {
            Phase::Draining(until) if until <= now => {
                self.nodes[node].phase = Phase::Closing(now + END_TIMEOUT);
                for session in self.sessions_of(node) {
                    let reason = PeerError::new(ErrorCode::ShuttingDown, "shutting down");
                    self.end_soon(session, reason);
                }
            }
            Phase::Closing(until) => {
                let has_ended = |room: &Room| matches!(room.phase(), RoomPhase::Draining { .. });
                let is_over = self.sessions_of(node).is_empty()
                    && self.nodes[node].rooms.values().all(has_ended);
                if is_over || until <= now {
                    return self.end_node(node, true);
                }
            }
            Phase::Draining(_) | Phase::Down | Phase::Serving => return,
        }
        self.schedule(Some(now + END_LOOK), Target::Drain(node));
    }

    /// The sessions that a node has.
    pub(super) fn sessions_of(&self, node: usize) -> Vec<SessionId> {
        let links = self.links.iter();
        let theirs = links.filter(|(_, link)| link.node == node && link.has_server);
        theirs.map(|(session, _)| *session).collect()
    }

    /// Tells the other nodes of something, as far as hints are to be relied on.
    pub(super) fn hint(&mut self, by: usize, event: &RegistryEvent) {
        for node in (0..self.nodes.len()).filter(|node| *node != by) {
            self.hint_node(node, event);
        }
    }

    pub(super) fn hint_node(&mut self, node: usize, event: &RegistryEvent) {
        if self.nodes[node].rooms.is_empty() {
            return;
        }
        if self.happens(self.weather.hints.lost) {
            self.count("fault", "hint lost");
            if self.happens(self.weather.hints.noticed) {
                self.call_for(node, Step::Hint(RegistryEvent::Lagged));
            }
            return;
        }
        self.call_for(node, Step::Hint(event.clone()));
        if self.happens(self.weather.hints.doubled) {
            self.count("fault", "hint doubled");
            self.call_for(node, Step::Hint(event.clone()));
        }
    }

    pub(super) fn heard(&mut self, node: usize, event: RegistryEvent) {
        self.nodes[node].heads.handle_event(self.now, event);
        self.perform_heads(node);
    }

    /// Somebody opens a document: nodes that share a registry look at heads from then on.
    pub(super) fn start_polling(&mut self, node: usize) {
        if self.nodes.len() > 1 {
            let heads = &mut self.nodes[node].heads;
            if heads.is_asleep() {
                let mut config = HeadsConfig::new(self.rng.next_u64());
                config.interval = self.weather.poll_interval;
                *heads = HeadsPoll::new(config);
            }
            heads.handle_open(self.now);
            self.perform_heads(node);
        }
    }

    pub(super) fn run_heads(&mut self, node: usize) {
        if self.driver_bug != Some(DriverBug::NeverPolls) {
            self.nodes[node].heads.handle_timeout(self.now);
        }
        self.perform_heads(node);
    }

    fn perform_heads(&mut self, node: usize) {
        let now = self.now;
        while let Some(output) = self.nodes[node].heads.poll_output() {
            match output {
                HeadsOutput::Collect => {
                    let it = &mut self.nodes[node];
                    let live = it.rooms.iter().filter(|(_, room)| room.n_members() > 0);
                    let live = live.map(|(id, room)| (id.clone(), room.position()));
                    it.heads.handle_collected(now, live.collect());
                }
                HeadsOutput::Ask(number, documents) => {
                    self.call_for(node, Step::Heads(number, documents));
                }
                HeadsOutput::Head(document, head) => {
                    if let Some(room) = self.nodes[node].rooms.get_mut(&document) {
                        room.handle_head(now, head);
                        self.perform_room(node, &document);
                    }
                }
                HeadsOutput::Replaced(document) => {
                    if let Some(room) = self.nodes[node].rooms.get_mut(&document) {
                        room.handle_replaced(now);
                        self.perform_room(node, &document);
                    }
                }
                _ => {}
            }
        }
        let next = self.nodes[node].heads.poll_timeout();
        let polls = self.driver_bug != Some(DriverBug::NeverPolls);
        self.schedule(next.filter(|_| polls), Target::Heads(node));
    }

    pub(super) fn ask_heads(
        &mut self,
        documents: &[DocumentId],
    ) -> Result<Vec<Option<Cursor>>, RegistryError> {
        if self.happens(self.faults.unavailable) {
            self.count("fault", "unavailable");
            return Err(RegistryError::unavailable("a fault"));
        }
        wait(self.registry.heads(documents))
    }

    pub(super) fn heard_heads(
        &mut self,
        node: usize,
        number: RequestNumber,
        answer: Result<Vec<Option<Cursor>>, RegistryError>,
    ) {
        let heads = &mut self.nodes[node].heads;
        heads.handle_heads(self.now, number, answer);
        self.perform_heads(node);
    }
}
