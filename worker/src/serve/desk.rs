//! Where requests and the device meet: requests leave their pictures to be drawn here and wait for them, the device
//! fetches one batch after the other.
//!
//! The device's side blocks its own thread; the other side is async and never waits for the device. A request that is
//! dropped takes back what still waits, and cancels what runs.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::estimate::Estimate;
use super::meters::Meters;
use super::queue::{At, Bounds, Closed, Queue, Unit};
use super::refusal::Refusal;
use super::run::{Kind, Run};
use crate::cancel::CancelToken;
use crate::picture::Picture;

/// A request, checked.
pub(super) struct Order {
    pub(super) user: String,
    pub(super) run: Arc<Run>,
    pub(super) prompt: Arc<str>,
    pub(super) negative: Arc<str>,
    /// One per picture.
    pub(super) seeds: Vec<u64>,
    /// How long the client waits.
    pub(super) patience: Duration,
}

/// A picture to draw.
pub(super) struct Job {
    pub(super) run: Arc<Run>,
    pub(super) prompt: Arc<str>,
    pub(super) negative: Arc<str>,
    pub(super) seed: u64,
    number: usize,
    deadline: Instant,
    cancel: CancelToken,
    answer: mpsc::UnboundedSender<Drawn>,
}

impl Job {
    /// Whether nobody waits for the picture any more.
    pub(super) fn is_over(&self) -> bool {
        self.cancel.is_cancelled() || self.deadline <= Instant::now()
    }

    /// Whether the client has gone.
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Hands over the picture, or says why there is none.
    pub(super) fn answer(&self, result: Result<Picture, Refusal>) {
        // An error means that the client has gone.
        let _ = self.answer.send(Drawn { number: self.number, result, at: Instant::now() });
    }
}

/// The answer of a job.
pub(super) struct Drawn {
    /// Which picture of the request.
    pub(super) number: usize,
    pub(super) result: Result<Picture, Refusal>,
    /// When the device was done with it.
    pub(super) at: Instant,
}

/// A request that waits for its pictures. Dropping it cancels them.
pub(super) struct Ticket {
    desk: Arc<Desk>,
    request: u64,
    cancel: CancelToken,
    answers: mpsc::UnboundedReceiver<Drawn>,
}

impl Ticket {
    /// The next picture. `None` if the device is gone.
    pub(super) async fn next(&mut self) -> Option<Drawn> {
        self.answers.recv().await
    }

    /// The next picture if it is there.
    pub(super) fn drawn(&mut self) -> Option<Drawn> {
        self.answers.try_recv().ok()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.cancel.cancel();
        let mut inner = self.desk.lock();
        let left = inner.queue.withdraw(self.request).len();
        self.desk.meters.left(left, inner.queue.len());
    }
}

/// Whether requests are let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Open,
    /// What waits is still drawn.
    Draining,
    /// The device is to stop.
    Closed,
}

struct Inner {
    queue: Queue<Kind, Job>,
    estimate: Estimate<Kind>,
    /// When the batch that runs is expected to end.
    busy_until: Option<Instant>,
    running: Vec<CancelToken>,
    door: Door,
    requests: u64,
}

/// The desk.
pub(super) struct Desk {
    inner: Mutex<Inner>,
    /// Signalled when the device may have something to do.
    work: Condvar,
    bounds: Bounds,
    /// How long a batch waits for more of its kind.
    gather: Duration,
    meters: Arc<Meters>,
}

