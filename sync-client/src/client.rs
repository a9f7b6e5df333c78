//! The client: one connection, any number of documents.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use sync_core::client::{
    ClientEvent, Extension, ExtensionError, OpenOptions, Status, StoredDocument,
};
use sync_core::engine::{Engine, Unreadable};
use sync_core::events::Events;
use sync_core::ids::{DocumentId, EngineId};
use sync_core::transport::Dialer;
use sync_core::watch::Watch;
use sync_core::wire::AccessLevel;

use crate::builder::{ClientBuilder, random};
use crate::cell::{Cell, Entry, lock};
use crate::error::OpenError;
use crate::handle::DocumentHandle;
use crate::shared::Shared;

/// A connection to a server, with any number of documents on it. Cheap to clone.
///
/// When the last clone and the last document handle are gone, the connection is closed at once. Changes that the server
/// has not acknowledged by then are lost with the process unless they were waited for: see [`shutdown`](Self::shutdown).
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

/// Dropped with the last handle: ends the driver.
struct Inner {
    shared: Arc<Shared>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("status", &self.inner.shared.status.get())
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the server at this address, such as `ws://127.0.0.1:8080`.
    pub fn builder(address: impl Into<String>) -> ClientBuilder {
        ClientBuilder::address(address.into())
    }

    /// A client that connects through a dialer of the application's.
    pub fn with_dialer(dialer: impl Dialer) -> ClientBuilder {
        ClientBuilder::with_dialer(dialer)
    }

    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            inner: Arc::new(Inner { shared }),
        }
    }

    /// Opens a document: what this device has of it, at once. Whether it exists on the server shows in
    /// [`sync_state`](DocumentHandle::sync_state). Opening twice gives the same replica.
    ///
    /// ```
    /// # use sync_client::{Client, Yrs, transport::memory::MemoryNetwork};
    /// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let notes = client.open("notes/42", Yrs::new()).await?;
    /// let pinned = client.open("pinned", Yrs::new()).read_only().must_exist().await?;
    /// # Ok(()) }
    /// ```
    pub fn open<E: Engine>(
        &self,
        document: impl TryInto<DocumentId, Error: Into<OpenError>>,
        engine: E,
    ) -> Open<E> {
        Open {
            client: self.clone(),
            document: document.try_into().map_err(Into::into),
            engine,
            options: OpenOptions::default(),
        }
    }

    async fn open_document<E: Engine>(
        self,
        document: DocumentId,
        engine: E,
        options: OpenOptions,
    ) -> Result<DocumentHandle<E>, OpenError> {
        let shared = &self.inner.shared;
        let engine = engine.bind(&document);
        let engine_id = engine.id();
        loop {
            if shared.is_stopped() {
                return Err(OpenError::Closed);
            }
            let is_open = shared
                .live_entry(&lock(&shared.documents), &document)
                .is_some();
            let stored = match &shared.store {
                Some(store) if !is_open => store.load(&document).await?,
                _ => None,
            };
            let seed = random().map_err(|_| OpenError::Random)?;
            if let Some(stored) = stored
                .as_ref()
                .filter(|stored| stored.state.engine != engine_id)
            {
                let open = stored.state.engine.clone();
                return Err(OpenError::EngineMismatch { open });
            }
            // Large documents take a while to load: not on the caller's thread.
            let engine = engine.clone();
            let load = move || Cell::load(engine, seed, stored.as_ref()).map(|cell| (cell, stored));
            let loaded = shared.runtime.spawn_blocking(load).await;
            let (cell, stored) = loaded.map_err(|_| OpenError::Closed)??;
            let loaded = (!is_open).then_some((Arc::new(cell), stored));
            if let Some(handle) = self.open_loaded(&document, &engine_id, loaded, options)? {
                return Ok(handle);
            }
        }
    }

    /// Opens a document that is open, or else what has been loaded of it. `None` if it was open when loading began, and is
    /// not any more.
    fn open_loaded<E: Engine>(
        &self,
        document: &DocumentId,
        engine: &EngineId,
        loaded: Option<(Arc<Cell<E>>, Option<StoredDocument>)>,
        options: OpenOptions,
    ) -> Result<Option<DocumentHandle<E>>, OpenError> {
        let shared = &self.inner.shared;
        let unreadable = loaded
            .as_ref()
            .map_or_else(Unreadable::default, |(cell, _)| cell.unreadable());
        let mut documents = lock(&shared.documents);
        let (entry, stored) = match (shared.live_entry(&documents, document), loaded) {
            (Some(entry), _) => (entry, None),
            (None, Some((cell, stored))) => {
                let entry = Arc::new(Entry::new(document.clone(), cell.clone()));
                cell.attach(&entry, shared);
                (entry, stored)
            }
            (None, None) => return Ok(None),
        };
        // Two engines with one id, such as `Typed` of different types, are different engines here.
        let cell = entry.any.downcast_ref::<Arc<Cell<E>>>().cloned();
        let cell = cell.ok_or_else(|| OpenError::EngineMismatch {
            open: engine.clone(),
        })?;
        shared
            .command(|state, now| {
                let sealer = cell.sealer.clone();
                state.open_sealed(now, document, engine, options, stored, sealer)?;
                state.handle_unreadable(now, document, unreadable);
                Ok(())
            })
            .map_err(|open| OpenError::EngineMismatch { open })?;
        documents.insert(document.clone(), entry.clone());
        let keeper = entry.keeper(|| Keeper {
            client: self.clone(),
            document: document.clone(),
        });
        drop(documents);
        shared.update(&entry);
        Ok(Some(DocumentHandle::new(
            shared.clone(),
            entry,
            cell,
            keeper,
        )))
    }

    /// Where the connection stands.
    #[must_use]
    pub fn status(&self) -> Watch<Status> {
        self.inner.shared.status.watch()
    }

    /// Documents with changes that the server is not known to hold, also such as have no handle any more.
    #[must_use]
    pub fn unsaved(&self) -> Watch<Arc<[DocumentId]>> {
        self.inner.shared.unsaved.watch()
    }

    /// What happens from here on.
    #[must_use]
    pub fn events(&self) -> Events<ClientEvent> {
        self.inner.shared.events.subscribe()
    }

    /// Sends a message to a plugin of the server, which knows what it means; `kind` is 128 to 255. A server without one
    /// ignores it. For one about a document see [`DocumentHandle::extend`].
    ///
    /// # Errors
    /// [`ExtensionError`]: nothing was sent, and nothing waits. What the server has against it after all shows as
    /// [`ClientEvent::SessionError`].
    pub fn extend(&self, kind: u8, bytes: impl Into<Bytes>) -> Result<(), ExtensionError> {
        self.inner.shared.extend(None, kind, bytes.into())
    }

    /// Messages of the server's plugins, from here on. A reader that falls behind by more than 256 loses the oldest.
    #[must_use]
    pub fn extensions(&self) -> Events<Extension> {
        self.inner.shared.extensions.subscribe()
    }

    /// The device's network has changed, or the application came back to the foreground: reconnects at once if waiting, and
    /// otherwise finds out whether the connection still lives.
    pub fn on_network_change(&self) {
        self.inner
            .shared
            .command(|state, now| state.network_changed(now));
    }

    /// Ends the connection, and makes no other until [`connect`](Self::connect). Documents stay open and can be edited.
    pub fn disconnect(&self) {
        self.inner.shared.command(|state, _| state.disconnect());
    }

    /// Connects, after [`disconnect`](Self::disconnect) or [`Status::Failed`], or without waiting for the next attempt.
    pub fn connect(&self) {
        self.inner.shared.command(|state, now| state.connect(now));
    }

    /// Waits until the server has everything, at most for `deadline`, then ends the client for every clone and handle, and
    /// finishes writing to the store. Whether the server has everything.
    ///
    /// # Cancellation
    /// Dropping the future leaves the client as it is.
    pub fn shutdown(
        &self,
        deadline: Duration,
    ) -> impl Future<Output = bool> + Send + 'static + use<> {
        let mut ended = self.inner.shared.end_within(deadline);
        async move {
            ended
                .wait_for(Option::is_some)
                .await
                .is_ok_and(|saved| saved == Some(true))
        }
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.document.fmt(f)
    }
}

