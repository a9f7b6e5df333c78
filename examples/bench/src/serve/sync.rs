//! The sync server as it is shipped, except that anybody may come in that rates are not limited, and that broadcasts
//! may be large: loads like these are what the limits are there to refuse.

use std::path::Path;

use sync_server::{
    Anonymous, EmbeddedRegistry, Limits, Listener, MemoryRegistry, Rate, Server, ServerBuilder,
};

use crate::Failure;
use crate::cli::Registry;

/// Bytes of the largest broadcast.
const LARGE_BYTES: usize = 1 << 20;

/// Listens on a free port. Engines check changes in this process.
pub(super) async fn start(
    registry: Registry,
    directory: Option<&Path>,
) -> Result<Listener, Failure> {
    let builder = match registry {
        Registry::Memory => builder(MemoryRegistry::new()),
        Registry::Embedded => {
            let directory = directory.ok_or("a registry on disk needs --directory")?;
            builder(EmbeddedRegistry::open(directory)?)
        }
    };
    let server = builder.build()?;
    Ok(server.listen_websocket("127.0.0.1:0").await?)
}

fn builder(registry: impl sync_server::ServerRegistry) -> ServerBuilder {
    let mut limits = Limits::default();
    limits.push_changes = Rate::UNLIMITED;
    limits.push_bytes = Rate::UNLIMITED;
    limits.user_bytes = Rate::UNLIMITED;
    limits.user_engine_micros = Rate::UNLIMITED;
    // A large message that is kept nowhere.
    limits.broadcast_rate = Rate::UNLIMITED;
    limits.broadcast_bytes_max = LARGE_BYTES;
    limits.broadcast_queue_bytes_max = 2 * LARGE_BYTES;
    Server::builder(registry, Anonymous::read_write()).limits(limits)
}
