//! What is on a disk when the power is cut.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use sync_core::rng::Rng;

use super::record::{Action, Recording, SAID, What};

/// Bytes that a disk writes all or none of.
const SECTOR: usize = 512;

/// A disk on which things are done one after the other, as the record has them.
///
/// What a sync of a file confirmed is on the disk, whatever happens. Of what was done since, anything may be: each write
/// or half of it, in any order. A name is on the disk once its directory was synced. What was under way when a sync of a
/// file failed is there or not, and no later sync changes that.
pub(crate) struct Disk<'a> {
    recording: &'a Recording,
    rng: Rng,
    /// How much of the record was done.
    done: usize,
    files: Vec<File>,
    /// The file that has this inode.
    inodes: BTreeMap<u64, usize>,
    names: BTreeMap<String, usize>,
    /// What was done to names since their directory was synced: when, the name, and the file or nothing.
    names_pending: Vec<(usize, String, Option<usize>)>,
    /// Syncs under way: when they began.
    syncing: BTreeMap<u64, usize>,
    said: Vec<u8>,
}

#[derive(Default)]
struct File {
    synced: Vec<u8>,
    /// Actions since then.
    pending: Vec<usize>,
}

/// How much of what was not synced is on the disk.
#[derive(Debug, Clone, Copy)]
enum Luck {
    Nothing,
    Everything,
    /// What was done first.
    Until(usize),
    /// Every action or none of it, one in so many.
    Some,
    /// Every sector.
    Sectors,
}

impl<'a> Disk<'a> {
    pub(crate) fn new(recording: &'a Recording, seed: u128) -> Self {
        Self {
            recording,
            rng: Rng::new(seed),
            done: 0,
            files: Vec::new(),
            inodes: BTreeMap::new(),
            names: BTreeMap::new(),
            names_pending: Vec::new(),
            syncing: BTreeMap::new(),
            said: Vec::new(),
        }
    }

    /// Lets everything happen up to this moment. What was said meanwhile.
    pub(crate) fn advance(&mut self, moment: usize) -> String {
        while self.done < moment {
            let index = self.done;
            self.happen(index, &self.recording.actions[index]);
            self.done += 1;
        }
        // Whole lines only: the rest is said later.
        let end = self.said.iter().rposition(|byte| *byte == b'\n');
        let rest = self.said.split_off(end.map_or(0, |end| end + 1));
        String::from_utf8(std::mem::replace(&mut self.said, rest)).unwrap()
    }

    fn happen(&mut self, index: usize, action: &Action) {
        if action.path == SAID {
            if let What::Written { bytes, .. } = &action.what {
                self.said.extend(&self.recording.bytes[bytes.clone()]);
            }
            return;
        }
        if action.path.ends_with("-shm") {
            // Memory that processes share; made anew after a crash.
            return;
        }
        match &action.what {
            What::Created => {
                let file = self.files.len();
                self.files.push(File::default());
                self.inodes.insert(action.file, file);
                let name = action.path.clone();
                self.names_pending.push((index, name, Some(file)));
            }
            What::Unlinked => {
                self.names_pending.push((index, action.path.clone(), None));
            }
            What::Written { .. } | What::Truncated { .. } => {
                self.file(action).pending.push(index);
            }
            What::SyncBegan { number } => {
                self.syncing.insert(*number, index);
            }
            What::Synced { number } => {
                let began = self.syncing.remove(number).unwrap();
                self.sync(action, began, |_| true);
            }
            What::SyncFailed { number } => {
                let began = self.syncing.remove(number).unwrap();
                if !self.inodes.contains_key(&action.file) {
                    return;
                }
                let mut luck = self.rng.clone();
                self.rng.next_u64();
                self.sync(action, began, |_| luck.next_u64().is_multiple_of(2));
            }
        }
    }

    fn file(&mut self, action: &Action) -> &mut File {
        &mut self.files[self.inodes[&action.file]]
    }

