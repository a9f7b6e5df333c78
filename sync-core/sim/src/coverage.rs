//! What was exercised, and what has to be.

use std::collections::BTreeMap;
use std::fmt;

use crate::plan::Plan;

/// How often each thing happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    /// By its kind and name.
    pub counts: BTreeMap<String, u64>,
}

impl Coverage {
    /// Adds what another run did.
    pub fn merge(&mut self, other: Self) {
        self.add(other.counts);
    }

    pub(crate) fn add(&mut self, counts: BTreeMap<String, u64>) {
        for (name, n) in counts {
            *self.counts.entry(name).or_default() += n;
        }
    }

    pub(crate) fn add_world(&mut self, counts: &BTreeMap<(&'static str, &'static str), u64>) {
        for ((kind, name), n) in counts {
            *self.counts.entry(format!("{kind}: {name}")).or_default() += n;
        }
    }

    pub(crate) fn add_plan(&mut self, plan: &Plan) {
        for (_, op) in &plan.ops {
            *self.counts.entry(format!("op: {}", op.name())).or_default() += 1;
        }
    }

    /// What has to be exercised in a long run, and was not.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let mut missing = REQUIRED.to_vec();
        missing.retain(|name| !self.counts.contains_key(*name));
        missing
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, n) in &self.counts {
            writeln!(f, "{n:>12}  {name}")?;
        }
        Ok(())
    }
}

/// What no long run may miss.
const REQUIRED: &[&str] = &[
    "phase: none to offline",
    "phase: catching up to live",
    "phase: live to offline",
];
