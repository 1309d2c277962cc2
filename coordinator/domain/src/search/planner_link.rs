//! The link between a breeder and its planner: which inputs the planner gets, when a plan is requested, and the plan in
//! use.
//!
//! Fitting error models is slow, so it does not happen in the [`Breeder`](super::Breeder): the owner of a breeder
//! passes its [`PlannerInput`]s to a [`Planner`](super::Planner), on any thread, and passes the [`Plan`] back. A plan
//! takes effect at a fixed number of results. It is not used earlier, and from that number on nothing is proposed
//! without it. So a slow planner delays candidates but never changes them. When plans are requested depends on the
//! results alone.
//!
//! **Invariant:** knows nothing of the error models (`error_models/`) or of threads (the engine's).

use std::sync::Arc;
use std::time::Duration;

use evocache_proto::domain::{CandidateId, Profile, Schedule, ScheduleId, SearchSpec, builtin_direction};

use super::genome::Space;
use crate::pareto::Score;

/// The share of the budget after which plans no longer explore.
const CLOSING: f64 = 0.85;
/// The first plan is requested after this many results.
const FIRST: usize = 24;
/// Results between two plans: 1/25 of all results, within these limits.
const PAUSE: (usize, usize) = (4, 20);
/// Approximate seconds for a fit and a plan, per decision of a schedule.
const FIT_SECONDS_PER_CELL: f64 = 1.5e-4;
/// Approximate seconds for the planner to take in one result, per decision of a schedule.
const INPUT_SECONDS_PER_CELL: f64 = 2e-6;
/// Evaluations between two plans take at least this many times as long as a fit.
const EVALUATION_TO_FIT: f64 = 2.0;
/// The weight of the newest result in the mean evaluation time.
const NEWEST: f64 = 0.1;
/// How much the estimated number of candidates in flight falls per result.
const DECAY: f64 = 0.1;

/// An event or a request for the planner. The planner processes them in order.
#[derive(Debug, Clone, PartialEq)]
pub enum PlannerInput {
    /// A worker measured how much every output changes from step to step.
    Profile(Arc<Profile>),
    /// A result.
    Result {
        /// The candidate that was measured.
        candidate: CandidateId,
        /// Its schedule.
        schedule: Arc<Schedule>,
        /// Losses in the first objective that is a cost and in the first that is a quality metric.
        losses: (f64, f64),
        /// Whether all prompts were evaluated. Models learn from partial results too, but these are not on the front.
        whole: bool,
    },
    /// Revised losses of earlier results.
    Rescored(Vec<(CandidateId, (f64, f64))>),
    /// Fit the models and make a plan.
    Request {
        /// The number of the request, which the plan repeats.
        number: u64,
        /// Approximate number of schedules needed before the next plan.
        wanted: usize,
        /// The budget is nearly spent: do not explore.
        closing: bool,
    },
}

/// A schedule that a model expects to improve the front.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PlannedSchedule {
    pub(super) schedule: Arc<Schedule>,
    pub(super) id: ScheduleId,
    /// How it was planned, as in [`Maker::Planned`](evocache_proto::domain::Maker::Planned).
    pub(super) how: &'static str,
}

/// The planner's answer to a request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    pub(super) number: u64,
    /// Schedules to evaluate, best first; empty while no model is trusted.
    pub(super) schedules: Vec<PlannedSchedule>,
    /// Name and rank correlation of each model, on new results of about equal cost.
    pub(super) correlations: Vec<(&'static str, Option<f64>)>,
}

/// A request without an answer in effect.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Pending {
    number: u64,
    /// The answer takes effect at this number of results.
    due: usize,
}

/// One search's link to its planner.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PlannerLink {
    /// Indices of the cost and of the error among the objectives.
    objectives: (usize, usize),
    /// Approximate seconds for a fit, and for one result.
    fit_seconds: f64,
    input_seconds: f64,
    /// Inputs that were not taken yet.
    inputs: Vec<PlannerInput>,
    /// Inputs that were taken, for a planner that replaces the present one.
    sent: Vec<PlannerInput>,
    results: usize,
    /// Mean device time of an evaluation, in seconds.
    evaluation_seconds: f64,
    /// Recent maximum of the number of candidates in flight.
    in_flight: f64,
    closing: bool,
    /// Results at the last request.
    requested_at: usize,
    requests: u64,
    pending: Option<Pending>,
    /// An answer that is not due yet.
    early: Option<Plan>,
    /// The plan in use.
    plan: Plan,
}

impl PlannerLink {
    /// `None` if the search lacks a cost or a quality metric.
    pub(super) fn new(spec: &SearchSpec, space: &Space) -> Option<Self> {
        let steps = space.steps().first().copied()? as usize;
        let cells = (steps * space.slots()) as f64;
        Some(Self {
            objectives: objectives(spec)?,
            fit_seconds: FIT_SECONDS_PER_CELL * cells,
            input_seconds: INPUT_SECONDS_PER_CELL * cells,
            inputs: Vec::new(),
            sent: Vec::new(),
            results: 0,
            evaluation_seconds: 0.0,
            in_flight: 1.0,
            closing: false,
            requested_at: 0,
            requests: 0,
            pending: None,
            early: None,
            plan: Plan::default(),
        })
    }

    pub(super) fn calibrate(&mut self, profile: Arc<Profile>) {
        self.inputs.push(PlannerInput::Profile(profile));
    }

    pub(super) fn tell(&mut self, candidate: CandidateId, schedule: &Arc<Schedule>, score: &Score, whole: bool) {
        let losses = (score.losses[self.objectives.0], score.losses[self.objectives.1]);
        self.inputs.push(PlannerInput::Result { candidate, schedule: schedule.clone(), losses, whole });
        self.results += 1;
    }