    /// Settles what was done before a sync began.
    fn sync(&mut self, action: &Action, began: usize, mut is_kept: impl FnMut(usize) -> bool) {
        if !self.inodes.contains_key(&action.file) {
            // The directory.
            let later = self.names_pending.partition_point(|(at, ..)| *at < began);
            for (at, name, file) in self.names_pending.drain(..later) {
                if is_kept(at) {
                    set(&mut self.names, name, file);
                }
            }
            return;
        }
        let recording = self.recording;
        let file = self.file(action);
        let later = file.pending.partition_point(|at| *at < began);
        for at in file.pending.drain(..later) {
            if is_kept(at) {
                apply(&mut file.synced, recording, at, |_| true);
            }
        }
    }

    /// Writes to a directory what may be on the disk now.
    pub(crate) fn image(&mut self, into: &Path) -> String {
        let luck = match self.rng.next_u64() % 6 {
            0 => Luck::Nothing,
            1 => Luck::Everything,
            2 => {
                let pending = self.files.iter().flat_map(|file| &file.pending);
                let first = pending.copied().min().unwrap_or(self.done);
                let span = u64::try_from(self.done - first).unwrap() + 1;
                Luck::Until(first + usize::try_from(self.rng.next_u64() % span).unwrap())
            }
            3 => Luck::Some,
            _ => Luck::Sectors,
        };
        // Names reach the disk in their order.
        let most = u64::try_from(self.names_pending.len()).unwrap();
        let count = match luck {
            Luck::Nothing => 0,
            Luck::Everything => most,
            _ => self.rng.next_u64() % (most + 1),
        };
        let mut names = self.names.clone();
        for (_, name, file) in &self.names_pending[..usize::try_from(count).unwrap()] {
            set(&mut names, name.clone(), *file);
        }
        for (name, file) in &names {
            let file = &self.files[*file];
            let mut bytes = file.synced.clone();
            for &at in &file.pending {
                let rng = &mut self.rng;
                let likely = 1 + rng.next_u64() % 4;
                match luck {
                    Luck::Nothing => {}
                    Luck::Everything => apply(&mut bytes, self.recording, at, |_| true),
                    Luck::Until(last) if at < last => {
                        apply(&mut bytes, self.recording, at, |_| true);
                    }
                    Luck::Until(last) if at > last => {}
                    // The one that is torn.
                    Luck::Until(_) => {
                        let whole = usize::try_from(rng.next_u64() % 16).unwrap();
                        apply(&mut bytes, self.recording, at, |sector| sector < whole);
                    }
                    Luck::Some if rng.next_u64() % 4 < likely => {
                        apply(&mut bytes, self.recording, at, |_| true);
                    }
                    Luck::Some => {}
                    Luck::Sectors => apply(&mut bytes, self.recording, at, |_| {
                        rng.next_u64() % 4 < likely
                    }),
                }
            }
            let path = into.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        format!(
            "{luck:?} of what was not synced, after {} actions",
            self.done
        )
    }
}

fn set(names: &mut BTreeMap<String, usize>, name: String, file: Option<usize>) {
    match file {
        Some(file) => names.insert(name, file),
        None => names.remove(&name),
    };
}

/// Does what was recorded to a file's bytes, as far as sectors are wanted. Those not written read as zeros.
fn apply(
    file: &mut Vec<u8>,
    recording: &Recording,
    at: usize,
    mut wanted: impl FnMut(usize) -> bool,
) {
    match &recording.actions[at].what {
        What::Written { offset, bytes } => {
            let mut to = usize::try_from(*offset).unwrap();
            for (sector, part) in recording.bytes[bytes.clone()].chunks(SECTOR).enumerate() {
                if wanted(sector) {
                    let end = to + part.len();
                    if file.len() < end {
                        file.resize(end, 0);
                    }
                    file[to..end].copy_from_slice(part);
                }
                to += part.len();
            }
        }
        What::Truncated { length } if wanted(0) => {
            file.resize(usize::try_from(*length).unwrap(), 0);
        }
        _ => {}
    }
}
