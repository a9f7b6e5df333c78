//! A document's history: epoch, sequence, digest, and the cursor that a client resumes from.

use std::fmt;

use twox_hash::XxHash3_64;

/// Name of one history of a document: random, but for its line, which it shares with the histories that it took the place of on
/// purpose, and their count (`docs/decisions/0045`). A new one begins when history breaks or is rewritten. Any number will do that the document has not
/// had, but only those made here tell which they came of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The upper 16 bits of a name that counts. Then follow the count, the line and random bits, 16 of each.
    const COUNTS: u64 = 0x5ec1;

    /// A name for a document's first history, of these random bits.
    #[must_use]
    pub const fn first(random: u64) -> Self {
        Self::counting(0, random >> 48, random)
    }

    /// A name for the history that takes the place of this one: trimmed, rewound or restored.
    #[must_use]
    pub const fn next(self, random: u64) -> Self {
        match self.count() {
            Some(count) => Self::counting(count + 1, self.line(), random),
            None => Self::counting(1, random >> 48, random),
        }
    }

    /// Whether the other history is known to be of the same line and to have begun after this one: whoever has seen it comes from
    /// what this document was later on, and not from what it was before.
    #[must_use]
    pub const fn is_before(self, other: Self) -> bool {
        match (self.count(), other.count()) {
            (Some(ours), Some(theirs)) => self.line() == other.line() && ours < theirs,
            _ => false,
        }
    }

    /// Whether this history may have taken the place of the other one on purpose. Names that count tell; of others it has to be
    /// supposed.
    pub(crate) const fn may_come_of(self, other: Self) -> bool {
        self.count().is_none() || other.count().is_none() || other.is_before(self)
    }

    const fn counting(count: u64, line: u64, random: u64) -> Self {
        let count = if count > 0xffff { 0xffff } else { count };
        Self(Self::COUNTS << 48 | count << 32 | line << 16 | random >> 32 & 0xffff)
    }

    const fn line(self) -> u64 {
        self.0 >> 16 & 0xffff
    }

    const fn count(self) -> Option<u64> {
        if self.0 >> 48 == Self::COUNTS {
            Some(self.0 >> 32 & 0xffff)
        } else {
            None
        }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({self})")
    }
}

/// How an epoch came about, which decides what a client of an older one does (design 2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EpochMode {
    /// The document was created. A client that knows another epoch keeps everything: as `Merge`.
    New = 0,
    /// History broke (data was lost or restored): both sides keep everything.
    Merge = 1,
    /// History was trimmed: pending work is replayed where the engine can, else handed back.
    Rebase = 2,
    /// An operator removed something: what is not in the log is dropped.
    Discard = 3,
}

impl EpochMode {
    /// Its number, as on the wire and in what registries store.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::New => 0,
            Self::Merge => 1,
            Self::Rebase => 2,
            Self::Discard => 3,
        }
    }

    /// The mode of this number.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::New),
            1 => Some(Self::Merge),
            2 => Some(Self::Rebase),
            3 => Some(Self::Discard),
            _ => None,
        }
    }
}

impl fmt::Display for EpochMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::New => "new",
            Self::Merge => "merge",
            Self::Rebase => "rebase",
            Self::Discard => "discard",
        })
    }
}

/// Position of a change in a document's log, from 1. As a position, 0 is "nothing yet".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Seq(pub u64);

impl Seq {
    /// Before the first change.
    pub const ZERO: Self = Self(0);

    /// The position `n` changes later.
    #[must_use]
    pub const fn plus(self, n: u64) -> Self {
        Self(self.0.saturating_add(n))
    }

    /// The position after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        self.plus(1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Wrapping 64-bit sum of `hash(number, bytes)` over the changes 1 to some sequence (design 2).
///
/// The hash is XXH3-64 of the bytes with the change's number as seed. Two histories with equal sequence
/// and digest are taken to be the same history.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Digest(pub u64);

impl Digest {
    /// The digest of no changes.
    pub const EMPTY: Self = Self(0);

    /// The digest after one more change.
    #[must_use]
    pub fn with(self, number: u64, bytes: &[u8]) -> Self {
        Self(
            self.0
                .wrapping_add(XxHash3_64::oneshot_with_seed(number, bytes)),
        )
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({:016x})", self.0)
    }
}

/// "I have imported exactly this history": what a client resumes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor {
    /// The history.
    pub epoch: Epoch,
    /// Everything through this sequence has been imported.
    pub seq: Seq,
    /// Digest over it.
    pub digest: Digest,
}

impl Cursor {
    /// The start of a history.
    #[must_use]
    pub const fn start(epoch: Epoch) -> Self {
        Self {
            epoch,
            seq: Seq::ZERO,
            digest: Digest::EMPTY,
        }
    }

    /// The cursor after one more change.
    #[must_use]
    pub fn with(self, number: u64, bytes: &[u8]) -> Self {
        Self {
            seq: self.seq.next(),
            digest: self.digest.with(number, bytes),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_that_count_tell_which_is_the_later_one_and_others_tell_nothing() {
        let first = Epoch::first(u64::MAX);
        let second = first.next(0);
        assert!(first.is_before(second) && first.is_before(second.next(7)));
        assert!(!second.is_before(first) && !second.is_before(first.next(1)));
        assert_ne!(first.next(0), first.next(u64::MAX));
        for other in [Epoch(0), Epoch(7), Epoch(u64::MAX)] {
            assert!(!other.is_before(second) && !first.is_before(other));
            assert!(other.next(3).may_come_of(other) && second.may_come_of(other));
        }
        let last = (0..70_000).fold(first, |epoch, n| epoch.next(n << 32));
        assert!(second.is_before(last) && !last.is_before(last.next(1)));
    }

    #[test]
    fn epochs_that_count_come_only_of_earlier_ones_of_their_line() {
        let (first, anew) = (Epoch::first(1 << 48), Epoch::first(2 << 48));
        let trimmed = first.next(u64::MAX);
        assert!(trimmed.may_come_of(first) && trimmed.next(0).may_come_of(first));
        assert!(!first.may_come_of(trimmed) && !trimmed.may_come_of(first.next(0)));
        for of_another in [anew, anew.next(0), anew.next(u64::MAX)] {
            assert!(!trimmed.may_come_of(of_another) && !of_another.may_come_of(first));
            assert!(!first.is_before(of_another) && !of_another.is_before(trimmed.next(0)));
        }
    }
}
