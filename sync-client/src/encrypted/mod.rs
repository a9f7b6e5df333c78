//! End-to-end encryption: the server relays what only the clients can read.

mod document;
mod key;
mod sealed;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use sync_core::engine::{
    Edited, Engine, EngineError, NativeEngine, ReplicaSeed, Sealer, ValidateLimits, Version,
};
use sync_core::ids::{DocumentId, EngineId};

pub use self::document::EncryptedDocument;
pub use self::key::Key;
use self::key::Keyring;
use self::sealed::OVERHEAD_BYTES;

/// The engine value for documents of any other engine that only holders of a key can read.
///
/// Changes and snapshots are sealed with XChaCha20-Poly1305 before they leave the replica: on the wire, on the server and
/// in this device's store they are sealed. The server sees who sends how much and when, and relays (`docs/guide/encryption.md`
/// has the rest). What is opened and read is as with the engine inside.
///
/// ```
/// # use sync_client::{Client, Encrypted, Key, Typed, LwwMap};
/// # async fn example(client: Client, secret: [u8; 32]) -> Result<(), Box<dyn std::error::Error>> {
/// let engine = Encrypted::new(Typed::<LwwMap<String, String>>::new(), Key::from_bytes(secret));
/// let notes = client.open("notes/42", engine).await?;
/// notes.edit(|notes| notes.insert("title".into(), "nobody's business".into()))??;
/// # Ok(()) }
/// ```
///
/// Where there is content and none of it opens, the key is wrong: [`OpenError::WrongKey`](crate::OpenError::WrongKey) if
/// this device has it, [`SyncPhase::WrongKey`](crate::SyncPhase::WrongKey) as soon as it comes from the server; then nothing
/// can be edited, and nothing is sent. Single changes that do not open are passed over by everybody and counted
/// ([`SyncState::unreadable`](crate::SyncState::unreadable)); what the server withholds or puts into another order shows in
/// [`SyncState::missing`](crate::SyncState::missing).
///
/// To change the key, open with the new one and [`also_reads`](Self::also_reads) the old one, on every device, before one of
/// them writes with the new one.
#[derive(Clone)]
pub struct Encrypted<E> {
    inner: E,
    writing: Key,
    reading: Vec<Key>,
    /// The keys, for the document that this value has been bound to.
    ring: Option<Arc<Keyring>>,
}

impl<E: Engine> Encrypted<E> {
    /// Documents of `inner`, sealed with this key.
    #[must_use]
    pub const fn new(inner: E, key: Key) -> Self {
        Self {
            inner,
            writing: key,
            reading: Vec::new(),
            ring: None,
        }
    }

    /// Reads what was sealed with this key too. Nothing is sealed with it.
    #[must_use]
    pub fn also_reads(mut self, key: Key) -> Self {
        self.reading.push(key);
        self
    }

    /// What a change of the document says to the engine inside, such as one that was refused. `None` if it does not open.
    #[must_use]
    pub fn open_change(&self, document: &DocumentId, change: &Bytes) -> Option<Bytes> {
        let ring = Keyring::new(document, &self.writing, &self.reading);
        ring.open(change).ok().map(|(_, plain)| plain)
    }
}

impl<E: Engine> Engine for Encrypted<E> {
    type Document = EncryptedDocument<E>;
    type Read<'a> = E::Read<'a>;
    type Edit<'a> = E::Edit<'a>;

    /// The server knows these documents as opaque ones.
    fn id(&self) -> EngineId {
        EngineId::OPAQUE
    }

    fn bind(mut self, document: &DocumentId) -> Self {
        self.inner = self.inner.bind(document);
        let ring = Keyring::new(document, &self.writing, &self.reading);
        self.ring = Some(Arc::new(ring));
        self
    }

    fn sealer(&self) -> Option<Arc<dyn Sealer>> {
        let ring = self.ring.clone()?;
        Some(ring)
    }

    fn create(&self, seed: ReplicaSeed) -> Result<Self::Document, EngineError> {
        let ring = self.ring.clone().ok_or(EngineError::Unsupported {
            what: "an encrypted document that has not been told its id",
        })?;
        let inner = self.inner.create(seed)?;
        Ok(EncryptedDocument::new(self.inner.clone(), inner, ring))
    }

    /// Takes any bytes of acceptable size: what does not open is passed over by everybody, and counted.
    fn validate(&self, change: &[u8], limits: &ValidateLimits) -> Result<(), EngineError> {
        limits.check_len(change)
    }

    fn read<R>(
        &self,
        document: &Self::Document,
        f: impl FnOnce(&Self::Read<'_>) -> R,
    ) -> Result<R, EngineError> {
        self.inner.read(&document.inner, f)
    }

    fn edit<R>(
        &self,
        document: &mut Self::Document,
        bytes_max: usize,
        f: impl FnOnce(&mut Self::Edit<'_>) -> R,
    ) -> Result<Edited<R>, EngineError> {
        let bytes_max = bytes_max.saturating_sub(OVERHEAD_BYTES);
        match self.inner.edit(&mut document.inner, bytes_max, f)? {
            Edited::TakenBack { change, replaced } => Ok(Edited::TakenBack {
                change: document.draft(&change)?,
                replaced,
            }),
            edited => Ok(edited),
        }
    }

    fn read_at<R>(
        &self,
        document: &mut Self::Document,
        version: &Version,
        f: impl FnOnce(&Self::Read<'_>) -> R,
    ) -> Result<R, EngineError> {
        self.inner.read_at(&mut document.inner, version, f)
    }
}

impl<E: NativeEngine> NativeEngine for Encrypted<E> {
    type Native = E::Native;

    fn native(&self, document: &Self::Document) -> Self::Native {
        self.inner.native(&document.inner)
    }
}

impl<E: fmt::Debug> fmt::Debug for Encrypted<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Encrypted").field(&self.inner).finish()
    }
}
