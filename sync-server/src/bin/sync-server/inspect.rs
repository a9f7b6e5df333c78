//! `sync-server inspect`.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;
use sync_server::registry::{
    DocumentId, DocumentInfo, EmbeddedRegistry, EpochMode, Existing, Export, Inspector,
    RegistryError, ServerRegistry,
};

use crate::output::{Failure, line, size};
use crate::transfer::{self, Mode};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The directory of the registry
    directory: PathBuf,
    /// Print one JSON object per line
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the documents, deleted ones too; this is what is done without a command
    List,
    /// Show a document: where it stands, its origins, and whether all of it fits together
    Show {
        /// The document's id
        id: String,
    },
    /// Read everything, and compare it with its checksums and digests
    Check,
    /// Write a document to a file
    Export(transfer::Export),
    /// Put a document from a file into the registry, as a new history; no server may have the directory open
    Import(transfer::Import),
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Arguments {
        directory, json, ..
    } = arguments;
    match &arguments.command {
        None | Some(Command::List) => list(directory, *json),
        Some(Command::Show { id }) => show(directory, &document(id)?, *json),
        Some(Command::Check) => check(directory, *json),
        Some(Command::Export(to)) => export(directory, to),
        Some(Command::Import(from)) => import(directory, from),
    }
}

fn document(id: &str) -> Result<DocumentId, Failure> {
    DocumentId::new(id).map_err(|error| Failure::Usage(format!("error: {error}\n")))
}

/// Documents read at once.
const PAGE: usize = 1_000;

fn each(
    inspector: &Inspector,
    mut f: impl FnMut(DocumentInfo) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut after = None;
    loop {
        let page = inspector.documents(after.as_ref(), PAGE)?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        after = Some(last.meta.id.clone());
        page.into_iter().try_for_each(&mut f)?;
    }
}

fn list(directory: &Path, as_json: bool) -> Result<(), Failure> {
    let inspector = Inspector::open(directory)?;
    if !as_json {
        line(format_args!(
            "{:<10} {:<16} {:>10} {:>8} {:>10} {:>10} {:>10}  ID",
            "ENGINE", "EPOCH", "HEAD", "LOG", "LOG SIZE", "SNAPSHOT", "SIZE"
        ))?;
    }
    each(&inspector, |info| {
        let meta = &info.meta;
        if as_json {
            return line(summary(&info));
        }
        let remark = match (&info.damaged, info.is_deleted) {
            (_, true) => "  (deleted)".to_owned(),
            (Some(what), _) => format!("  (damaged: {what})"),
            _ => String::new(),
        };
        line(format_args!(
            "{:<10} {} {:>10} {:>8} {:>10} {:>10} {:>10}  {:?}{remark}",
            meta.engine.as_str(),
            meta.epoch,
            meta.head,
            info.log_changes(),
            size(info.log_bytes),
            meta.snapshot_seq,
            size(info.snapshot_bytes),
            meta.id.as_str(),
        ))
    })
}

fn summary(info: &DocumentInfo) -> serde_json::Value {
    let meta = &info.meta;
    json!({
        "id": meta.id.as_str(),
        "engine": meta.engine.as_str(),
        "epoch": meta.epoch.to_string(),
        "mode": meta.mode.to_string(),
        "deleted": info.is_deleted,
        "damaged": info.damaged,
        "head": meta.head.0,
        "digest": digest(meta.digest.0),
        "log_start": meta.log_start.0,
        "log_changes": info.log_changes(),
        "log_bytes": info.log_bytes,
        "journal_bytes": info.journal_bytes,
        "snapshot_seq": meta.snapshot_seq.0,
        "snapshot_bytes": info.snapshot_bytes,
    })
}

fn digest(digest: u64) -> String {
    format!("{digest:016x}")
}

/// All of a document, and what is wrong with it.
fn verified(inspector: &Inspector, id: &DocumentId) -> (Option<Export>, Result<(), RegistryError>) {
    match inspector.export(id) {
        Ok(export) => {
            let verdict = export.verify();
            (Some(export), verdict)
        }
        Err(error) => (None, Err(error)),
    }
}

