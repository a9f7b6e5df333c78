//! The bare relay: what is sent to a room goes to everybody else in it, as it is.
//!
//! It is the floor that the server is compared to: the same WebSocket library, one queue per connection, the same `Bytes`
//! for all. It has no protocol, checks nothing, keeps nothing and bounds nothing. A room is named by the path of the
//! request that opens a connection.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};

use crate::Failure;
use crate::cli::RelayMode;
use crate::generator::RELAY_ACK;

/// What the library reads at once; its default, 128 KiB, doubles the cost of small rooms.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// Messages that wait for one connection: more than any scenario has. Who lets more wait is cut off.
const QUEUE_MAX: usize = 1 << 20;
/// Messages written at once.
const BATCH_MAX: usize = 64;

/// Relays on a free port, in a task of its own.
pub(super) async fn start(mode: RelayMode, acks: bool, blob: usize) -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let relay = Arc::new(Relay {
        mode,
        acks,
        blob: Bytes::from(vec![b'.'; blob]),
        rooms: Mutex::default(),
    });
    tokio::spawn(async move {
        loop {
            // Out of files, say: those who are connected are served.
            let Ok((stream, _)) = listener.accept().await else {
                continue;
            };
            let relay = Arc::clone(&relay);
            // A connection ends with its own errors.
            tokio::spawn(async move { relay.serve(stream).await.is_ok() });
        }
    });
    Ok(address)
}

struct Relay {
    mode: RelayMode,
    acks: bool,
    /// Unless it is empty: what the author of a message is answered, instead of passing the message on.
    blob: Bytes,
    rooms: Mutex<HashMap<String, Arc<Room>>>,
}

#[derive(Debug, Default)]
struct Room {
    /// By the connection's number.
    members: Mutex<Vec<(u64, mpsc::Sender<Bytes>)>>,
}

impl Relay {
    async fn serve(&self, stream: TcpStream) -> Result<(), Failure> {
        stream.set_nodelay(true)?;
        let mut name = String::new();
        #[expect(clippy::result_large_err, reason = "the library's signature")]
        let callback = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
            request.uri().path().clone_into(&mut name);
            Ok(response)
        };
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
        let socket = accept_hdr_async_with_config(stream, callback, Some(config)).await?;
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let room = Arc::clone(lock(&self.rooms).entry(name).or_default());
        let member = room.join(queue.clone());
        let ended = self.pass_on(socket, &room, member, &queue, waiting).await;
        room.leave(member);
        ended
    }

    async fn pass_on(
        &self,
        mut socket: WebSocketStream<TcpStream>,
        room: &Room,
        member: u64,
        queue: &mpsc::Sender<Bytes>,
        mut waiting: mpsc::Receiver<Bytes>,
    ) -> Result<(), Failure> {
        loop {
            tokio::select! {
                message = socket.next() => match message.transpose()? {
                    Some(Message::Binary(_)) if !self.blob.is_empty() => {
                        queue.try_send(self.blob.clone())?;
                    }
                    Some(Message::Binary(bytes)) => {
                        room.send(member, &bytes);
                        if self.acks {
                            queue.try_send(Bytes::from_static(RELAY_ACK))?;
                        }
                    }
                    Some(Message::Close(_)) | None => return Ok(()),
                    Some(_) => {}
                },
                first = waiting.recv() => {
                    socket.feed(Message::Binary(first.ok_or("cut off")?)).await?;
                    if self.mode == RelayMode::Coalescing {
                        for _ in 1..BATCH_MAX {
                            let Ok(next) = waiting.try_recv() else { break };
                            socket.feed(Message::Binary(next)).await?;
                        }
                    }
                    socket.flush().await?;
                }
            }
        }
    }
}

impl Room {
    fn join(&self, queue: mpsc::Sender<Bytes>) -> u64 {
        let mut members = lock(&self.members);
        let member = members.last().map_or(0, |(last, _)| last + 1);
        members.push((member, queue));
        member
    }

    fn leave(&self, member: u64) {
        lock(&self.members).retain(|(other, _)| *other != member);
    }

    /// Queues a message for everybody but its author.
    fn send(&self, author: u64, message: &Bytes) {
        lock(&self.members)
            .retain(|(member, queue)| *member == author || queue.try_send(message.clone()).is_ok());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
