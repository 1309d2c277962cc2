//! Plans a validation: which schedules are measured, and the search that measures them. Pure.

use std::collections::BTreeSet;

use evocache_proto::domain::{Algorithm, Budget, Imported, Prompt, ScheduleId, SearchId, SearchSpec, Strategy};

use crate::cli::kit::exit::{Exit, Failure};
use crate::cli::kit::search::no_evaluations;
use crate::client::{Evaluation, Search};

/// The label that names the search whose front is validated.
const LABEL: &str = "validates";

/// The most schedules that a specification may import.
const MOST: usize = 1000;

/// The search that validates another.
#[derive(Debug)]
pub(super) struct Plan {
    /// Its specification.
    pub(super) spec: SearchSpec,
    /// Heuristic schedules beyond the number that a search may import.
    pub(super) left_out: usize,
}

/// How a validation differs from the search. `None` means as in the search.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    pub(super) prompts: Vec<Prompt>,
    pub(super) batch: Option<u32>,
    pub(super) height: Option<u32>,
    pub(super) width: Option<u32>,
    pub(super) guidance_scale: Option<f64>,
}

/// The front of a search without the uncached run, which every search measures anyway.
pub(super) fn front<'a>(search: &'a Search, front: &'a [Evaluation]) -> impl Iterator<Item = &'a Evaluation> {
    front.iter().filter(|e| !is_uncached(search, e))
}

/// The heuristic schedules of a search, including imported ones.
pub(super) fn seeds<'a>(search: &'a Search, evaluations: &'a [Evaluation]) -> impl Iterator<Item = &'a Evaluation> {
    evaluations.iter().filter(|e| e.is_seed() && !is_uncached(search, e))
}

/// Whether an evaluation is that of the uncached run.
pub(super) fn is_uncached(search: &Search, e: &Evaluation) -> bool {
    e.schedule.steps() == search.spec.sampling.baseline_steps() && e.schedule.cache_hit_rate() == 0.0
}

/// The specification of the search that measures the front and its rivals under these conditions.
pub(super) fn plan(
    search: &Search,
    front: &[Evaluation],
    evaluations: &[Evaluation],
    conditions: Conditions,
) -> Result<Plan, Failure> {
    if front.is_empty() {
        return Err(no_evaluations(&search.id));
    }
    // A metric that is 0 in the uncached run, such as a distance to its pictures, has no share to keep.
    let uncached = evaluations.iter().find(|e| is_uncached(search, e));
    if let Some((quality, uncached)) = search.spec.quality().zip(uncached)
        && uncached.kept(quality).is_some_and(|kept| kept.share().is_none())
    {
        let metric = &quality.metric;
        return Err(Failure::usage(format!("'{metric}' is 0 in the uncached run, so that no share of it can be kept"))
            .hint("validate a search with another first quality metric"));
    }
    let (imported, left_out) = imports(search, front, evaluations);
    if imported.is_empty() {
        return Err(Failure::new(format!("the front of search {} holds nothing but the uncached run", search.id))
            .hint(format!("`evocache watch {}` follows it", search.id))
            .exit(Exit::NotFound));
    }
    let mut draft = search.spec.clone();
    // With other weights, a measurement would say nothing about these schedules.
    draft.model.fingerprint = search.model.as_ref().map(|m| m.fingerprint.raw().to_owned()).or(draft.model.fingerprint);
    draft.prompts = conditions.prompts;
    let sampling = &mut draft.sampling;
    sampling.height = conditions.height.or(sampling.height);
    sampling.width = conditions.width.or(sampling.width);
    sampling.guidance_scale = conditions.guidance_scale.unwrap_or(sampling.guidance_scale);
    draft.plan.batch = conditions.batch.unwrap_or(draft.plan.batch);
    // Each is measured twice, and so is the uncached run.
    draft.budget = Budget { evaluations: Some(2 * (1 + imported.len() as u64)), ..Budget::default() };
    draft.algorithm = Algorithm {
        strategy: Strategy::Imported,
        seeds: false,
        remeasure: true,
        rungs: vec![],
        population: draft.algorithm.population,
        crossover: draft.algorithm.crossover,
    };
    draft.labels.insert(LABEL.to_owned(), search.id.to_string());
    draft.imported = imported;
    let spec = draft.validate().map_err(Failure::usage)?;
    Ok(Plan { spec, left_out })
}

