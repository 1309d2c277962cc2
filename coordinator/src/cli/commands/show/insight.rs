//! How a search proceeds, in two tables: what each operator has gained, and how well each error model predicts.

use crate::cli::kit::table::{Side, Table};
use crate::cli::kit::units::show_percent;
use crate::client::Insight;

/// The tables, each after an empty line; empty ones are left out.
pub(super) fn tables(insight: &Insight) -> String {
    let mut text = String::new();
    for table in [operators(insight), models(insight)] {
        if !table.is_empty() {
            text.push('\n');
            text.push_str(&table.render());
        }
    }
    text
}

fn operators(insight: &Insight) -> Table {
    let mut table = Table::new(&[
        ("operator", Side::Left),
        ("results", Side::Right),
        ("gain", Side::Right),
        ("of all gain", Side::Right),
    ]);
    let total = insight.total_gain();
    for o in &insight.operators {
        let share = if total > 0.0 { show_percent(o.gain / total) } else { "-".to_owned() };
        table.row([o.operator.to_string(), o.results.to_string(), format!("{:.4}", o.gain), share]);
    }
    table
}

fn models(insight: &Insight) -> Table {
    let mut table = Table::new(&[("model", Side::Left), ("rank correlation", Side::Right)]);
    for m in &insight.models {
        let known = m.correlation.map_or("too few results".to_owned(), |c| format!("{c:.2}"));
        table.row([m.name.to_string(), known]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{ModelRecord, OperatorShare};

    #[test]
    fn shares_add_up_and_unknown_values_are_not_shown_as_zero() {
        let share = |operator: &str, results, gain| OperatorShare { operator: operator.into(), results, gain };
        let record = |name: &str, correlation| ModelRecord { name: name.into(), correlation };
        let insight = Insight {
            operators: vec![share("seed", 24, 0.3), share("shift", 10, 0.1)],
            models: vec![record("cells", Some(0.456)), record("drift", None)],
            ..Insight::default()
        };
        assert_eq!(
            tables(&insight),
            "\noperator  results    gain  of all gain\n\
             seed           24  0.3000       75.0 %\n\
             shift          10  0.1000       25.0 %\n\
             \nmodel  rank correlation\n\
             cells              0.46\n\
             drift   too few results\n"
        );
        assert_eq!(tables(&Insight::default()), "");
        let nothing = Insight { operators: vec![share("seed", 1, 0.0)], ..Insight::default() };
        assert!(tables(&nothing).contains("0.0000            -"));
    }
}
