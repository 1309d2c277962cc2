//! The breeder's side of planning. A [`Planner`] fits error models outside of the breeder and answers with a [`Plan`].
//!
//! Does not decide when a plan is requested: that is `planner_link.rs`.

use super::breeder::Breeder;
use super::error_models::Planner;
use super::planner_link::{Plan, PlannerInput, PlannerLink};

impl Breeder {
    /// A new planner for this search; `None` if the search has nothing to model.
    pub fn new_planner(&self) -> Option<Planner> {
        self.planner_link.as_ref().and_then(|_| Planner::new(&self.spec, &self.space))
    }

    /// The planner's inputs since the last call.
    pub fn take_planner_inputs(&mut self) -> Vec<PlannerInput> {
        self.planner_link.as_mut().map_or_else(Vec::new, PlannerLink::take_inputs)
    }

    /// Takes the planner's answer. A plan that was not requested is ignored.
    pub fn accept_plan(&mut self, plan: Plan) {
        if let Some(link) = &mut self.planner_link {
            link.accept(plan);
        }
    }

    /// Sends all inputs again, to a new planner, as after a replay.
    pub fn restart_planner(&mut self) {
        let open = self.ledger.open();
        if let Some(link) = &mut self.planner_link {
            link.restart(open);
        }
    }

    /// Replaces another breeder whose planner may still answer: such answers are ignored.
    pub fn take_over_from(&mut self, other: &Self) {
        self.restart_planner();
        if let (Some(mine), Some(theirs)) = (&mut self.planner_link, &other.planner_link) {
            mine.ignore_answers_to(theirs);
        }
    }

    /// Continues without plans.
    pub fn disable_planner(&mut self) {
        self.planner_link = None;
    }

    /// Whether nothing can be proposed until the planner has answered.
    pub fn awaits_plan(&self) -> bool {
        self.planner_link.as_ref().is_some_and(PlannerLink::is_awaited)
    }

    /// Runs the planner on all new inputs, on the calling thread, and accepts its plans.
    pub fn plan_now(&mut self, planner: &mut Option<Planner>) {
        for input in self.take_planner_inputs() {
            if let Some(plan) = planner.as_mut().and_then(|planner| planner.process(input)) {
                self.accept_plan(plan);
            }
        }
    }
}
