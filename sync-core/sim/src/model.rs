//! What must be so, whatever the machines do: for each mark, where it has to be.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::content::Mark;

/// What became of an edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Its author has it, and nobody else has to.
    Pending,
    /// Its author was told that the server has it.
    Saved,
    /// The server had it and lost it with an announcement; these clients still have it, and will bring it back.
    Returning(BTreeSet<usize>),
    /// It was handed back to its author, and nobody may have it.
    Refused,
    /// Nobody who has to have it is left. It may be there, or not.
    Free,
}

/// One edit.
#[derive(Debug, Clone)]
pub struct Edit {
    /// Who made it.
    pub author: usize,
    /// The number of the document.
    pub document: usize,
    /// What became of it.
    pub fate: Fate,
    /// Whether it was committed in a history that the server does not have any more. An acknowledgement may be under way.
    pub was_committed: bool,
}

/// All edits of a run.
#[derive(Debug, Default)]
pub struct Model {
    /// By mark.
    pub edits: BTreeMap<Mark, Edit>,
    /// Who says something of themselves, and where.
    pub shown: BTreeSet<(usize, usize)>,
    /// To whom something was handed back, and of which document.
    pub handed_back: BTreeSet<(usize, usize)>,
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which rule was broken.
    pub kind: &'static str,
    /// How.
    pub what: String,
    /// When, in milliseconds since the beginning.
    pub at_ms: u64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, after {} ms: {}", self.kind, self.at_ms, self.what)
    }
}

impl Model {
    /// A new edit, which its author has.
    pub fn made(&mut self, author: usize, document: usize) -> Mark {
        let mark = self.edits.len() as Mark + 1;
        self.edits.insert(
            mark,
            Edit {
                author,
                document,
                fate: Fate::Pending,
                was_committed: false,
            },
        );
        mark
    }

    /// What comes next would have this mark.
    #[must_use]
    pub fn next_mark(&self) -> Mark {
        self.edits.len() as Mark + 1
    }

    /// The edits of a document.
    pub fn of(&mut self, document: usize) -> impl Iterator<Item = (Mark, &mut Edit)> {
        let all = self.edits.iter_mut();
        all.filter(move |(_, edit)| edit.document == document)
            .map(|(mark, edit)| (*mark, edit))
    }

    /// The process of a client has ended. `stored`: what its store still has, as it is sent, as it was handed back, and all
    /// of it, by document.
    ///
    /// # Errors
    ///
    /// If an edit that was made is nowhere.
    pub fn ended(
        &mut self,
        client: usize,
        stored: Option<&BTreeMap<usize, Stored>>,
        committed: &dyn Fn(usize, Mark) -> bool,
        may_lose: &dyn Fn(usize, Mark) -> bool,
    ) -> Result<(), String> {
        let nothing = Stored::default();
        for (mark, edit) in &mut self.edits {
            let there = stored.map_or(&nothing, |stored| {
                stored.get(&edit.document).unwrap_or(&nothing)
            });
            if let Fate::Returning(holders) = &mut edit.fate {
                if !there.all.contains(mark) {
                    holders.remove(&client);
                }
                if holders.is_empty() {
                    edit.fate = Fate::Free;
                }
            }
            if edit.author != client {
                continue;
            }
            let is_open = matches!(edit.fate, Fate::Pending | Fate::Refused);
            if !is_open {
                continue;
            }
            if there.outbox.contains(mark) {
                edit.fate = Fate::Pending;
            } else if there.refused.contains(mark) {
                edit.fate = Fate::Refused;
            } else if committed(edit.document, *mark) {
                edit.fate = Fate::Saved;
            } else if edit.fate == Fate::Pending {
                if stored.is_some() && !may_lose(edit.document, *mark) {
                    return Err(format!(
                        "edit {mark} of client {client} was lost with its process"
                    ));
                }
                edit.fate = Fate::Free;
            }
        }
        self.shown.retain(|(who, _)| *who != client);
        Ok(())
    }

    /// A client has closed a document: only what its store has stays with it.
    pub fn closed(
        &mut self,
        client: usize,
        document: usize,
        stored: Option<&BTreeMap<usize, Stored>>,
    ) {
        let there = stored.and_then(|stored| stored.get(&document));
        for (mark, edit) in self.of(document) {
            if let Fate::Returning(holders) = &mut edit.fate {
                if !there.is_some_and(|there| there.all.contains(&mark)) {
                    holders.remove(&client);
                }
                if holders.is_empty() {
                    edit.fate = Fate::Free;
                }
            }
        }
    }

    /// A document's history was forgotten: who has more than it is not asked for that any more.
    pub fn trimmed(&mut self, document: usize) {
        for (_, edit) in self.of(document) {
            if matches!(edit.fate, Fate::Returning(_)) {
                edit.fate = Fate::Free;
            }
        }
    }

    /// The server has another history of a document. `before`: what the one before held; `holders`: which clients have a mark.
    pub fn rewritten(
        &mut self,
        document: usize,
        is_wanted: bool,
        before: &BTreeSet<Mark>,
        committed: &dyn Fn(Mark) -> bool,
        holders: &dyn Fn(Mark) -> BTreeSet<usize>,
    ) {
        for (mark, edit) in self.of(document) {
            edit.was_committed |= before.contains(&mark);
            match edit.fate {
                Fate::Saved | Fate::Returning(_) if committed(mark) => edit.fate = Fate::Saved,
                Fate::Saved | Fate::Returning(_) => {
                    let holders = holders(mark);
                    edit.fate = if is_wanted || holders.is_empty() {
                        Fate::Free
                    } else {
                        Fate::Returning(holders)
                    };
                }
                Fate::Pending if is_wanted => edit.fate = Fate::Free,
                Fate::Pending | Fate::Refused | Fate::Free => {}
            }
        }
    }
}

/// What a store has of a document.
#[derive(Debug, Clone, Default)]
pub struct Stored {
    /// To be sent.
    pub outbox: BTreeSet<Mark>,
    /// Handed back.
    pub refused: BTreeSet<Mark>,
    /// In any part of it.
    pub all: BTreeSet<Mark>,
}
