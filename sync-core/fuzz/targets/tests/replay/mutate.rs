//! Mutations as libFuzzer makes them, from a seed.

/// xorshift64: the same cases on every run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(name: &str) -> Self {
        Self(
            name.bytes()
                .fold(0x5eed, |seed, byte| seed.wrapping_mul(31) ^ u64::from(byte)),
        )
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(n.max(1)).unwrap()).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[3]
    }

    pub(crate) fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.byte()).collect()
    }

    /// One of the inputs, changed in up to four places, or with a piece of another one in it.
    pub(crate) fn mutated(&mut self, inputs: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = inputs[self.below(inputs.len())].clone();
        let other = &inputs[self.below(inputs.len())];
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            let n = 1 + self.below(8);
            match self.below(9) {
                _ if bytes.is_empty() => bytes.push(self.byte()),
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes[at] = self.byte(),
                2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
                3 => bytes[at] = bytes[at].wrapping_add(1),
                4 => bytes.insert(at, self.byte()),
                5 => drop(bytes.drain(at..(at + n).min(bytes.len()))),
                6 => bytes.truncate(at + 1),
                7 => {
                    let from = self.below(other.len());
                    let piece = other[from..].iter().copied().take(n * 4);
                    bytes.splice(at..at, piece.collect::<Vec<_>>());
                }
                _ => {
                    let from = self.below(bytes.len());
                    let piece: Vec<u8> = bytes[from..].iter().copied().take(n).collect();
                    bytes.splice(at..at, piece);
                }
            }
        }
        bytes
    }
}
