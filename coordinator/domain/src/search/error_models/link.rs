//! Link functions between a metric's error, which saturates, and the unbounded sum that error models predict.

/// A monotone map between an error in `(-∞, 1)` and an unbounded sum, equal to both near 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    /// The error is the sum.
    Identity,
    /// `error = 1 - exp(-sum)`: the remaining quality is a product of factors.
    Exponential,
    /// `error = tanh(sum)`.
    Tanh,
}

/// Larger errors are clipped to this.
const MOST: f64 = 0.995;

impl Link {
    pub(super) const ALL: [Self; 3] = [Self::Identity, Self::Exponential, Self::Tanh];

    pub(super) fn sum(self, error: f64) -> f64 {
        let error = error.min(MOST);
        if error <= 0.0 {
            return error.max(-1.0);
        }
        match self {
            Self::Identity => error,
            Self::Exponential => -(-error).ln_1p(),
            Self::Tanh => error.atanh(),
        }
    }

    pub(super) fn error(self, sum: f64) -> f64 {
        if sum <= 0.0 {
            return sum;
        }
        match self {
            Self::Identity => sum,
            Self::Exponential => -(-sum).exp_m1(),
            Self::Tanh => sum.tanh(),
        }
    }

    /// d error / d sum at a sum.
    pub(super) fn slope(self, sum: f64) -> f64 {
        if sum <= 0.0 {
            return 1.0;
        }
        match self {
            Self::Identity => 1.0,
            Self::Exponential => (-sum).exp(),
            Self::Tanh => 1.0 - sum.tanh().powi(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_monotone_and_invertible() {
        for link in Link::ALL {
            let mut before = f64::NEG_INFINITY;
            for i in -5..99 {
                let error = f64::from(i) / 100.0;
                let sum = link.sum(error);
                assert!(sum > before && (link.error(sum) - error).abs() < 1e-9, "{link:?} {error}");
                let slope = (link.error(sum + 1e-6) - link.error(sum - 1e-6)) / 2e-6;
                assert!((slope - link.slope(sum)).abs() < 1e-3, "{link:?} {error}");
                before = sum;
            }
        }
    }
}
