//! Runs whole searches on a synthetic landscape, for unit tests.

use std::collections::VecDeque;
use std::sync::Arc;

use evocache_proto::domain::{CandidateId, Layout, Measurement, SpecDraft};
use evocache_testkit::landscape::{Landscape, spec};

use super::{Breeder, Parts, Planner, Proposal};

/// Runs a whole search with `workers` candidates in flight and returns the breeder.
pub(crate) fn run(draft: SpecDraft, layout: Layout, workers: u64) -> Breeder {
    let landscape = Landscape::new(&layout, draft.sampling.baseline_steps());
    run_with(draft, layout, workers, |_, proposal| landscape.measure(&proposal.schedule))
}

/// The same with random schedules only.
pub(crate) fn run_at_random(draft: SpecDraft, layout: Layout) -> Breeder {
    let landscape = Landscape::new(&layout, draft.sampling.baseline_steps());
    let parts = Parts { search: false, ..Parts::default() };
    run_parts(draft, layout, parts, 1, |_, proposal| landscape.measure(&proposal.schedule))
}

/// The same with `measure` in place of the landscape.
pub(crate) fn run_with(
    draft: SpecDraft,
    layout: Layout,
    workers: u64,
    measure: impl FnMut(CandidateId, &Proposal) -> Measurement,
) -> Breeder {
    run_parts(draft, layout, Parts::default(), workers, measure)
}

fn run_parts(
    draft: SpecDraft,
    layout: Layout,
    parts: Parts,
    workers: u64,
    mut measure: impl FnMut(CandidateId, &Proposal) -> Measurement,
) -> Breeder {
    let evaluations = draft.budget.evaluations.unwrap_or(100);
    let mut breeder = match Breeder::with_parts(spec(draft), Arc::new(layout), parts) {
        Ok(breeder) => breeder,
        Err(error) => panic!("{error}"),
    };
    let mut run = Run { planner: breeder.new_planner(), open: VecDeque::new() };
    for index in 0..evaluations {
        let proposal = loop {
            let proposal = breeder.ask(CandidateId(index));
            if proposal.is_some() || run.open.is_empty() {
                break proposal;
            }
            run.finish(&mut breeder, &mut measure);
        };
        let Some(proposal) = proposal else { break };
        breeder.record(CandidateId(index), &proposal);
        run.open.push_back((CandidateId(index), proposal));
        while run.open.len() as u64 >= workers || (index + 1 == evaluations && !run.open.is_empty()) {
            run.finish(&mut breeder, &mut measure);
        }
    }
    breeder.rescore();
    breeder
}

struct Run {
    planner: Option<Planner>,
    open: VecDeque<(CandidateId, Proposal)>,
}

impl Run {
    fn finish(&mut self, breeder: &mut Breeder, measure: &mut impl FnMut(CandidateId, &Proposal) -> Measurement) {
        if let Some((index, proposal)) = self.open.pop_front()
            && let Err(error) = breeder.tell(index, &measure(index, &proposal))
        {
            panic!("{error}");
        }
        breeder.plan_now(&mut self.planner);
    }
}
