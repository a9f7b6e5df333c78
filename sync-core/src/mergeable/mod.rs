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
//!
//! # Structs
//! With the feature `derive`, an application's own struct is a document:
//!
#![cfg_attr(feature = "derive", doc = "```")]
#![cfg_attr(not(feature = "derive"), doc = "```ignore")]
//! use sync_core::engine::typed::Typed;
//! use sync_core::engine::{Document, Engine, ReplicaSeed};
//! use sync_core::mergeable::{Counter, Dictionary, Mergeable, Register, Sequence};
//!
//! #[derive(Debug, Clone, Default, Mergeable)]
//! struct Board {
//!     title: Register<String>,
//!     cards: Dictionary<u64, Card>,
//! }
//!
//! #[derive(Debug, Clone, Default, Mergeable)]
//! struct Card {
//!     text: Sequence<char>,
//!     // It was `stars` once.
//!     #[merge(tag = 0x622b0026)]
//!     votes: Counter,
//! }
//!
//! let engine = Typed::<Board>::new();
//! let mut board = engine.create(ReplicaSeed(1))?;
//! engine.edit(&mut board, usize::MAX, |board| {
//!     board.title.set("Release".to_owned())?;
//!     let card = board.cards.entry(7)?;
//!     card.votes.add(1);
//!     card.text.insert_str(0, "write docs")
//! })?;
//! let votes = engine.read(&board, |board| board.cards.get(&7).map(|card| card.votes.value()))?;
//! assert_eq!(votes, Some(1));
//! # Ok::<(), sync_core::engine::EngineError>(())
//! ```
//!
//! A field is known by its tag, by default the FNV-1a hash (32 bits) of its name: fields can be added, removed and
//! reordered, and one that is renamed keeps its tag by `#[merge(tag = N)]`. A type of field can be changed too: what was
//! written of another kind is kept aside, as is what a later version writes. In tuples and tuple structs the tag is the
//! position.
//!
#![cfg_attr(feature = "derive", doc = "What does not merge does not compile:")]
#![cfg_attr(feature = "derive", doc = "")]
#![cfg_attr(feature = "derive", doc = "```compile_fail,E0277")]
#![cfg_attr(not(feature = "derive"), doc = "```ignore")]
//! # use sync_core::mergeable::Mergeable;
//! #[derive(Clone, Default, Mergeable)]
//! struct Card {
//!     votes: u32, // not a `Counter`: concurrent votes would be lost
//! }
//! ```
//!
#![cfg_attr(feature = "derive", doc = "```compile_fail")]
#![cfg_attr(not(feature = "derive"), doc = "```ignore")]
//! # use sync_core::mergeable::{Counter, Mergeable};
//! #[derive(Clone, Default, Mergeable)]
//! struct Card {
//!     #[merge(tag = 1)]
//!     votes: Counter,
//!     #[merge(tag = 1)]
//!     views: Counter,
//! }
//! ```

mod check;
mod clock;
mod content;
mod counter;
mod cursor;
mod digest;
mod encoded;
mod entries;
mod fold;
mod format;
mod joined;
mod json;
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
#[doc(hidden)]
pub mod traits;
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
#[cfg(feature = "derive")]
pub use sync_core_derive::Mergeable;
pub use traits::Mergeable;
pub use value::{Key, Value, ValueError};
pub use vector::VersionVector;
pub use writer::DeltaWriter;

pub(crate) use check::validate;
pub(crate) use content::{Content, Slot};
pub(crate) use format::{Change, decode_version, encode_version};
pub(crate) use replica::{Merged, Replica};
