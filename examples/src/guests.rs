//! An engine of the application's own, in a crate of its own, with nothing but what `sync-client` and `sync-server` offer
//! everybody: a guest book, in which names are written and never struck out.
//!
//! A CRDT as small as they come: a set that only grows. Merging two is their union, so nothing has to come in any order, and
//! a change, a snapshot and a version are all the same: names, one on each line. `docs/guide/custom-engine.md` goes through
//! what an engine owes; `sync_core::engine::suite` checks it (`tests/guests.rs`).

use std::collections::BTreeSet;

use bytes::Bytes;
use sync_client::EngineId;
use sync_client::engine::{
    Document, Drained, Edited, Engine, EngineError, EngineEvent, Imported, ReplicaSeed, Source,
    ValidateLimits, Version, Wake,
};

/// The engine value: what `Client::open` takes, and `InProcess::engine` on the server, which then checks changes and folds
/// logs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Guests;

/// What an edit is lent.
#[derive(Debug, Default)]
pub struct Book {
    names: BTreeSet<String>,
    written: BTreeSet<String>,
}

impl Book {
    /// Writes a name, unless it is there. Line breaks become spaces.
    pub fn write(&mut self, name: &str) {
        let name = name.replace('\n', " ");
        if !name.is_empty() && !self.has(&name) {
            self.written.insert(name);
        }
    }

    /// Whether a name is there.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.names.contains(name) || self.written.contains(name)
    }

    /// All names, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.union(&self.written).map(String::as_str)
    }
}

/// One replica.
#[derive(Default)]
pub struct GuestBook {
    book: Book,
    drained: Drained,
    wake: Option<Wake>,
}

impl std::fmt::Debug for GuestBook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("GuestBook").field(&self.book.names).finish()
    }
}

impl GuestBook {
    fn happened(&mut self, source: Source) {
        let event = EngineEvent::new(source, Vec::new());
        self.drained.events.push(event);
        if let Some(wake) = &self.wake {
            wake();
        }
    }
}

fn encode<'a>(names: impl IntoIterator<Item = &'a String>) -> Bytes {
    let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
    Bytes::from(names.join("\n"))
}

/// Whatever bytes come, this returns, and takes no more memory than they do.
fn decode(bytes: &[u8]) -> Result<impl Iterator<Item = &str>, EngineError> {
    let malformed = |offset| EngineError::Malformed {
        what: "name",
        offset,
    };
    let text = std::str::from_utf8(bytes).map_err(|error| malformed(error.valid_up_to()))?;
    if text.split('\n').any(str::is_empty) && !text.is_empty() {
        return Err(malformed(0));
    }
    Ok(text.split('\n').filter(|name| !name.is_empty()))
}

impl Document for GuestBook {
    /// Equal versions must mean equal content; this one is the content.
    fn version(&mut self) -> Version {
        Version(encode(&self.book.names))
    }

    fn set_wake(&mut self, wake: Wake) {
        self.wake = Some(wake);
    }

    fn drain(&mut self) -> Drained {
        std::mem::take(&mut self.drained)
    }

    fn import(&mut self, changes: &[Bytes]) -> Result<Imported, EngineError> {
        let before = self.book.names.len();
        // All are read before the first is taken.
        let names = changes
            .iter()
            .map(|change| decode(change))
            .collect::<Result<Vec<_>, _>>()?;
        let names = names.into_iter().flatten().map(str::to_owned);
        self.book.names.extend(names);
        let changed = self.book.names.len() > before;
        if changed {
            self.happened(Source::Remote);
        }
        // Nothing needs anything else first, so nothing ever waits.
        Ok(Imported::new(changed, false))
    }

    fn import_snapshot(&mut self, snapshot: &[u8]) -> Result<Imported, EngineError> {
        self.import(&[Bytes::copy_from_slice(snapshot)])
    }

    fn since(&mut self, version: &Version) -> Result<Option<Bytes>, EngineError> {
        let theirs: BTreeSet<&str> = decode(&version.0)?.collect();
        let names = self.book.names.iter();
        let lacking: Vec<&String> = names
            .filter(|name| !theirs.contains(name.as_str()))
            .collect();
        Ok((!lacking.is_empty()).then(|| encode(lacking)))
    }

    fn snapshot(&mut self) -> Result<Bytes, EngineError> {
        Ok(encode(&self.book.names))
    }

    /// A change makes sense whatever came before it.
    fn can_rebase(&self) -> bool {
        true
    }
}

impl Engine for Guests {
    type Document = GuestBook;
    type Read<'a> = Book;
    type Edit<'a> = Book;

    #[expect(clippy::expect_used, reason = "between 1 and 32 bytes")]
    fn id(&self) -> EngineId {
        // Stored with documents, and sent: chosen once, and not one of the library's own names.
        EngineId::new("example-guests").expect("a valid name")
    }

    fn create(&self, _: ReplicaSeed) -> Result<GuestBook, EngineError> {
        // An engine whose replicas need a name of their own makes it from the seed, which is never the same twice.
        Ok(GuestBook::default())
    }

    fn validate(&self, change: &[u8], limits: &ValidateLimits) -> Result<(), EngineError> {
        limits.check_len(change)?;
        if decode(change)?.next().is_none() {
            return Err(EngineError::Malformed {
                what: "change without a name",
                offset: 0,
            });
        }
        Ok(())
    }

    fn read<R>(&self, document: &GuestBook, f: impl FnOnce(&Book) -> R) -> Result<R, EngineError> {
        Ok(f(&document.book))
    }

    fn edit<R>(
        &self,
        document: &mut GuestBook,
        bytes_max: usize,
        f: impl FnOnce(&mut Book) -> R,
    ) -> Result<Edited<R>, EngineError> {
        // What a closure that panicked had written.
        document.book.written.clear();
        let result = f(&mut document.book);
        let written = std::mem::take(&mut document.book.written);
        if written.is_empty() {
            return Ok(Edited::Done(result));
        }
        let change = encode(&written);
        if change.len() > bytes_max {
            return Ok(Edited::TakenBack {
                change,
                replaced: false,
            });
        }
        document.book.names.extend(written);
        document.drained.local.push(change);
        document.happened(Source::Local);
        Ok(Edited::Done(result))
    }
}
