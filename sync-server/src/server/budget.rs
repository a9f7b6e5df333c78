//! What users cost: the bytes that they are served, and the time that engines spend on their changes.
//!
//! Both are counted when they are known, and owed when they were more than there was: then the user's sessions wait, and
//! nobody else's.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sync_core::ids::{SessionId, User};
use sync_core::limits::Limits;
use sync_core::rate::{Rate, TokenBucket};
use sync_core::time::Time;

use super::lock;

/// Users that are remembered beyond those who are here: each until what it owes is paid, or until there are too many.
const REMEMBERED_MAX: usize = 16 * 1024;

/// Users whose changes the next fold is charged to, for each document.
const WRITERS_MAX: usize = 256;

/// Who is charged.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Payer {
    User(User),
    /// Nobody in particular, at this address.
    Address(IpAddr),
    /// Nobody in particular, nowhere in particular.
    Session(SessionId),
}

/// The budgets of all users, on this server.
#[derive(Debug)]
pub(super) struct Budgets {
    bytes: Rate,
    engine: Rate,
    budgets: Mutex<HashMap<Payer, Arc<Budget>>>,
}

/// One user's, shared by the user's sessions.
#[derive(Debug)]
pub(super) struct Budget {
    buckets: Mutex<Buckets>,
    /// When something may be served again, and changes may be checked again, in microseconds; read without the lock.
    serves_at: AtomicU64,
    checks_at: AtomicU64,
}

#[derive(Debug)]
struct Buckets {
    bytes: TokenBucket,
    engine: TokenBucket,
}

impl Budgets {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            bytes: limits.user_bytes,
            engine: limits.user_engine_micros,
            budgets: Mutex::default(),
        }
    }

    pub(super) fn of(&self, now: Time, payer: Payer) -> Arc<Budget> {
        let mut budgets = lock(&self.budgets);
        if let Some(budget) = budgets.get(&payer) {
            return Arc::clone(budget);
        }
        let budget = Arc::new(Budget {
            buckets: Mutex::new(Buckets {
                bytes: TokenBucket::new(self.bytes),
                engine: TokenBucket::new(self.engine),
            }),
            serves_at: AtomicU64::new(0),
            checks_at: AtomicU64::new(0),
        });
        // Those who are here have their own limit.
        let here = |budget: &Arc<Budget>| Arc::strong_count(budget) > 1;
        if budgets.len() >= REMEMBERED_MAX {
            budgets.retain(|_, budget| here(budget) || !budget.is_full(now));
            let mut gone: Vec<_> = budgets
                .iter()
                .filter(|(_, budget)| !here(budget))
                .map(|(payer, budget)| (budget.owes_until(), payer.clone()))
                .collect();
            if gone.len() >= REMEMBERED_MAX / 2 {
                // Those who owe least, and enough of them that this is not done each time.
                gone.sort_unstable_by_key(|(until, _)| *until);
                for (_, payer) in gone.iter().take(gone.len() / 2) {
                    budgets.remove(payer);
                }
            }
        }
        budgets.insert(payer, Arc::clone(&budget));
        budget
    }
}

impl Budget {
    /// The user has been served so much.
    pub(super) fn serve(&self, now: Time, bytes: usize) {
        let mut buckets = lock(&self.buckets);
        buckets
            .bytes
            .take(now, u64::try_from(bytes).unwrap_or(u64::MAX));
        let at = buckets.bytes.ready_at(1).as_micros();
        self.serves_at.store(at, Ordering::Relaxed);
    }

    /// An engine has spent so much time on what the user wants.
    pub(super) fn spend(&self, now: Time, time: Duration) {
        let mut buckets = lock(&self.buckets);
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        buckets.engine.take(now, micros);
        let at = buckets.engine.ready_at(1).as_micros();
        self.checks_at.store(at, Ordering::Relaxed);
    }

    /// When the user may be served more.
    pub(super) fn serves_at(&self) -> Time {
        Time::from_micros(self.serves_at.load(Ordering::Relaxed))
    }

    /// When more of the user's changes may be checked.
    pub(super) fn checks_at(&self) -> Time {
        Time::from_micros(self.checks_at.load(Ordering::Relaxed))
    }

    fn owes_until(&self) -> Time {
        self.serves_at().max(self.checks_at())
    }

    fn is_full(&self, now: Time) -> bool {
        let buckets = lock(&self.buckets);
        buckets.bytes.is_full(now) && buckets.engine.is_full(now)
    }
}

/// Several users' shares of something.
#[derive(Debug, Default)]
pub(super) struct Shares {
    shares: Vec<(Arc<Budget>, u64)>,
}

impl Shares {
    /// So much more of it is this user's.
    pub(super) fn add(&mut self, budget: &Arc<Budget>, n: usize) {
        let n = u64::try_from(n).unwrap_or(u64::MAX);
        let mut known = self.shares.iter_mut().rev();
        if let Some((_, share)) = known.find(|(known, _)| Arc::ptr_eq(known, budget)) {
            *share = share.saturating_add(n);
        } else if self.shares.len() < WRITERS_MAX {
            self.shares.push((Arc::clone(budget), n));
        }
    }

    /// Charges everybody for a share of the time.
    pub(super) fn spend(&self, now: Time, time: Duration) {
        let all: u128 = self.shares.iter().map(|(_, n)| u128::from(*n)).sum();
        for (budget, n) in &self.shares {
            let share = time.as_micros() * u128::from(*n) / all.max(1);
            let share = u64::try_from(share).unwrap_or(u64::MAX);
            budget.spend(now, Duration::from_micros(share));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn budgets(per_second: u64) -> Budgets {
        let mut limits = Limits::default();
        limits.user_bytes = Rate::new(per_second, 10);
        limits.user_engine_micros = Rate::new(per_second, 10);
        Budgets::new(&limits)
    }

    fn user(n: usize) -> Payer {
        Payer::User(User::new(format!("user {n}")))
    }

    #[test]
    fn what_is_owed_is_remembered_and_what_is_paid_is_forgotten() {
        let budgets = budgets(1);
        let debtor = budgets.of(Time::ZERO, user(0));
        debtor.serve(Time::ZERO, 1_000_000_000);
        let until = debtor.serves_at();
        drop(debtor);
        let later = Time::from_micros(20_000_000);
        for n in 1..3 * REMEMBERED_MAX {
            budgets
                .of(later, user(n))
                .spend(later, Duration::from_micros(1));
            assert!(lock(&budgets.budgets).len() <= REMEMBERED_MAX);
        }
        assert_eq!(budgets.of(later, user(0)).serves_at(), until);
    }

    #[test]
    fn nobody_who_is_here_is_forgotten() {
        let budgets = budgets(1);
        let here: Vec<_> = (0..2 * REMEMBERED_MAX)
            .map(|n| budgets.of(Time::ZERO, user(n)))
            .collect();
        let first = budgets.of(Time::ZERO, user(0));
        assert!(Arc::ptr_eq(&first, here.first().unwrap()));
    }

    #[test]
    fn time_is_charged_by_shares() {
        let budgets = budgets(1_000_000);
        let (ann, bob) = (
            budgets.of(Time::ZERO, user(1)),
            budgets.of(Time::ZERO, user(2)),
        );
        let mut shares = Shares::default();
        shares.add(&ann, 10);
        shares.add(&bob, 10);
        shares.add(&ann, 20);
        shares.spend(Time::ZERO, Duration::from_micros(400));
        // Of ten at once, and one each microsecond.
        assert_eq!(ann.checks_at(), Time::from_micros(291));
        assert_eq!(bob.checks_at(), Time::from_micros(91));
    }
}
