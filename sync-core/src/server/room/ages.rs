//! How old the rows of a log are at least, by the time that the room is told.

use std::collections::VecDeque;
use std::time::Duration;

use crate::history::Seq;
use crate::time::Time;

/// Moments that are remembered within the age that matters. A row may count as younger than it is by as much as lies
/// between two of them.
const MARKS_MAX: u32 = 32;

/// Where the log ended at some moments.
///
/// Rows carry no time: clocks of servers differ, and are set. What a room has seen published it can tell by its own,
/// monotonic time; what was there before it counts as new when the room was made. So a row is never younger than it is
/// taken for, and one that is taken for old is old.
#[derive(Debug, Clone, Default)]
pub(super) struct Ages {
    marks: VecDeque<(Time, Seq)>,
}

impl Ages {
    /// The log ends here now.
    pub(super) fn note(&mut self, now: Time, head: Seq, age: Duration) {
        let is_new = self
            .marks
            .back()
            .is_none_or(|(at, seq)| head > *seq && now.since(*at) >= age / MARKS_MAX);
        if is_new {
            self.marks.push_back((now, head));
        }
        while self
            .marks
            .get(1)
            .is_some_and(|(at, _)| now.since(*at) >= age)
        {
            self.marks.pop_front();
        }
    }

    /// Every row through this one is at least as old as that.
    pub(super) fn older(&self, now: Time, age: Duration) -> Seq {
        let old = self
            .marks
            .iter()
            .take_while(|(at, _)| now.since(*at) >= age);
        old.last().map_or(Seq::ZERO, |(_, seq)| *seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: Duration = Duration::from_secs(320);

    fn at(seconds: u64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn a_row_is_old_once_it_is_as_old_as_asked_and_a_thirty_second_part_later_at_most() {
        let mut ages = Ages::default();
        ages.note(at(0), Seq(5), AGE);
        assert_eq!(ages.older(at(319), AGE), Seq(0));
        assert_eq!(ages.older(at(320), AGE), Seq(5));
        for second in 1..=1_000 {
            ages.note(at(second), Seq(5 + second), AGE);
            let older = ages.older(at(second), AGE).0;
            // The row at 5 + n came in second n.
            let exactly = (5 + second).saturating_sub(320);
            assert!(older <= exactly.max(5), "{older} at {second}");
            assert!(older + 10 >= exactly, "{older} at {second}");
            assert!(ages.marks.len() <= 34, "{}", ages.marks.len());
        }
    }

    #[test]
    fn without_an_age_every_row_is_old_at_once() {
        let mut ages = Ages::default();
        for second in 0..5 {
            ages.note(at(second), Seq(second), Duration::ZERO);
            assert_eq!(ages.older(at(second), Duration::ZERO), Seq(second));
        }
    }
}
