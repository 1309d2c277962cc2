//! How a candidate was made. Code matches on [`Origin`]; its text form is for the wire, the store and people.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

/// What made a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Maker {
    /// None of the operators: the uncached, a heuristic or an imported schedule.
    Seed,
    /// A random draw.
    Random,
    /// Crossover and mutation: the names of the operators, in the order in which they were applied.
    Bred(Vec<String>),
    /// An error model: the name of its planning method, such as `greedy`.
    Planned(String),
}

/// Why a candidate is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Its schedule is new.
    New(Maker),
    /// The schedule of its only parent is measured again.
    Repeat,
    /// The schedule of its only parent is measured on more prompts.
    Promotion(Maker),
}

impl Origin {
    /// A new schedule made by these operators.
    pub fn bred<'a>(operators: impl IntoIterator<Item = &'a str>) -> Self {
        Self::New(Maker::Bred(operators.into_iter().map(str::to_owned).collect()))
    }

    /// What made the schedule; `None` for a repeated measurement, where the parent has it.
    pub fn maker(&self) -> Option<&Maker> {
        match self {
            Self::New(maker) | Self::Promotion(maker) => Some(maker),
            Self::Repeat => None,
        }
    }

    /// Whether the schedule is a seed, for any number of prompts.
    pub fn is_seed(&self) -> bool {
        self.maker() == Some(&Maker::Seed)
    }
}

const SEED: &str = "seed";
const RANDOM: &str = "random";
const REPEAT: &str = "remeasure";
const PROMOTION: &str = "promote:";
const PLANNED: &str = "model-";

impl fmt::Display for Maker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seed => f.write_str(SEED),
            Self::Random => f.write_str(RANDOM),
            Self::Bred(operators) => f.write_str(&operators.join("+")),
            Self::Planned(how) => write!(f, "{PLANNED}{how}"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New(maker) => maker.fmt(f),
            Self::Repeat => f.write_str(REPEAT),
            Self::Promotion(maker) => write!(f, "{PROMOTION}{maker}"),
        }
    }
}

impl FromStr for Maker {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match (text, text.strip_prefix(PLANNED)) {
            (SEED, _) => Self::Seed,
            (RANDOM, _) => Self::Random,
            (_, Some(how)) => Self::Planned(how.to_owned()),
            _ => Self::Bred(text.split('+').map(str::to_owned).collect()),
        })
    }
}

impl FromStr for Origin {
    type Err = Infallible;

    /// Never fails: unknown text is taken as names of operators.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match (text, text.strip_prefix(PROMOTION)) {
            (REPEAT, _) => Self::Repeat,
            (_, Some(maker)) => Self::Promotion(maker.parse()?),
            (maker, None) => Self::New(maker.parse()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_goes_both_ways() {
        let bred = || Maker::Bred(vec!["rectangle".into(), "shift".into()]);
        for (origin, text) in [
            (Origin::New(Maker::Seed), "seed"),
            (Origin::New(Maker::Random), "random"),
            (Origin::New(bred()), "rectangle+shift"),
            (Origin::New(Maker::Planned("greedy".into())), "model-greedy"),
            (Origin::Repeat, "remeasure"),
            (Origin::Promotion(Maker::Seed), "promote:seed"),
            (Origin::Promotion(bred()), "promote:rectangle+shift"),
        ] {
            assert_eq!(origin.to_string(), text);
            assert_eq!(text.parse(), Ok(origin));
        }
        assert_eq!(Origin::bred(["rectangle", "shift"]), Origin::New(bred()));
    }
}
