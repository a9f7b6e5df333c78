//! What the application says about users while they are here.

use std::sync::Arc;

use sync_core::error::{ErrorCode, PeerError};

use super::{Server, lock};

impl Server {
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
