//! The actor's loop: takes what is queued, carries it out, does what is due, flushes once, answers.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use evocache_proto::domain::SearchId;

use super::clock::TICK;
use super::parts::{Actor, moment};
use super::planners::Submitted;
use super::waiters::Waiter;
use crate::engine::handle::Message;

/// The most calls that are decided before a flush.
const BATCH: usize = 512;
/// The longest time at a stretch for calls: then what was decided is answered, and new calls are heard.
const STRETCH: Duration = Duration::from_millis(20);

impl Actor {
    /// Works until it is told to stop.
    pub(super) async fn run(mut self) {
        self.look_at_room();
        let searches: Vec<SearchId> = self.state.searches.keys().cloned().collect();
        searches.iter().for_each(|search| self.feed_planner(search));
        let (mut heard, mut messages) = (Vec::with_capacity(BATCH), VecDeque::with_capacity(BATCH));
        loop {
            if messages.is_empty() {
                let has_work = self.has_background_work() || self.line.has_work();
                let patience = if has_work { Duration::ZERO } else { TICK };
                // A timeout is fine: what is due is done without a message too.
                if let Ok(0) = tokio::time::timeout(patience, self.inbox.recv_many(&mut heard, BATCH)).await {
                    return;
                }
                messages.extend(heard.drain(..));
            }
            let began = moment();
            while let Some(message) = messages.pop_front() {
                if self.handle(message).is_break() {
                    self.flush();
                    return;
                }
                if self.is_over(began, STRETCH) {
                    break;
                }
            }
            self.look_at_clock();
            self.serve_waiters();
            self.clear_some();
            self.rebuild_some();
            self.flush();
            self.meters.busy.record(began.elapsed());
        }
    }

    /// Breaks if the message is to stop.
    fn handle(&mut self, message: Message) -> ControlFlow<()> {
        if !matches!(message, Message::Plan { .. }) {
            self.meters.queued.fetch_sub(1, Relaxed);
        }
        match message {
            Message::Stop => return ControlFlow::Break(()),
            Message::Look(look) => {
                self.meters.looks.fetch_add(1, Relaxed);
                look(&self.state, self.settings.clock.now());
            }
            Message::Do { request, command, reply } => {
                let result = self.carry_out(request.as_ref(), &command);
                self.answers.push((reply, result));
            }
            Message::Wait { worker, wait, reply } => {
                let until = self.settings.clock.now().plus(wait);
                self.receive(Waiter { worker, until, reply });
            }
            Message::Plan { search, planner, plan } => {
                if self.planners.is_current(&search, planner) {
                    self.take_plan(&search, plan.map_or(Submitted::NoPlanner, Submitted::Plan));
                }
            }
        }
        ControlFlow::Continue(())
    }
}
