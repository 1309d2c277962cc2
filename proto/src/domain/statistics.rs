//! What a few measurements can tell: how far a mean of few may be off where their spread is known from few as well.
//!
//! A spread that is taken from two values is often much too small by luck, and from one value there is no spread at all.
//! So a spread starts from a prior guess that is worth some measurements ([`Spread`]), and how many of its deviations make
//! a surprise follows Student's distribution ([`student`]). Absent: distributions of anything but means.

/// How rarely a value lies as far out by luck, on either side.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    probability: f64,
    /// So many standard deviations of a normal distribution.
    deviations: f64,
}

impl Level {
    /// Once in ten thousand: for decisions that are hard to take back.
    pub const RARE: Self = Self { probability: 1e-4, deviations: 3.890_592 };
    /// Once in three: one standard deviation.
    pub const ONE_DEVIATION: Self = Self { probability: 0.317_310_5, deviations: 1.0 };
    /// Once in twenty: two standard deviations.
    pub const TWO_DEVIATIONS: Self = Self { probability: 0.045_500_3, deviations: 2.0 };
}

/// How many standard deviations, known with so many degrees of freedom (at least one), a normal value lies out at this
/// level. Hill's algorithm 396, right to within some parts in a thousand.
pub fn student(level: Level, freedom: f64) -> f64 {
    if freedom < 1.5 {
        return 1.0 / (level.probability * std::f64::consts::FRAC_PI_2).tan();
    }
    let n = freedom.max(2.0 + 1e-9);
    let a = 1.0 / (n - 0.5);
    let b = 48.0 / (a * a);
    let mut c = ((20_700.0 * a / b - 98.0) * a - 16.0) * a + 96.36;
    let d = ((94.5 / (b + c) - 3.0) / b + 1.0) * (a * std::f64::consts::FRAC_PI_2).sqrt() * n;
    let mut y = (d * level.probability).powf(2.0 / n);
    if y > 0.05 + a {
        let x = -level.deviations;
        y = x * x;
        if n < 5.0 {
            c += 0.3 * (n - 4.5) * (x + 0.6);
        }
        c += (((0.05 * d * x - 5.0) * x - 7.0) * x - 2.0) * x + b;
        y = (((((0.4 * y + 6.3) * y + 36.0) * y + 94.5) / c - y - 3.0) / b + 1.0) * x;
        y = (a * y * y).exp_m1();
    } else {
        let tail = 1.0 / (((n + 6.0) / (n * y) - 0.089 * d - 0.822) * (n + 2.0) * 3.0) + 0.5 / (n + 4.0);
        y = (tail * y - 1.0) * (n + 1.0) / (n + 2.0) + 1.0 / y;
    }
    (n * y).sqrt()
}

/// What is known of a variance: a sum of squares, and how many free observations it is worth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    freedom: f64,
    squares: f64,
}

impl Spread {
    /// Nothing was observed.
    pub const NONE: Self = Self { freedom: 0.0, squares: 0.0 };

    /// A guess that is worth so many observations.
    pub const fn guess(deviation: f64, freedom: f64) -> Self {
        Self { freedom, squares: freedom * deviation * deviation }
    }

    /// That of values around their mean; nothing where there are fewer than two.
    pub fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        let n = values.clone().count() as f64;
        if n < 2.0 {
            return Self::NONE;
        }
        let mean = values.clone().sum::<f64>() / n;
        Self { freedom: n - 1.0, squares: values.map(|v| (v - mean).powi(2)).sum() }
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { freedom: self.freedom + other.freedom, squares: self.squares + other.squares }
    }

    /// The same variance, worth at most so many observations.
    #[must_use]
    pub fn worth(self, most: f64) -> Self {
        let share = if self.freedom > most { most / self.freedom } else { 1.0 };
        Self { freedom: self.freedom * share, squares: self.squares * share }
    }

    /// How many free observations it rests on.
    pub fn freedom(self) -> f64 {
        self.freedom
    }

    /// The variance; 0 where nothing is known.
    pub fn variance(self) -> f64 {
        if self.freedom > 0.0 { self.squares / self.freedom } else { 0.0 }
    }

    /// How far one value lies out at this level.
    pub fn reach(self, level: Level) -> f64 {
        student(level, self.freedom) * self.variance().sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_degrees_of_freedom_reach_far() {
        // Tables of Student's distribution.
        for (freedom, rare, one) in [
            (4.0, 15.544, 1.1416),
            (5.0, 11.178, 1.1105),
            (8.0, 7.120, 1.0665),
            (10.0, 6.211, 1.0526),
            (20.0, 4.837, 1.0256),
            (1e6, 3.8906, 1.0),
        ] {
            let told = (student(Level::RARE, freedom), student(Level::ONE_DEVIATION, freedom));
            assert!((told.0 / rare - 1.0).abs() < 2e-3 && (told.1 / one - 1.0).abs() < 5e-3, "{freedom}: {told:?}");
        }
        assert!((student(Level::TWO_DEVIATIONS, 1.0) - 13.97).abs() < 0.01, "two values hardly say anything");
        assert!(student(Level::RARE, 0.0).is_finite());
    }

    #[test]
    fn one_value_has_no_spread_and_a_guess_gives_way_to_observations() {
        assert_eq!(Spread::of([3.0].into_iter()), Spread::NONE);
        let observed = Spread::of([1.0, 2.0, 3.0].into_iter());
        assert_eq!((observed.freedom(), observed.variance()), (2.0, 1.0));
        assert_eq!(Spread::guess(2.0, 3.0).and(observed).variance(), (12.0 + 2.0) / 5.0);
        let capped = Spread::guess(2.0, 40.0).worth(8.0);
        assert_eq!((capped.freedom(), capped.variance()), (8.0, 4.0));
        assert_eq!(Spread::NONE.variance(), 0.0);
    }
}
