//! From a plan that fails to the smallest one that still does.

use crate::model::Violation;
use crate::plan::{Op, Plan, Settings, Sky};

/// Cuts down a plan as long as the same rule is broken. `run` says what comes of a plan; it is run at most `runs_max` times.
pub fn shrink(
    plan: Plan,
    violation: Violation,
    runs_max: usize,
    mut run: impl FnMut(&Plan) -> Result<(), Violation>,
) -> (Plan, Violation) {
    let mut best = (plan, violation);
    let mut runs = 0;
    let mut attempt = |best: &mut (Plan, Violation), plan: Plan| {
        if runs >= runs_max || plan == best.0 {
            return false;
        }
        runs += 1;
        match run(&plan) {
            Err(violation) if violation.kind == best.1.kind => {
                *best = (plan, violation);
                true
            }
            _ => false,
        }
    };
    loop {
        let before = best.0.clone();
        remove_ops(&mut best, &mut attempt);
        simplify_settings(&mut best, &mut attempt);
        simplify_ops(&mut best, &mut attempt);
        if best.0 == before {
            return best;
        }
    }
}

type Best = (Plan, Violation);

/// Zeller and Hildebrandt's ddmin, without the complements' own granularity: halves, quarters, and so on to single ones,
/// until none of them can be left out.
fn remove_ops(best: &mut Best, attempt: &mut impl FnMut(&mut Best, Plan) -> bool) {
    let mut size = best.0.ops.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        let mut has_removed = false;
        while at < best.0.ops.len() {
            let mut plan = best.0.clone();
            let end = (at + size).min(plan.ops.len());
            plan.ops.drain(at..end);
            if attempt(best, plan) {
                has_removed = true;
            } else {
                at += size;
            }
        }
        if !has_removed || size > 1 {
            size /= 2;
        }
    }
}

fn simplify_settings(best: &mut Best, attempt: &mut impl FnMut(&mut Best, Plan) -> bool) {
    let simplest = Settings::SMALL;
    let simpler: [fn(&mut Settings); 12] = [
        |it| it.documents = 1,
        |it| it.clients = 2,
        |it| it.clients = 1,
        |it| it.stores = 0,
        |it| it.nodes = 1,
        |it| it.sky = Sky::Fair,
        |it| it.fold_after = 0,
        |it| it.keep_bytes = 0,
        |it| it.checks = false,
        |it| it.grant_s = 0,
        |it| it.credentials_s = 0,
        |it| it.ring_bytes = Settings::SMALL.ring_bytes,
    ];
    for simplify in simpler {
        let mut plan = best.0.clone();
        simplify(&mut plan.settings);
        attempt(best, plan);
    }
    let mut plan = best.0.clone();
    plan.settings.piece_bytes = simplest.piece_bytes;
    attempt(best, plan);
}

/// Fewer edits at once.
fn simplify_ops(best: &mut Best, attempt: &mut impl FnMut(&mut Best, Plan) -> bool) {
    for at in 0..best.0.ops.len() {
        let mut plan = best.0.clone();
        if let Some((_, Op::Edit { n, .. })) = plan.ops.get_mut(at)
            && *n > 1
        {
            *n = 1;
            attempt(best, plan);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_what_it_takes() {
        let plan = Plan::draw(1);
        let violation = || Violation {
            kind: "test",
            what: String::new(),
            at_ms: 0,
        };
        let is_bad = |plan: &Plan| {
            let mut ops = plan.ops.iter();
            ops.any(|(_, op)| matches!(op, Op::Open { client: 0, .. }))
                && ops.any(|(_, op)| matches!(op, Op::Edit { .. }))
        };
        assert!(is_bad(&plan));
        let (plan, _) = shrink(plan, violation(), 10_000, |plan| {
            if is_bad(plan) {
                Err(violation())
            } else {
                Ok(())
            }
        });
        assert_eq!(plan.ops.len(), 2);
        assert_eq!(plan.settings.clients, 1);
    }
}