/// Whether a search is the validation that is planned.
pub(super) fn is_validation(search: &Search, of: &SearchId, planned: &SearchSpec) -> bool {
    let spec = &search.spec;
    spec.labels.get(LABEL).is_some_and(|id| id == of.as_str())
        && (&spec.prompts, &spec.sampling, spec.plan) == (&planned.prompts, &planned.sampling, planned.plan)
}

/// Each schedule once, the front first, and how many are left out.
fn imports(search: &Search, members: &[Evaluation], evaluations: &[Evaluation]) -> (Vec<Imported>, usize) {
    let named = front(search, members).map(|e| (format!("front:{}", e.candidate), e));
    let seeds = seeds(search, evaluations).map(|e| (format!("seed:{}:{}", e.seed_family.raw(), e.candidate), e));
    let mut known: BTreeSet<ScheduleId> = BTreeSet::new();
    let mut imported: Vec<Imported> = named
        .chain(seeds)
        .filter(|(_, e)| known.insert(e.schedule.id()))
        .map(|(name, e)| Imported { name, schedule: e.schedule.clone() })
        .collect();
    let left_out = imported.len().saturating_sub(MOST);
    imported.truncate(MOST);
    (imported, left_out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::kit::samples::{sample, search};

    fn prompts() -> Conditions {
        Conditions { prompts: vec![Prompt { text: "held out".into(), seed: 1 }], ..Conditions::default() }
    }

    #[test]
    fn the_front_and_its_rivals_are_measured_on_other_prompts() {
        let mut search = search();
        search.spec.budget.stagnation = Some(9);
        search.spec.algorithm.rungs = vec![1];
        let mut bred = sample(9, 4, &[0.9, 0.9]);
        bred.operator = "shift".into();
        let evaluations = [sample(0, 1, &[1.0, 1.0]), sample(3, 2, &[0.9, 0.9]), sample(4, 3, &[0.9, 0.9]), bred];
        // The uncached run and a seed are members too.
        let front = [evaluations[3].clone(), evaluations[1].clone(), evaluations[0].clone()];
        let Plan { spec, left_out } = plan(&search, &front, &evaluations, prompts()).unwrap();
        let names: Vec<&str> = spec.imported.iter().map(|i| i.name.as_str()).collect();
        assert_eq!((names, left_out), (vec!["front:9", "front:3", "seed:fora:4"], 0));
        assert_eq!((&spec.prompts, &spec.sampling), (&prompts().prompts, &search.spec.sampling));
        assert_eq!(spec.budget, Budget { evaluations: Some(8), ..Budget::default() });
        assert_eq!(spec.algorithm.strategy, Strategy::Imported);
        assert!(!spec.algorithm.seeds && spec.algorithm.remeasure && spec.algorithm.rungs.is_empty());
        assert_eq!(spec.labels["validates"], "s");

        let created = Search { spec: (*spec).clone(), ..search.clone() };
        assert!(is_validation(&created, &search.id, &spec));
        assert!(!is_validation(&search, &search.id, &spec));

        let other = Conditions { batch: Some(3), height: Some(96), guidance_scale: Some(2.5), ..prompts() };
        let other = plan(&search, &front, &evaluations, other).unwrap().spec;
        assert_eq!((other.plan.batch, other.sampling.height, other.sampling.guidance_scale), (3, Some(96), 2.5));
        assert_eq!((other.sampling.width, &other.sampling.steps), (None, &search.spec.sampling.steps));
        assert!(!is_validation(&created, &search.id, &other), "another batch is another validation");
    }

    #[test]
    fn a_search_that_cannot_be_validated_is_refused() {
        let search = search();
        let uncached = [sample(0, 1, &[1.0, 1.0])];
        let cached = [sample(1, 2, &[0.9, 0.9])];
        assert_eq!(plan(&search, &[], &[], prompts()).unwrap_err().exit, Exit::NotFound);
        assert_eq!(plan(&search, &uncached, &uncached, prompts()).unwrap_err().exit, Exit::NotFound);
        assert_eq!(plan(&search, &cached, &cached, Conditions::default()).unwrap_err().exit, Exit::Usage);
        let mut distances = [uncached[0].clone(), cached[0].clone()];
        distances.iter_mut().for_each(|e| e.measurement.metrics[0].baseline_mean = 0.0);
        let failure = plan(&search, &cached, &distances, prompts()).unwrap_err();
        assert!(failure.message.contains("clip_score"), "{}", failure.message);
    }
}
