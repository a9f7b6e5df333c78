//! What the shim has written down.

use std::ops::Range;
use std::path::Path;

use sync_core::rng::Rng;

/// The file that children say things in.
pub(super) const SAID: &str = "said";

/// What was done, in its order.
pub(crate) struct Recording {
    pub(super) bytes: Vec<u8>,
    pub(super) actions: Vec<Action>,
}

/// Something that was done to a file. Paths are relative to the directory that is watched.
#[derive(Debug)]
pub(super) struct Action {
    pub(super) file: u64,
    pub(super) path: String,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Created,
    Written { offset: u64, bytes: Range<usize> },
    Truncated { length: u64 },
    Unlinked,
    SyncBegan { number: u64 },
    Synced { number: u64 },
    SyncFailed { number: u64 },
}

impl Recording {
    pub(super) fn new(bytes: Vec<u8>, root: &Path) -> Self {
        let root = root.to_str().unwrap();
        let mut actions = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            // As `struct record` in shim.c.
            let number = |n: usize| {
                u64::from_ne_bytes(bytes[at + n * 8..at + n * 8 + 8].try_into().unwrap())
            };
            let [kind, file, offset, length, path_length] = [0, 1, 2, 3, 4].map(number);
            let path = at + 40;
            let content = path + path_length as usize;
            let path = std::str::from_utf8(&bytes[path..content]).unwrap();
            let path = path.strip_prefix(root).unwrap().trim_start_matches('/');
            let mut end = content;
            let what = match u8::try_from(kind).unwrap() {
                b'C' => What::Created,
                b'W' => {
                    end += length as usize;
                    What::Written {
                        offset,
                        bytes: content..end,
                    }
                }
                b'T' => What::Truncated { length: offset },
                b'U' => What::Unlinked,
                b'B' => What::SyncBegan { number: offset },
                b'S' => What::Synced { number: offset },
                b'F' => What::SyncFailed { number: offset },
                other => panic!("{other}"),
            };
            actions.push(Action {
                file,
                path: path.to_owned(),
                what,
            });
            at = end;
        }
        Self { bytes, actions }
    }

    /// How many things were done.
    pub(crate) fn len(&self) -> usize {
        self.actions.len()
    }

    /// So many moments, in their order: half of them right after something was said, for that may have been a promise.
    pub(crate) fn moments(&self, count: u64, seed: u64) -> Vec<usize> {
        let mut rng = Rng::new(seed.into());
        let words = self.after_words();
        let mut below =
            |n: usize| usize::try_from(rng.next_u64() % u64::try_from(n).unwrap()).unwrap();
        let mut moments: Vec<_> = (0..count)
            .map(|n| match n % 2 {
                0 => words[below(words.len())],
                _ => below(self.len() + 1),
            })
            .collect();
        moments.sort_unstable();
        moments
    }

    /// The moments right after something was said.
    pub(crate) fn after_words(&self) -> Vec<usize> {
        let said = self.actions.iter().enumerate();
        said.filter(|(_, action)| action.path == SAID)
            .map(|(index, _)| index + 1)
            .collect()
    }

    /// When the first sync failed.
    pub(crate) fn failed_sync(&self) -> Option<usize> {
        let failed = |action: &Action| matches!(action.what, What::SyncFailed { .. });
        self.actions.iter().position(failed)
    }

    /// When this was said.
    pub(crate) fn word(&self, word: &str) -> Option<usize> {
        let is_it = |action: &Action| match &action.what {
            What::Written { bytes, .. } if action.path == SAID => {
                self.bytes[bytes.clone()].starts_with(word.as_bytes())
            }
            _ => false,
        };
        self.actions.iter().position(is_it)
    }
}
