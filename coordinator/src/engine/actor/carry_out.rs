//! The steps of a command: decide → commit → apply → effects. The answer is sent after the next flush.

use super::effects::Effects;
use super::parts::Actor;
use super::store_state::Event;
use super::waiters::Waiter;
use crate::engine::command::{Answer, Command, Request};
use crate::engine::decide::decide;
use crate::engine::decision::{Context, Decision};
use crate::engine::refusal::Refusal;
use crate::engine::state::Touch;
use crate::faults::{self, Point};
use crate::ports::Fact;

impl Actor {
    /// Decides, commits and applies a command.
    pub(super) fn carry_out(&mut self, request: Option<&Request>, command: &Command) -> Result<Answer, Refusal> {
        self.store_state.check_usable().map_err(|error| Refusal::Store(error.clone()))?;
        let Decision { facts, touches, answer } = self.decide(request, command)?;
        self.commit(command, &facts)?;
        let effects = Effects::of(&facts);
        self.apply(facts, touches)?;
        self.cause(effects);
        Ok(answer.unwrap_or(Answer::Accepted))
    }

    /// Carries out a command that nobody asked for.
    pub(super) fn background(&mut self, command: &Command) {
        if let Err(e) = self.carry_out(None, command)
            && self.store_state.is_usable()
            && !matches!(e, Refusal::Full(_))
        {
            tracing::warn!(error = %e, "background work was not carried out");
        }
    }

    /// Answers a worker now, with work or without.
    pub(super) fn answer(&mut self, waiter: Waiter) {
        if !waiter.reply.is_closed() {
            let result = self.carry_out(None, &Command::Acquire { worker: waiter.worker });
            self.answers.push((waiter.reply, result));
        }
    }

    fn decide(&self, request: Option<&Request>, command: &Command) -> Result<Decision, Refusal> {
        let Self { settings, store_state, .. } = self;
        let (policy, ids) = (&settings.policy, settings.ids.as_ref());
        let context = Context { now: settings.clock.now(), policy, ids, scarce: store_state.scarce() };
        faults::pass(Point::DecideBefore);
        let decided = decide(&self.state, request, command, &context);
        faults::pass(Point::DecideAfter);
        decided.inspect_err(|refusal| self.meters.refused(command, refusal))
    }

    fn commit(&mut self, command: &Command, facts: &[Fact]) -> Result<(), Refusal> {
        if facts.is_empty() {
            return Ok(());
        }
        if let Some(room) = self.store_state.used_up() {
            return Err(Refusal::Full(room));
        }
        if let Err(e) = self.settings.store.commit(facts) {
            self.store_changed(Event::Failed(e.clone()));
            return Err(e.into());
        }
        self.store_changed(Event::Committed);
        self.meters.decided(command, facts);
        self.line.wake();
        faults::pass(Point::ApplyBefore);
        Ok(())
    }

    fn apply(&mut self, facts: Vec<Fact>, touches: Vec<Touch>) -> Result<(), Refusal> {
        for fact in facts {
            if let Fact::WorkerQuarantined { worker, reason, .. } = &fact {
                tracing::warn!(%worker, reason, "worker in quarantine");
            }
            if let Err(e) = self.state.apply(fact) {
                self.contradicted(&e);
                return Err(Refusal::Internal(e.to_string()));
            }
        }
        for touch in touches {
            self.state.touch(touch);
        }
        faults::pass(Point::ApplyAfter);
        Ok(())
    }

    fn cause(&mut self, Effects { changes, planners_lost, fed, leaving }: Effects) {
        self.news.extend(changes);
        planners_lost.iter().for_each(|search| self.planners.dismiss(search));
        // All taken before the first is answered: answering carries out another command.
        let leavers: Vec<Waiter> = leaving.iter().flat_map(|worker| self.line.waiters.take_worker(worker)).collect();
        fed.iter().for_each(|search| self.feed_planner(search));
        leavers.into_iter().for_each(|waiter| self.answer(waiter));
    }
}
