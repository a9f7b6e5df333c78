//! Something between clients and a server that listens for WebSockets, for connections that are lost.

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::World;

/// Passes bytes on between its clients and a server.
pub struct Proxy {
    pub url: String,
    path: watch::Sender<Path>,
}

/// What becomes of the connections that there are when it changes; `Closed`: and of later ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    Open,
    Swallowing,
    Cut,
    Closed,
}

impl Proxy {
    pub async fn start(world: &World) -> Self {
        let upstream = world.address().trim_start_matches("ws://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let path = watch::Sender::new(Path::Open);
        let started = path.clone();
        tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let mut path = started.subscribe();
                if *path.borrow() == Path::Closed {
                    continue;
                }
                let mut server = TcpStream::connect(&upstream).await.unwrap();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        _ = path.changed() => if *path.borrow() == Path::Swallowing {
                            std::future::pending().await
                        }
                    }
                });
            }
        });
        Self { url, path }
    }

    /// From now on the connections that there are stay open, and nothing comes through.
    pub fn swallow(&self) {
        self.path.send_replace(Path::Swallowing);
    }

    /// Breaks the connections that there are.
    pub fn cut(&self) {
        self.path.send_replace(Path::Cut);
    }

    /// Breaks the connections that there are, and lets nobody through any more, or lets everybody through again.
    pub fn set_online(&self, is_online: bool) {
        let path = if is_online { Path::Open } else { Path::Closed };
        self.path.send_replace(path);
    }
}
