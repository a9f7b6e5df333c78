//! What a test has the network do to a client's connection.

use std::time::Duration;

use sync_core::engine::{Engine, Validator};
use sync_core::error::{ErrorCode, PeerError};
use sync_core::ids::SessionId;
use sync_core::transport::DialError;

use super::links::{Deaf, Down};
use super::{Target, World};

impl<E: Engine + Validator> World<E> {
    /// Loses the client's connection: it notices now, the server some time later. What is under way may still arrive there.
    pub fn cut(&mut self, client: usize) {
        let Some(session) = self.clients[client].link.take() else {
            return;
        };
        self.count("fault", "cut");
        let attempt = self.links[&session].attempt;
        self.lose_client_end(session);
        self.clients[client]
            .state
            .handle_lost(self.now, attempt, None);
        self.perform_client(client);
    }

    /// The client does not have the connection any more, and has not said so to the server.
    pub(super) fn lose_client_end(&mut self, session: SessionId) {
        let lost_at = self.now + self.rng.up_to(self.weather.linger_max);
        if let Some(link) = self.links.get_mut(&session) {
            link.lost_at = Some(lost_at);
        }
        self.forget_client_end(session);
        self.schedule(Some(lost_at), Target::Link(session));
    }

    /// Whether a client can reach anybody.
    pub fn set_online(&mut self, client: usize, online: bool) {
        self.clients[client].online = online;
        if online {
            self.clients[client].state.network_changed(self.now);
            self.perform_client(client);
        } else {
            self.cut(client);
        }
    }

    /// The server's end of the client's connection is gone, and the client does not know: nobody tells it.
    pub fn cut_behind(&mut self, client: usize) {
        if let Some(session) = self.clients[client].link {
            self.count("fault", "half open, server gone");
            self.leave_link(session, true);
        }
    }

    /// Nothing arrives any more of what is sent over the client's connection, to the server, to the client, or both. Neither
    /// is told.
    pub fn deafen(&mut self, client: usize, server: bool, hears_nothing: bool) {
        if let Some(session) = self.clients[client].link
            && let Some(link) = self.links.get_mut(&session)
        {
            link.is_deaf = Deaf {
                server,
                client: hears_nothing,
            };
            if server {
                link.up.clear();
            }
            self.count("fault", "half open, silent");
        }
    }

    /// The client's connection breaks in the middle of the next message that is sent in parts, either way.
    pub fn cut_in_message(&mut self, client: usize) {
        if let Some(session) = self.clients[client].link
            && let Some(link) = self.links.get_mut(&session)
        {
            link.breaks_in_message = true;
        }
    }

    /// The client reads nothing for so long.
    pub fn stall(&mut self, client: usize, time: Duration) {
        if let Some(session) = self.clients[client].link
            && let Some(link) = self.links.get_mut(&session)
        {
            link.reads_at = link.reads_at.max(self.now + time);
            self.count("fault", "reader stalled");
            self.schedule_link(session);
        }
    }

    /// On this connection of the client's and on later ones, each frame from the server arrives so much later than the one
    /// before it.
    pub fn slow_down(&mut self, client: usize, trickle: Duration) {
        self.clients[client].trickle = trickle;
        if let Some(session) = self.clients[client].link
            && let Some(link) = self.links.get_mut(&session)
        {
            link.trickle = trickle;
            self.count("fault", "slow reader");
        }
    }

    /// The client's next attempt to connect fails like that.
    pub fn fail_dial(&mut self, client: usize, error: DialError) {
        self.clients[client].next_dial = Some(error);
    }

    /// The server ends the client's session, and says why.
    pub fn end_session(&mut self, client: usize, code: ErrorCode) {
        if let Some(session) = self.clients[client].link {
            self.end_soon(session, PeerError::new(code, "a test says so"));
        }
    }

    /// Something between the two closes the client's connection with this code; the server learns nothing of it for a while.
    pub fn close_connection(&mut self, client: usize, code: u16) {
        let Some(session) = self.clients[client].link else {
            return;
        };
        self.count("fault", "closed on the way");
        let lost_at = self.now + self.rng.up_to(self.weather.linger_max);
        if let Some(link) = self.links.get_mut(&session) {
            link.lost_at = Some(lost_at);
        }
        self.put_down(session, Down::Close(Some(code)));
        self.schedule_link(session);
    }

    /// How many connections the server still has of a client: more than one if it has come back before the server noticed
    /// that it was gone.
    pub fn connections_of(&self, client: usize) -> usize {
        let links = self.links.values();
        links
            .filter(|link| link.client == client && link.has_server)
            .count()
    }
}