    pub(super) fn rescore(&mut self, scores: impl Iterator<Item = (CandidateId, Score)>) {
        let losses = |score: Score| (score.losses[self.objectives.0], score.losses[self.objectives.1]);
        let rescored = scores.map(|(candidate, score)| (candidate, losses(score))).collect();
        self.inputs.push(PlannerInput::Rescored(rescored));
    }

    /// Updates the timings after a result, and requests a plan if one is due. `open` counts candidates without a
    /// result; `spent` is the share of the budget used up.
    pub(super) fn after_result(&mut self, device_time: Duration, open: usize, spent: f64) {
        let weight = NEWEST.max(1.0 / self.results.max(1) as f64);
        self.evaluation_seconds += weight * (device_time.as_secs_f64() - self.evaluation_seconds);
        // Results come in bursts, after which few candidates are open.
        self.in_flight = (self.in_flight - DECAY).max(open as f64 + 1.0);
        self.update_closing(spent);
        self.use_if_due();
        let due = self.results >= FIRST.max(self.requested_at + self.pause());
        if self.pending.is_none() && self.keeps_up() && due {
            // Open candidates were proposed without this plan, and their results arrive while models are fitted.
            self.request(self.results + self.in_flight as usize - 1);
        }
    }

    /// `spent` is the share of the budget used up.
    pub(super) fn update_closing(&mut self, spent: f64) {
        self.closing = spent >= CLOSING;
    }

    /// Whether the planner takes in results as fast as they arrive. If not, evaluations are cheap, and plans would fall
    /// further and further behind.
    fn keeps_up(&self) -> bool {
        self.evaluation_seconds >= self.input_seconds * self.in_flight
    }

    /// Results from one request to the next.
    fn pause(&self) -> usize {
        // No plans where an evaluation costs less than the fit.
        let during_fit = EVALUATION_TO_FIT * self.fit_seconds / self.evaluation_seconds.max(1e-9) * self.in_flight;
        self.least_pause().max(self.in_flight as usize - 1).max(during_fit as usize)
    }

    /// Results from one request to the next if fits take no time.
    fn least_pause(&self) -> usize {
        (self.results / 25).clamp(PAUSE.0, PAUSE.1)
    }

    fn request(&mut self, due: usize) {
        self.requests += 1;
        let (number, wanted, closing) = (self.requests, 2 * self.least_pause(), self.closing);
        self.inputs.push(PlannerInput::Request { number, wanted, closing });
        self.pending = Some(Pending { number, due });
        self.requested_at = self.results;
    }

    /// Sends all inputs again, to a new planner. Its first plan takes effect when the next request would have been due.
    pub(super) fn restart(&mut self, open: usize) {
        (self.pending, self.early, self.plan) = (None, None, Plan::default());
        self.take_all();
        self.inputs = std::mem::take(&mut self.sent);
        self.in_flight = open as f64 + 1.0;
        let pause = self.pause();
        if self.keeps_up() && self.results >= FIRST.max(pause) {
            self.request(self.results + pause);
        }
    }

    /// Numbers this link's requests after the other's, so that answers to the other's are not taken for its own.
    pub(super) fn ignore_answers_to(&mut self, other: &Self) {
        self.requests += other.requests;
        for input in &mut self.inputs {
            if let PlannerInput::Request { number, .. } = input {
                *number += other.requests;
            }
        }
        if let Some(pending) = &mut self.pending {
            pending.number += other.requests;
        }
    }

    pub(super) fn accept(&mut self, plan: Plan) {
        if self.pending.is_some_and(|pending| pending.number == plan.number) {
            self.early = Some(plan);
            self.use_if_due();
        }
    }

    fn use_if_due(&mut self) {
        if self.is_awaited()
            && let Some(plan) = self.early.take()
        {
            (self.plan, self.pending) = (plan, None);
        }
    }

    /// Whether a plan is due that is not in use: nothing may be proposed before the planner has answered.
    pub(super) fn is_awaited(&self) -> bool {
        self.pending.is_some_and(|pending| self.results >= pending.due)
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing
    }

    /// The plan in use.
    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The inputs to process now; none while the planner cannot keep up.
    pub(super) fn take_inputs(&mut self) -> Vec<PlannerInput> {
        if self.keeps_up() || self.pending.is_some() { self.take_all() } else { Vec::new() }
    }

    /// All new inputs. Keeps in `sent` what a new planner needs: no requests, and only the last rescoring.
    fn take_all(&mut self) -> Vec<PlannerInput> {
        let inputs = std::mem::take(&mut self.inputs);
        let is_rescored = |input: &PlannerInput| matches!(input, PlannerInput::Rescored(_));
        let last = inputs.iter().rposition(is_rescored);
        if last.is_some() {
            self.sent.retain(|input| !is_rescored(input));
        }
        let kept = |(at, input): &(usize, &PlannerInput)| match input {
            PlannerInput::Request { .. } => false,
            PlannerInput::Rescored(_) => Some(*at) == last,
            PlannerInput::Profile(_) | PlannerInput::Result { .. } => true,
        };
        self.sent.extend(inputs.iter().enumerate().filter(kept).map(|(_, input)| input.clone()));
        inputs
    }
}

/// Indices of the first cost and of the first quality metric among the objectives; `None` if either is missing.
pub(super) fn objectives(spec: &SearchSpec) -> Option<(usize, usize)> {
    let find = |builtin: bool| spec.objectives.iter().position(|o| builtin_direction(&o.metric).is_some() == builtin);
    Some((find(true)?, find(false)?))
}
