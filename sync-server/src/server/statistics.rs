//! How the server stands, added up for whoever asks.

use std::sync::Arc;
use std::time::Duration;

use sync_core::error::ErrorCode;
use sync_core::ids::{DocumentId, OriginId, User};
use sync_core::server::{MemberPhase, MemberStats, RoomCounters, RoomPhase, RoomStats};
use sync_core::time::Time;
use sync_core::transport::PeerInfo;

use super::mailbox::Mailbox;
use super::rooms::{Kept, RoomHandle};
use super::{Phase, Server, Shared, lock};
use crate::stats::{
    DocumentDetails, DocumentPhase, DocumentSession, DocumentStats, ServerStats, SessionIdentity,
    SessionState, SessionStats,
};

/// What is known of a session once it has been welcomed.
#[derive(Debug)]
pub(super) struct SessionInfo {
    pub(super) user: User,
    pub(super) origin: OriginId,
    pub(super) peer: PeerInfo,
    pub(super) since: Time,
}

impl Server {
    /// How the server stands. Looks at every connection and every session of every live document, at one document after the
    /// other, and holds up none of them for longer than that takes: ask once a second, not for each change.
    #[must_use]
    pub fn stats(&self) -> ServerStats {
        let shared = &self.shared;
        let now = shared.clock.now();
        let (rooms, mut counters) = shared.rooms.counted();
        let mut stats = ServerStats {
            at_ms: shared.clock.wall_ms(now),
            uptime_ms: millis(now.since(Time::ZERO)),
            is_serving: *shared.phase.borrow() == Phase::Serving,
            n_connections: 0,
            connections_total: 0,
            n_sessions: 0,
            n_users: 0,
            n_documents: count(rooms.len()),
            n_open: 0,
            n_present: 0,
            n_lagging: 0,
            n_folding: 0,
            n_relayed: 0,
            n_waiting: 0,
            ring_bytes: 0,
            changes_total: 0,
            changes_per_second: 0.0,
            bytes_in_total: 0,
            bytes_out_total: 0,
            errors: lock(&shared.session_errors).clone(),
            events: shared.events.counts(),
            commits: Default::default(),
            opens: Default::default(),
            registry: shared.calls.read(),
        };
        for room in rooms {
            let (room, kept) = room.stats(|counted| counters.add(counted));
            stats.n_open += count(room.n_sessions);
            stats.n_present += count(room.n_present);
            stats.n_lagging += count(room.n_lagging);
            stats.n_folding += u64::from(room.is_folding);
            stats.n_relayed += u64::from(kept.is_relayed(&room));
            stats.n_waiting += count(room.n_waiting);
            stats.ring_bytes += count(room.ring_bytes);
            stats.changes_per_second += room.changes_per_second;
        }
        stats.changes_total = counters.changes;
        for (code, n) in counters.errors {
            *stats.errors.entry(code).or_default() += n;
        }
        (stats.commits, stats.opens) = (counters.commits, counters.opens);
        let mailboxes = shared.count_sessions(&mut stats);
        for mailbox in mailboxes {
            let (bytes_in, bytes_out) = mailbox.traffic.bytes();
            stats.bytes_in_total += bytes_in;
            stats.bytes_out_total += bytes_out;
        }
        stats
    }

    /// The live documents, in the order of their ids: those that somebody has open, or had a short while ago.
    #[must_use]
    pub fn documents(&self) -> Vec<DocumentStats> {
        let (rooms, _) = self.shared.rooms.counted();
        let mut documents: Vec<_> = rooms
            .iter()
            .map(|room| self.shared.document(room))
            .collect();
        documents.sort_unstable_by(|a, b| a.document.cmp(&b.document));
        documents
    }

    /// A live document and its sessions; `None` if it is not live, which says nothing about whether there is such a document.
    #[must_use]
    pub fn inspect(&self, document: &DocumentId) -> Option<DocumentDetails> {
        let room = self.shared.rooms.live(document)?;
        let (members, peers) = room.members();
        let sessions = members.into_iter().zip(peers);
        Some(DocumentDetails {
            stats: self.shared.document(&room),
            sessions: sessions
                .map(|(member, peer)| document_session(member, peer))
                .collect(),
        })
    }

