//! The verb `explain`: the ancestry of a candidate.
//!
//! Does not say why its parents were chosen: the coordinator draws them at random and keeps no record.

mod tree;

use std::collections::BTreeSet;

use clap::Args;
use evocache_proto::domain::{CandidateId, Objective};
use serde_json::{Value, json};

use crate::cli::kit::exit::{Exit, Failure};
use crate::cli::kit::printer::Printer;
use crate::cli::kit::search::{SearchArg, no_evaluations};
use crate::cli::kit::units::{show_kept, show_percent};
use crate::cli::kit::view;
use crate::cli::results::deviation;
use crate::client::{Client, Evaluation};
use tree::{Ancestor, Shown};

/// Show where a candidate comes from: its parents and theirs, to the roots
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  evocache explain my-search 194
  evocache explain my-search 194 --depth 2 --json

Origins of schedules that a search starts from:
  uncached             everything computed, at the largest step count
  fewer-steps          everything computed, at fewer steps
  fora                 everything computed every n-th step (FORA)
  even                 evenly spaced steps, a given share of them
  staggered            each module one step later than the one before it
  component-intervals  one kind of module every a-th step, the others every b-th
  gate                 a kind of module no more after a part of the run (T-GATE)
  step-mask            steps computed as in cache-dit's presets
  density              a given share of module runs, at random
  forecast             every n-th step computed, extrapolated between
  guidance-cut         every n-th step computed, and no unconditional pass after
                       a part of the run
  smooth, path         from how much each module's output changes from step to
                       step (SmoothCache; dynamic programming)
  random               drawn at random
  a file's name        imported; SEARCH:CANDIDATE is from another's front

Operators that breed others from them:
  four-point, uniform, rectangle, whole-step, whole-block, whole-component
                       parts of two parents
  flip, shift, copy-step, fill, gap, toggle-forecast, guidance
                       changes in one schedule
  migrate              the same schedule at another step count
  model-…              built from what an error model predicts
  remeasure            measured again, for a more precise latency")]
pub struct ExplainArgs {
    /// The search.
    #[command(flatten)]
    pub search: SearchArg,
    /// Number of the candidate
    #[arg(value_name = "CANDIDATE")]
    pub candidate: u64,
    /// Maximum number of generations to go back
    #[arg(long, value_name = "N", default_value_t = 6)]
    pub depth: usize,
}

/// Runs the verb.
pub async fn explain(client: &Client, args: ExplainArgs, printer: Printer) -> Result<Exit, Failure> {
    let search = client.search(&args.search.id).await?;
    let evaluations = client.evaluations(&args.search.id, false).await?;
    if evaluations.is_empty() {
        return Err(no_evaluations(&args.search.id));
    }
    let candidate = CandidateId(args.candidate);
    if !evaluations.iter().any(|e| e.candidate == candidate) {
        return Err(Failure::new(format!("search {} has no evaluation of candidate {candidate}", args.search.id))
            .hint(format!("`evocache front {}` names the candidates of the front", args.search.id))
            .exit(Exit::NotFound));
    }
    let quality = search.spec.quality();
    let ancestors = tree::ancestors(&evaluations, candidate, args.depth);
    printer.answer(
        || {
            json!({
                "search_id": args.search.id.as_str(),
                "candidate": candidate.0,
                "quality_metric": quality.map(|o| &o.metric),
                "depth": args.depth,
                "ancestors": nodes(&ancestors, quality),
            })
        },
        || ancestors.iter().map(|a| format!("{}{}\n", a.branch, words(a, quality))).collect(),
    )?;
    Ok(Exit::Ok)
}

/// Each candidate once; the `parents` fields link them.
fn nodes(ancestors: &[Ancestor<'_>], quality: Option<&Objective>) -> Vec<Value> {
    let mut listed = BTreeSet::new();
    let mut nodes = vec![];
    for ancestor in ancestors {
        let (Shown::Whole(e) | Shown::Cut(e)) = &ancestor.shown else { continue };
        if listed.insert(e.candidate) {
            let mut value = view::evaluation(e);
            value["generation"] = ancestor.generation.into();
            value["quality_ratio"] = quality.and_then(|o| e.kept(o)?.share()).into();
            nodes.push(value);
        }
    }
    nodes
}

fn words(ancestor: &Ancestor<'_>, quality: Option<&Objective>) -> String {
    let id = ancestor.candidate;
    match &ancestor.shown {
        Shown::Whole(e) => facts(e, quality),
        Shown::Cut(e) => {
            let parents: Vec<String> = e.parents.iter().map(ToString::to_string).collect();
            format!("{} <- {} (not shown; --depth)", facts(e, quality), parents.join(", "))
        }
        Shown::Before => format!("{id}  see above"),
        Shown::Unknown => format!("{id}  not evaluated"),
    }
}

fn facts(e: &Evaluation, quality: Option<&Objective>) -> String {
    let made = match e.seed_family.is_empty() || e.is_seed() {
        true => e.origin().to_string(),
        false => format!("{} (of {})", e.operator, e.seed_family),
    };
    let kept = quality.map_or_else(String::new, |o| {
        format!(", {} {} of uncached", o.metric, e.kept(o).map_or("-".to_owned(), show_kept))
    });
    let guidance = if e.schedule.decides_guidance() {
        let letters: String = (0..e.schedule.steps()).map(|step| e.schedule.guidance(step).letter()).collect();
        format!(", guidance {letters}")
    } else {
        String::new()
    };
    format!(
        "{}  {made}, {} steps, {} cached{guidance}: {:.2}x ±{}{kept}",
        e.candidate,
        e.schedule.steps(),
        show_percent(e.schedule.cache_hit_rate()),
        e.speedup(),
        show_percent(deviation(e)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::kit::samples::{self, sample};

    #[test]
    fn a_line_says_what_a_candidate_is() {
        let search = samples::search();
        let quality = search.spec.quality();
        let seed = sample(7, 2, &[0.9, 0.9]);
        assert_eq!(
            facts(&seed, quality),
            "7  fora, 4 steps, 50.0 % cached: 2.00x ±1.0 %, clip_score 90.0 % of uncached"
        );
        let child = Evaluation { operator: "shift".into(), parents: vec![CandidateId(3), CandidateId(4)], ..seed };
        assert!(facts(&child, quality).starts_with("7  shift (of fora), 4 steps"));
        let line = |generation, shown| Ancestor { branch: String::new(), generation, candidate: CandidateId(7), shown };
        assert!(words(&line(2, Shown::Cut(&child)), quality).ends_with("<- 3, 4 (not shown; --depth)"));
        let values = nodes(&[line(2, Shown::Cut(&child)), line(1, Shown::Whole(&child))], quality);
        assert_eq!(values.len(), 1, "each once");
        assert_eq!((&values[0]["generation"], &values[0]["quality_ratio"]), (&2.into(), &0.9.into()));
    }
}
