//! Types that merge: an application's own state as a document, without a CRDT library.
//!
//! A [`Mergeable`] value records what a closure does to it, and hands that over as one change when the closure is
//! done; [`Typed`](crate::engine::typed::Typed) makes a document of it. Merging is commutative, associative and
//! idempotent, and state merge, differences and replay of all changes lead to the same content and version.
//!
//! | type | holds | concurrent writes |
//! | --- | --- | --- |
//! | [`Register`] | one value | the last one wins |
//! | [`LwwMap`] | values by key | the last one wins, by key |
//! | [`Counter`] | a sum | all count |
//! | [`OrSet`] | elements | an add wins over a removal |
//! | [`OrMap`] | mergeable values by key | an edit wins over a removal |
//! | [`Dictionary`] | mergeable values by key | a removal wins over an edit |
//! | [`Sequence`] | values in an order: lists, text | all stay, runs in one piece |
//! | tuples, `#[derive(Mergeable)]` | fields | each as its type says |
//!
//! What travels and is stored describes itself (kind, tag and length per node), so a server merges
//! documents whose types it has never seen: [`MergeableValidator`] checks and folds them. Software keeps and passes on
//! what it does not know: fields of a later version, values that it cannot read, nodes of another kind.

mod check;
mod clock;
mod content;
mod counter;
mod cursor;
mod digest;
mod entries;
mod fold;
mod format;
mod joined;
mod keyed;
mod kind;
mod lww_map;
mod nested_map;
mod node;
mod or_set;
mod presence;
mod reader;
mod register;
mod replica;
mod sequence;
mod structure;
mod tags;
mod traits;
mod value;
mod vector;
mod writer;

pub use check::MergeableValidator;
pub use clock::{CLOCK_AHEAD_MAX_MS, Clock, Dot, ReplicaId, STAMP_TIME_MAX, Stamp};
pub use counter::Counter;
pub use kind::Kind;
pub use lww_map::LwwMap;
pub use nested_map::{Dictionary, NestedMap, OrMap};
pub use or_set::OrSet;
pub use presence::{AddWins, Presence, RemoveWins};
pub use reader::{DeltaReader, Field};
pub use register::Register;
pub use sequence::Sequence;
pub use structure::field_digest;
pub use traits::Mergeable;
pub use value::{Key, Value, ValueError};
pub use vector::VersionVector;
pub use writer::DeltaWriter;

pub(crate) use check::validate;
pub(crate) use content::{Content, Slot};
pub(crate) use format::{Change, decode_version, encode_version};
pub(crate) use replica::{Merged, Replica};
