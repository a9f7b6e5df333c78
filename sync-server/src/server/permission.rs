//! What the application says about users while they are here.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use sync_core::error::{ErrorCode, PeerError};
use sync_core::ids::{DocumentId, User};

use super::{Server, lock};

/// Doubts that are remembered. Whatever was asked before the oldest is asked again.
const DOUBTS_MAX: usize = 1024;

/// Rooms visited before other tasks get their turn.
const ROOMS_AT_ONCE: usize = 64;

/// What has been said to be out of date, for answers that were asked for before and come after.
#[derive(Debug, Default)]
pub(super) struct Doubts(Mutex<Recent>);

#[derive(Debug, Default)]
struct Recent {
    /// How many there have ever been.
    count: u64,
    /// The last of them.
    kept: VecDeque<Doubt>,
}

#[derive(Debug)]
enum Doubt {
    User(User),
    Document(DocumentId),
}

impl Doubts {
    /// To be noted when something is asked.
    pub(super) fn count(&self) -> u64 {
        lock(&self.0).count
    }

    fn add(&self, doubt: Doubt) {
        let mut recent = lock(&self.0);
        recent.count += 1;
        recent.kept.push_back(doubt);
        if recent.kept.len() > DOUBTS_MAX {
            recent.kept.pop_front();
        }
    }

    /// Whether what was asked then about this user and document may be out of date.
    pub(super) fn concern(&self, asked_at: u64, user: &User, document: &DocumentId) -> bool {
        let recent = lock(&self.0);
        let since = usize::try_from(recent.count.saturating_sub(asked_at)).unwrap_or(usize::MAX);
        let is_concerned = |doubt: &Doubt| match doubt {
            Doubt::User(doubted) => doubted == user,
            Doubt::Document(doubted) => doubted == document,
        };
        since > recent.kept.len() || recent.kept.iter().rev().take(since).any(is_concerned)
    }
}

impl Server {
    /// Says that what a user may do may have changed. The authorizer is asked anew for each document that the user has open
    /// here; from this call on, until it has answered, the user is sent nothing that is published, and nothing of what it
    /// pushes is appended. Neither is refused: what the answer allows goes on where it was.
    ///
    /// Sessions go on. To have a user prove again who it is, see [`disconnect`](Self::disconnect). Other servers on the same
    /// registry are not told: there it takes as long as [`Access::valid_for`](crate::Access::valid_for) says.
    ///
    /// # Cancellation
    /// Dropping the future leaves out documents that have not been visited.
    pub async fn revoke(&self, user: &str) {
        let user = User::new(user);
        self.shared.doubts.add(Doubt::User(user.clone()));
        for rooms in self.shared.rooms.all().chunks(ROOMS_AT_ONCE) {
            for room in rooms {
                room.reauthorize(Some(&user));
            }
            tokio::task::yield_now().await;
        }
    }

    /// Says that what users may do with a document may have changed: as [`revoke`](Self::revoke), for all who have it open.
    ///
    /// # Cancellation
    /// It is done at once.
    #[expect(
        clippy::unused_async,
        reason = "as `revoke`: callers need not know which of them visits many rooms"
    )]
    pub async fn reauthorize(&self, document: &DocumentId) {
        let doubts = &self.shared.doubts;
        doubts.add(Doubt::Document(document.clone()));
        if let Some(room) = self.shared.rooms.live(document) {
            room.reauthorize(None);
        }
    }

    /// Ends the sessions that a user has now, and says how many that were. They are told
    /// [`Unauthenticated`](ErrorCode::Unauthenticated): a client that can get fresh credentials comes back with them, and is
    /// asked who it is like any other; one that cannot stays away. Nothing that waits to be saved is lost by it.
    ///
    /// Who is not to come back has to be refused by the authenticator first.
    pub fn disconnect(&self, user: &str) -> usize {
        let sessions = lock(&self.shared.sessions);
        let theirs = sessions.by_client.iter();
        let theirs = theirs.filter(|((_, found), _)| &*found.id == user);
        let mailboxes: Vec<_> = theirs
            .filter_map(|(_, (_, session))| sessions.live.get(session).map(Arc::clone))
            .collect();
        drop(sessions);
        for mailbox in &mailboxes {
            mailbox.end(PeerError::new(
                ErrorCode::Unauthenticated,
                "the server ended the session: say again who you are",
            ));
        }
        mailboxes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubts_concern_what_was_asked_before_and_is_about_the_same() {
        let doubts = Doubts::default();
        let (ada, bob) = (User::new("ada"), User::new("bob"));
        let [a, b] = ["a", "b"].map(|id| DocumentId::new(id).expect("an id"));
        let before = doubts.count();
        doubts.add(Doubt::User(ada.clone()));
        doubts.add(Doubt::Document(b.clone()));
        assert!(doubts.concern(before, &ada, &a) && doubts.concern(before, &bob, &b));
        assert!(!doubts.concern(before, &bob, &a));
        assert!(!doubts.concern(before + 1, &ada, &a) && doubts.concern(before + 1, &ada, &b));
        assert!(!doubts.concern(doubts.count(), &ada, &b));
        for _ in 0..DOUBTS_MAX {
            doubts.add(Doubt::User(ada.clone()));
        }
        assert!(doubts.concern(before, &bob, &a), "nobody remembers");
    }
}
