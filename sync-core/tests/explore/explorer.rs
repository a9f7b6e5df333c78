//! An exhaustive explorer: everything that a small world of the real machines can do, within bounds.
//!
//! A model says what can happen next in a state, and makes it happen to a copy of that state; the explorer tries all of it, depth
//! first, and goes on only from states that it has not seen. What it remembers of those is a hash of what the machines print
//! (`Debug`), which is all that is in them. A violation comes with the actions that lead to it, as few as could be found.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt::{self, Debug, Write};
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// A world to be explored.
pub trait Model {
    type State: Clone;
    type Action: Clone + PartialEq + Debug;

    /// What can happen next.
    fn actions(&self, state: &Self::State) -> Vec<Self::Action>;

    /// Whether it happens by itself, sooner or later; not so what users and faults do.
    fn is_due(&self, action: &Self::Action) -> bool;

    /// Makes it happen, and checks what must be so in every state.
    ///
    /// # Errors
    /// What is not so.
    fn apply(&self, state: &mut Self::State, action: &Self::Action) -> Result<(), String>;

    /// Everything that decides what can happen from here.
    fn print(&self, state: &Self::State, out: &mut Print);

    /// Lets everything happen that is under way, without another fault, and checks what must be so then.
    ///
    /// # Errors
    /// What is not so.
    fn check_at_rest(&self, state: Self::State) -> Result<(), String>;
}

/// What a state prints, on its way to a hash.
#[derive(Default)]
pub struct Print(String);

impl Print {
    pub fn add(&mut self, part: &impl Debug) {
        write!(self.0, "{part:?};").unwrap();
    }

    /// Tests are not optimised, so this is made for few steps, and not against anybody who looks for collisions.
    fn hash(&self) -> u128 {
        let (words, rest) = self.0.as_bytes().as_chunks::<16>();
        let mut last = [0; 16];
        last[..rest.len()].copy_from_slice(rest);
        let mut hash = self.0.len() as u128;
        for word in words.iter().chain([&last]) {
            hash = (hash ^ u128::from_le_bytes(*word)).wrapping_mul(MULTIPLIER);
            hash ^= hash >> 67;
        }
        hash
    }
}

/// Of a 128-bit linear congruential generator (Steele and Vigna, "Computationally easy, spectrally good multipliers", 2021).
const MULTIPLIER: u128 = 0xdb36_3577_34e3_4abb_0050_d076_1fcd_fc15;

/// A part of a state, whose print is made again only after it has been touched: printing is most of the work.
#[derive(Clone)]
pub struct Part<T> {
    part: T,
    hash: Cell<Option<u128>>,
}

impl<T> Part<T> {
    pub const fn new(part: T) -> Self {
        let hash = Cell::new(None);
        Self { part, hash }
    }
}

impl<T> Deref for Part<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.part
    }
}

impl<T> DerefMut for Part<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.hash.set(None);
        &mut self.part
    }
}

/// In the place of what it prints.
impl<T: Debug> Debug for Part<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hash = self.hash.get().unwrap_or_else(|| {
            let mut print = Print::default();
            print.add(&self.part);
            print.hash()
        });
        self.hash.set(Some(hash));
        write!(f, "{hash:x}")
    }
}

/// What was explored.
#[derive(Default)]
pub struct Explored {
    pub states: usize,
    pub steps: usize,
    /// States in which nothing was under way.
    pub rests: usize,
    /// Actions from the start, at most.
    pub depth: usize,
    pub millis: u128,
}

impl fmt::Display for Explored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            states,
            steps,
            rests,
            depth,
            millis,
        } = self;
        write!(
            f,
            "{states} states, {steps} steps, {rests} at rest, depth {depth}, {}.{:03} s",
            millis / 1000,
            millis % 1000
        )
    }
}

struct Frame<M: Model> {
    state: M::State,
    actions: Vec<M::Action>,
    next: usize,
}

