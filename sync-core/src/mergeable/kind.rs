//! What a node of a change is.

/// What a node of a change is. The number travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Kind {
    /// Last-writer-wins entries by key: [`LwwMap`](super::LwwMap).
    LwwMap = 1,
    /// One value, of which the last write wins: [`Register`](super::Register).
    Register = 2,
    /// A sum: [`Counter`](super::Counter).
    Counter = 3,
    /// Keys, of which an add wins over a concurrent removal: [`OrSet`](super::OrSet).
    OrSet = 4,
    /// Content by key, of which an edit wins over a concurrent removal: [`OrMap`](super::OrMap).
    OrMap = 5,
    /// Content by key, of which a removal wins over a concurrent edit: [`Dictionary`](super::Dictionary).
    Dictionary = 6,
    /// Values in an order: [`Sequence`](super::Sequence).
    Sequence = 7,
    /// Content by tag: what `#[derive(Mergeable)]` makes, and tuples.
    Struct = 8,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::LwwMap,
        Self::Register,
        Self::Counter,
        Self::OrSet,
        Self::OrMap,
        Self::Dictionary,
        Self::Sequence,
        Self::Struct,
    ];

    /// The number that travels.
    #[must_use]
    #[expect(
        clippy::as_conversions,
        reason = "the discriminant of a fieldless enum"
    )]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The kind of this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// Odd factor by which a part of this kind counts in the digest of its place.
    pub(super) const fn factor(self) -> u64 {
        super::digest::factor(0x6b69_6e64_0000 + u64_from(self.number()))
    }
}

const fn u64_from(number: u8) -> u64 {
    u64::from_be_bytes([0, 0, 0, 0, 0, 0, 0, number])
}
