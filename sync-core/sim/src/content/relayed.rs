//! Maps that the server only relays: what is inside is known to clients alone, as with sealed documents.

use sync_core::engine::{Edited, Engine, EngineError, ReplicaSeed, ValidateLimits};
use sync_core::ids::EngineId;

use super::{Content, Map, Mark};

/// A map of which the server does not know that it is one.
#[derive(Debug, Clone)]
pub struct Relayed(Map);

impl Engine for Relayed {
    type Document = <Map as Engine>::Document;
    type Read<'a> = <Map as Engine>::Read<'a>;
    type Edit<'a> = <Map as Engine>::Edit<'a>;

    fn id(&self) -> EngineId {
        EngineId::OPAQUE
    }

    fn create(&self, seed: ReplicaSeed) -> Result<Self::Document, EngineError> {
        self.0.create(seed)
    }

    fn validate(&self, change: &[u8], limits: &ValidateLimits) -> Result<(), EngineError> {
        Engine::validate(&self.0, change, limits)
    }

    fn read<R>(
        &self,
        document: &Self::Document,
        f: impl FnOnce(&Self::Read<'_>) -> R,
    ) -> Result<R, EngineError> {
        self.0.read(document, f)
    }

    fn edit<R>(
        &self,
        document: &mut Self::Document,
        bytes_max: usize,
        f: impl FnOnce(&mut Self::Edit<'_>) -> R,
    ) -> Result<Edited<R>, EngineError> {
        self.0.edit(document, bytes_max, f)
    }
}

impl Content for Relayed {
    const IS_EXACT: bool = true;

    fn engine() -> Self {
        Self(Map::new())
    }

    fn leave(map: &mut Self::Edit<'_>, mark: Mark, place: u64) {
        Map::leave(map, mark, place);
    }

    fn shown(map: &Self::Read<'_>) -> Vec<u8> {
        Map::shown(map)
    }

    fn leave_largely(map: &mut Self::Edit<'_>, mark: Mark) {
        Map::leave_largely(map, mark);
    }

    /// The server takes anything.
    fn leave_badly(map: &mut Self::Edit<'_>, mark: Mark) {
        Map::leave(map, mark, 0);
    }
}
