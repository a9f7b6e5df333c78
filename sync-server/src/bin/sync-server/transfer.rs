//! Documents to files and back: what `inspect` and `admin` have in common.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::output::Failure;

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The document's id
    pub(crate) id: String,
    /// The file
    file: PathBuf,
    /// Overwrite the file
    #[arg(long)]
    replace: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The document's id, which may be another one than it had
    pub(crate) id: String,
    /// The file
    pub(crate) file: PathBuf,
    /// Put it in the place of the document, or of the tombstone, that is there
    #[arg(long)]
    pub(crate) replace: bool,
    /// What clients do with what they have and the imported document has not
    #[arg(long, value_enum, default_value_t = Mode::Merge)]
    pub(crate) mode: Mode,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Mode {
    /// They bring it back
    Merge,
    /// They drop it
    Discard,
}

impl Export {
    /// Fails if the file is there and is not to be overwritten.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.file.exists() && !self.replace {
            return Err(Failure::Exists(format!(
                "{} exists: --replace overwrites it",
                self.file.display()
            )));
        }
        Ok(())
    }

    /// Writes the file: all of it, or nothing.
    pub(crate) fn write(
        &self,
        write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    ) -> Result<(), Failure> {
        // Under another name until it is whole.
        let mut partial = self.file.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let written = File::create(&partial).and_then(|out| {
            let mut out = BufWriter::new(out);
            write(&mut out)?;
            out.flush()?;
            out.get_ref().sync_all()?;
            fs::rename(&partial, &self.file)
        });
        written.map_err(|error| {
            // It may not be there at all.
            let _ = fs::remove_file(&partial);
            Failure::file(&self.file, &error)
        })
    }
}
