//! Mistyped names: the nearest known name, and names that no worker offers. Pure.

use std::collections::BTreeSet;

use evocache_proto::domain::{BUILTIN_METRICS, SpecDraft, builtin_direction};

use crate::client::{Foreign, Worker, WorkerState};

/// The end of a message about an unknown name: `; did you mean 'psnr'?`, or nothing if no offer is similar.
pub fn did_you_mean<'a>(name: &str, offers: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, offers).map_or(String::new(), |offer| format!("; did you mean '{}'?", Foreign::from(offer)))
}

/// The offer most similar to a name, if one is: at most a third of its letters may be wrong, missing or swapped.
fn nearest<'a>(name: &str, offers: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = name.to_lowercase();
    let most = (name.chars().count() / 3).max(1);
    let rated = offers.into_iter().map(|offer| (strsim::damerau_levenshtein(&folded, &offer.to_lowercase()), offer));
    rated.filter(|&(distance, _)| distance <= most).min().map(|(_, offer)| offer)
}

/// Whether any worker is alive.
pub fn any_alive(workers: &[Worker]) -> bool {
    workers.iter().any(|worker| worker.state == WorkerState::Alive)
}

/// The names in a specification that no live worker offers, each with its field; nothing if no worker is alive.
pub fn unknown(spec: &SpecDraft, workers: &[Worker]) -> Vec<String> {
    let live: Vec<&Worker> = workers.iter().filter(|worker| worker.state == WorkerState::Alive).collect();
    if live.is_empty() {
        return vec![];
    }
    let mut found = vec![];
    let able: Vec<&Worker> = live.iter().copied().filter(|worker| worker.model == *spec.model.name).collect();
    if able.is_empty() {
        let (name, offers) = (Foreign::from(&spec.model.name), offers(live.iter().map(|worker| &worker.model)));
        found.push(format!("model.name: no live worker has '{name}'{}", suggestion(&spec.model.name, &offers)));
    }
    // If the model is unknown, a metric is checked against all workers, so that one mistake is not reported twice.
    let able = if able.is_empty() { live } else { able };
    let fingerprint = spec.model.fingerprint.as_ref();
    if let Some(wanted) = fingerprint.filter(|wanted| !able.iter().any(|worker| worker.fingerprint == ***wanted)) {
        let offers = offers(able.iter().map(|worker| &worker.fingerprint));
        let wanted = Foreign::from(wanted);
        found.push(format!("model.fingerprint: no live worker has '{wanted}'; there is {}", offers.join(", ")));
    }
    let measured = offers(able.iter().flat_map(|worker| &worker.metrics));
    for (i, objective) in spec.objectives.iter().enumerate() {
        let metric = objective.metric.as_str();
        if builtin_direction(metric).is_none() && !measured.is_empty() && !measured.contains(&metric.to_owned()) {
            let offers: Vec<String> =
                measured.iter().cloned().chain(BUILTIN_METRICS.iter().map(|(name, ..)| (*name).to_owned())).collect();
            let metric_shown = Foreign::from(metric);
            found.push(format!(
                "objective[{i}].metric: no live worker measures '{metric_shown}'{}",
                suggestion(metric, &offers)
            ));
        }
    }
    let device = spec.placement.device.to_lowercase();
    if !able.iter().any(|worker| worker.device.raw().to_lowercase().contains(&device)) {
        let offers = offers(able.iter().map(|worker| &worker.device));
        let device = Foreign::from(&spec.placement.device);
        found.push(format!(
            "placement.device: no live worker's has '{device}' in its name; there is {}",
            offers.join(", ")
        ));
    }
    found
}

/// The distinct names, sorted.
fn offers<'a>(names: impl Iterator<Item = &'a Foreign>) -> Vec<String> {
    names.map(|name| name.raw().to_owned()).collect::<BTreeSet<_>>().into_iter().collect()
}

/// The most similar offer, or all of them if they are few.
fn suggestion(name: &str, offers: &[String]) -> String {
    match did_you_mean(name, offers.iter().map(String::as_str)) {
        found if !found.is_empty() => found,
        _ if offers.len() > 12 => String::new(),
        _ => {
            format!("; there is {}", offers.iter().map(|o| Foreign::from(o).to_string()).collect::<Vec<_>>().join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::kit::samples::search;
    use evocache_proto::domain::WorkerId;

    fn worker(model: &str, metrics: &[&str], state: WorkerState) -> Worker {
        Worker {
            id: WorkerId::new("w").unwrap(),
            name: "n".into(),
            device: "NVIDIA H100".into(),
            software: "s".into(),
            model: model.into(),
            fingerprint: "f".into(),
            state,
            register_time: None,
            last_seen_time: None,
            leases: vec![],
            completed: 0,
            failed: 0,
            quarantine: Foreign::default(),
            idle_reason: Foreign::default(),
            metrics: metrics.iter().map(|&metric| metric.into()).collect(),
        }
    }

    #[test]
    fn typing_errors_are_near_and_other_words_are_not() {
        for (name, offers, meant) in [
            ("pnsr", &["psnr", "ssim"][..], Some("psnr")),
            ("emojix", &["emoji", "pixart"], Some("emoji")),
            ("Emoji", &["emoji"], Some("emoji")),
            ("clip", &["clip_score"], None),
            ("fid", &["ssim"], None),
            ("nightl", &["nightly", "nights"], Some("nightly")),
            ("", &["a"], Some("a")),
        ] {
            assert_eq!(nearest(name, offers.iter().copied()), meant, "{name}");
        }
        assert_eq!(did_you_mean("pnsr", ["psnr"]), "; did you mean 'psnr'?");
    }

    #[test]
    fn names_that_no_live_worker_offers_are_listed_by_field() {
        let mut spec = search().spec;
        let live = [worker("m", &["clip_score", "psnr"], WorkerState::Alive)];
        assert_eq!(unknown(&spec, &live), Vec::<String>::new());
        let gone = worker("x", &["clip_score"], WorkerState::Gone);
        assert!(!any_alive(std::slice::from_ref(&gone)) && unknown(&spec, &[gone]).is_empty() && any_alive(&live));
        // A worker without a list of metrics says nothing of metrics.
        assert_eq!(unknown(&spec, &[worker("m", &[], WorkerState::Alive)]), Vec::<String>::new());
        spec.model.name = "mm".into();
        spec.objectives[1].metric = "pnsr".into();
        spec.objectives[0].metric = "latency_ration".into();
        spec.model.fingerprint = Some("g".into());
        spec.placement.device = "a100".into();
        let found = unknown(&spec, &live);
        for (line, words) in found.iter().zip([
            &["model.name", "'mm'", "did you mean 'm'?"][..],
            &["model.fingerprint", "'g'", "there is f"],
            &["objective[0].metric", "'latency_ration'", "did you mean 'latency_ratio'?"],
            &["objective[1].metric", "'pnsr'", "did you mean 'psnr'?"],
            &["placement.device", "'a100'", "NVIDIA H100"],
        ]) {
            assert!(words.iter().all(|word| line.contains(word)), "{line}");
        }
        assert_eq!(found.len(), 5);
    }
}
