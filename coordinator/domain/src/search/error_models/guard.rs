//! Decides whether an error model is trusted: by how well it ranked new results before it learned from them.
//!
//! Cost and error are correlated, so any model that knows the cost ranks well overall. The guard therefore ranks
//! results of about equal cost: Kendall's rank correlation over the pairs of recent results whose costs differ little.
//! Knows nothing of the models themselves.

use std::collections::VecDeque;

/// Number of recent results that are ranked.
const WINDOW: usize = 60;
/// Costs that differ by at most this are about equal.
const NEAR: f64 = 0.06;
/// With fewer pairs there is no correlation.
const FEWEST: usize = 12;
/// A model with a smaller rank correlation is not trusted.
const LEAST: f64 = 0.15;

#[derive(Debug, Clone, PartialEq)]
struct Fresh {
    cost: f64,
    predicted: f64,
    error: f64,
}

/// The record of one model.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Guard {
    last: VecDeque<Fresh>,
    /// Concordant minus discordant pairs, and all pairs, in the window.
    balance: i64,
    pairs: i64,
}

fn compare(a: &Fresh, b: &Fresh) -> Option<i64> {
    if (a.cost - b.cost).abs() > NEAR || a.error == b.error {
        return None;
    }
    Some(if (a.predicted < b.predicted) == (a.error < b.error) { 1 } else { -1 })
}

impl Guard {
    /// Adds a result that the model had not learned from, and its prediction.
    pub(super) fn add(&mut self, cost: f64, predicted: f64, error: f64) {
        let new = Fresh { cost, predicted, error };
        if self.last.len() == WINDOW
            && let Some(old) = self.last.pop_front()
        {
            let (balance, pairs) = self.against(&old);
            self.balance -= balance;
            self.pairs -= pairs;
        }
        let (balance, pairs) = self.against(&new);
        self.balance += balance;
        self.pairs += pairs;
        self.last.push_back(new);
    }

    fn against(&self, one: &Fresh) -> (i64, i64) {
        let marks = self.last.iter().filter_map(|other| compare(one, other));
        marks.fold((0, 0), |(balance, pairs), mark| (balance + mark, pairs + 1))
    }

    /// The rank correlation; `None` if there are too few pairs.
    pub(super) fn correlation(&self) -> Option<f64> {
        (self.pairs >= FEWEST as i64).then(|| self.balance as f64 / self.pairs as f64)
    }

    /// Whether the model is trusted: its correlation is large enough or unknown.
    pub(super) fn trusts(&self) -> bool {
        self.correlation().is_none_or(|c| c >= LEAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_trusted_only_for_its_ranking_at_equal_cost() {
        let (mut good, mut bad) = (Guard::default(), Guard::default());
        for i in 0..200u32 {
            let cost = f64::from(i % 10) / 10.0;
            let own = f64::from(i * 7919 % 101) / 1000.0;
            good.add(cost, own, 1.0 - cost + own);
            // Knows the cost; at equal cost it ranks in reverse.
            bad.add(cost, 1.0 - cost - own, 1.0 - cost + own);
        }
        assert!(good.correlation().unwrap() > 0.99 && good.trusts());
        assert!(bad.correlation().unwrap() < -0.9 && !bad.trusts());
        assert!(Guard::default().trusts());
        // The running sums are those of the window.
        let mut recomputed = Guard::default();
        good.last.iter().for_each(|f| recomputed.add(f.cost, f.predicted, f.error));
        assert_eq!(recomputed, good);
    }
}
