//! What is measured: the server with one of its registries, or the bare relay in one of its modes.

use std::path::Path;

use crate::cli::{Registry, RelayMode, Runtime, Switch, name_of};
use crate::generator::Format;

/// A server to be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// The relay.
    Relay {
        mode: RelayMode,
        acks: bool,
        /// Bytes that each message is answered with; 0 if it is passed on.
        blob: usize,
    },
    /// The sync server.
    Sync(Registry),
}

impl Subject {
    /// A relay that passes messages on.
    pub(crate) const fn relay(mode: RelayMode, acks: bool) -> Self {
        Self::Relay {
            mode,
            acks,
            blob: 0,
        }
    }

    /// Its name in tables.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Relay { mode, acks, .. } => {
                let acks = if *acks { ", acks" } else { "" };
                format!("relay, {}{acks}", name_of(*mode))
            }
            Self::Sync(registry) => format!("sync, {}", name_of(*registry)),
        }
    }

    /// What travels to and from it.
    pub(crate) const fn format(&self) -> Format {
        match self {
            Self::Relay { .. } => Format::Relay,
            Self::Sync(_) => Format::Sync,
        }
    }

    /// The arguments of its process.
    pub(crate) fn args(
        &self,
        runtime: Runtime,
        core: Option<usize>,
        directory: &Path,
    ) -> Vec<String> {
        let mut args = vec!["serve".to_owned()];
        match self {
            Self::Relay { mode, acks, blob } => {
                let acks = if *acks { Switch::On } else { Switch::Off };
                args.push("relay".to_owned());
                args.extend(["--mode".to_owned(), name_of(*mode)]);
                args.extend(["--acks".to_owned(), name_of(acks)]);
                args.extend(["--blob".to_owned(), blob.to_string()]);
            }
            Self::Sync(registry) => {
                let directory = directory.to_string_lossy().into_owned();
                args.push("sync".to_owned());
                args.extend(["--registry".to_owned(), name_of(*registry)]);
                args.extend(["--directory".to_owned(), directory]);
            }
        }
        args.extend(["--runtime".to_owned(), name_of(runtime)]);
        if let Some(core) = core {
            args.extend(["--core".to_owned(), core.to_string()]);
        }
        args
    }
}