fn show(directory: &Path, id: &DocumentId, as_json: bool) -> Result<(), Failure> {
    let inspector = Inspector::open(directory)?;
    let info = inspector.document(id)?;
    let (export, verdict) = if info.is_deleted {
        (None, Ok(()))
    } else {
        verified(&inspector, id)
    };
    let wrong = verdict.as_ref().err().map(|error| Failure::text(error));
    let origins = export.as_ref().map_or(&[][..], |export| &export.origins);
    let meta = &info.meta;
    if as_json {
        let mut object = summary(&info);
        let origins: Vec<_> = origins
            .iter()
            .map(|entry| {
                json!({
                    "origin": entry.origin.to_string(),
                    "user": &*entry.user.id,
                    "last": entry.last,
                    "seq": entry.seq.0,
                })
            })
            .collect();
        if let Some(object) = object.as_object_mut() {
            let start = export.as_ref().map(|export| digest(export.start_digest.0));
            object.insert("log_start_digest".into(), json!(start));
            object.insert("origins".into(), json!(origins));
            object.insert("wrong".into(), json!(wrong));
        }
        line(object)?;
    } else {
        line(format_args!("id        {:?}", meta.id.as_str()))?;
        line(format_args!("engine    {}", meta.engine))?;
        line(format_args!("epoch     {} ({})", meta.epoch, meta.mode))?;
        line(format_args!(
            "head      {}, digest {}",
            meta.head,
            digest(meta.digest.0)
        ))?;
        line(format_args!(
            "log       {} changes after {}, {} ({} of it in the journal)",
            info.log_changes(),
            meta.log_start,
            size(info.log_bytes),
            size(info.journal_bytes),
        ))?;
        match meta.snapshot_seq.0 {
            0 => line("snapshot  none")?,
            seq => line(format_args!(
                "snapshot  at {seq}, {}",
                size(info.snapshot_bytes)
            ))?,
        }
        line(format_args!("origins   {}", origins.len()))?;
        for entry in origins {
            line(format_args!(
                "          {} through {} (at {}) by {:?}",
                entry.origin, entry.last, entry.seq, &*entry.user.id
            ))?;
        }
        match (&wrong, info.is_deleted) {
            (Some(what), _) => line(format_args!("verified  no: {what}"))?,
            (None, true) => line("verified  nothing to verify: it has been deleted")?,
            (None, false) => {
                line("verified  sequences, digests, checksums and origins fit together")?
            }
        }
    }
    verdict.map_err(Failure::from)
}

fn check(directory: &Path, as_json: bool) -> Result<(), Failure> {
    let inspector = Inspector::open(directory)?;
    let (mut n_documents, mut n_damaged) = (0_u64, 0_u64);
    let mut tell = |what: &str, verdict: Result<(), RegistryError>| {
        let Err(error) = verdict else { return Ok(()) };
        n_damaged += 1;
        let text = Failure::text(&error);
        if as_json {
            line(json!({ "where": what, "wrong": text }))
        } else {
            line(format_args!("{what}: {text}"))
        }
    };
    tell("the database", inspector.check_database())?;
    each(&inspector, |info| {
        n_documents += 1;
        if info.is_deleted {
            return Ok(());
        }
        tell(info.meta.id.as_str(), verified(&inspector, &info.meta.id).1)
    })?;
    if n_damaged > 0 {
        return Err(Failure::Damaged(format!(
            "{n_damaged} of {n_documents} documents and the database are damaged"
        )));
    }
    if as_json {
        line(json!({ "documents": n_documents }))
    } else {
        line(format_args!("{n_documents} documents, all whole"))
    }
}

fn export(directory: &Path, to: &transfer::Export) -> Result<(), Failure> {
    let inspector = Inspector::open(directory)?;
    let export = inspector.export(&document(&to.id)?)?;
    export.verify()?;
    to.check()?;
    to.write(|out| export.write_to(out))
}

fn import(directory: &Path, from: &transfer::Import) -> Result<(), Failure> {
    let id = document(&from.id)?;
    let input = File::open(&from.file).map_err(|error| Failure::file(&from.file, &error))?;
    let mut salt = [0; 16];
    getrandom::fill(&mut salt)
        .map_err(|error| Failure::Other(format!("no randomness: {error}")))?;
    let export = Export::read_from(BufReader::new(input))?.renamed(id, u128::from_le_bytes(salt));
    let mode = match from.mode {
        Mode::Merge => EpochMode::Merge,
        Mode::Discard => EpochMode::Discard,
    };
    let existing = if from.replace {
        Existing::Replace
    } else {
        Existing::Keep
    };
    let registry = EmbeddedRegistry::open(directory)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|error| Failure::Other(error.to_string()))?;
    let imported = runtime.block_on(async {
        let imported = registry.import(export, mode, existing).await;
        registry.close().await?;
        imported
    });
    match imported {
        Ok(meta) => line(format_args!(
            "{:?} is at {} in epoch {}",
            meta.id.as_str(),
            meta.head,
            meta.epoch
        )),
        Err(error @ (RegistryError::Deleted | RegistryError::Refused { .. })) => {
            Err(Failure::Exists(format!("{error}: --replace replaces it")))
        }
        Err(error) => Err(error.into()),
    }
}
