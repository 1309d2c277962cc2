//! Gives work to workers that wait for it.

use std::time::Duration;

use super::parts::{Actor, moment};
use super::waiters::Waiter;
use crate::engine::command::{Answer, Command};
use evocache_domain::time::Timestamp;

/// The longest time at a stretch for workers that wait: as much for those whose time is over as for those that get work.
const SERVING: Duration = Duration::from_millis(10);

impl Actor {
    /// A worker asks for work. It stands in line behind others of its class; one that is unknown or draining is answered now.
    pub(super) fn receive(&mut self, waiter: Waiter) {
        let worker = self.state.workers.get(&waiter.worker).filter(|worker| !worker.draining);
        match worker.map(|worker| worker.class.clone()) {
            Some(class) => {
                self.line.waiters.push(class, waiter);
                self.line.wake();
            }
            None => self.answer(waiter),
        }
    }

    /// Gives waiting workers what work there is: within a class first come, first served, and the classes in turn. Serves at
    /// least one worker, however little time there is.
    pub(super) fn serve_waiters(&mut self) {
        self.line.line_up();
        let began = moment();
        while let Some(class) = self.line.next_class() {
            let Some((place, worker)) = self.line.waiters.first(&class) else { continue };
            let result = self.carry_out(None, &Command::Acquire { worker });
            let nothing = matches!(&result, Ok(Answer::Work { offer: None, draining: false, .. }));
            if !nothing && let Some(waiter) = self.line.waiters.take(&class, place) {
                self.answers.push((waiter.reply, result));
            }
            self.line.asked(class, !nothing);
            if self.is_over(began, SERVING) {
                self.line.give_way();
                return;
            }
        }
    }

    /// Answers workers whose time to wait is over.
    pub(super) fn dismiss_overdue(&mut self, now: Timestamp) {
        let began = moment();
        self.line.overdue = false;
        while let Some(waiter) = self.line.waiters.take_impatient(now) {
            self.answer(waiter);
            if self.is_over(began, SERVING) {
                self.line.overdue = true;
                break;
            }
        }
    }
}
