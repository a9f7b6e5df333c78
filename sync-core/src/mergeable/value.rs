//! The application's keys and values as bytes: MessagePack with named fields.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::check::{DEPTH_MAX, check_value};
use crate::engine::EngineError;

/// Why a key or value cannot be stored. Nothing has been changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// Its `Serialize` failed.
    #[error("the key or value does not serialise: {message}")]
    NotSerializable {
        /// What the serialiser said.
        message: String,
    },
    /// It nests arrays and maps too deeply.
    #[error("the key or value is nested more than {max} deep")]
    TooDeep {
        /// The limit.
        max: u32,
    },
    /// It was to stand behind the end of a sequence.
    #[error("index {index} is behind the end of {length} elements")]
    OutOfRange {
        /// Where it was to stand.
        index: usize,
        /// Number of elements.
        length: usize,
    },
    /// Its `Deserialize` does not read what its `Serialize` wrote, or reads another key.
    #[error("the key or value does not read back as it was written")]
    NotReadable,
}

/// A type of keys: what serde can store, in an order.
///
/// Keys are told apart by their bytes: the order must tell apart what serialises differently.
pub trait Key: Serialize + DeserializeOwned + Ord + Clone + Send + 'static {}
impl<K: Serialize + DeserializeOwned + Ord + Clone + Send + 'static> Key for K {}

/// A type of values: what serde can store.
pub trait Value: Serialize + DeserializeOwned + Clone + Send + 'static {}
impl<V: Serialize + DeserializeOwned + Clone + Send + 'static> Value for V {}

/// The value in these bytes, if this application can read it.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    rmp_serde::from_slice(bytes).ok()
}

/// The bytes of a value, and the value as everybody else will read it.
pub(super) fn stored<T: Serialize + DeserializeOwned>(
    value: &T,
) -> Result<(Box<[u8]>, T), ValueError> {
    let bytes = encode(value)?;
    let read = decode(&bytes).ok_or(ValueError::NotReadable)?;
    Ok((bytes, read))
}

/// The bytes of a value.
pub(super) fn encode<T: Serialize>(value: &T) -> Result<Box<[u8]>, ValueError> {
    let bytes = rmp_serde::to_vec_named(value).map_err(|error| ValueError::NotSerializable {
        message: error.to_string(),
    })?;
    match check_value(&bytes) {
        Ok(()) => Ok(bytes.into()),
        Err(EngineError::LimitExceeded { .. }) => Err(ValueError::TooDeep { max: DEPTH_MAX }),
        // A `Serialize` that announces more or fewer items than it writes.
        Err(_) => Err(ValueError::NotReadable),
    }
}

/// The bytes of a key, which can be read back.
pub(super) fn encode_key<K: Serialize + DeserializeOwned>(
    key: &K,
) -> Result<Box<[u8]>, ValueError> {
    let bytes = encode(key)?;
    decode_key::<K>(&bytes)
        .map(|_| bytes)
        .ok_or(ValueError::NotReadable)
}

/// The key in these bytes, if they are how this application writes it. Other bytes of an equal key would be a
/// second entry for it, and which of the two is shown would depend on the order of arrival.
pub(super) fn decode_key<K: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<K> {
    let key: K = rmp_serde::from_slice(bytes).ok()?;
    let mut expected = Expected(bytes);
    let mut serializer = rmp_serde::Serializer::new(&mut expected).with_struct_map();
    key.serialize(&mut serializer).ok()?;
    expected.0.is_empty().then_some(key)
}

/// Compares what is written with bytes that are there, without a copy.
struct Expected<'a>(&'a [u8]);

impl io::Write for Expected<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self
            .0
            .strip_prefix(bytes)
            .ok_or(io::ErrorKind::InvalidData)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
