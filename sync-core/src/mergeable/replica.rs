//! A replica of a document: content, version, and the horizon below which things have been reclaimed. The same for
//! applications, which know the types, and servers, which do not.

use bytes::Bytes;

use super::content::Content;
use super::{Change, DeltaWriter, VersionVector, decode_version, encode_version};
use crate::engine::{EngineError, Version};

/// Content with what is known about it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Replica<C> {
    pub(crate) content: C,
    /// The commits whose writes are in `content`, or were and are beaten by others that are.
    pub(crate) version: VersionVector,
    /// All of these commits are merged, and what only somebody without them would need has been reclaimed.
    horizon: VersionVector,
}

/// What an import did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Merged {
    /// Whether a reader sees something else.
    pub(crate) content: bool,
    /// Whether the replica holds more.
    pub(crate) version: bool,
}

impl Merged {
    /// What two imports did.
    pub(crate) const fn or(self, other: Self) -> Self {
        Self {
            content: self.content || other.content,
            version: self.version || other.version,
        }
    }
}

impl<C: Content> Replica<C> {
    /// Merges a change.
    pub(crate) fn import(&mut self, change: &Change<'_>) -> Result<Merged, EngineError> {
        let theirs = &change.head.horizon;
        if !self.horizon.covers(theirs) {
            if self.version.covers(theirs) {
                self.compact(&theirs.clone())?;
            } else if change.is_whole() {
                return self.adopt(change);
            }
        } else if change.is_whole()
            && !theirs.covers(&self.horizon)
            && change.head.claims.covers(&self.horizon)
        {
            // A state from before ours was compacted, and later writes: it is brought to our horizon first.
            let mut other = Self::default();
            other.adopt(change)?;
            other.compact(&self.horizon)?;
            let state = other.state();
            return self.merge(&Change::read(&state)?);
        }
        self.merge(change)
    }

    /// Merges a change that has nothing to say about what has been reclaimed.
    fn merge(&mut self, change: &Change<'_>) -> Result<Merged, EngineError> {
        let context = change.context(&self.horizon, false);
        let content = match change.content(&context) {
            Some(mut content) => self.content.apply(&mut content)?,
            None => false,
        };
        let claims = change.claim(&mut self.version);
        Ok(Merged {
            content,
            version: content || claims,
        })
    }

    /// Takes over a whole state below whose horizon this replica lacks something: what was reclaimed there must not
    /// come back from here, so what is here is merged into it, and not the other way round.
    fn adopt(&mut self, change: &Change<'_>) -> Result<Merged, EngineError> {
        if !change.head.horizon.covers(&self.horizon) {
            // Each has reclaimed what the other has not seen: a horizon was chosen that not everybody had passed.
            return Err(EngineError::Incomplete);
        }
        let mut adopted = Self {
            content: C::default(),
            version: change.head.claims.clone(),
            horizon: change.head.horizon.clone(),
        };
        let context = change.context(&adopted.horizon, true);
        if let Some(mut content) = change.content(&context) {
            adopted.content.apply(&mut content)?;
        }
        if !self.version.is_empty() {
            let state = self.state();
            adopted.merge(&Change::read(&state)?)?;
        }
        *self = adopted;
        Ok(Merged {
            content: true,
            version: true,
        })
    }

    /// Forgets what only a replica that lacks some of `horizon` would need.
    ///
    /// # Errors
    /// [`EngineError::Incomplete`] if this one does.
    pub(crate) fn compact(&mut self, horizon: &VersionVector) -> Result<(), EngineError> {
        if !self.version.covers(horizon) {
            return Err(EngineError::Incomplete);
        }
        if self.horizon.union(horizon) {
            self.content.compact(&self.horizon);
        }
        Ok(())
    }

    /// Whether commits made on a replica of `made_on` mean here what they meant there. Not if something has been reclaimed that
    /// was not seen there, which one of them may bring back; nor if one counts as reclaimed itself, because it would be ignored.
    pub(crate) fn can_replay(&self, made_on: &VersionVector, changes: &[Bytes]) -> bool {
        let is_above = |change: &Bytes| {
            let brought = Change::read(change).map(|change| change.brings());
            brought.is_ok_and(|brought| brought.minus(&self.horizon) == brought)
        };
        made_on.covers(&self.horizon) && changes.iter().all(is_above)
    }

    /// What it holds, and a digest of the content.
    pub(crate) fn version(&self) -> Version {
        Version(encode_version(&self.version, self.content.digest()))
    }

    /// The whole state as a change.
    pub(crate) fn state(&self) -> Bytes {
        let none = VersionVector::new();
        let mut out = DeltaWriter::new();
        self.content.diff(&none, &mut out);
        out.into_state(&none, &self.version, &self.horizon)
    }

    /// What a replica of `version` lacks, as a change.
    pub(crate) fn since(&self, version: &Version) -> Result<Option<Bytes>, EngineError> {
        let (theirs, digest) = decode_version(&version.0)?;
        if theirs == self.version {
            // The same commits and another content: somebody used one dot for two changes. Only all of it helps.
            return Ok((digest != self.content.digest()).then(|| self.state()));
        }
        if !theirs.covers(&self.horizon) {
            return Ok(Some(self.state()));
        }
        let claims = self.version.minus(&theirs);
        let mut out = DeltaWriter::new();
        self.content.diff(&theirs, &mut out);
        if claims.is_empty() && out.is_empty() {
            return Ok(None);
        }
        let base = self.version.minus(&claims);
        Ok(Some(out.into_state(&base, &claims, &self.horizon)))
    }
}
