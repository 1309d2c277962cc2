//! The verb `explain`: where a candidate comes from.
//!
//! Absent on purpose: why its parents were chosen. That the coordinator draws anew each time and keeps no record of.

mod tree;

use std::collections::BTreeSet;

use evocache_proto::domain::{CandidateId, Objective};
use serde_json::{Value, json};

use super::answers::no_evaluations;
use super::args::ExplainArgs;
use super::exit::{Exit, Failure};
use super::printer::Printer;
use super::results::deviation;
use super::units::{show_kept, show_percent};
use super::view;
use crate::client::{Client, Evaluation};
use tree::{Ancestor, Told};

pub(super) async fn explain(client: &Client, args: ExplainArgs, printer: Printer) -> Result<Exit, Failure> {
    let search = client.search(&args.id).await?;
    let evaluations = client.evaluations(&args.id, false).await?;
    if evaluations.is_empty() {
        return Err(no_evaluations(&args.id));
    }
    let candidate = CandidateId(args.candidate);
    if !evaluations.iter().any(|e| e.candidate == candidate) {
        return Err(Failure::new(format!("search {} has no evaluation of candidate {candidate}", args.id))
            .hint(format!("`evocache front {}` names the candidates of the front", args.id))
            .exit(Exit::NotFound));
    }
    let quality = search.spec.quality();
    let ancestors = tree::ancestors(&evaluations, candidate, args.depth);
    printer.answer(
        || {
            json!({
                "search_id": args.id.as_str(),
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

/// Each candidate once; its `parents` lead from one to the next.
fn nodes(ancestors: &[Ancestor<'_>], quality: Option<&Objective>) -> Vec<Value> {
    let mut told = BTreeSet::new();
    let mut nodes = vec![];
    for ancestor in ancestors {
        let (Told::Whole(e) | Told::Cut(e)) = &ancestor.told else { continue };
        if told.insert(e.candidate) {
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
    match &ancestor.told {
        Told::Whole(e) => facts(e, quality),
        Told::Cut(e) => {
            let parents: Vec<String> = e.parents.iter().map(ToString::to_string).collect();
            format!("{} <- {} (not shown; --depth)", facts(e, quality), parents.join(", "))
        }
        Told::Before => format!("{id}  see above"),
        Told::Unknown => format!("{id}  not evaluated"),
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
    format!(
        "{}  {made}, {} steps, {} cached: {:.2}x ±{}{kept}",
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
    use crate::cli::samples::{self, sample};

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
        let line = |generation, told| Ancestor { branch: String::new(), generation, candidate: CandidateId(7), told };
        assert!(words(&line(2, Told::Cut(&child)), quality).ends_with("<- 3, 4 (not shown; --depth)"));
        let values = nodes(&[line(2, Told::Cut(&child)), line(1, Told::Whole(&child))], quality);
        assert_eq!(values.len(), 1, "each once");
        assert_eq!((&values[0]["generation"], &values[0]["quality_ratio"]), (&2.into(), &0.9.into()));
    }
}