/// Closes a document when its last handle is gone, and keeps the client alive until then.
pub(crate) struct Keeper {
    client: Client,
    document: DocumentId,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let (shared, document) = (&self.client.inner.shared, &self.document);
        let documents = lock(&shared.documents);
        // Somebody may have opened the document again since this one's last handle went.
        if documents.get(document).is_some_and(|entry| entry.is_kept()) {
            return;
        }
        shared.command(|state, now| state.close(now, document));
    }
}

/// A document being opened: await it. Nothing happens before.
#[must_use = "a document is opened by awaiting this"]
pub struct Open<E: Engine> {
    client: Client,
    document: Result<DocumentId, OpenError>,
    engine: E,
    options: OpenOptions,
}

impl<E: Engine> fmt::Debug for Open<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Open")
            .field("document", &self.document)
            .finish_non_exhaustive()
    }
}

impl<E: Engine> Open<E> {
    /// Asks for reading only: edits are refused.
    pub const fn read_only(mut self) -> Self {
        self.options.access = AccessLevel::Read;
        self
    }

    /// Does not create the document on the server: if it is not there, its phase is
    /// [`SyncPhase::Refused`](sync_core::client::SyncPhase::Refused).
    pub const fn must_exist(mut self) -> Self {
        self.options.create = false;
        self
    }
}

impl<E: Engine> IntoFuture for Open<E> {
    type Output = Result<DocumentHandle<E>, OpenError>;
    type IntoFuture = Opening<E>;

    fn into_future(self) -> Self::IntoFuture {
        Opening(Box::pin(async move {
            let client = self.client;
            client
                .open_document(self.document?, self.engine, self.options)
                .await
        }))
    }
}

/// The future of [`Open`]: what the device has is there when it resolves; the network is not waited for.
///
/// # Cancellation
/// Safe: the document is not open then.
#[must_use = "a document is opened by awaiting this"]
pub struct Opening<E: Engine>(BoxFuture<'static, Result<DocumentHandle<E>, OpenError>>);

impl<E: Engine> fmt::Debug for Opening<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening").finish_non_exhaustive()
    }
}

impl<E: Engine> Future for Opening<E> {
    type Output = Result<DocumentHandle<E>, OpenError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}
