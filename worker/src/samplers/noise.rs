//! Normal noise, f32, equal to `torch.randn(n, generator=torch.Generator("cpu").manual_seed(seed))`.
//!
//! The Mersenne Twister MT19937 and a Box–Muller transform, in the order in which torch consumes random numbers: a seed
//! gives the same image as in diffusers, on every device and with any number of threads. Values agree with torch's to a
//! few units in the last place, because logarithm and cosine round differently.

/// Words in the twister's state.
const N: usize = 624;
/// Offset of the word that is mixed in.
const M: usize = 397;
/// Numbers per block of torch's Box–Muller transform; fewer numbers than this take another path.
const BLOCK: usize = 16;

/// MT19937 (Matsumoto and Nishimura, 1998).
struct Twister {
    state: [u32; N],
    next: usize,
}

impl Twister {
    fn new(seed: u32) -> Self {
        let mut state = [seed; N];
        for i in 1..N {
            let before = state[i - 1];
            state[i] = 1_812_433_253u32.wrapping_mul(before ^ (before >> 30)).wrapping_add(i as u32);
        }
        Self { state, next: N }
    }

    fn twist(&mut self) {
        for i in 0..N {
            let joined = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
            let odd = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + M) % N] ^ (joined >> 1) ^ odd;
        }
        self.next = 0;
    }

    fn word(&mut self) -> u32 {
        if self.next == N {
            self.twist();
        }
        let mut word = self.state[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    /// Uniform in [0, 1) with 24 random bits.
    fn uniform(&mut self) -> f32 {
        (self.word() & 0x00ff_ffff) as f32 / 16_777_216.0
    }

    /// Uniform in [0, 1) with 53 random bits.
    fn uniform_double(&mut self) -> f64 {
        let (high, low) = (u64::from(self.word()), u64::from(self.word()));
        (((high << 32) | low) & ((1 << 53) - 1)) as f64 / 9_007_199_254_740_992.0
    }
}

/// `count` normal values for a seed. Like torch, seeds the twister with the low 32 bits.
pub fn randn(seed: u64, count: usize) -> Vec<f32> {
    let mut twister = Twister::new(seed as u32);
    if count < BLOCK {
        return pairs(&mut twister, count);
    }
    let mut values: Vec<f32> = (0..count).map(|_| twister.uniform()).collect();
    values.chunks_exact_mut(BLOCK).for_each(transform);
    if !count.is_multiple_of(BLOCK) {
        // The last block overlaps the one before it and is redrawn.
        let last = &mut values[count - BLOCK..];
        last.fill_with(|| twister.uniform());
        transform(last);
    }
    values
}

/// Box–Muller transform of one block: the first half gives radii, the second half angles.
fn transform(block: &mut [f32]) {
    let (radii, angles) = block.split_at_mut(BLOCK / 2);
    for (a, b) in radii.iter_mut().zip(angles) {
        let radius = (-2.0 * (1.0 - *a).ln()).sqrt();
        let angle = 2.0 * std::f32::consts::PI * *b;
        (*a, *b) = (radius * angle.cos(), radius * angle.sin());
    }
}

/// The path for fewer than [`BLOCK`] values: pairs in f64, angle first.
fn pairs(twister: &mut Twister, count: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        let (a, b) = (twister.uniform_double(), twister.uniform_double());
        let radius = (-2.0 * (1.0 - b).ln()).sqrt();
        let angle = 2.0 * std::f64::consts::PI * a;
        values.extend([(radius * angle.cos()) as f32, (radius * angle.sin()) as f32]);
    }
    values.truncate(count);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `torch.randn(count, generator=torch.Generator("cpu").manual_seed(seed))[at:]` from torch 2.15.
    #[test]
    fn values_are_those_of_torch() {
        let cases: [(u64, usize, usize, &[f32]); 4] = [
            (7, 5, 0, &[-0.146_795_1, 0.786_141_3, 0.946_821_6, -1.114_344, 1.690_790_2]),
            (7, 16, 0, &[-0.820_134_5, 0.395_631_16, 0.898_908_5, -1.388_403_9]),
            (123_456_789_012_345, 100, 0, &[-0.307_520_87, -2.411_268_2, -0.019_473_55]),
            (
                123_456_789_012_345,
                100,
                84,
                &[-1.527_540_9, -0.753_846_3, 1.796_128_7, 1.381_851_3, -1.216_379_8, -0.449_658_15, 0.511_776_5],
            ),
        ];
        for (seed, count, at, wanted) in cases {
            let found = randn(seed, count);
            assert_eq!(found.len(), count);
            for (i, (a, b)) in found[at..].iter().zip(wanted).enumerate() {
                assert!((a - b).abs() < 1e-6, "seed {seed}, {count} values, value {}: {a} is not {b}", at + i);
            }
        }
    }
}
