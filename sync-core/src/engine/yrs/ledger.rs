//! What a document's log says about its replicas and containers: enough to tell whether a change that is well formed
//! may follow it.
//!
//! Shape is not enough. A change of 14 bytes that refers to something nobody ever wrote waits in every replica for
//! ever, and enough of them make every later keystroke dear; a block at clocks that another replica uses makes replicas
//! differ without anybody noticing; and containers that nest one level more with each change overflow a stack in the
//! end. So a change follows a log only if
//!
//! - its blocks continue what is known of their replica, without a hole: known blocks may come again, and change nothing;
//! - they, and its deletions, refer only to elements that are known by then;
//! - nothing is put into an element that is no container: yrs refuses that update, and with it everything behind it;
//! - no container is nested deeper than the limit;
//! - and what is new in it belongs to replicas that are new, or that the same user wrote with before. Only a
//!   reconciling push brings what others wrote.
//!
//! It costs one scan of the change, and memory in proportion to the replicas, to the containers, and to how often the depth
//! changes along the clocks of replicas.

use std::collections::BTreeMap;
use std::mem::size_of;

use bytes::Bytes;

use super::graph::in_order;
use super::import::LIMITS;
use super::validate::{Block, Id, UNLIMITED, Visitor, scan};
use crate::engine::{EngineError, Ledger, Taken, ValidateLimits};
use crate::ids::User;

/// What is known of all replicas of a document.
#[derive(Debug, Default)]
pub(super) struct YrsLedger {
    replicas: BTreeMap<u64, Replica>,
}

/// One replica, which yrs calls a client.
#[derive(Debug, Default)]
struct Replica {
    /// The clock after the last known element.
    next: u32,
    /// Whose it is; `None` if all that is known came from snapshots or with reconciling pushes.
    user: Option<User>,
    /// What elements are: from each of these clocks on, up to the next.
    places: Vec<(u32, Place)>,
}

/// What must be known of an element that another one is put beside, or into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Place {
    /// How deep it is nested. No document gets near the end of this.
    depth: u16,
    /// It is no container, and never was.
    is_plain: bool,
}

impl Replica {
    /// What an element is that is known.
    fn place_at(&self, clock: u32) -> Place {
        let after = self.places.partition_point(|&(start, _)| start <= clock);
        let run = after.checked_sub(1).and_then(|at| self.places.get(at));
        run.map_or_else(Place::default, |&(_, place)| place)
    }

    fn extend(&mut self, end: u32, place: Place) {
        if self.places.last().is_none_or(|&(_, last)| last != place) {
            self.places.push((self.next, place));
        }
        self.next = end;
    }

    /// Forgets what came after that clock.
    fn cut(&mut self, next: u32) {
        self.next = next;
        let kept = self.places.partition_point(|&(start, _)| start < next);
        self.places.truncate(kept);
    }
}

const FOREIGN: EngineError = EngineError::Rejected {
    what: "the change writes as a replica of another user",
};

const NO_CONTAINER: EngineError = EngineError::Rejected {
    what: "the change puts something into what is no container",
};

/// On whose behalf something is taken.
#[derive(Debug, Clone, Copy)]
enum By<'a> {
    /// It is in the log, and not judged again; whose work it is, if that is known.
    Log(Option<&'a User>),
    /// A push.
    Push {
        user: &'a User,
        is_reconciling: bool,
    },
}

impl Ledger for YrsLedger {
    fn scans(&self) -> bool {
        true
    }

    fn load(&mut self, snapshot: &[u8]) -> Result<(), EngineError> {
        self.take(snapshot, &UNLIMITED, By::Log(None)).map(drop)
    }

    fn admit(&mut self, change: &Bytes, author: Option<&User>) -> Result<(), EngineError> {
        self.take(change, &UNLIMITED, By::Log(author)).map(drop)
    }

    fn check(
        &mut self,
        change: &Bytes,
        author: &User,
        reconciling: bool,
    ) -> Result<Taken, EngineError> {
        let by = By::Push {
            user: author,
            is_reconciling: reconciling,
        };
        self.take(change, &LIMITS, by)
    }

    fn bytes(&self) -> usize {
        let runs = |replica: &Replica| replica.places.capacity() * size_of::<(u32, Place)>();
        let replicas = self.replicas.len() * size_of::<(u64, Replica)>();
        replicas.saturating_add(self.replicas.values().map(runs).sum())
    }
}

impl YrsLedger {
    /// Takes an update whole or not at all.
    fn take(
        &mut self,
        update: &[u8],
        limits: &ValidateLimits,
        by: By<'_>,
    ) -> Result<Taken, EngineError> {
        let mut taken = Vec::new();
        let mut result = self.take_part(update, limits, by, &mut taken);
        if result == Err(EngineError::Incomplete) {
            // Several replicas' blocks may need each other in another order than that of the bytes.
            self.give_back(&mut taken);
            result = self.take_in_order(update, by, &mut taken);
        }
        match result {
            Ok(()) if taken.is_empty() => Ok(Taken::Known),
            Ok(()) => Ok(Taken::New),
            Err(error) => {
                self.give_back(&mut taken);
                Err(error)
            }
        }
    }

