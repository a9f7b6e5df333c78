//! What the program prints, and how it ends.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use sync_server::registry::{ExportError, OpenError, RegistryError};

pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  it could not be done: what could not be read or written is named
  2  wrong usage, or a setting that is missing or makes no sense
  3  there is no such document, or it has been deleted
  4  something is there already: nothing was overwritten without --replace
  5  another process has the directory open
  6  a newer version wrote the directory or file
  7  what is stored, or the file, is damaged or something else
  8  it cannot listen at that address
  9  a second signal ended it before everything was closed in order; nothing acknowledged is lost
  10  the server does not let in whoever has this token as an admin
  11  the server does not answer, or cannot do it now: the same may succeed later";

/// Why the program failed.
#[derive(Debug)]
pub(crate) enum Failure {
    Usage(String),
    NotFound(String),
    Exists(String),
    InUse(String),
    Newer(String),
    Damaged(String),
    Configuration(String),
    Address(String),
    Cut(String),
    Denied(String),
    Unreachable(String),
    Other(String),
    /// Nobody reads the output any more.
    Unread,
}

impl Failure {
    /// Says why, and is the exit code.
    pub(crate) fn report(self) -> ExitCode {
        let (code, text) = match self {
            Self::Unread => return ExitCode::SUCCESS,
            Self::Usage(help) => {
                // Nothing is left to be told if this cannot be written.
                let _ = io::stderr().write_all(help.as_bytes());
                return ExitCode::from(2);
            }
            Self::Other(text) => (1, text),
            Self::NotFound(text) => (3, text),
            Self::Exists(text) => (4, text),
            Self::InUse(text) => (5, text),
            Self::Newer(text) => (6, text),
            Self::Damaged(text) => (7, text),
            Self::Configuration(text) => (2, text),
            Self::Address(text) => (8, text),
            Self::Cut(text) => (9, text),
            Self::Denied(text) => (10, text),
            Self::Unreachable(text) => (11, text),
        };
        let _ = writeln!(io::stderr(), "error: {text}");
        ExitCode::from(code)
    }

    /// One line for an error and its causes.
    pub(crate) fn text(error: &dyn Error) -> String {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let _ = write!(text, ": {cause}");
            source = cause.source();
        }
        text
    }

    /// Of a file.
    pub(crate) fn file(path: &std::path::Path, error: &dyn Error) -> Self {
        Self::Other(format!("{}: {}", path.display(), Self::text(error)))
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let text = Self::text(&error);
        match error {
            OpenError::InUse { .. } => Self::InUse(text),
            OpenError::Newer { .. } | OpenError::Older { .. } => Self::Newer(text),
            OpenError::Damaged { .. } | OpenError::Foreign { .. } => Self::Damaged(text),
            _ => Self::Other(text),
        }
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        let text = Self::text(&error);
        match error {
            RegistryError::NotFound | RegistryError::Deleted => Self::NotFound(text),
            RegistryError::Damaged { .. } => Self::Damaged(text),
            _ => Self::Other(text),
        }
    }
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Self {
        let text = Self::text(&error);
        match error {
            ExportError::Newer { .. } | ExportError::Older { .. } => Self::Newer(text),
            ExportError::Foreign | ExportError::Damaged { .. } => Self::Damaged(text),
            _ => Self::Other(text),
        }
    }
}

/// Prints a line.
pub(crate) fn line(text: impl std::fmt::Display) -> Result<(), Failure> {
    writeln!(io::stdout(), "{text}").map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::Unread,
        _ => Failure::Other(format!("cannot print: {error}")),
    })
}

/// Bytes, for people.
pub(crate) fn size(bytes: u64) -> String {
    for (unit, name) in [(1_u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if bytes >= unit {
            let tenths = u128::from(bytes) * 10 / u128::from(unit);
            return format!("{}.{} {name}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} B")
}
