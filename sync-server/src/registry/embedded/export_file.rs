//! A document as a file.
//!
//! ```text
//! magic            "SYNCDOC\n", format version (u32)
//! section          for each: tag (1 byte), length (u64), bytes,
//!                  XXH3-64 of these bytes, seeded with position * 256 + tag; the first section's position is 0
//! ```
//!
//! | tag | section | bytes |
//! | --- | --- | --- |
//! | 1 | document, the first | id, engine (each a varint length and UTF-8), mode (1 byte), epoch, head, digest, log start, digest there |
//! | 2 | snapshot, if there is one | sequence, digest, length |
//! | 3 | a part of the snapshot, 1 MiB at most | its bytes |
//! | 4 | a row of the log, as in the database | first sequence, number of changes, digest after them, then as in `row.rs` |
//! | 5 | origins | for each: origin (16 bytes), varint length and id of its user, last number, its sequence |
//! | 6 | end, the last | nothing |
//!
//! Numbers have 8 bytes, little endian, where nothing else is said.

use std::io::{self, Read, Write};

use bytes::{Bytes, BytesMut};
use sync_core::history::{Digest, Epoch, EpochMode, Seq};
use sync_core::ids::{DocumentId, EngineId, OriginId, User};

use super::export::Export;
use super::plan::segments;
use super::row::{Entry, Stored, check, decode, put_len, take_len};
use crate::registry::{DocumentMeta, OriginEntry, Snapshot};

const MAGIC: &[u8; 8] = b"SYNCDOC\n";
/// What this code writes, and the newest that it reads.
const FORMAT: u32 = 2;
/// Bytes of the snapshot in one section.
const PART: usize = 1 << 20;
/// Bytes of a section at most: a row of the log holds a change, however large, or some small ones.
const SECTION_MAX: u64 = 1 << 32;

const DOCUMENT: u8 = 1;
const SNAPSHOT: u8 = 2;
const SNAPSHOT_PART: u8 = 3;
const LOG: u8 = 4;
const ORIGINS: u8 = 5;
const END: u8 = 6;

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// It is something else.
    #[error("this is not an exported document")]
    Foreign,
    /// A newer version of this program wrote it: read it with that one.
    #[error("the file has format {found}, this program reads up to {supported}")]
    Newer {
        /// The format found.
        found: u32,
        /// The newest that this program reads.
        supported: u32,
    },
    /// A version before the first release wrote it.
    #[error("the file has format {found}, this program reads {supported}")]
    Older {
        /// The format found.
        found: u32,
        /// The format that this program reads.
        supported: u32,
    },
    /// It was cut short or changed.
    #[error("the file is damaged: {what}")]
    Damaged {
        /// What is damaged.
        what: String,
    },
    /// It could not be read.
    #[error("cannot read the file")]
    Io(#[source] io::Error),
}

pub(super) fn write(export: &Export, mut out: impl Write) -> io::Result<()> {
    out.write_all(MAGIC)?;
    out.write_all(&FORMAT.to_le_bytes())?;
    let mut sections = Sections { out, position: 0 };
    let mut bytes = Vec::new();
    let meta = &export.meta;
    put_str(&mut bytes, meta.id.as_str());
    put_str(&mut bytes, meta.engine.as_str());
    bytes.push(meta.mode.code());
    let (start, end) = (meta.log_start, meta.head);
    put_numbers(
        &mut bytes,
        &[
            meta.epoch.0,
            end.0,
            meta.digest.0,
            start.0,
            export.start_digest.0,
        ],
    );
    sections.write(DOCUMENT, &bytes)?;
    if let Some(snapshot) = &export.snapshot {
        let length = u64::try_from(snapshot.bytes.len()).unwrap_or(u64::MAX);
        bytes.clear();
        put_numbers(&mut bytes, &[snapshot.seq.0, snapshot.digest.0, length]);
        sections.write(SNAPSHOT, &bytes)?;
        for part in snapshot.bytes.chunks(PART) {
            sections.write(SNAPSHOT_PART, part)?;
        }
    }
    for row in segments(&export.entries()) {
        bytes.clear();
        put_numbers(&mut bytes, &[row.seq.0, row.n.into(), row.digest.0]);
        bytes.extend_from_slice(&row.changes);
        sections.write(LOG, &bytes)?;
    }
    bytes.clear();
    for entry in &export.origins {
        bytes.extend_from_slice(&entry.origin.0.to_le_bytes());
        put_str(&mut bytes, &entry.user.id);
        put_numbers(&mut bytes, &[entry.last, entry.seq.0]);
    }
    sections.write(ORIGINS, &bytes)?;
    sections.write(END, &[])?;
    sections.out.flush()
}

struct Sections<W> {
    out: W,
    position: u64,
}

impl<W: Write> Sections<W> {
    fn write(&mut self, tag: u8, bytes: &[u8]) -> io::Result<()> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.out.write_all(&[tag])?;
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(bytes)?;
        self.out
            .write_all(&check(seed(self.position, tag), bytes))?;
        self.position += 1;
        Ok(())
    }
}

/// A section that is moved, or taken for another, is noticed like one that is changed.
fn seed(position: u64, tag: u8) -> Seq {
    Seq((position << 8) | u64::from(tag))
}

