//! Passes a breeder's inputs to its planner and the planner's plans back.

use evocache_proto::domain::SearchId;

use super::parts::Actor;
use super::planners::Submitted;

impl Actor {
    /// Submits the search's new inputs to its planner, or dismisses the planner if the search has ended.
    pub(super) fn feed_planner(&mut self, id: &SearchId) {
        let Some(search) = self.state.searches.get_mut(id) else {
            self.planners.dismiss(id);
            return;
        };
        if search.is_rebuilding() {
            return;
        }
        let is_final = search.phase.is_final();
        let Some(breeder) = search.breeder_mut() else { return };
        let inputs = breeder.take_planner_inputs();
        if is_final {
            self.planners.dismiss(id);
        } else if !inputs.is_empty() {
            let submitted = self.planners.submit(id, inputs, || breeder.new_planner());
            self.take_plan(id, submitted);
        }
    }

    /// Passes the planner's answer to the breeder.
    pub(super) fn take_plan(&mut self, id: &SearchId, submitted: Submitted) {
        let Some(breeder) = self.state.searches.get_mut(id).and_then(|search| search.breeder_mut()) else { return };
        match submitted {
            Submitted::Pending => return,
            Submitted::Plan(plan) => breeder.accept_plan(plan),
            Submitted::NoPlanner => breeder.disable_planner(),
        }
        // The search may have waited for this before proposing more.
        self.line.wake();
    }
}