    fn take_in_order(
        &mut self,
        update: &[u8],
        by: By<'_>,
        taken: &mut Vec<Before>,
    ) -> Result<(), EngineError> {
        let (parts, missing) = in_order(update, |client| self.next(client))?;
        if !missing.is_empty() {
            return Err(EngineError::Incomplete);
        }
        parts
            .iter()
            .try_for_each(|part| self.take_part(part, &UNLIMITED, by, taken))
    }

    /// Takes an update whose bytes are in the order in which they need each other.
    fn take_part(
        &mut self,
        update: &[u8],
        limits: &ValidateLimits,
        by: By<'_>,
        taken: &mut Vec<Before>,
    ) -> Result<(), EngineError> {
        let mut taker = Taker {
            ledger: self,
            by,
            depth_max: LIMITS.depth_max,
            taken,
            fault: None,
        };
        scan(update, limits, &mut taker)?;
        taker.fault.map_or(Ok(()), Err)
    }

    fn give_back(&mut self, taken: &mut Vec<Before>) {
        for before in taken.drain(..).rev() {
            if before.is_new {
                self.replicas.remove(&before.client);
            } else if let Some(replica) = self.replicas.get_mut(&before.client) {
                replica.cut(before.next);
                if before.was_unbound {
                    replica.user = None;
                }
            }
        }
    }

    fn next(&self, client: u64) -> u32 {
        self.replicas.get(&client).map_or(0, |replica| replica.next)
    }

    fn place_of(&self, id: Id) -> Result<Place, EngineError> {
        match self.replicas.get(&id.client) {
            Some(replica) if id.clock < replica.next => Ok(replica.place_at(id.clock)),
            _ => Err(EngineError::Incomplete),
        }
    }
}

/// A replica before a part was taken.
#[derive(Debug)]
struct Before {
    client: u64,
    next: u32,
    is_new: bool,
    was_unbound: bool,
}

/// Takes what it is told into the ledger, until something may not be.
struct Taker<'a> {
    ledger: &'a mut YrsLedger,
    by: By<'a>,
    depth_max: u32,
    taken: &'a mut Vec<Before>,
    fault: Option<EngineError>,
}

impl Taker<'_> {
    fn take(&mut self, block: &Block) -> Result<(), EngineError> {
        let Id { client, clock } = block.id;
        let end = clock.saturating_add(block.len);
        let next = self.ledger.next(client);
        if end <= next || block.is_skip {
            return Ok(());
        }
        if clock > next {
            return Err(EngineError::Incomplete);
        }
        let place = Place {
            depth: self.depth(block)?,
            is_plain: block.is_plain,
        };
        self.begin(client)?;
        if let Some(replica) = self.ledger.replicas.get_mut(&client) {
            replica.extend(end, place);
        }
        Ok(())
    }

    /// How deep a block is nested, all of whose links are known.
    fn depth(&self, block: &Block) -> Result<u16, EngineError> {
        let mut beside = None;
        for link in [block.left, block.right].into_iter().flatten() {
            let place = self.ledger.place_of(link.id)?;
            beside.get_or_insert(place.depth);
        }
        let is_push = matches!(self.by, By::Push { .. });
        let depth = match (beside, block.parent) {
            (Some(depth), _) => depth,
            (None, Some(parent)) => {
                let parent = self.ledger.place_of(parent)?;
                if parent.is_plain && is_push {
                    return Err(NO_CONTAINER);
                }
                parent.depth.saturating_add(1)
            }
            (None, None) => 0,
        };
        if u32::from(depth) > self.depth_max && is_push {
            return Err(EngineError::LimitExceeded {
                what: "nesting of containers",
                value: u64::from(depth),
                max: u64::from(self.depth_max),
            });
        }
        Ok(depth)
    }

    /// Before the first new block of a replica in a part.
    fn begin(&mut self, client: u64) -> Result<(), EngineError> {
        if self.taken.last().is_some_and(|last| last.client == client) {
            return Ok(());
        }
        let owner = match self.by {
            By::Log(author) => author,
            By::Push { is_reconciling, .. } if is_reconciling => None,
            By::Push { user, .. } => Some(user),
        };
        let is_new = !self.ledger.replicas.contains_key(&client);
        let replica = self.ledger.replicas.entry(client).or_default();
        let is_foreign =
            matches!((&replica.user, owner), (Some(known), Some(user)) if known != user);
        if is_foreign && matches!(self.by, By::Push { .. }) {
            return Err(FOREIGN);
        }
        self.taken.push(Before {
            client,
            next: replica.next,
            is_new,
            was_unbound: replica.user.is_none(),
        });
        if replica.user.is_none() {
            replica.user = owner.cloned();
        }
        Ok(())
    }
}

impl Visitor for Taker<'_> {
    fn block(&mut self, block: Block) {
        if self.fault.is_none() {
            self.fault = self.take(&block).err();
        }
    }

    fn deleted(&mut self, id: Id, len: u32) {
        if self.fault.is_none() && id.clock.saturating_add(len) > self.ledger.next(id.client) {
            self.fault = Some(EngineError::Incomplete);
        }
    }
}
