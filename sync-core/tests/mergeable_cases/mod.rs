//! Types under test, each with random edits, and what a reader sees of it.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "test harness")]

use std::fmt::Debug;

use sync_core::mergeable::{
    Counter, Dictionary, LwwMap, Mergeable, OrMap, OrSet, Register, Sequence,
};

use crate::mergeable_support::Random;

/// A type with random edits. What its `Debug` shows is what a reader sees.
pub(crate) trait Case: Mergeable + Debug {
    fn mutate(&mut self, random: &mut Random);
}

fn small(random: &mut Random, n: usize) -> u8 {
    u8::try_from(random.below(n)).unwrap()
}

impl Case for Register<u8> {
    fn mutate(&mut self, random: &mut Random) {
        match random.below(4) {
            0 => self.clear(),
            _ => self.set(small(random, 200)).unwrap(),
        }
    }
}

impl Case for Counter {
    fn mutate(&mut self, random: &mut Random) {
        self.add(i64::from(small(random, 11)) - 5);
    }
}

impl Case for LwwMap<u8, String> {
    fn mutate(&mut self, random: &mut Random) {
        let key = small(random, 4);
        if random.below(3) == 0 {
            self.remove(&key).unwrap();
        } else {
            self.insert(key, small(random, 100).to_string()).unwrap();
        }
    }
}

impl Case for OrSet<u8> {
    fn mutate(&mut self, random: &mut Random) {
        let key = small(random, 4);
        if random.below(2) == 0 {
            self.remove(&key);
        } else {
            self.insert(key).unwrap();
        }
    }
}

impl<V: Case> Case for OrMap<u8, V> {
    fn mutate(&mut self, random: &mut Random) {
        let key = small(random, 3);
        match random.below(6) {
            0 | 1 => {
                self.remove(&key);
            }
            2 => self.insert(key).unwrap().mutate(random),
            3 => {
                self.entry(key).unwrap();
            }
            _ => self.entry(key).unwrap().mutate(random),
        }
    }
}

impl<V: Case> Case for Dictionary<u8, V> {
    fn mutate(&mut self, random: &mut Random) {
        let key = small(random, 3);
        match random.below(6) {
            0 | 1 => {
                self.remove(&key);
            }
            2 => self.insert(key).unwrap().mutate(random),
            3 => {
                if let Some(value) = self.get_mut(&key) {
                    value.mutate(random);
                }
            }
            _ => self.entry(key).unwrap().mutate(random),
        }
    }
}

impl Case for Sequence<char> {
    fn mutate(&mut self, random: &mut Random) {
        let at = random.below(self.len() + 1);
        match random.below(8) {
            0 | 1 if !self.is_empty() => {
                let from = random.below(self.len());
                self.remove_range(from..from + 1 + random.below(4));
            }
            2 => self.insert_str(at, "many words").unwrap(),
            3 => self.insert_str(at, "\u{1f980}e\u{301}").unwrap(),
            _ => {
                let letter = char::from(b'a' + small(random, 26));
                self.insert(at, letter).unwrap();
            }
        }
    }
}

impl Case for Sequence<(u16, Option<String>)> {
    fn mutate(&mut self, random: &mut Random) {
        let at = random.below(self.len() + 1);
        if random.below(3) == 0 {
            self.remove(at);
        } else {
            let name = (random.below(2) == 0).then(|| "x".repeat(random.below(40)));
            self.insert(at, (u16::from(small(random, 250)) * 200, name))
                .unwrap();
        }
    }
}

impl<A: Case, B: Case, C: Case> Case for (A, B, C) {
    fn mutate(&mut self, random: &mut Random) {
        match random.below(4) {
            0 => self.0.mutate(random),
            1 => self.1.mutate(random),
            2 => self.2.mutate(random),
            _ => {
                self.0.mutate(random);
                self.2.mutate(random);
            }
        }
    }
}

impl<A: Case, B: Case> Case for (A, B) {
    fn mutate(&mut self, random: &mut Random) {
        match random.below(2) {
            0 => self.0.mutate(random),
            _ => self.1.mutate(random),
        }
    }
}

impl<T: Case> Case for Option<T> {
    fn mutate(&mut self, random: &mut Random) {
        self.get_or_insert_default().mutate(random);
    }
}

/// Runs `$run` for one of the types, chosen by `$which`, and gives their number.
macro_rules! for_case {
    ($which:expr, $run:ident ( $($argument:expr),* )) => {{
        use sync_core::mergeable::{Counter, Dictionary, LwwMap, OrMap, OrSet, Register, Sequence};
        match $which % 14 {
            0 => $run::<Register<u8>>($($argument),*),
            1 => $run::<Counter>($($argument),*),
            2 => $run::<LwwMap<u8, String>>($($argument),*),
            3 => $run::<OrSet<u8>>($($argument),*),
            4 => $run::<OrMap<u8, Register<u8>>>($($argument),*),
            5 => $run::<Dictionary<u8, Counter>>($($argument),*),
            6 => $run::<Sequence<char>>($($argument),*),
            7 => $run::<Sequence<(u16, Option<String>)>>($($argument),*),
            8 => $run::<OrMap<u8, Dictionary<u8, OrSet<u8>>>>($($argument),*),
            9 => $run::<Dictionary<u8, OrMap<u8, Counter>>>($($argument),*),
            10 => $run::<OrMap<u8, Sequence<char>>>($($argument),*),
            11 => $run::<(Counter, Register<u8>, Sequence<char>)>($($argument),*),
            12 => $run::<(Option<OrSet<u8>>, (Dictionary<u8, Sequence<char>>, Option<Register<u8>>))>($($argument),*),
            _ => $run::<Dictionary<u8, (LwwMap<u8, String>, Option<Counter>)>>($($argument),*),
        }
    }};
}
pub(crate) use for_case;
