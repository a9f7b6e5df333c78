//! What is sealed looks like this; the header and the document's id are bound to it (associated data).
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 0 | 2 | `sl` |
//! | 2 | 1 | format: 1 |
//! | 3 | 1 | kind: 1 change, 2 state, 3 change that has no id yet and never leaves the device |
//! | 4 | 8 | id of the key |
//! | 12 | 16 | origin of the change, big endian; 0 for other kinds |
//! | 28 | 8 | number of the change, big endian; 0 for other kinds |
//! | 36 | 24 | nonce |
//! | 60 | rest | ciphertext and, at its end, 16 bytes of tag |

use sync_core::ids::{ChangeId, OriginId};

const MAGIC: [u8; 2] = *b"sl";
const FORMAT: u8 = 1;

pub(super) const HEADER_BYTES: usize = 36;
pub(super) const NONCE_BYTES: usize = 24;
/// What sealing adds to the length of something.
pub(super) const OVERHEAD_BYTES: usize = HEADER_BYTES + NONCE_BYTES + 16;

/// Names a key within a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyId(pub(super) [u8; 8]);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Change = 1,
    State = 2,
    /// Between the document and the outbox.
    Draft = 3,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) key: KeyId,
    /// Of a change.
    pub(super) id: Option<ChangeId>,
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let kind = match self.kind {
            Kind::Change => 1,
            Kind::State => 2,
            Kind::Draft => 3,
        };
        let (origin, number) = self.id.map_or((0, 0), |id| (id.origin.0, id.number));
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[FORMAT, kind]);
        out.extend_from_slice(&self.key.0);
        out.extend_from_slice(&origin.to_be_bytes());
        out.extend_from_slice(&number.to_be_bytes());
        out
    }

    /// `None` if this is nothing sealed.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<2>()?;
        let (&[format, kind], rest) = rest.split_first_chunk::<2>()?;
        let (key, rest) = rest.split_first_chunk()?;
        let (origin, rest) = rest.split_first_chunk()?;
        let (number, _) = rest.split_first_chunk()?;
        let id = ChangeId {
            origin: OriginId(u128::from_be_bytes(*origin)),
            number: u64::from_be_bytes(*number),
        };
        let (kind, id) = match (kind, id.number) {
            (1, 1..) => (Kind::Change, Some(id)),
            (2, 0) => (Kind::State, None),
            (3, 0) => (Kind::Draft, None),
            _ => return None,
        };
        (*magic == MAGIC && format == FORMAT).then_some(Self {
            kind,
            key: KeyId(*key),
            id,
        })
    }
}
