//! The quality that a schedule keeps of the uncached run: the one definition for whatever is shown, compared or asked for.
//!
//! The share kept is `1 - loss / |uncached|`, where the loss is the amount by which the value is worse. For a positive,
//! maximized metric it is the value divided by the uncached value. For a minimized or negative metric it means the same: 1
//! is no loss, and more is better. If the uncached value is zero, as that of a distance to the uncached picture, no share
//! exists, and the plain difference is used instead.
//!
//! [`MetricValues::kept`](super::MetricValues::kept) is the quality kept by one measurement. The coordinator computes the
//! same from means over repeated measurements.

use super::Direction;

/// The quality kept of the uncached run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kept {
    /// The share: 1 is no loss, more than 1 is better than uncached.
    Share(f64),
    /// The value minus the uncached value, in the metric's unit, if the uncached value is 0.
    Difference(f64),
}

impl Kept {
    /// The quality kept of `uncached` by a schedule with this value.
    pub fn new(direction: Direction, value: f64, uncached: f64) -> Self {
        let gain = match direction {
            Direction::Maximize => value - uncached,
            Direction::Minimize => uncached - value,
        };
        let share = 1.0 + gain / uncached.abs();
        if share.is_finite() { Self::Share(share) } else { Self::Difference(value - uncached) }
    }

    /// The share, if one exists.
    pub fn share(self) -> Option<f64> {
        match self {
            Self::Share(share) => Some(share),
            Self::Difference(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quality_ratio(direction: Direction, value: f64, uncached: f64) -> Option<f64> {
        Kept::new(direction, value, uncached).share()
    }

    fn directions() -> impl Strategy<Value = Direction> {
        prop_oneof![Just(Direction::Minimize), Just(Direction::Maximize)]
    }

    /// Metric values of either sign.
    fn values() -> impl Strategy<Value = f64> {
        prop_oneof![-1e3..1e3, -1.0..1.0, Just(0.0)]
    }

    #[test]
    fn negative_zero_and_minimised_metrics_have_a_meaning() {
        use Direction::{Maximize, Minimize};
        let share = |direction, value, uncached| quality_ratio(direction, value, uncached);
        assert_eq!(share(Maximize, 0.45, 0.9), Some(0.5));
        // A negative reward: three times as far below zero is a loss of twice the uncached magnitude.
        assert_eq!(share(Maximize, -1.5, -0.5), Some(-1.0));
        assert_eq!(share(Maximize, -0.25, -0.5), Some(1.5));
        assert_eq!(share(Minimize, 25.0, 20.0), Some(0.75));
        assert_eq!(Kept::new(Minimize, 0.25, 0.0), Kept::Difference(0.25));
        assert_eq!(Kept::new(Maximize, 0.0, 0.0), Kept::Difference(0.0));
    }

    proptest! {
        #[test]
        fn no_loss_is_all_and_better_is_more(
            direction in directions(), uncached in values(), a in values(), b in values()
        ) {
            prop_assume!(uncached != 0.0);
            let share = |value| quality_ratio(direction, value, uncached).unwrap();
            prop_assert_eq!(share(uncached), 1.0);
            let better = match direction { Direction::Maximize => a > b, Direction::Minimize => a < b };
            prop_assert!(!better || share(a) >= share(b), "{} {}", share(a), share(b));
        }

        #[test]
        fn units_and_signs_do_not_matter(
            direction in directions(), uncached in values(), value in values(), unit in 0.001f64..1000.0
        ) {
            prop_assume!(uncached.abs() > 1e-3);
            let other = match direction {
                Direction::Maximize => Direction::Minimize,
                Direction::Minimize => Direction::Maximize,
            };
            let share = quality_ratio(direction, value, uncached).unwrap();
            let near = |other: Option<f64>| (other.unwrap() - share).abs() < 1e-9 * share.abs().max(1.0);
            prop_assert!(near(quality_ratio(direction, unit * value, unit * uncached)));
            prop_assert!(near(quality_ratio(other, -value, -uncached)));
        }

        #[test]
        fn of_a_positive_maximised_metric_it_is_the_ratio(value in 0.0f64..1e3, uncached in 1e-3f64..1e3) {
            let share = quality_ratio(Direction::Maximize, value, uncached).unwrap();
            prop_assert!((share - value / uncached).abs() < 1e-9 * (1.0 + value / uncached));
        }

        #[test]
        fn it_is_a_number_or_a_difference(
            direction in directions(), value in any::<f64>(), uncached in any::<f64>()
        ) {
            prop_assert!(quality_ratio(direction, value, uncached).is_none_or(f64::is_finite));
        }
    }
}
