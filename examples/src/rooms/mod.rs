//! Rooms in which people write a text together, chat, and see who is there: a client of the `sync-server` program.
//!
//! What stays is in documents: one has the names of the rooms, and each room is a text. What matters only to whoever is there
//! is not: chat is a broadcast, and who is there is presence.

pub mod demo;
pub mod serve;
pub mod tokens;

use std::collections::BTreeSet;
use std::error::Error;

use serde::{Deserialize, Serialize};
use sync_client::yrs::{GetString, ReadTxn, Text, WriteTxn};
use sync_client::{
    Broadcast, Client, ClientBuilder, DocumentHandle, Events, OrSet, Presence, Typed, Watch, Yrs,
};

/// What may go wrong.
pub type Failure = Box<dyn Error + Send + Sync>;

/// The document that has the names of all rooms.
const INDEX: &str = "rooms";
/// What chat is about, among the broadcasts of a room.
const CHAT: &str = "chat";
/// Who everybody is on a server that asks nobody.
const ANONYMOUS: &str = "anonymous";

/// A client, and the rooms that there are.
#[derive(Debug)]
pub struct House {
    client: Client,
    index: DocumentHandle<Typed<OrSet<String>>>,
    name: String,
}

/// What somebody says of themselves in a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// What they want to be called.
    pub name: String,
    /// What they are doing.
    pub doing: String,
}

/// What is broadcast.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    name: String,
    text: String,
}

/// A room that one is in.
#[derive(Debug)]
pub struct Room {
    /// What it is called.
    pub name: String,
    me: String,
    text: DocumentHandle<Yrs>,
    presence: Presence<Guest>,
    chat: Events<Broadcast>,
    roster: Watch<std::sync::Arc<[sync_client::Peer<Guest>]>>,
    revision: Watch<u64>,
    /// Who was there when that was told last.
    told: BTreeSet<String>,
}

/// Something that happened in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// Somebody said something.
    Said {
        /// Who. The server vouches for it, unless it knows nobody; then it is a name with a `~`.
        who: String,
        /// What.
        text: String,
    },
    /// The connection, or the terminal, was too slow for so many lines.
    Missed(u64),
    /// Others are there now.
    Roster(Vec<String>),
    /// The text has changed.
    Written,
}

impl House {
    /// Connects, as somebody who wants to be called this.
    ///
    /// # Errors
    /// If the address is none.
    pub async fn enter(client: ClientBuilder, name: &str) -> Result<Self, Failure> {
        let client = client.start()?;
        let index = client.open(INDEX, Typed::new()).await?;
        Ok(Self {
            client,
            index,
            name: name.to_owned(),
        })
    }

    /// The client.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// Waits until what the server has is here.
    ///
    /// # Errors
    /// If it will not come.
    pub async fn caught_up(&self) -> Result<(), Failure> {
        Ok(self.index.caught_up().await?)
    }

    /// The names of all rooms, as far as they are known here.
    #[must_use]
    pub fn rooms(&self) -> Vec<String> {
        self.index.read(|names| names.iter().cloned().collect())
    }

    /// Goes into a room, which is made if there is none of that name.
    ///
    /// # Errors
    /// If that is no name, or one may not write on this server.
    pub async fn join(&self, name: &str) -> Result<Room, Failure> {
        let text = self
            .client
            .open(format!("rooms/{name}"), Yrs::new())
            .await?;
        if !self.index.read(|names| names.contains(name)) {
            self.index.edit(|names| names.insert(name.to_owned()))??;
        }
        let presence = text.presence::<Guest>();
        presence.set(&Guest {
            name: self.name.clone(),
            doing: "reading".to_owned(),
        })?;
        Ok(Room {
            name: name.to_owned(),
            me: self.name.clone(),
            chat: text.broadcasts(CHAT),
            roster: presence.roster(),
            revision: text.revision(),
            presence,
            text,
            told: BTreeSet::new(),
        })
    }
}

impl Room {
    /// Waits until what the server has is here.
    ///
    /// # Errors
    /// If it will not come.
    pub async fn caught_up(&self) -> Result<(), Failure> {
        Ok(self.text.caught_up().await?)
    }

    /// Waits until the server has what was written.
    ///
    /// # Errors
    /// If it will not.
    pub async fn saved(&self) -> Result<(), Failure> {
        Ok(self.text.saved().await?)
    }

    /// Says something to whoever is there now.
    ///
    /// # Errors
    /// [`BroadcastError`](sync_client::BroadcastError): nobody has heard it, and nobody will.
    pub fn say(&self, text: &str) -> Result<(), Failure> {
        let line = Line {
            name: self.me.clone(),
            text: text.to_owned(),
        };
        Ok(self.text.broadcast(CHAT, serde_json::to_vec(&line)?)?)
    }

    /// Adds a line to the text.
    ///
    /// # Errors
    /// If one may not.
    pub fn write(&self, line: &str) -> Result<(), Failure> {
        self.text.edit(|txn| {
            let body = txn.get_or_insert_text("body");
            body.push(txn, &format!("{line}\n"));
        })?;
        self.doing("writing")
    }

    /// Tells the others what one is doing.
    ///
    /// # Errors
    /// If it is too long.
    pub fn doing(&self, what: &str) -> Result<(), Failure> {
        let me = Guest {
            name: self.me.clone(),
            doing: what.to_owned(),
        };
        Ok(self.presence.set(&me)?)
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> String {
        self.text.read(|txn| {
            let body = txn.get_text("body");
            body.map(|body| body.get_string(txn)).unwrap_or_default()
        })
    }

    /// Who is there, this client included, and what they are doing.
    #[must_use]
    pub fn who(&self) -> Vec<String> {
        let roster = self.roster.get();
        let guests = roster.iter().filter_map(|peer| {
            let guest = peer.state.as_ref()?;
            let who = called(&peer.user.id, &guest.name);
            Some(format!("{who} is {}", guest.doing))
        });
        guests.collect()
    }

    /// The next thing that happens; `None` if the room is closed.
    ///
    /// # Cancellation
    /// Safe: nothing is lost.
    pub async fn next(&mut self) -> Option<Happening> {
        loop {
            tokio::select! {
                said = self.chat.next() => match said? {
                    Broadcast::Received { sender, bytes, .. } => {
                        // Anybody who may write can send anything.
                        let Ok(line) = serde_json::from_slice::<Line>(&bytes) else { continue };
                        let who = match sender {
                            Some(sender) => called(&sender.user, &line.name),
                            None => "the server".to_owned(),
                        };
                        return Some(Happening::Said { who, text: line.text });
                    }
                    Broadcast::Lagged { missed } => return Some(Happening::Missed(missed)),
                    _ => {}
                },
                roster = self.roster.changed() => {
                    roster.ok()?;
                    let who = self.who();
                    let there: BTreeSet<_> = who.iter().cloned().collect();
                    if there != self.told {
                        self.told = there;
                        return Some(Happening::Roster(who));
                    }
                }
                revision = self.revision.changed() => {
                    revision.ok()?;
                    return Some(Happening::Written);
                }
            }
        }
    }
}

/// What to call somebody: the server vouches for a user, but not for a name that anybody can give themselves.
fn called(user: &str, name: &str) -> String {
    if user == ANONYMOUS || user.is_empty() {
        format!("~{name}")
    } else {
        user.to_owned()
    }
}
