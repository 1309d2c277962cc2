//! The OS thread that owns the evaluator. Evaluations block for minutes, so they do not run on the async runtime.
//!
//! Jobs are closures. If one panics, the panic is caught and returned to the caller; the thread goes on.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::AgentError;
use crate::evaluator::api::Evaluate;

type Job = Box<dyn FnOnce(&mut dyn Evaluate) + Send>;

/// The message of a panic in the evaluator.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Panicked(pub(super) String);

pub(super) struct EvaluatorThread {
    jobs: Option<mpsc::Sender<Job>>,
    /// Closed after the evaluator is dropped and the thread ends.
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

    /// Queues a job and returns its result. The job runs even if the returned future is dropped.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        what: impl FnOnce(&mut dyn Evaluate) -> T + Send + 'static,
    ) -> Result<Result<T, Panicked>, AgentError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |evaluator| {
            // Unwind-safe because callers prepare the evaluator again after a panic: half-done state is not used.
            let result = catch_unwind(AssertUnwindSafe(|| what(evaluator)));
            let _ = answer.send(result.map_err(|payload| Panicked(message(payload.as_ref()))));
        });
        let jobs = self.jobs.as_ref().ok_or(AgentError::EvaluatorGone)?;
        jobs.send(job).map_err(|_| AgentError::EvaluatorGone)?;
        answered.await.map_err(|_| AgentError::EvaluatorGone)
    }

    /// Waits until the queued jobs are done, the evaluator is dropped and the thread ends. Returns false if that takes
    /// longer than `patience`.
    pub(super) async fn stop(&mut self, patience: Duration) -> bool {
        self.jobs = None;
        tokio::time::timeout(patience, &mut self.ended).await.is_ok()
    }
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}
