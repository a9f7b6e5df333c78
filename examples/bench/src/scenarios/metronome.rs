//! Something that is done so often in a second, evenly.

use std::time::{Duration, Instant};

/// The system wakes nobody to the microsecond: the last of a wait is spent awake.
const AWAKE: Duration = Duration::from_millis(1);

/// Says when it is time.
#[derive(Debug)]
pub(crate) struct Metronome {
    begun: Instant,
    every: Duration,
    n_done: u32,
}

impl Metronome {
    /// It is time at once, and then so often in a second.
    pub(crate) fn start(per_second: u32) -> Self {
        Self {
            begun: Instant::now(),
            every: Duration::from_secs(1) / per_second.max(1),
            n_done: 0,
        }
    }

    /// How often it has been time since this was last asked: what was missed is made up for.
    pub(crate) fn beats(&mut self) -> u32 {
        self.beats_after(self.begun.elapsed())
    }

    /// How long to sleep at most.
    pub(crate) fn wait(&self) -> Duration {
        self.wait_after(self.begun.elapsed())
    }

    fn beats_after(&mut self, elapsed: Duration) -> u32 {
        let mut n = 0;
        while self.every * self.n_done <= elapsed {
            self.n_done += 1;
            n += 1;
        }
        n
    }

    fn wait_after(&self, elapsed: Duration) -> Duration {
        let next = self.every * self.n_done;
        next.saturating_sub(elapsed).saturating_sub(AWAKE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missed_beats_are_made_up_for() {
        let mut metronome = Metronome::start(500);
        let ms = Duration::from_millis;
        // At 0, 2 and 4 ms; the next one is at 6 ms.
        assert_eq!(
            [5, 5].map(|elapsed| metronome.beats_after(ms(elapsed))),
            [3, 0]
        );
        assert_eq!(metronome.wait_after(ms(3)), ms(2));
        assert_eq!(metronome.wait_after(ms(5)), ms(0));
        assert_eq!(metronome.wait_after(ms(9)), ms(0));
        assert_eq!(metronome.beats_after(ms(6)), 1);
    }
}
