//! What was done to a sequence since the last commit: a piece table over what is merged.

use super::run::Id;

/// Values, encoded one by one.
pub(super) type Values = Vec<Box<[u8]>>;

/// A piece of what is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// Visible elements that are merged, by index.
    Merged { from: u64, count: u64 },
    /// Values that have been inserted; with the element, perhaps a removed one, that they belong behind, unless that is
    /// the one shown before them.
    New(Values, Option<Id>),
}

impl Piece {
    fn count(&self) -> u64 {
        match self {
            Self::Merged { count, .. } => *count,
            Self::New(values, _) => u64::try_from(values.len()).unwrap_or(u64::MAX),
        }
    }

    /// Cuts off everything from this offset.
    fn split_off(&mut self, offset: u64) -> Self {
        match self {
            Self::Merged { from, count } => {
                let rest = Self::Merged {
                    from: *from + offset,
                    count: *count - offset,
                };
                *count = offset;
                rest
            }
            Self::New(values, behind) => {
                let at = usize::try_from(offset).unwrap_or(usize::MAX);
                Self::New(values.split_off(at.min(values.len())), *behind)
            }
        }
    }
}

/// The pieces in their order, while something is pending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pieces {
    is_pending: bool,
    pieces: Vec<Piece>,
    count: u64,
}

impl Pieces {
    /// Whether something differs from what is merged.
    pub(super) const fn is_pending(&self) -> bool {
        self.is_pending
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Number of elements shown, of which `n_merged` are merged if nothing is pending.
    pub(super) const fn count(&self, n_merged: u64) -> u64 {
        if self.is_pending() {
            self.count
        } else {
            n_merged
        }
    }

    /// What stands at this index.
    pub(super) fn get(&self, mut index: u64) -> Found<'_> {
        if !self.is_pending() {
            return Found::Merged(index);
        }
        for piece in &self.pieces {
            let count = piece.count();
            if index < count {
                return match piece {
                    Piece::Merged { from, .. } => Found::Merged(from + index),
                    Piece::New(values, _) => {
                        let at = usize::try_from(index).unwrap_or(usize::MAX);
                        values
                            .get(at)
                            .map_or(Found::Nothing, |value| Found::New(value))
                    }
                };
            }
            index -= count;
        }
        Found::Nothing
    }

    /// The pieces, also if nothing is pending.
    pub(super) fn iter(&self, n_merged: u64) -> impl Iterator<Item = Piece> {
        let whole = (!self.is_pending()).then_some(Piece::Merged {
            from: 0,
            count: n_merged,
        });
        self.pieces.iter().cloned().chain(whole)
    }

    pub(super) fn pending(&self) -> &[Piece] {
        &self.pieces
    }

    /// Inserts values, at most at the end.
    pub(super) fn insert(&mut self, index: u64, values: Values, behind: Option<Id>, n_merged: u64) {
        if values.is_empty() {
            return;
        }
        self.begin(n_merged);
        self.count += u64::try_from(values.len()).unwrap_or_default();
        let at = self.cut(index);
        // Typing in one closure goes on in one piece.
        let before = at
            .checked_sub(1)
            .and_then(|before| self.pieces.get_mut(before));
        match (before, behind) {
            (Some(Piece::New(held, None)), None) => held.extend(values),
            _ => self.pieces.insert(at, Piece::New(values, behind)),
        }
    }

    /// Removes elements; they are all there.
    pub(super) fn remove(&mut self, index: u64, count: u64, n_merged: u64) {
        if count == 0 {
            return;
        }
        self.begin(n_merged);
        self.count -= count;
        let from = self.cut(index);
        let to = self.cut(index + count);
        self.pieces.drain(from..to);
    }

    fn begin(&mut self, n_merged: u64) {
        if !self.is_pending() {
            self.is_pending = true;
            self.count = n_merged;
            self.pieces.push(Piece::Merged {
                from: 0,
                count: n_merged,
            });
        }
    }

    /// Makes this index the beginning of a piece, and says of which; the number of pieces if it is the end.
    fn cut(&mut self, mut index: u64) -> usize {
        for at in 0..self.pieces.len() {
            let Some(piece) = self.pieces.get_mut(at) else {
                break;
            };
            if index == 0 {
                return at;
            }
            let count = piece.count();
            if index < count {
                let rest = piece.split_off(index);
                self.pieces.insert(at + 1, rest);
                return at + 1;
            }
            index -= count;
        }
        self.pieces.len()
    }
}

/// What stands at an index.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    Merged(u64),
    New(&'a [u8]),
    Nothing,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_list() {
        let mut random = 1_u64;
        let mut below = |n: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 33) % n
        };
        for _ in 0..300 {
            let n_merged = below(5);
            let mut model: Vec<u64> = (0..n_merged).collect();
            let mut pieces = Pieces::default();
            for step in 0..12_u8 {
                let n = u64::try_from(model.len()).unwrap();
                let at = below(n + 1);
                if below(2) == 0 {
                    let values = vec![Box::from([step]), Box::from([step, step])];
                    pieces.insert(at, values, None, n_merged);
                    let new = u64::from(step) + 1_000;
                    let at = usize::try_from(at).unwrap();
                    model.splice(at..at, [new, new]);
                } else {
                    let count = below(n - at + 1);
                    pieces.remove(at, count, n_merged);
                    let at = usize::try_from(at).unwrap();
                    model.drain(at..at + usize::try_from(count).unwrap());
                }
                for (index, expected) in (0..).zip(&model) {
                    let found = match pieces.get(index) {
                        Found::Merged(index) => index,
                        Found::New(value) => u64::from(value[0]) + 1_000,
                        Found::Nothing => panic!("nothing at {index}"),
                    };
                    assert_eq!(found, *expected);
                }
                assert_eq!(pieces.count(n_merged), u64::try_from(model.len()).unwrap());
            }
        }
    }
}