impl Desk {
    pub(super) fn new(bounds: Bounds, gather: Duration, meters: Arc<Meters>) -> Self {
        let inner = Inner {
            queue: Queue::new(bounds),
            estimate: Estimate::new(),
            busy_until: None,
            running: Vec::new(),
            door: Door::Open,
            requests: 0,
        };
        Self { inner: Mutex::new(inner), work: Condvar::new(), bounds, gather, meters }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a request, or refuses it at once.
    pub(super) fn submit(self: &Arc<Self>, order: Order) -> Result<Ticket, Refusal> {
        let now = Instant::now();
        let mut inner = self.lock();
        if inner.door != Door::Open {
            return Err(Refusal::busy("stopping", "the server is stopping", Duration::from_secs(1)));
        }
        let busy = inner.busy(now);
        let idle = inner.queue.is_empty() && inner.busy_until.is_none();
        let cost = inner.estimate.cost(&order.run.kind, order.run.macs);
        let cost = if idle { cost.part(inner.estimate.faded(now)) } else { cost };
        let margin = inner.estimate.margin();
        inner.requests += 1;
        let request = inner.requests;
        let cancel = CancelToken::new();
        let (answer, answers) = mpsc::unbounded_channel();
        let unit = |(number, seed): (usize, &u64)| Unit {
            request,
            kind: order.run.kind,
            together: order.run.together,
            cost,
            deadline: now + order.patience,
            load: Job {
                run: order.run.clone(),
                prompt: order.prompt.clone(),
                negative: order.negative.clone(),
                seed: *seed,
                number,
                deadline: now + order.patience,
                cancel: cancel.clone(),
                answer: answer.clone(),
            },
        };
        let units: Vec<_> = order.seeds.iter().enumerate().map(unit).collect();
        let work = busy.saturating_add(inner.queue.work());
        let most = self.bounds.batch.min(order.run.together).max(1);
        let (full, rest) = (units.len() / most, units.len() % most);
        let alone = cost.of(most).saturating_mul(u32::try_from(full).unwrap_or(u32::MAX));
        let alone = margin.promise(if rest == 0 { alone } else { alone.saturating_add(cost.of(rest)) });
        match inner.queue.admit(&order.user, units, At { now, busy, margin }) {
            Ok(displaced) => {
                for unit in displaced {
                    let why = "others with less in the queue came, and your deadline cannot be met any more";
                    unit.load.answer(Err(Refusal::busy("displaced", why, work)));
                }
                self.meters.queued(inner.queue.len());
                drop(inner);
                self.work.notify_all();
                Ok(Ticket { desk: self.clone(), request, cancel, answers })
            }
            Err(closed) => Err(self.refusal(closed, work, alone, order.patience)),
        }
    }

    fn refusal(&self, closed: Closed, work: Duration, alone: Duration, patience: Duration) -> Refusal {
        let each = self.bounds.each;
        match closed {
            Closed::Greedy => {
                Refusal::greedy("too_many_pictures", format!("a user may have {each} pictures in the queue"), work / 2)
            }
            Closed::Full => {
                let all = self.bounds.all;
                Refusal::busy("queue_full", format!("all {all} places of the queue are taken"), work / 2)
            }
            Closed::Late(_) if alone > patience => {
                let (alone, patience) = (alone.as_secs_f64(), patience.as_secs_f64());
                let message =
                    format!("it takes about {alone:.2} s even if nothing waits, and the deadline is {patience} s");
                Refusal::busy("deadline_too_short", message, Duration::from_secs(60))
            }
            Closed::Late(by) => {
                let message = format!("it would be ready {:.2} s after its deadline", by.as_secs_f64());
                Refusal::busy("deadline_cannot_be_met", message, by)
            }
            Closed::Crowding => {
                let message = "it would make requests late that have been let in".to_owned();
                Refusal::busy("deadline_cannot_be_met", message, work / 2)
            }
        }
    }

    /// The next batch, all of one kind. Blocks until there is one; `None`: the device is to stop.
    pub(super) fn next(&self) -> Option<Vec<Job>> {
        let mut inner = self.lock();
        loop {
            let now = Instant::now();
            if inner.door == Door::Closed {
                return None;
            }
            if inner.queue.is_empty() {
                if inner.door == Door::Draining {
                    return None;
                }
                inner = self.work.wait(inner).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let gathers = inner.queue.gathers_until(now, self.gather);
            if let Some(until) = gathers.filter(|_| inner.door == Door::Open) {
                let wait = until.saturating_duration_since(now);
                inner = self.work.wait_timeout(inner, wait).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            let taken = inner.queue.take(now);
            for unit in taken.hopeless {
                let message = "others took longer than expected, and the deadline cannot be met any more";
                unit.load.answer(Err(Refusal::busy("deadline_cannot_be_met", message, Duration::from_secs(1))));
            }
            self.meters.queued(inner.queue.len());
            if taken.batch.is_empty() {
                continue;
            }
            let cost = taken.batch.first().map_or(Duration::ZERO, |first| first.cost.of(taken.batch.len()));
            inner.busy_until = Some(now + cost.min(Duration::from_secs(1 << 20)));
            self.meters.running(taken.batch.len());
            inner.running = taken.batch.iter().map(|unit| unit.load.cancel.clone()).collect();
            return Some(taken.batch.into_iter().map(|unit| unit.load).collect());
        }
    }

    /// The batch that was fetched last has ended. `took` is the time that it would have taken if it was cut short.
    pub(super) fn finished(&self, run: &Run, pictures: usize, took: Option<Duration>) {
        let now = Instant::now();
        let mut inner = self.lock();
        inner.busy_until = None;
        inner.running.clear();
        self.meters.running(0);
        if let Some(took) = took {
            inner.estimate.learn(&run.kind, run.macs, pictures, took, now);
            let cost = inner.estimate.cost(&run.kind, run.macs);
            inner.queue.learned(&run.kind, cost);
        }
    }

    /// An answer is ready, so long after its last picture was drawn.
    pub(super) fn answered(&self, after: Duration) {
        self.lock().estimate.answered(after);
    }

    /// Lets in nothing more. What waits is drawn; then the device stops.
    pub(super) fn drain(&self) {
        self.lock().door = Door::Draining;
        self.work.notify_all();
    }

    /// Stops the device between two steps, and answers everything that waits.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.door = Door::Closed;
        inner.running.iter().for_each(CancelToken::cancel);
        for unit in inner.queue.clear() {
            unit.load.answer(Err(Refusal::busy("stopping", "the server is stopping", Duration::from_secs(1))));
        }
        drop(inner);
        self.work.notify_all();
    }
}

impl Inner {
    /// How long the batch that runs will still take.
    fn busy(&self, now: Instant) -> Duration {
        self.busy_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }
}
