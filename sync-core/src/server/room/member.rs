//! One session that has the document open, as its room sees it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::OpenRequest;
use super::access::Permit;
use super::broadcast::Waiting;
use super::open::Opening;
use super::pieces::Pieces;
use super::presence::Told;
use super::ring::{Encoded, Sending};
use crate::history::Seq;
use crate::ids::OriginId;
use crate::time::Time;
use crate::wire::Compression;

/// A member never has a queue of changes: what it is sent follows from its position.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) open: OpenRequest,
    /// Counts the opens of this session, so that what belongs to an earlier one can be told apart.
    pub(super) generation: u32,
    pub(super) state: MemberState,
    pub(super) writing: Writing,
    pub(super) permit: Permit,
    /// Gives up the message of which it has been sent a part: goes before everything.
    pub(super) abort: Option<Bytes>,
    /// Frames that wait for nothing.
    pub(super) prompt: VecDeque<Bytes>,
    /// Frames that wait until the member has been sent everything through a sequence; in order of these.
    pub(super) controls: VecDeque<Control>,
    /// Broadcasts that have yet to be sent.
    pub(super) waiting: Waiting,
    /// Origins that the client knows the number of, each with the last number taken, if everything about the origin
    /// is as the registry said when the document was opened: then only a fault of the registry can keep the next
    /// number from being committed.
    pub(super) origins: BTreeMap<OriginId, Option<u64>>,
    /// Charge of the member's own committed changes, by the sequence of the last of each append.
    pub(super) unsettled: VecDeque<(Seq, usize)>,
    /// Charge that the member has been answered for and the session has not been told of yet.
    pub(super) settled: usize,
    /// Sequence of the member's last change committed since it opened.
    pub(super) last_commit: Seq,
    /// When its open came, until that is answered.
    pub(super) asked: Option<Time>,
    /// Bytes of changes that it pushed, and of frames that it was handed; however often it opened.
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    /// Whether it has been said that the session opened the document.
    pub(super) announced: bool,
    /// What the member has been told of who is here; `None` while it is told nothing.
    pub(super) presence: Option<Told>,
    /// Whether it has been told anything since it came.
    pub(super) was_told_presence: bool,
    /// Whether a message about who is here was the last that it was sent: then it is something else's turn.
    pub(super) presence_was_last: bool,
    /// Whether the session knows that there may be something to poll.
    pub(super) awake: bool,
}

/// ```text
///  Opening ──▶ Streaming ──▶ Stopped
///    ▲ │ └───▶ Waiting
///    │ └──▶ Ended
///    └── from all of them, by another open
/// ```
#[derive(Debug, Clone)]
pub(super) enum MemberState {
    /// The registry is being read for `Opened`.
    Opening(Box<Opening>),
    /// Another client reconciles.
    Waiting,
    /// The history is sent from a position on.
    Streaming(Stream),
    /// The history sent was not the document's any more; the client has to open again.
    Stopped,
    /// Out of the room once the last frames are polled.
    Ended,
}

/// Position of a member.
#[derive(Debug, Clone)]
pub(super) struct Stream {
    /// The sequence from which on the member is shown changes, one by one.
    begins: Seq,
    /// The sequence that the next frame starts with.
    pub(super) next: Seq,
    /// The snapshot being sent, before anything else, and the piece that is next.
    pub(super) snapshot: Option<(Arc<Pieces>, usize)>,
    /// The message being sent, and the sequence it ends with.
    pub(super) sending: Option<(Sending, Seq)>,
    /// Read from the registry and not sent yet; each with the sequence it ends with. At most one read.
    pub(super) catch_up: VecDeque<(Arc<Encoded>, Seq)>,
    /// Whether a read of the registry is on its way.
    pub(super) is_reading: bool,
}

impl Stream {
    pub(super) const fn new(next: Seq) -> Self {
        Self {
            begins: next,
            next,
            snapshot: None,
            sending: None,
            catch_up: VecDeque::new(),
            is_reading: false,
        }
    }
}

/// Whether changes are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writing {
    Open,
    /// Until the document is opened again.
    Closed,
}

#[derive(Debug, Clone)]
pub(super) struct Control {
    pub(super) after: Seq,
    pub(super) frame: Bytes,
    /// Charge of the changes that the frame answers.
    pub(super) charge: usize,
    /// If the frame is an `Ack` without a count: of which origin, so that the next one can take its place.
    pub(super) repeat: Option<(OriginId, u64)>,
}

impl Member {
    pub(super) fn new(open: OpenRequest, opening: Opening, generation: u32) -> Self {
        Self {
            open,
            generation,
            state: MemberState::Opening(Box::new(opening)),
            writing: Writing::Closed,
            permit: Permit::default(),
            abort: None,
            prompt: VecDeque::new(),
            controls: VecDeque::new(),
            waiting: Waiting::default(),
            origins: BTreeMap::new(),
            unsettled: VecDeque::new(),
            settled: 0,
            last_commit: Seq::ZERO,
            asked: None,
            bytes_in: 0,
            bytes_out: 0,
            announced: false,
            presence: None,
            was_told_presence: false,
            presence_was_last: false,
            awake: false,
        }
    }

    /// Whether there is something that waits for nothing.
    pub(super) fn has_prompt(&self) -> bool {
        self.abort.is_some() || !self.prompt.is_empty()
    }

    pub(super) const fn compression(&self) -> Compression {
        self.open.compression
    }

    /// Whether its session has the document open, as far as it knows.
    pub(super) const fn has_opened(&self) -> bool {
        self.announced && !matches!(self.state, MemberState::Ended)
    }

    pub(super) const fn stream(&mut self) -> Option<&mut Stream> {
        match &mut self.state {
            MemberState::Streaming(stream) => Some(stream),
            _ => None,
        }
    }

    /// Whether the stream has shown the member this change since its open, or is going to.
    pub(super) fn is_shown(&self, seq: Seq) -> bool {
        matches!(&self.state, MemberState::Streaming(stream) if stream.begins <= seq)
            && seq <= self.permit.limit()
    }

    /// Charge of everything that the client counts as not acknowledged and that is not in the room's queue.
    pub(super) fn take_unsettled(&mut self) -> usize {
        let committed: usize = self.unsettled.drain(..).map(|(_, charge)| charge).sum();
        let answered: usize = self.controls.drain(..).map(|control| control.charge).sum();
        let withheld = self.permit.take_withheld_charge();
        std::mem::take(&mut self.settled) + committed + answered + withheld
    }

    /// Notes that the registry has everything of an origin through this number.
    pub(super) fn note_taken(&mut self, origin: OriginId, number: u64) {
        if let Some(last) = self.origins.get_mut(&origin) {
            *last = (*last).max(Some(number));
        }
    }

    /// Settles the member's own changes through a sequence that it has been sent.
    pub(super) fn settle_through(&mut self, last: Seq) {
        while let Some(&(seq, charge)) = self.unsettled.front()
            && seq <= last
        {
            self.unsettled.pop_front();
            self.settled = self.settled.saturating_add(charge);
        }
    }

    /// Whether rows of the log are being read for it, or have been and are not sent yet.
    pub(super) fn is_catching_up(&self) -> bool {
        match &self.state {
            MemberState::Streaming(stream) => stream.is_reading || !stream.catch_up.is_empty(),
            _ => false,
        }
    }

    /// Id of the message of which the client holds a part.
    pub(super) fn begun_message(&self) -> Option<u32> {
        match &self.state {
            MemberState::Streaming(stream) => stream.sending.as_ref()?.0.begun(),
            _ => None,
        }
    }
}
