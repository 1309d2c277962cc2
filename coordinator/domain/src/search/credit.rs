//! Credit: what each operator added to the front, which determines how often it is chosen.
//!
//! A result's gain is the hypervolume that it added to the front, divided among the operators that made it; older gains
//! count less. An operator's weight is multiplied by its gain per result relative to the mean gain of bred candidates,
//! within limits, so that no operator dies out or dominates. Knows nothing of the operators themselves.

use std::collections::BTreeMap;

use evocache_proto::domain::Maker;

/// The factor of a result's weight for each later result.
const MEMORY: f64 = 0.99;
/// Prior weight: an operator is assumed to have had this many results of mean gain.
const PRIOR: f64 = 2.0;
/// Limits of the factor that multiplies an operator's weight.
const FACTOR: (f64, f64) = (0.2, 4.0);

/// The results of one operator.
#[derive(Debug, Clone, PartialEq)]
pub struct OperatorShare {
    /// The operator, as in a candidate's provenance.
    pub operator: String,
    /// Number of results that it contributed to.
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
    /// Recent results and their gain, of bred and of planned candidates.
    bred: (f64, f64),
    planned: (f64, f64),
}

fn rate((results, gain): (f64, f64), mean: f64) -> f64 {
    (gain + PRIOR * mean) / (results + PRIOR)
}

impl Credit {
    /// Books a result: its gain is divided among the operators that made the schedule.
    pub(super) fn book(&mut self, maker: &Maker, gain: f64) {
        let operators = match maker {
            Maker::Bred(operators) => operators.clone(),
            Maker::Seed | Maker::Random | Maker::Planned(_) => vec![maker.to_string()],
        };
        // Seeds are not chosen by credit, so their gains do not count as recent.
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

    /// Decays all recent gains and adds this gain to the planned or to the bred candidates.
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

    /// An operator's gain per result relative to the mean, within limits; 1 if it has no results.
    pub(super) fn factor(&self, operator: &str) -> f64 {
        let mean = self.bred.1 / self.bred.0.max(1.0);
        let Some(account) = self.accounts.get(operator).filter(|_| mean > 0.0) else { return 1.0 };
        (rate((account.recent_results, account.recent_gain), mean) / mean).clamp(FACTOR.0, FACTOR.1)
    }

    /// The share of new candidates to plan: planning's share of the sum of both gains per result.
    pub(super) fn planned_share(&self) -> f64 {
        let mean = (self.bred.1 + self.planned.1) / (self.bred.0 + self.planned.0).max(1.0);
        let (planned, bred) = (rate(self.planned, mean), rate(self.bred, mean));
        if planned + bred > 0.0 { planned / (planned + bred) } else { 0.5 }
    }

    /// All operators, by name.
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
    fn operators_that_add_more_are_chosen_more_often_and_none_dies_out() {
        let mut credit = Credit::default();
        assert_eq!(credit.factor("flip"), 1.0);
        for _ in 0..50 {
            credit.book(&bred("flip+shift"), 0.0);
            credit.book(&bred("gap"), 0.02);
        }
        assert!(credit.factor("gap") > 1.3 && credit.factor("flip") == FACTOR.0 && credit.factor("new") == 1.0);
        // Old gains are forgotten.
        (0..500).for_each(|_| credit.book(&bred("gap"), 0.0));
        (0..50).for_each(|_| credit.book(&bred("flip"), 0.01));
        assert!(credit.factor("flip") > credit.factor("gap"));
        let shares = credit.shares();
        assert_eq!(shares.iter().map(|s| s.results).collect::<Vec<_>>(), [100, 550, 50]);
        assert!((shares.iter().map(|s| s.gain).sum::<f64>() - 1.5).abs() < 1e-9);
    }
}
