//! Folding documents of mergeable types without the types: entries stay the bytes that they are.

use bytes::Bytes;

use super::entries::{self, Entries};
use super::{
    Change, DeltaReader, DeltaWriter, Kind, MergeableValidator, VersionVector, encode_version,
};
use crate::engine::fold::prove;
use crate::engine::{EngineError, Folder, Version};

/// A replica without the application's type: the same content and version as one with it.
#[derive(Debug, Default)]
struct Untyped {
    content: Option<Node>,
    version: VersionVector,
}

/// A node of the document; which kind it is shows in the first change that has content.
#[derive(Debug)]
enum Node {
    LwwMap(Entries),
}

impl Node {
    const fn new(kind: Kind) -> Self {
        match kind {
            Kind::LwwMap => Self::LwwMap(Entries::new()),
        }
    }

    fn apply(&mut self, delta: &mut DeltaReader<'_>) -> Result<(), EngineError> {
        match self {
            Self::LwwMap(held) => {
                let mut node = delta.node(Kind::LwwMap)?;
                while !node.is_at_end() {
                    let (key, entry) = entries::read(&mut node)?;
                    held.apply(key, entry);
                }
            }
        }
        Ok(())
    }

    fn diff(&self, since: &VersionVector, out: &mut DeltaWriter) {
        match self {
            Self::LwwMap(held) => out.node(Kind::LwwMap, |out| held.diff(since, out)),
        }
    }

    const fn digest(&self) -> u64 {
        match self {
            Self::LwwMap(held) => held.digest(),
        }
    }
}

impl Untyped {
    fn import(&mut self, change: &[u8]) -> Result<(), EngineError> {
        let change = Change::read(change)?;
        if let Some(mut content) = change.content() {
            let kind = content.kind()?;
            self.content
                .get_or_insert_with(|| Node::new(kind))
                .apply(&mut content)?;
        }
        change.claim(&mut self.version);
        Ok(())
    }

    fn version(&self) -> Version {
        let digest = self.content.as_ref().map_or(0, Node::digest);
        Version(encode_version(&self.version, digest))
    }

    fn snapshot(&self) -> Bytes {
        let none = VersionVector::new();
        let mut out = DeltaWriter::new();
        if let Some(content) = &self.content {
            content.diff(&none, &mut out);
        }
        out.into_state(&none, &self.version)
    }
}

impl Folder for MergeableValidator {
    fn fold(&self, snapshot: Option<&[u8]>, changes: &[Bytes]) -> Result<Bytes, EngineError> {
        let mut replica = Untyped::default();
        let empty = replica.version();
        for change in snapshot
            .into_iter()
            .chain(changes.iter().map(AsRef::as_ref))
        {
            replica.import(change)?;
        }
        let folded = replica.snapshot();
        let mut proof = Untyped::default();
        proof.import(&folded)?;
        prove(&empty, &replica.version(), &proof.version())?;
        Ok(folded)
    }
}
