//! Who has a document open, and what they say of themselves.

use std::any::{Any, TypeId};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sync_core::client::{PeerState, PresenceRefusal};
use sync_core::engine::Engine;
use sync_core::ids::{SessionId, User};
use sync_core::watch::{Watch, WatchSender, watch};

use crate::cell::{Entry, lock};
use crate::client::Keeper;
use crate::error::PresenceError;
use crate::handle::DocumentHandle;
use crate::shared::Shared;

/// Nesting of values that is read of what others say.
const DEPTH_MAX: usize = 64;

/// Somebody who has the document open and says something of themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peer<T> {
    /// Their session, given by the server: another one for each connection.
    pub session: SessionId,
    /// Who the server takes them for. Empty for this client until it has been connected once.
    pub user: User,
    /// What they say of themselves; `None` if that is no `T`.
    pub state: Option<T>,
    /// Whether it is this client.
    pub is_me: bool,
}

/// Who has a document open, and what they say of themselves: a name and a cursor, for instance. Made by
/// [`DocumentHandle::presence`]; cheap to clone.
///
/// What is said is the latest only, and is stored nowhere. It is sent at most once in 50 ms (or as the server says), the
/// last of it, and again after each reconnection; others see it until this client takes it back ([`clear`](Self::clear)),
/// closes the document, or is gone. While a connection is lost, others see it for some more seconds, and this client goes
/// on seeing them, so that nothing flickers when it is back in time.
///
/// Dropping a `Presence` takes nothing back: what was said stays until the document closes. Like a handle, it keeps the
/// document open.
pub struct Presence<T> {
    shared: Arc<Shared>,
    entry: Arc<Entry>,
    keeper: Arc<Keeper>,
    roster: Arc<Roster<T>>,
}

impl<T> Clone for Presence<T> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            entry: self.entry.clone(),
            keeper: self.keeper.clone(),
            roster: self.roster.clone(),
        }
    }
}

impl<T> fmt::Debug for Presence<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presence")
            .field("document", &self.entry.id)
            .finish_non_exhaustive()
    }
}

impl<E: Engine> DocumentHandle<E> {
    /// Who has the document open, with what they say of themselves as values of `T`, anything that serde can write and
    /// read.
    ///
    /// There is one presence of a client in a document: whoever sets another type's value replaces it, and who says
    /// something that is no `T` is there with `None`.
    ///
    /// ```
    /// # use sync_client::{Client, PresenceError, Yrs};
    /// # use serde::{Deserialize, Serialize};
    /// #[derive(Serialize, Deserialize)]
    /// struct Cursor {
    ///     name: String,
    ///     at: (f32, f32),
    /// }
    ///
    /// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let notes = client.open("notes/42", Yrs::new()).await?;
    /// let presence = notes.presence::<Cursor>();
    /// presence.set(&Cursor { name: "ada".into(), at: (0.5, 0.25) })?;
    /// let mut roster = presence.roster();
    /// while let Ok(peers) = roster.changed().await {
    ///     for cursor in peers.iter().filter(|peer| !peer.is_me).filter_map(|peer| peer.state.as_ref()) {
    ///         println!("{} is at {:?}", cursor.name, cursor.at);
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn presence<T>(&self) -> Presence<T>
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        let roster = self.entry.rosters.of::<T>();
        roster.update(&self.shared, &self.entry);
        Presence {
            shared: self.shared.clone(),
            entry: self.entry.clone(),
            keeper: self.keeper.clone(),
            roster,
        }
    }
}

