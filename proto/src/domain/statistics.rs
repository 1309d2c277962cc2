//! Inference from few measurements: how far a mean may be off when its spread, too, is estimated from few values.
//!
//! The spread of two values is often much too small by chance, and one value has none. So a spread starts from a prior
//! guess that is worth some observations ([`Spread`]), and confidence limits follow Student's t-distribution
//! ([`student`]).

/// A two-sided significance level.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    probability: f64,
    /// The same level as a number of standard deviations of a normal distribution.
    deviations: f64,
}

impl Level {
    /// 1 in 10,000: for decisions that are hard to revert.
    pub const RARE: Self = Self { probability: 1e-4, deviations: 3.890_592 };
    /// 1 in 3: one standard deviation.
    pub const ONE_DEVIATION: Self = Self { probability: 0.317_310_5, deviations: 1.0 };
    /// 1 in 22: two standard deviations.
    pub const TWO_DEVIATIONS: Self = Self { probability: 0.045_500_3, deviations: 2.0 };
}

/// The quantile of Student's t-distribution with `freedom` degrees of freedom (at least one) at this level, in standard
/// deviations. Hill's algorithm 396, accurate to a few parts in a thousand.
fn student(level: Level, freedom: f64) -> f64 {
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

/// An estimate of a variance: a sum of squares and its degrees of freedom.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    freedom: f64,
    squares: f64,
}

impl Spread {
    /// No observations.
    pub const NONE: Self = Self { freedom: 0.0, squares: 0.0 };

    /// A prior guess that is worth `freedom` observations.
    pub const fn guess(deviation: f64, freedom: f64) -> Self {
        Self { freedom, squares: freedom * deviation * deviation }
    }

    /// The spread of values around their mean; [`Spread::NONE`] for fewer than two.
    pub fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        let n = values.clone().count() as f64;
        if n < 2.0 {
            return Self::NONE;
        }
        let mean = values.clone().sum::<f64>() / n;
        Self { freedom: n - 1.0, squares: values.map(|v| (v - mean).powi(2)).sum() }
    }

    /// Pools both spreads.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { freedom: self.freedom + other.freedom, squares: self.squares + other.squares }
    }

    /// The same variance with at most `most` degrees of freedom.
    #[must_use]
    pub fn worth(self, most: f64) -> Self {
        let share = if self.freedom > most { most / self.freedom } else { 1.0 };
        Self { freedom: self.freedom * share, squares: self.squares * share }
    }

    /// The degrees of freedom.
    pub fn freedom(self) -> f64 {
        self.freedom
    }

    /// The variance; 0 without observations.
    pub fn variance(self) -> f64 {
        if self.freedom > 0.0 { self.squares / self.freedom } else { 0.0 }
    }

    /// The distance from the mean that a value exceeds with the probability of this level.
    pub fn reach(self, level: Level) -> f64 {
        student(level, self.freedom) * self.variance().sqrt()
    }
}

/// The mean difference of two runs on the same prompts, with its uncertainty.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Paired {
    /// The mean of the differences.
    pub mean: f64,
    count: f64,
    spread: Spread,
}

impl Paired {
    /// From the differences per prompt; `None` without any. A single prompt has no spread.
    pub fn of(differences: impl Iterator<Item = f64> + Clone) -> Option<Self> {
        let count = differences.clone().count() as f64;
        let mean = differences.clone().sum::<f64>() / count;
        (count > 0.0).then(|| Self { mean, count, spread: Spread::of(differences) })
    }

    /// The same with the spread pooled with a prior.
    #[must_use]
    pub fn given(self, prior: Spread) -> Self {
        Self { spread: prior.and(self.spread), ..self }
    }

    /// The standard error of the mean; 0 if the spread is unknown.
    pub fn error(&self) -> f64 {
        (self.spread.variance() / self.count).sqrt()
    }

    /// The standard error as an estimate of the mean over `all` prompts, from which these were drawn without
    /// replacement.
    pub fn error_of_part(&self, all: usize) -> f64 {
        self.error() * (1.0 - self.count / all as f64).max(0.0).sqrt()
    }

    /// The magnitude that the mean exceeds with the probability of this level if the runs do not differ.
    pub fn reach(&self, level: Level) -> f64 {
        self.spread.reach(level) / self.count.sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_degrees_of_freedom_reach_far() {
        // Tables of Student's t-distribution.
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
        assert!((student(Level::TWO_DEVIATIONS, 1.0) - 13.97).abs() < 0.01, "one degree of freedom says little");
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

    #[test]
    fn a_paired_difference_has_the_error_of_its_mean() {
        // The prompts differ much, the two runs only by 0.1, 0.2 and 0.3.
        let paired = Paired::of([1.1 - 1.0, 5.2 - 5.0, 9.3 - 9.0].into_iter()).unwrap();
        assert!((paired.mean - 0.2).abs() < 1e-12);
        assert!((paired.error() - (0.01_f64 / 3.0).sqrt()).abs() < 1e-12, "{paired:?}");
        assert!(
            (paired.reach(Level::ONE_DEVIATION) / paired.error() - student(Level::ONE_DEVIATION, 2.0)).abs() < 1e-9
        );
        assert_eq!(paired.error_of_part(3), 0.0, "these are all prompts");
        assert!((paired.error_of_part(6) / paired.error() - 0.5_f64.sqrt()).abs() < 1e-12);
        assert_eq!(Paired::of(std::iter::empty()), None);
        let one = Paired::of([0.1].into_iter()).unwrap();
        assert_eq!((one.mean, one.error()), (0.1, 0.0));
        assert!(one.given(Spread::guess(0.04, 4.0)).reach(Level::RARE) > 0.5, "a guess is not certain");
    }
}