pub(super) fn read(mut input: impl Read) -> Result<Export, ExportError> {
    let mut magic = [0; MAGIC.len()];
    input
        .read_exact(&mut magic)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ExportError::Foreign,
            _ => ExportError::Io(error),
        })?;
    if magic != *MAGIC {
        return Err(ExportError::Foreign);
    }
    let found = u32::from_le_bytes(array(&mut input)?);
    if found > FORMAT {
        return Err(ExportError::Newer {
            found,
            supported: FORMAT,
        });
    }
    if found < FORMAT {
        return Err(ExportError::Older {
            found,
            supported: FORMAT,
        });
    }
    let mut export: Option<Export> = None;
    // The snapshot's place, and what is there of it.
    let mut snapshot: Option<(Snapshot, u64, BytesMut)> = None;
    for position in 0.. {
        let (tag, bytes) = section(&mut input, position)?;
        let mut rest = &bytes[..];
        let fields = match (tag, &mut export, &mut snapshot) {
            (DOCUMENT, none @ None, _) => document(&mut rest).map(|read| *none = Some(read)),
            (SNAPSHOT, Some(_), none @ None) => numbers(&mut rest).map(|[seq, digest, length]| {
                let empty = Snapshot::new(Seq(seq), Digest(digest), Bytes::new());
                *none = Some((empty, length, BytesMut::new()));
            }),
            (SNAPSHOT_PART, Some(_), Some((_, _, read))) => {
                read.extend_from_slice(std::mem::take(&mut rest));
                Some(())
            }
            (LOG, Some(export), _) => log_row(export, &mut rest),
            (ORIGINS, Some(export), _) => origins(export, &mut rest),
            (END, Some(_), _) => Some(()),
            _ => None,
        };
        if fields.is_none() || !rest.is_empty() {
            return Err(damaged(position));
        }
        if tag == END {
            break;
        }
    }
    if input.read(&mut [0]).map_err(ExportError::Io)? > 0 {
        return Err(ExportError::Damaged {
            what: "it goes on after its end".into(),
        });
    }
    let mut export = export.ok_or(ExportError::Foreign)?;
    if let Some((mut found, length, bytes)) = snapshot {
        if u64::try_from(bytes.len()) != Ok(length) {
            return Err(ExportError::Damaged {
                what: "the snapshot is not whole".into(),
            });
        }
        found.bytes = bytes.freeze();
        export.meta.snapshot_seq = found.seq;
        export.snapshot = Some(found);
    }
    export.verify().map_err(|error| ExportError::Damaged {
        what: error.to_string(),
    })?;
    Ok(export)
}

fn section(input: &mut impl Read, position: u64) -> Result<(u8, Vec<u8>), ExportError> {
    let [tag] = array(input)?;
    let length = u64::from_le_bytes(array(input)?);
    if length > SECTION_MAX {
        return Err(damaged(position));
    }
    // Grows with what is there, and not with what a damaged length says.
    let mut bytes = Vec::new();
    input
        .take(length)
        .read_to_end(&mut bytes)
        .map_err(ExportError::Io)?;
    let stored = array(input)?;
    if stored != check(seed(position, tag), &bytes) {
        return Err(damaged(position));
    }
    Ok((tag, bytes))
}

fn array<const N: usize>(input: &mut impl Read) -> Result<[u8; N], ExportError> {
    let mut bytes = [0; N];
    input
        .read_exact(&mut bytes)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ExportError::Damaged {
                what: "it was cut short".into(),
            },
            _ => ExportError::Io(error),
        })?;
    Ok(bytes)
}

fn damaged(position: u64) -> ExportError {
    ExportError::Damaged {
        what: format!("section {position}"),
    }
}

fn document(rest: &mut &[u8]) -> Option<Export> {
    let id = DocumentId::new(take_str(rest)?).ok()?;
    let engine = EngineId::new(take_str(rest)?.to_owned())?;
    let (mode, after) = rest.split_first()?;
    *rest = after;
    let [epoch, head, digest, log_start, start_digest] = numbers(rest)?;
    let mut meta = DocumentMeta::new(id, engine, Epoch(epoch), EpochMode::from_code(*mode)?);
    meta.head = Seq(head);
    meta.digest = Digest(digest);
    meta.log_start = Seq(log_start);
    Some(Export {
        meta,
        start_digest: Digest(start_digest),
        snapshot: None,
        log: Vec::new(),
        origins: Vec::new(),
    })
}

fn log_row(export: &mut Export, rest: &mut &[u8]) -> Option<()> {
    let [seq, n, digest] = numbers(rest)?;
    let follows = u64::try_from(export.log.len())
        .ok()?
        .checked_add(export.meta.log_start.0)?
        .checked_add(1)?;
    let row = Stored {
        seq: Seq(seq),
        n: u32::try_from(n).ok()?,
        digest: Digest(digest),
        changes: std::mem::take(rest),
    };
    let entries = decode(row).ok().filter(|_| seq == follows)?;
    let changes = entries.into_iter().map(Entry::into_change);
    export.log.extend(changes);
    Some(())
}

fn origins(export: &mut Export, rest: &mut &[u8]) -> Option<()> {
    while !rest.is_empty() {
        let (origin, after) = rest.split_first_chunk()?;
        *rest = after;
        let user = User::new(take_str(rest)?);
        let [last, seq] = numbers(rest)?;
        let origin = OriginId(u128::from_le_bytes(*origin));
        let entry = OriginEntry::new(origin, user, last, Seq(seq));
        export.origins.push(entry);
    }
    Some(())
}

fn put_str(out: &mut Vec<u8>, text: &str) {
    put_len(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn take_str<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let length = take_len(rest)?;
    let (text, after) = rest.split_at_checked(length)?;
    *rest = after;
    std::str::from_utf8(text).ok()
}

fn put_numbers(out: &mut Vec<u8>, numbers: &[u64]) {
    for number in numbers {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

fn numbers<const N: usize>(rest: &mut &[u8]) -> Option<[u64; N]> {
    let mut numbers = [0; N];
    for number in &mut numbers {
        let (bytes, after) = rest.split_first_chunk()?;
        *rest = after;
        *number = u64::from_le_bytes(*bytes);
    }
    Some(numbers)
}
