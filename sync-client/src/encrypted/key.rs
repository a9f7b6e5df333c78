//! Keys, and what they are in one document.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use chacha20poly1305::aead::{Aead, AeadInOut, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use sync_core::engine::Sealer;
use sync_core::ids::{ChangeId, DocumentId};
use zeroize::Zeroizing;

use super::sealed::{HEADER_BYTES, Header, KeyId, Kind, NONCE_BYTES};

/// A secret key of 256 bits. Wiped from memory with its last clone.
///
/// It must be random: the system's randomness, or what a key exchange or a key derivation function gives. A password is
/// no key; derive one from it with a function made for that, such as Argon2id.
#[derive(Clone)]
pub struct Key(Arc<Zeroizing<[u8; 32]>>);

impl Key {
    /// A key of these bytes. The caller's copy of them stays where it is.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Arc::new(Zeroizing::new(bytes)))
    }
}

/// Nothing of the key.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// The operating system gave no randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoRandomness;

/// Why something does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unopened {
    /// It names a key that has not been given.
    Foreign,
    /// It is nothing sealed, has been changed, or is another document's.
    Broken,
}

/// The keys of one document.
pub(super) struct Keyring {
    document: DocumentId,
    writing: DocumentKey,
    reading: Vec<DocumentKey>,
}

struct DocumentKey {
    id: KeyId,
    cipher: XChaCha20Poly1305,
}

impl DocumentKey {
    fn new(key: &Key, document: &DocumentId) -> Self {
        let cipher = XChaCha20Poly1305::new((&**key.0).into());
        // Tells keys apart without telling anything else of them, and not even that two documents have the same one. Nonces
        // are random otherwise, so this one is used for nothing else.
        let label = [KEY_ID_LABEL, document.as_str().as_bytes()].concat();
        let tag = cipher.encrypt_inout_detached(&XNonce::default(), &label, (&mut [][..]).into());
        let id = tag.ok().and_then(|tag| tag.first_chunk().copied());
        Self {
            id: KeyId(id.unwrap_or_default()),
            cipher,
        }
    }
}

const KEY_ID_LABEL: &[u8] = b"key id\0";

impl Keyring {
    pub(super) fn new(document: &DocumentId, writing: &Key, reading: &[Key]) -> Self {
        let key = |key: &Key| DocumentKey::new(key, document);
        Self {
            document: document.clone(),
            writing: key(writing),
            reading: reading.iter().map(key).collect(),
        }
    }

    fn associated(&self, header: &[u8]) -> Vec<u8> {
        [header, self.document.as_str().as_bytes()].concat()
    }

    /// Seals with the key for writing, under a nonce that is drawn for this alone.
    pub(super) fn seal(
        &self,
        kind: Kind,
        id: Option<ChangeId>,
        plain: &[u8],
    ) -> Result<Bytes, NoRandomness> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|_| NoRandomness)?;
        let header = Header {
            kind,
            key: self.writing.id,
            id,
        };
        let mut out = header.encode();
        let payload = Payload {
            msg: plain,
            aad: &self.associated(&out),
        };
        // Fails only beyond 256 GiB, which nothing here reaches.
        let sealed = self.writing.cipher.encrypt(&nonce.into(), payload);
        out.extend_from_slice(&nonce);
        out.extend(sealed.map_err(|_| NoRandomness)?);
        Ok(out.into())
    }

    /// What was sealed, by whoever has one of the keys, for this document.
    pub(super) fn open(&self, sealed: &[u8]) -> Result<(Header, Bytes), Unopened> {
        let (head, rest) = sealed
            .split_at_checked(HEADER_BYTES)
            .ok_or(Unopened::Broken)?;
        let header = Header::decode(head).ok_or(Unopened::Broken)?;
        let (nonce, sealed) = rest.split_first_chunk().ok_or(Unopened::Broken)?;
        let nonce: &[u8; NONCE_BYTES] = nonce;
        let mut keys = std::iter::once(&self.writing).chain(&self.reading);
        let key = keys
            .find(|key| key.id == header.key)
            .ok_or(Unopened::Foreign)?;
        let payload = Payload {
            msg: sealed,
            aad: &self.associated(head),
        };
        let plain = key.cipher.decrypt(&(*nonce).into(), payload);
        Ok((header, plain.map_err(|_| Unopened::Broken)?.into()))
    }
}

/// Seals changes for the ids under which they are logged.
impl Sealer for Keyring {
    fn seal(&self, id: ChangeId, change: &Bytes) -> Bytes {
        let resealed = match self.open(change) {
            Ok((_, plain)) => Self::seal(self, Kind::Change, Some(id), &plain).ok(),
            Err(_) => None,
        };
        // Without randomness it stays sealed as it is, under no id or another one: as secret, and less bound.
        resealed.unwrap_or_else(|| change.clone())
    }

    fn is_current(&self, change: &Bytes) -> bool {
        let header = change.get(..HEADER_BYTES).and_then(Header::decode);
        header.is_some_and(|header| header.kind == Kind::Change && header.key == self.writing.id)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring")
            .field("document", &self.document)
            .finish_non_exhaustive()
    }
}
