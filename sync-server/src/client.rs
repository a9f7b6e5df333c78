//! The server's own documents, in its own process.

use async_trait::async_trait;
use sync_client::{Client, StartError};
use sync_core::ids::User;
use sync_core::transport::memory::pair;
use sync_core::transport::{DialError, Dialer, PeerInfo, Transport};

use crate::Server;

/// Bytes that one direction holds before its writer waits.
const BUFFER_BYTES: usize = 256 * 1024;

impl Server {
    /// A client of this server in its own process, for bots and back ends: an ordinary one, except that it needs no
    /// credentials, because the caller says who it is. What that user may do is up to the authorizer.
    ///
    /// # Errors
    /// As [`ClientBuilder::start`](sync_client::ClientBuilder::start).
    ///
    /// ```
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// use sync_client::{LwwMap, Typed};
    /// use sync_server::{Anonymous, MemoryRegistry, Server, User};
    ///
    /// let server = Server::builder(MemoryRegistry::new(), Anonymous::read_write()).build()?;
    /// let bot = server.client(User::new("bot"))?;
    /// let board = bot.open("board", Typed::<LwwMap<String, u32>>::new()).await?;
    /// board.edit(|map| map.insert("visits".to_owned(), 1))??;
    /// board.saved().await?;
    /// # Ok(()) }
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run()).unwrap();
    /// ```
    pub fn client(&self, user: User) -> Result<Client, StartError> {
        Client::with_dialer(InProcess {
            server: self.clone(),
            user,
        })
        .start()
    }
}

/// Connects to a server in the same process.
#[derive(Debug)]
struct InProcess {
    server: Server,
    user: User,
}

#[async_trait]
impl Dialer for InProcess {
    async fn dial(&self) -> Result<Box<dyn Transport>, DialError> {
        let (ours, theirs) = pair(BUFFER_BYTES);
        tokio::spawn(
            self.server
                .serve_as(theirs, PeerInfo::default(), self.user.clone()),
        );
        Ok(Box::new(ours))
    }
}
