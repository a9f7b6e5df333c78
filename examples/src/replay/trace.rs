//! Editing histories, in the format of <https://github.com/josephg/editing-traces>.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use flate2::bufread::GzDecoder;
use serde::Deserialize;

/// An editing history: what each author typed, and what had to be on its screen when it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// Each author's steps, in order.
    pub authors: Vec<Vec<Step>>,
    /// The text in the end.
    pub end: String,
}

/// What one author did at once: one change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// One after the other.
    pub patches: Vec<Patch>,
    /// Whether code points and UTF-16 code units are the same in the whole trace.
    pub is_utf16: bool,
    /// How many steps of each author this one knows of: exactly these are in the text that the positions are about.
    pub knows: Box<[usize]>,
}

/// Deletes, then inserts, at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    /// The place, in code points.
    pub at: u32,
    /// Code points deleted.
    pub deleted: u32,
    /// What is inserted.
    pub inserted: String,
}

/// How many transactions a writer of a sequential trace makes before the next one takes over.
const TURN: usize = 2_000;

impl Trace {
    /// Reads a trace, gzipped or not. One without authors is typed by `writers`, who take turns.
    ///
    /// # Errors
    /// Those of the file system, and [`InvalidData`](io::ErrorKind::InvalidData) for what is not a trace.
    pub fn read(path: impl AsRef<Path>, writers: usize) -> io::Result<Self> {
        let path = path.as_ref();
        let mut file = BufReader::new(File::open(path)?);
        let mut json = Vec::new();
        if path.extension().is_some_and(|extension| extension == "gz") {
            GzDecoder::new(file).read_to_end(&mut json)?;
        } else {
            file.read_to_end(&mut json)?;
        }
        Self::parse(&json, writers)
    }

    /// As [`read`](Self::read), from the JSON text.
    ///
    /// # Errors
    /// [`InvalidData`](io::ErrorKind::InvalidData) for what is not a trace.
    pub fn parse(json: &[u8], writers: usize) -> io::Result<Self> {
        let file: TraceFile = serde_json::from_slice(json)?;
        let n_authors = file.num_agents.unwrap_or(writers).max(1);
        let mut authors = vec![Vec::new(); n_authors];
        // For each transaction, how many steps of each author are done after it.
        let mut done: Vec<Box<[usize]>> = Vec::with_capacity(file.txns.len());
        let inserted = file.txns.iter().flat_map(|txn| &txn.patches);
        let is_utf16 = inserted
            .map(|(_, _, text)| text)
            .chain(&file.start_content)
            .all(|text| text.chars().all(|c| c.len_utf16() == 1));
        let mut start = file.start_content;
        for (n, txn) in file.txns.into_iter().enumerate() {
            let author = txn.agent.unwrap_or(n / TURN % n_authors);
            let parents = txn
                .parents
                .unwrap_or_else(|| n.checked_sub(1).into_iter().collect());
            let steps = authors
                .get_mut(author)
                .ok_or_else(|| invalid(n, "its author is not one of the trace's"))?;
            let mut knows = vec![0; n_authors];
            for parent in parents {
                let after = done
                    .get(parent)
                    .ok_or_else(|| invalid(n, "a parent does not come before it"))?;
                for (known, after) in knows.iter_mut().zip(after) {
                    *known = (*known).max(*after);
                }
            }
            let mut patches: Vec<Patch> = std::mem::take(&mut start)
                .into_iter()
                .map(|text| (0, 0, text))
                .chain(txn.patches)
                .map(|(at, deleted, inserted)| Patch {
                    at,
                    deleted,
                    inserted,
                })
                .collect();
            patches.retain(|patch| patch.deleted > 0 || !patch.inserted.is_empty());
            let mut after = knows.clone();
            // What changes nothing is no change to wait for.
            if !patches.is_empty() {
                if knows.get(author) != Some(&steps.len()) {
                    return Err(invalid(n, "its author did something else at the same time"));
                }
                if let Some(own) = after.get_mut(author) {
                    *own += 1;
                }
                steps.push(Step {
                    patches,
                    is_utf16,
                    knows: knows.into(),
                });
            }
            done.push(after.into());
        }
        Ok(Self {
            authors,
            end: file.end_content,
        })
    }

    /// Number of changes.
    #[must_use]
    pub fn n_changes(&self) -> usize {
        self.authors.iter().map(Vec::len).sum()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TraceFile {
    num_agents: Option<usize>,
    start_content: Option<String>,
    end_content: String,
    txns: Vec<Transaction>,
}

#[derive(Deserialize)]
struct Transaction {
    agent: Option<usize>,
    parents: Option<Vec<usize>>,
    patches: Vec<(u32, u32, String)>,
}

fn invalid(transaction: usize, why: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("transaction {transaction}: {why}"),
    )
}