    /// The sessions: connections whose clients have been welcomed. In the order of their ids.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionStats> {
        let shared = &self.shared;
        let mut sessions: Vec<_> = shared
            .mailboxes()
            .iter()
            .filter_map(|mailbox| shared.session(mailbox))
            .collect();
        sessions.sort_unstable_by_key(|session| session.identity.session);
        sessions
    }
}

impl Shared {
    /// A client was told an error that is about none of its documents, or that ended its session.
    pub(super) fn count_error(&self, code: ErrorCode) {
        *lock(&self.session_errors).entry(code).or_default() += 1;
    }

    fn count_sessions(&self, stats: &mut ServerStats) -> Vec<Arc<Mailbox>> {
        let sessions = lock(&self.sessions);
        stats.n_connections = count(sessions.live.len());
        stats.connections_total = sessions.n_admitted;
        stats.n_sessions = sessions.users.values().sum();
        stats.n_users = count(sessions.users.len());
        (stats.bytes_in_total, stats.bytes_out_total) = sessions.ended_bytes;
        sessions.live.values().cloned().collect()
    }

    fn session(&self, mailbox: &Mailbox) -> Option<SessionStats> {
        let info = mailbox.info.get()?;
        let (bytes_in, bytes_out) = mailbox.traffic.bytes();
        Some(SessionStats {
            identity: SessionIdentity {
                session: mailbox.session(),
                user: info.user.clone(),
                origin: info.origin,
                peer: info.peer.clone(),
            },
            since_ms: self.clock.wall_ms(info.since),
            bytes_in,
            bytes_out,
        })
    }

    fn document(&self, room: &RoomHandle) -> DocumentStats {
        let mut counters = RoomCounters::default();
        let (room_stats, kept) = room.stats(|counted| counters.add(counted));
        let relayed = kept.is_relayed(&room_stats).then(|| kept.relayed.clone());
        DocumentStats {
            document: room.document().clone(),
            phase: match room_stats.phase {
                RoomPhase::Loading => DocumentPhase::Loading,
                RoomPhase::Draining { .. } | RoomPhase::Unloaded => DocumentPhase::Draining,
                _ => DocumentPhase::Live,
            },
            engine: room_stats.engine,
            epoch: room_stats.epoch,
            head: room_stats.head,
            snapshot_seq: room_stats.snapshot_seq,
            snapshot_bytes: room_stats.snapshot_bytes.map(count),
            log_bytes: count(room_stats.log_bytes),
            ring_bytes: count(room_stats.ring_bytes),
            n_sessions: count(room_stats.n_sessions),
            n_present: count(room_stats.n_present),
            n_lagging: count(room_stats.n_lagging),
            lag_max: room_stats.lag_max,
            n_waiting: count(room_stats.n_waiting),
            changes_total: counters.changes,
            changes_per_second: room_stats.changes_per_second,
            bytes_in_total: counters.bytes_in,
            bytes_out_total: counters.bytes_out,
            errors_total: counters.errors.values().sum(),
            is_folding: room_stats.is_folding,
            last_fold: kept.last_fold,
            fold_failure: kept.fold_failure,
            relayed: relayed.flatten().map(|(_, what)| what),
        }
    }
}

impl Kept {
    /// Whether the document, as it is now, fell back to relay.
    fn is_relayed(&self, room: &RoomStats) -> bool {
        self.relayed
            .as_ref()
            .is_some_and(|(epoch, _)| room.epoch == Some(*epoch))
    }
}

fn document_session(member: MemberStats, peer: PeerInfo) -> DocumentSession {
    DocumentSession {
        identity: SessionIdentity {
            session: member.session,
            user: member.user,
            origin: member.origin,
            peer,
        },
        access: member.access,
        state: match member.state {
            MemberPhase::Opening => SessionState::Opening,
            MemberPhase::Waiting => SessionState::Waiting,
            MemberPhase::Streaming => SessionState::Streaming,
            _ => SessionState::Stopped,
        },
        opened_at: member
            .opened_at
            .map(|cursor| cursor.seq)
            .unwrap_or_default(),
        sent: member.sent,
        lag: member.lag,
        is_lagging: member.is_lagging,
        bytes_in: member.bytes_in,
        bytes_out: member.bytes_out,
    }
}

pub(super) fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
