//! Structs: tuples here, others by `#[derive(Mergeable)]`; and values that may not be there yet.

use super::{Clock, DeltaReader, DeltaWriter, Kind, Mergeable, VersionVector, digest};
use crate::engine::EngineError;

/// What a field counts in the digest of its struct; for implementations of [`Mergeable::digest`] for structs.
#[must_use]
pub fn field_digest<T: Mergeable>(tag: u32, field: &T) -> u64 {
    digest::field(tag, T::KIND.factor().wrapping_mul(field.digest()))
}

macro_rules! tuple {
    ($($field:ident $tag:tt),*) => {
        /// A struct whose fields are known by their position.
        impl<$($field: Mergeable),*> Mergeable for ($($field,)*) {
            const KIND: Kind = Kind::Struct;

            fn commit(&self, clock: &Clock, out: &mut DeltaWriter) {
                out.node(Self::KIND, |out| {
                    $(out.field($tag, |out| self.$tag.commit(clock, out));)*
                });
            }

            fn discard(&mut self) {
                $(self.$tag.discard();)*
            }

            fn apply(&mut self, delta: &mut DeltaReader<'_>) -> Result<bool, EngineError> {
                let mut node = delta.node(Self::KIND)?;
                let mut changed = false;
                while !node.is_at_end() {
                    let field = node.field()?;
                    changed |= match field.tag() {
                        $($tag => field.apply(&mut self.$tag)?,)*
                        _ => field.keep()?,
                    };
                }
                Ok(changed)
            }

            fn diff(&self, since: &VersionVector, out: &mut DeltaWriter) {
                out.node(Self::KIND, |out| {
                    $(out.field($tag, |out| self.$tag.diff(since, out));)*
                });
            }

            fn inverse(
                &self,
                change: &mut DeltaReader<'_>,
                out: &mut DeltaWriter,
            ) -> Result<(), EngineError> {
                let mut node = change.node(Self::KIND)?;
                out.try_node(Self::KIND, |out| {
                    while !node.is_at_end() {
                        let field = node.field()?;
                        match field.tag() {
                            $($tag => field.inverse(&self.$tag, out)?,)*
                            _ => {}
                        }
                    }
                    Ok(())
                })
            }

            fn revert(&mut self, inverse: &mut DeltaReader<'_>) -> Result<(), EngineError> {
                let mut node = inverse.node(Self::KIND)?;
                while !node.is_at_end() {
                    let field = node.field()?;
                    match field.tag() {
                        $($tag => field.revert(&mut self.$tag)?,)*
                        _ => {}
                    }
                }
                Ok(())
            }

            fn copy_from(&mut self, other: &Self) {
                $(self.$tag.copy_from(&other.$tag);)*
            }

            fn compact(&mut self, horizon: &VersionVector) {
                $(self.$tag.compact(horizon);)*
            }

            fn digest(&self) -> u64 {
                let mut sum = 0_u64;
                $(sum = sum.wrapping_add(field_digest($tag, &self.$tag));)*
                sum
            }

            fn is_empty(&self) -> bool {
                true $(&& self.$tag.is_empty())*
            }

            fn is_waiting(&self) -> bool {
                false $(|| self.$tag.is_waiting())*
            }
        }
    };
}

tuple!(A 0);
tuple!(A 0, B 1);
tuple!(A 0, B 1, C 2);
tuple!(A 0, B 1, C 2, D 3);
tuple!(A 0, B 1, C 2, D 3, E 4);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5);

/// A value that is made when somebody first writes it: `None` until then, on every replica.
///
/// It only ever comes, it does not go: of `None` here and `Some` there the latter stays. For something that can be taken
/// away use [`Register::clear`](super::Register::clear), or a map. It is of its value's kind, so that a field can
/// become optional, or stop being it, at any time.
impl<T: Mergeable> Mergeable for Option<T> {
    const KIND: Kind = T::KIND;

    fn commit(&self, clock: &Clock, out: &mut DeltaWriter) {
        if let Some(value) = self {
            value.commit(clock, out);
        }
    }

    fn discard(&mut self) {
        if let Some(value) = self {
            value.discard();
            let mut out = DeltaWriter::new();
            value.diff(&VersionVector::new(), &mut out);
            if out.is_empty() {
                *self = None;
            }
        }
    }

    fn apply(&mut self, delta: &mut DeltaReader<'_>) -> Result<bool, EngineError> {
        self.get_or_insert_default().apply(delta)
    }

    fn diff(&self, since: &VersionVector, out: &mut DeltaWriter) {
        if let Some(value) = self {
            value.diff(since, out);
        }
    }

    fn inverse(
        &self,
        change: &mut DeltaReader<'_>,
        out: &mut DeltaWriter,
    ) -> Result<(), EngineError> {
        match self {
            Some(value) => value.inverse(change, out),
            None => T::default().inverse(change, out),
        }
    }

    fn revert(&mut self, inverse: &mut DeltaReader<'_>) -> Result<(), EngineError> {
        self.get_or_insert_default().revert(inverse)
    }

    fn copy_from(&mut self, other: &Self) {
        if let Some(other) = other {
            self.get_or_insert_default().copy_from(other);
        }
    }

    fn compact(&mut self, horizon: &VersionVector) {
        if let Some(value) = self {
            value.compact(horizon);
        }
    }

    fn digest(&self) -> u64 {
        self.as_ref().map_or(0, Mergeable::digest)
    }

    fn is_empty(&self) -> bool {
        self.as_ref().is_none_or(Mergeable::is_empty)
    }

    fn is_waiting(&self) -> bool {
        self.as_ref().is_some_and(Mergeable::is_waiting)
    }
}
