//! The one OS thread that the evaluator lives on. It may block for minutes, so it is none of the runtime's.
//!
//! A panic of the evaluator is caught and handed to whoever asked; the thread goes on.
//! Absent on purpose: what is asked. A job is a closure.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::AgentError;
use crate::evaluator::api::Evaluate;

type Job = Box<dyn FnOnce(&mut dyn Evaluate) + Send>;

/// The evaluator panicked; this is the message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Panicked(pub(super) String);

pub(super) struct EvaluatorThread {
    jobs: Option<mpsc::Sender<Job>>,
    /// Closed when the thread has ended and the evaluator is dropped.
    ended: oneshot::Receiver<()>,
}

impl EvaluatorThread {
    pub(super) fn start(mut evaluator: Box<dyn Evaluate>) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (alive, ended) = oneshot::channel();
        std::thread::Builder::new().name("evaluator".into()).stack_size(8 << 20).spawn(move || {
            let _alive: oneshot::Sender<()> = alive;
            while let Ok(job) = queue.recv() {
                job(evaluator.as_mut());
            }
            drop(evaluator);
        })?;
        Ok(Self { jobs: Some(jobs), ended })
    }

    /// Has the evaluator do something after all that was asked before. It is done even if nobody waits for it.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        what: impl FnOnce(&mut dyn Evaluate) -> T + Send + 'static,
    ) -> Result<Result<T, Panicked>, AgentError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |evaluator| {
            // Whoever asks prepares the evaluator anew after a panic, so what it left half done is not used.
            let result = catch_unwind(AssertUnwindSafe(|| what(evaluator)));
            let _ = answer.send(result.map_err(|payload| Panicked(message(payload.as_ref()))));
        });
        let jobs = self.jobs.as_ref().ok_or(AgentError::EvaluatorGone)?;
        jobs.send(job).map_err(|_| AgentError::EvaluatorGone)?;
        answered.await.map_err(|_| AgentError::EvaluatorGone)
    }

    /// Waits for the running job, drops the evaluator and ends the thread. False if that takes longer than `patience`.
    pub(super) async fn stop(&mut self, patience: Duration) -> bool {
        self.jobs = None;
        tokio::time::timeout(patience, &mut self.ended).await.is_ok()
    }
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}
