//! Randomness from a seed: jitter, fresh origins, epochs. Not for secrets.

/// Two SplitMix64 streams (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014), so that
/// 128 bits of seed give 128 bits of id.
#[derive(Debug, Clone)]
pub struct Rng {
    high: u64,
    low: u64,
}

impl Rng {
    /// A generator that depends on the seed alone.
    #[must_use]
    pub fn new(seed: u128) -> Self {
        let [a, b, c, d, e, f, g, h, rest @ ..] = seed.to_be_bytes();
        Self {
            high: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            low: u64::from_be_bytes(rest),
        }
    }

    /// 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        step(&mut self.low)
    }

    /// 128 bits.
    pub fn next_u128(&mut self) -> u128 {
        (u128::from(step(&mut self.high)) << 64) | u128::from(step(&mut self.low))
    }

    /// A duration drawn evenly from zero to `max`.
    pub fn up_to(&mut self, max: std::time::Duration) -> std::time::Duration {
        let micros = u64::try_from(max.as_micros()).unwrap_or(u64::MAX - 1);
        std::time::Duration::from_micros(self.next_u64() % (micros.saturating_add(1)))
    }
}

const fn step(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