/// Explores everything that can be reached from a state.
///
/// # Panics
/// With the actions that lead there, if something is not as it must be.
pub fn explore<M: Model>(name: &str, model: &M, start: &M::State, states_max: usize) {
    match search(model, start, states_max) {
        Ok(explored) => eprintln!("{name}: {explored}"),
        Err(found) => panic!("{name}: {}", found.shortened(model, start)),
    }
}

/// The same.
///
/// # Errors
/// What is not as it must be.
///
/// # Panics
/// If there are more states than that: then the bounds are wrong.
pub fn search<M: Model>(
    model: &M,
    start: &M::State,
    states_max: usize,
) -> Result<Explored, Violation<M::Action>> {
    #[expect(clippy::disallowed_methods, reason = "told, and nothing else")]
    let begun = Instant::now();
    let mut explored = Explored::default();
    let mut seen = BTreeSet::new();
    let mut print = Print::default();
    let mut is_new = |state: &M::State| {
        print.0.clear();
        model.print(state, &mut print);
        seen.insert(print.hash())
    };
    is_new(start);
    let mut path: Vec<Frame<M>> = Vec::new();
    let mut entered = Some(start.clone());
    loop {
        if let Some(state) = entered.take() {
            explored.states += 1;
            assert!(
                explored.states <= states_max,
                "more than {states_max} states"
            );
            let actions = model.actions(&state);
            if !actions.iter().any(|action| model.is_due(action)) {
                explored.rests += 1;
                guarded(|| model.check_at_rest(state.clone()))
                    .map_err(|what| Violation::after(&path, what))?;
            }
            path.push(Frame {
                state,
                actions,
                next: 0,
            });
            explored.depth = explored.depth.max(path.len() - 1);
        }
        let Some(frame) = path.last_mut() else {
            break;
        };
        let Some(action) = frame.actions.get(frame.next).cloned() else {
            path.pop();
            continue;
        };
        frame.next += 1;
        explored.steps += 1;
        let mut state = frame.state.clone();
        guarded(|| model.apply(&mut state, &action))
            .map_err(|what| Violation::after(&path, what))?;
        if is_new(&state) {
            entered = Some(state);
        }
    }
    explored.millis = begun.elapsed().as_millis();
    Ok(explored)
}

/// Something is not as it must be, after these actions.
#[derive(Debug, Clone)]
pub struct Violation<A> {
    what: String,
    actions: Vec<A>,
}

impl<A: Clone + PartialEq + Debug> Violation<A> {
    fn after<M: Model<Action = A>>(path: &[Frame<M>], what: String) -> Self {
        let taken = |frame: &Frame<M>| frame.actions.get(frame.next.checked_sub(1)?).cloned();
        let actions = path.iter().filter_map(taken).collect();
        Self { what, actions }
    }

    /// After these actions, of which those are left out that cannot happen, or when everything has come to rest then.
    fn of<M: Model<Action = A>>(model: &M, start: &M::State, wanted: &[A]) -> Option<Self> {
        let mut state = start.clone();
        let mut actions = Vec::new();
        for action in wanted {
            if !model.actions(&state).contains(action) {
                continue;
            }
            actions.push(action.clone());
            if let Err(what) = guarded(|| model.apply(&mut state, action)) {
                return Some(Self { what, actions });
            }
        }
        let what = guarded(|| model.check_at_rest(state)).err()?;
        Some(Self { what, actions })
    }

    /// Leaves out one action after the other, as long as something is wrong without it, too.
    pub fn shortened<M: Model<Action = A>>(mut self, model: &M, start: &M::State) -> Self {
        eprintln!("{}; looking for a shorter way there", self.what);
        let mut at = self.actions.len();
        while let Some(before) = at.checked_sub(1) {
            at = before;
            let mut fewer = self.actions.clone();
            fewer.remove(at);
            if let Some(found) = Self::of(model, start, &fewer) {
                // What depended on it is gone, too: from the end again.
                at = found.actions.len();
                self = found;
            }
        }
        self
    }
}

impl<A: Debug> fmt::Display for Violation<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, after", self.what)?;
        self.actions
            .iter()
            .try_for_each(|action| writeln!(f, "    {action:?}"))
    }
}

fn guarded(f: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("panicked: {}", text.unwrap_or("?")))
    })
}
