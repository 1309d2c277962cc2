//! Chooses the operators of an offspring: by a table of weights, multiplied by the operators' credit. Does not choose
//! parents: that is `parents.rs` and `population.rs`.

use super::credit::Credit;
use super::crossover::{self, Crossover};
use super::genome::{Genome, Space};
use super::mutation::{self, Mutation};
use super::resample::resample;
use crate::rng::Stream;

/// The probability that an offspring of a crossover is also mutated.
const MUTATION_AFTER_CROSSOVER: f64 = 0.5;

/// What a search must have for an operator to be useful.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    Forecast,
    Guidance,
    StepCounts,
    Components,
}

impl Needs {
    fn met(self, space: &Space) -> bool {
        match self {
            Self::Nothing => true,
            Self::Forecast => space.forecast(),
            Self::Guidance => space.guidance(),
            Self::StepCounts => space.steps().len() > 1,
            Self::Components => space.components() > 1,
        }
    }
}

struct Operator<F> {
    name: &'static str,
    weight: u32,
    needs: Needs,
    apply: F,
}

const CROSSOVERS: [Operator<Crossover>; 6] = [
    Operator { name: "four-point", weight: 1, needs: Needs::Nothing, apply: crossover::four_point },
    Operator { name: "whole-step", weight: 2, needs: Needs::Nothing, apply: crossover::whole_step },
    Operator { name: "whole-block", weight: 2, needs: Needs::Nothing, apply: crossover::whole_block },
    Operator { name: "whole-component", weight: 2, needs: Needs::Components, apply: crossover::whole_component },
    Operator { name: "rectangle", weight: 4, needs: Needs::Nothing, apply: crossover::rectangle },
    Operator { name: "uniform", weight: 1, needs: Needs::Nothing, apply: crossover::uniform },
];

const MUTATIONS: [Operator<Mutation>; 8] = [
    Operator { name: "flip", weight: 3, needs: Needs::Nothing, apply: mutation::flip },
    Operator { name: "shift", weight: 2, needs: Needs::Nothing, apply: mutation::shift },
    Operator { name: "copy-step", weight: 1, needs: Needs::Nothing, apply: mutation::copy_step },
    Operator { name: "fill", weight: 2, needs: Needs::Nothing, apply: mutation::fill },
    Operator { name: "gap", weight: 2, needs: Needs::Nothing, apply: mutation::gap },
    Operator { name: "migrate", weight: 1, needs: Needs::StepCounts, apply: mutation::migrate },
    Operator { name: "toggle-forecast", weight: 2, needs: Needs::Forecast, apply: mutation::toggle_forecast },
    Operator { name: "guidance", weight: 4, needs: Needs::Guidance, apply: mutation::guidance },
];

/// The resolution of weights, which are integers.
const FINE: f64 = 1000.0;

fn choose<'a, F>(
    table: &'a [Operator<F>],
    space: &Space,
    credit: Option<&Credit>,
    stream: &mut Stream,
) -> Option<&'a Operator<F>> {
    let weight = |o: &Operator<F>| {
        let factor = credit.map_or(1.0, |credit| credit.factor(o.name));
        if o.needs.met(space) { (f64::from(o.weight) * factor * FINE) as u32 } else { 0 }
    };
    let weights: Vec<u32> = table.iter().map(weight).collect();
    stream.weighted(weights.iter().copied()).map(|i| &table[i])
}

/// Makes offspring.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Variation {
    crossover: f64,
    /// Whether all operators are used, or ECAD's two.
    all: bool,
}

/// An offspring and the operators that made it.
pub(super) struct Offspring {
    pub(super) genome: Genome,
    /// The names of the operators, in the order in which they were applied.
    pub(super) operators: Vec<&'static str>,
    /// Whether a crossover was applied.
    pub(super) crossed: bool,
}

impl Variation {
    /// `crossover` is the probability of a crossover; `all` selects all operators or ECAD's two.
    pub(super) fn new(crossover: f64, all: bool) -> Self {
        Self { crossover, all }
    }

    /// An offspring of `first`, whose step count it has, and possibly of `second`, with at least `mutations` mutations;
    /// at least one without a crossover.
    pub(super) fn offspring(
        &self,
        space: &Space,
        first: Genome,
        second: Option<Genome>,
        mutations: usize,
        credit: &Credit,
        stream: &mut Stream,
    ) -> Offspring {
        let credit = self.all.then_some(credit);
        let (crossovers, mutants) =
            if self.all { (&CROSSOVERS[..], &MUTATIONS[..]) } else { (&CROSSOVERS[..1], &MUTATIONS[..1]) };
        let mut genome = first;
        let mut names = Vec::new();
        let crosses = stream.chance(self.crossover);
        if let Some(second) = second.filter(|_| crosses)
            && let Some(operator) = choose(crossovers, space, credit, stream)
            && let Ok(steps) = u32::try_from(genome.steps())
        {
            (operator.apply)(space, &mut genome, &resample(space, &second, steps), stream);
            names.push(operator.name);
        }
        let crossed = !names.is_empty();
        let once = usize::from(!crossed || stream.chance(MUTATION_AFTER_CROSSOVER));
        for _ in 0..once.max(mutations) {
            if let Some(operator) = choose(mutants, space, credit, stream) {
                (operator.apply)(space, &mut genome, stream);
                names.push(operator.name);
            }
        }
        Offspring { genome, operators: names, crossed }
    }
}

#[cfg(test)]
#[path = "variation_tests.rs"]
mod tests;
