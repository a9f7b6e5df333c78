//! An engine that dies of what it is told to die of, where the real ones need forged bytes.

use std::collections::BTreeSet;
use std::hint::black_box;

use bytes::Bytes;
use sync_server::{EngineError, EngineId, Folder, Ledger, Taken, User, ValidateLimits, Validator};

/// Documents are words, one for each change, folded to lines. `b<a` may follow only once `a` is there. These act on whoever
/// reads them, when they are checked, or with a prefix later: `stored abort` when the document is loaded again, `folded abort`
/// when it is folded.
///
/// - `abort`, `panic`, `overflow` (the stack), `allocate` (more than there is), `spin` (for ever), `sleep` (likewise).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Brittle;

impl Brittle {
    /// The engine's name.
    ///
    /// # Panics
    /// Never: the name is a valid one.
    #[must_use]
    #[expect(clippy::expect_used, reason = "the name is a constant")]
    pub fn id() -> EngineId {
        EngineId::new("brittle").expect("a valid name")
    }
}

#[derive(Debug, Default)]
struct Words(BTreeSet<String>);

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Does what the word says.
#[expect(clippy::panic, reason = "it is asked for")]
fn act(word: &str) {
    match word {
        "abort" => std::process::abort(),
        "panic" => panic!("as told"),
        "overflow" => {
            black_box(overflow(0));
        }
        "allocate" => {
            let all: Vec<Vec<u8>> = (0..1 << 20).map(|_| vec![1; 1 << 20]).collect();
            black_box(all);
        }
        "spin" => loop {
            black_box(());
        },
        "sleep" => std::thread::sleep(std::time::Duration::from_secs(3_600)),
        _ => {}
    }
}

#[expect(unconditional_recursion, reason = "it is asked for")]
fn overflow(depth: u64) -> u64 {
    let frame = black_box([depth; 512]);
    frame.iter().sum::<u64>() + overflow(depth + 1)
}

impl Validator for Brittle {
    fn engine(&self) -> EngineId {
        Self::id()
    }

    fn validate(&self, change: &[u8], _: &ValidateLimits) -> Result<(), EngineError> {
        if change.is_empty() {
            return Err(EngineError::Malformed {
                what: "word",
                offset: 0,
            });
        }
        Ok(())
    }

    fn ledger(&self) -> Option<Box<dyn Ledger>> {
        Some(Box::new(Words::default()))
    }

    fn folder(&self) -> Option<&dyn Folder> {
        Some(self)
    }
}

impl Ledger for Words {
    fn scans(&self) -> bool {
        false
    }

    fn load(&mut self, snapshot: &[u8]) -> Result<(), EngineError> {
        for word in text(snapshot).lines() {
            self.0.insert(word.to_owned());
        }
        Ok(())
    }

    fn admit(&mut self, change: &Bytes, _: Option<&User>) -> Result<(), EngineError> {
        let word = text(change);
        act(word.strip_prefix("stored ").unwrap_or_default());
        self.0.insert(word);
        Ok(())
    }

    fn check(&mut self, change: &Bytes, _: &User, _: bool) -> Result<Taken, EngineError> {
        let word = text(change);
        act(&word);
        if let Some((_, before)) = word.split_once('<')
            && !self.0.contains(before)
        {
            return Err(EngineError::Incomplete);
        }
        Ok(if self.0.insert(word) {
            Taken::New
        } else {
            Taken::Known
        })
    }

    fn bytes(&self) -> usize {
        self.0.iter().map(String::len).sum()
    }
}

impl Folder for Brittle {
    fn fold(&self, snapshot: Option<&[u8]>, changes: &[Bytes]) -> Result<Bytes, EngineError> {
        let mut folded = snapshot.map(text).unwrap_or_default();
        for change in changes {
            let word = text(change);
            act(word.strip_prefix("folded ").unwrap_or_default());
            folded.push_str(&word);
            folded.push('\n');
        }
        Ok(folded.into())
    }

    fn read_json(&self, snapshot: Option<&[u8]>, changes: &[Bytes]) -> Result<String, EngineError> {
        let folded = self.fold(snapshot, changes)?;
        serde_json::to_string(&text(&folded).lines().collect::<Vec<_>>()).map_err(|_| {
            EngineError::Unsupported {
                what: "reading as JSON",
            }
        })
    }
}
