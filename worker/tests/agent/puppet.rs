//! An evaluator that obeys orders of the test and reports each call to it.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use evocache_proto::domain::{
    Calibration, Declaration, Direction, Layout, Measurement, MetricDeclaration, MetricValues, Profile, Schedule,
};
use evocache_worker::evaluator::api::{CancelToken, Evaluate, EvaluateError, Task};
use tokio::sync::mpsc as events;

use crate::script::PATIENCE;

#[derive(Debug, PartialEq)]
pub(crate) enum Event {
    /// `prepare` was called with a calibration with this first prompt.
    Preparing(String),
    /// `evaluate` was called on this thread with this task.
    Evaluating { thread: String, schedule: Schedule, prompts: Option<NonZeroU32>, profile: bool },
    /// A call ended because it was canceled.
    Cancelled,
    /// The evaluator was dropped.
    Dropped,
}

pub(crate) enum Order {
    Finish,
    Error(EvaluateError),
    Panic(&'static str),
    /// Run until canceled.
    Work,
}

pub(crate) struct Puppet {
    events: events::UnboundedSender<Event>,
    orders: mpsc::Receiver<Order>,
    /// Whether `prepare` waits for an order as well.
    slow_to_prepare: bool,
}

/// The test's end: receives events and sends orders.
pub(crate) struct Strings {
    events: events::UnboundedReceiver<Event>,
    orders: mpsc::Sender<Order>,
}

pub(crate) fn layout() -> Arc<Layout> {
    Arc::new(Layout::pixart(2).unwrap())
}

pub(crate) fn measurement() -> Measurement {
    Measurement {
        metrics: vec![MetricValues { name: "clip_score".into(), values: vec![0.25, 0.5], baseline_mean: 0.375 }],
        latency_us: vec![10.0, 11.0],
        baseline_latency_us: vec![20.0, 21.0],
        macs: 7,
        baseline_macs: 9,
        peak_cache_bytes: 11,
        device_time: Duration::from_millis(12),
        disturbed: 7,
        thumbnails: vec![vec![1, 2, 3]],
        profile: None,
    }
}

/// The profile that comes with [`measurement`] if the task asks for one.
pub(crate) fn profile() -> Profile {
    Profile::new(4, 1, vec![0.25; 4 * layout().slots()]).unwrap()
}

pub(crate) fn puppet(slow_to_prepare: bool) -> (Box<Puppet>, Strings) {
    let (tell, told) = events::unbounded_channel();
    let (order, ordered) = mpsc::channel();
    (Box::new(Puppet { events: tell, orders: ordered, slow_to_prepare }), Strings { events: told, orders: order })
}

impl Strings {
    pub(crate) async fn next(&mut self) -> Event {
        let event = tokio::time::timeout(PATIENCE, self.events.recv()).await;
        event.expect("the evaluator was not called").expect("the evaluator was dropped")
    }

    pub(crate) async fn evaluating(&mut self) -> Schedule {
        match self.next().await {
            Event::Evaluating { thread, schedule, .. } => {
                assert_eq!(thread, "evaluator", "every evaluation runs on the one thread");
                schedule
            }
            other => panic!("expected an evaluation, not {other:?}"),
        }
    }

    pub(crate) fn order(&self, order: Order) {
        self.orders.send(order).expect("the evaluator exists");
    }
}

impl Puppet {
    fn tell(&self, event: Event) {
        // Fails if the test has ended already.
        let _ = self.events.send(event);
    }

    fn obey(&self, cancel: &CancelToken) -> Result<(), EvaluateError> {
        match self.orders.recv_timeout(PATIENCE).expect("an order comes") {
            Order::Finish => Ok(()),
            Order::Error(error) => Err(error),
            Order::Panic(message) => panic!("{message}"),
            Order::Work => {
                // One turn is one denoising step.
                while !cancel.is_cancelled() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                self.tell(Event::Cancelled);
                Err(EvaluateError::Cancelled)
            }
        }
    }
}

impl Evaluate for Puppet {
    fn declaration(&self) -> Declaration {
        Declaration {
            name: "puppet".into(),
            device: "none".into(),
            software: "test 1".into(),
            model: "toy".into(),
            fingerprint: "f00d".into(),
            layout: Layout::clone(&layout()),
            forecast: false,
            guidance_decisions: false,
            profiles: true,
            grids: true,
            memory_bytes: 0,
            labels: Default::default(),
            metrics: vec![MetricDeclaration {
                name: "clip_score".into(),
                direction: Direction::Maximize,
                unit: "1".into(),
                description: String::new(),
            }],
            cost: None,
        }
    }

    fn prepare(&mut self, calibration: &Calibration, cancel: &CancelToken) -> Result<(), EvaluateError> {
        self.tell(Event::Preparing(calibration.prompts[0].text.clone()));
        if self.slow_to_prepare { self.obey(cancel) } else { Ok(()) }
    }

    fn evaluate(&mut self, task: Task<'_>, cancel: &CancelToken) -> Result<Measurement, EvaluateError> {
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        let Task { schedule, prompts, profile: wanted } = task;
        self.tell(Event::Evaluating { thread, schedule: schedule.clone(), prompts, profile: wanted });
        self.obey(cancel).map(|()| Measurement { profile: wanted.then(profile), ..measurement() })
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        self.tell(Event::Dropped);
    }
}
