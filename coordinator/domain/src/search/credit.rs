//! Credit: what each operator added to the front, and so how often it is chosen.
//!
//! A result's gain is the hypervolume that it added to the front. The operators that made it share the gain; what
//! happened long ago counts less. An operator's weight is multiplied by its gain per result relative to the mean of
//! what was bred, within limits, so that none dies out and none takes over. Absent: the operators themselves.

use std::collections::BTreeMap;

use evocache_proto::domain::Maker;

/// What remains of a result's weight after each later one.
const MEMORY: f64 = 0.99;
/// Results that an operator is assumed to have had at the mean gain.
const PRIOR: f64 = 2.0;
/// Limits of the factor that multiplies an operator's weight.
const FACTOR: (f64, f64) = (0.2, 4.0);

/// How an operator has fared.
#[derive(Debug, Clone, PartialEq)]
pub struct OperatorShare {
    /// The operator, as in a candidate's provenance.
    pub operator: String,
    /// Results that it had a part in.
    pub results: u64,
    /// Hypervolume that it added to the front.
    pub gain: f64,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Account {
    results: u64,
    gain: f64,
    recent_results: f64,
    recent_gain: f64,
}

/// The accounts of all operators of a search.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Credit {
    accounts: BTreeMap<String, Account>,
    /// Of what was bred, and of what a model planned: recent results and their gain.
    bred: (f64, f64),
    planned: (f64, f64),
}

fn rate((results, gain): (f64, f64), mean: f64) -> f64 {
    (gain + PRIOR * mean) / (results + PRIOR)
}

impl Credit {
    /// Books a result: the hypervolume that it added is shared among the operators that made the schedule.
    pub(super) fn book(&mut self, maker: &Maker, gain: f64) {
        let operators = match maker {
            Maker::Bred(operators) => operators.clone(),
            Maker::Seed | Maker::Random | Maker::Planned(_) => vec![maker.to_string()],
        };
        // A seed's result says nothing of operators to come.
        let recent = *maker != Maker::Seed;
        if recent {
            self.forget_a_little(matches!(maker, Maker::Planned(_)), gain);
        }
        let share = gain / operators.len() as f64;
        for operator in operators {
            let account = self.accounts.entry(operator).or_default();
            account.results += 1;
            account.gain += share;
            if recent {
                account.recent_results += 1.0;
                account.recent_gain += share;
            }
        }
    }

    /// What happened before counts less; the gain counts for what was planned or for what was bred.
    fn forget_a_little(&mut self, planned: bool, gain: f64) {
        for account in self.accounts.values_mut() {
            account.recent_results *= MEMORY;
            account.recent_gain *= MEMORY;
        }
        for (group, here) in [(&mut self.bred, !planned), (&mut self.planned, planned)] {
            group.0 = group.0 * MEMORY + f64::from(u8::from(here));
            group.1 = group.1 * MEMORY + if here { gain } else { 0.0 };
        }
    }

    /// Gain per result of an operator relative to the mean, within limits; 1 for one that was never tried.
    pub(super) fn factor(&self, operator: &str) -> f64 {
        let mean = self.bred.1 / self.bred.0.max(1.0);
        let Some(account) = self.accounts.get(operator).filter(|_| mean > 0.0) else { return 1.0 };
        (rate((account.recent_results, account.recent_gain), mean) / mean).clamp(FACTOR.0, FACTOR.1)
    }

    /// The share of offspring that a model should plan: its part of both gains per result.
    pub(super) fn planned_share(&self) -> f64 {
        let mean = (self.bred.1 + self.planned.1) / (self.bred.0 + self.planned.0).max(1.0);
        let (planned, bred) = (rate(self.planned, mean), rate(self.bred, mean));
        if planned + bred > 0.0 { planned / (planned + bred) } else { 0.5 }
    }

    /// All operators by name.
    pub(super) fn shares(&self) -> Vec<OperatorShare> {
        let share = |(operator, account): (&String, &Account)| OperatorShare {
            operator: operator.clone(),
            results: account.results,
            gain: account.gain,
        };
        self.accounts.iter().map(share).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bred(operators: &str) -> Maker {
        Maker::Bred(operators.split('+').map(str::to_owned).collect())
    }

    #[test]
    fn who_adds_more_is_chosen_more_often_and_nobody_dies_out() {
        let mut credit = Credit::default();
        assert_eq!(credit.factor("flip"), 1.0);
        for _ in 0..50 {
            credit.book(&bred("flip+shift"), 0.0);
            credit.book(&bred("gap"), 0.02);
        }
        assert!(credit.factor("gap") > 1.3 && credit.factor("flip") == FACTOR.0 && credit.factor("new") == 1.0);
        // What was good long ago is forgotten.
        (0..500).for_each(|_| credit.book(&bred("gap"), 0.0));
        (0..50).for_each(|_| credit.book(&bred("flip"), 0.01));
        assert!(credit.factor("flip") > credit.factor("gap"));
        let shares = credit.shares();
        assert_eq!(shares.iter().map(|s| s.results).collect::<Vec<_>>(), [100, 550, 50]);
        assert!((shares.iter().map(|s| s.gain).sum::<f64>() - 1.5).abs() < 1e-9);
    }
}