impl<T> Presence<T>
where
    T: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    /// Says this of this client, in the place of what it said before. Also offline: it is said whenever there is a
    /// connection.
    ///
    /// # Errors
    /// [`PresenceError`]: nothing has changed. A value takes 4 KiB at most, unless the server says otherwise.
    pub fn set(&self, state: &T) -> Result<(), PresenceError> {
        // With names, so that versions of an application that know other fields understand each other.
        let bytes = rmp_serde::to_vec_named(state)
            .map_err(|error| PresenceError::Encode(Box::new(error)))?;
        self.say(Some(bytes.into()))
    }

    /// Takes back what this client said: others do not see it any more.
    pub fn clear(&self) {
        // There is nothing to take back where nothing can be said.
        let _ = self.say(None);
    }

    /// Those who say something, this client included, in the order of their sessions. Whoever has the document open and
    /// says nothing is not in it. Ends with the document.
    #[must_use]
    pub fn roster(&self) -> Watch<Arc<[Peer<T>]>> {
        self.roster.peers.watch()
    }

    fn say(&self, state: Option<Bytes>) -> Result<(), PresenceError> {
        if self.shared.is_stopped() {
            return Err(PresenceError::Closed);
        }
        let said = self
            .shared
            .command(|core, now| core.set_presence(now, &self.entry.id, state));
        // Here and not in the background, so that it is seen right after the call.
        self.entry.rosters.update(&self.shared, &self.entry);
        said.map_err(|refusal| match refusal {
            PresenceRefusal::TooLarge { bytes, max } => PresenceError::TooLarge { bytes, max },
            _ => PresenceError::Closed,
        })
    }
}

/// The rosters of a document that anybody has asked for, by the type of what is said. They live as long as the document,
/// so that a watch outlives the `Presence` that it is from.
#[derive(Default)]
pub(crate) struct Rosters(Mutex<Vec<(TypeId, Arc<dyn AnyRoster>)>>);

impl Rosters {
    fn of<T: DeserializeOwned + Send + Sync + 'static>(&self) -> Arc<Roster<T>> {
        let mut rosters = lock(&self.0);
        let id = TypeId::of::<T>();
        if let Some((_, roster)) = rosters.iter().find(|(of, _)| *of == id) {
            let roster: Arc<dyn Any + Send + Sync> = roster.clone();
            if let Ok(roster) = roster.downcast() {
                return roster;
            }
        }
        let roster = Arc::new(Roster::<T> {
            peers: watch(Arc::from([])).0,
            shown: AtomicU64::new(u64::MAX),
        });
        rosters.push((id, roster.clone()));
        roster
    }

    /// Shows who is there.
    pub(crate) fn update(&self, shared: &Shared, entry: &Entry) {
        let rosters: Vec<_> = lock(&self.0)
            .iter()
            .map(|(_, roster)| Arc::clone(roster))
            .collect();
        for roster in rosters {
            roster.update(shared, entry);
        }
    }
}

/// A roster of any type.
trait AnyRoster: Any + Send + Sync {
    fn update(&self, shared: &Shared, entry: &Entry);
}

struct Roster<T> {
    peers: WatchSender<Arc<[Peer<T>]>>,
    /// Revision of what was shown last.
    shown: AtomicU64,
}

impl<T: DeserializeOwned + Send + Sync + 'static> AnyRoster for Roster<T> {
    fn update(&self, shared: &Shared, entry: &Entry) {
        // Whoever has shown something looks again: of two threads, the one that knows less must not have the last word.
        loop {
            let Some((revision, peers)) = shared.core().state.roster(&entry.id) else {
                return;
            };
            if self.shown.load(Ordering::Acquire) == revision {
                return;
            }
            self.peers.send(peers.into_iter().map(peer).collect());
            self.shown.store(revision, Ordering::Release);
        }
    }
}

fn peer<T: DeserializeOwned>(peer: PeerState) -> Peer<T> {
    // The application's code, on bytes of others.
    let state = catch_unwind(AssertUnwindSafe(|| decode(&peer.state)));
    Peer {
        session: peer.session,
        user: peer.user,
        state: state.unwrap_or_default(),
        is_me: peer.is_me,
    }
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let mut decoder = rmp_serde::Deserializer::from_read_ref(bytes);
    decoder.set_max_depth(DEPTH_MAX);
    T::deserialize(&mut decoder).ok()
}
