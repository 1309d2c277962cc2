//! The model on its device: loaded on a thread of its own, which then draws what lies on the desk.
//!
//! Knows nothing of HTTP: the server asks over connections, a batch of prompts from a file.

use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use super::desk::{Desk, Order};
use super::device::Device;
use super::embeddings::Embeddings;
use super::limits;
use super::meters::Meters;
use super::plan::Plan;
use super::queue::Bounds;
use super::refusal::Refusal;
use super::request::Wanted;
use super::run::{Defaults, Scene};
use crate::evaluator::device::DeviceChoice;
use crate::evaluator::pipeline::Pipeline;
use crate::evaluator::threads;
use crate::files::ModelError;

/// How the model works.
#[derive(Debug, Clone)]
pub struct StudioOptions {
    /// The model's name in the API; `None`: that of its folder.
    pub name: Option<String>,
    /// The schedule to run; `None`: none.
    pub plan: Option<Plan>,
    /// Settings of requests that do not give them.
    pub defaults: Defaults,
    /// The device that the model is on.
    pub device: DeviceChoice,
    /// Bytes that a run may take; `None`: what is free after loading, if the device tells.
    pub memory: Option<u64>,
    /// Most pictures of a batch.
    pub batch: usize,
    /// How long an idle device waits for more pictures of a kind.
    pub gather: Duration,
    /// Most pictures that wait.
    pub queue: usize,
    /// Most pictures of one user that wait.
    pub each: usize,
    /// Bytes of encoded texts to keep.
    pub embeddings: u64,
}

/// Why a model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StudioError {
    /// The model cannot be loaded.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The schedule is for another model.
    #[error("the schedule is for a model with layout {found}, but this model has {expected}")]
    Layout {
        /// The model's layout.
        expected: String,
        /// The schedule's layout.
        found: String,
    },
    /// The model cannot run as the options say.
    #[error("the first picture cannot be drawn: {0}")]
    FirstPicture(String),
    /// The thread of the device cannot be started, or has ended.
    #[error("the thread of the device: {0}")]
    Thread(String),
}

/// What the device's thread and those who ask share.
pub(super) struct Studio {
    pub(super) desk: Arc<Desk>,
    pub(super) meters: Arc<Meters>,
    /// Set when the model is loaded and has drawn its first picture.
    pub(super) scene: OnceLock<Scene>,
}

/// The device's thread.
pub(super) struct Painter {
    pub(super) studio: Arc<Studio>,
    thread: JoinHandle<()>,
    loaded: Option<oneshot::Receiver<Result<(), StudioError>>>,
    /// Closed when the thread ends.
    ended: oneshot::Receiver<()>,
}

impl Painter {
    /// Starts the thread, which loads the model.
    pub(super) fn start(
        options: StudioOptions,
        load: impl FnOnce() -> Result<Pipeline, ModelError> + Send + 'static,
    ) -> Result<Self, StudioError> {
        let meters = Arc::new(Meters::default());
        let bounds = Bounds { all: options.queue, each: options.each, batch: options.batch };
        let desk = Arc::new(Desk::new(bounds, options.gather, meters.clone()));
        let studio = Arc::new(Studio { desk, meters, scene: OnceLock::new() });
        let (tell, loaded) = oneshot::channel();
        let (alive, ended) = oneshot::channel::<()>();
        let shared = studio.clone();
        let thread = std::thread::Builder::new().name("device".into()).stack_size(8 << 20).spawn(move || {
            let _alive = alive;
            own_device(options, &shared, load, tell);
        });
        let thread = thread.map_err(|e| StudioError::Thread(e.to_string()))?;
        Ok(Self { studio, thread, loaded: Some(loaded), ended })
    }

    /// Waits until the model has drawn its first picture.
    pub(super) async fn ready(&mut self) -> Result<(), StudioError> {
        match self.loaded.take() {
            Some(loaded) => loaded.await.unwrap_or_else(|_| Err(StudioError::Thread("it panicked".into()))),
            None => Ok(()),
        }
    }

    /// Returns when the thread has ended by itself, which it should not.
    pub(super) async fn failed(&mut self) -> StudioError {
        // Nothing is ever sent.
        let _ = (&mut self.ended).await;
        StudioError::Thread("it ended".into())
    }

    /// Ends the thread between two steps, and answers what waits.
    pub(super) async fn stop(self) {
        self.studio.desk.close();
        // An error is a panic, which `failed` tells.
        let _ = tokio::task::spawn_blocking(move || self.thread.join()).await;
    }
}

/// What the device's thread does from beginning to end.
fn own_device(
    options: StudioOptions,
    studio: &Studio,
    load: impl FnOnce() -> Result<Pipeline, ModelError>,
    tell: oneshot::Sender<Result<(), StudioError>>,
) {
    threads::compute_here();
    let embeddings = Embeddings::new(options.embeddings);
    let device = load().map_err(StudioError::from).and_then(|pipeline| {
        let (pipeline, scene) = prepare(options, pipeline)?;
        let mut device = Device::new(studio.desk.clone(), pipeline, embeddings, studio.meters.clone());
        draw_first(&mut device, studio, &scene)?;
        Ok((device, scene))
    });
    match device {
        Ok((device, scene)) => {
            // Set once, here.
            let _ = studio.scene.set(scene);
            // The other side has gone if the server was told to stop meanwhile.
            let _ = tell.send(Ok(()));
            device.work();
        }
        Err(error) => {
            let _ = tell.send(Err(error));
        }
    }
}

/// The model with the schedule's grid, and what requests need to know of both.
fn prepare(options: StudioOptions, pipeline: Pipeline) -> Result<(Arc<Pipeline>, Scene), StudioError> {
    let plan = options.plan.map(Arc::new);
    if let Some(plan) = &plan {
        let (found, expected) = (plan.schedule.layout(), pipeline.layout());
        if found != expected {
            return Err(StudioError::Layout { expected: expected.to_string(), found: found.to_string() });
        }
        pipeline.sample_on(plan.grid.as_slice())?;
    }
    let free = || Some(options.device.free_memory()? + pipeline.weight_bytes());
    let memory = options.memory.or_else(free);
    let name = options.name.unwrap_or_else(|| pipeline.folder().name());
    let pipeline = Arc::new(pipeline);
    Ok((pipeline.clone(), Scene::new(name, pipeline, plan, options.defaults, memory, options.batch)))
}

/// Draws one picture with the default settings, so that the first client does not wait for what is slow only once.
fn draw_first(device: &mut Device, studio: &Studio, scene: &Scene) -> Result<(), StudioError> {
    let failed = |refusal: Refusal| StudioError::FirstPicture(refusal.message().to_owned());
    let wanted = Wanted::plain();
    let run = Arc::new(scene.run(&wanted).map_err(failed)?);
    let mut ticket = studio.desk.submit(Order {
        user: String::new(),
        run,
        prompt: wanted.prompt.into(),
        negative: wanted.negative.into(),
        seeds: vec![0],
        patience: limits::LONGEST,
    });
    let ticket = ticket.as_mut().map_err(|refusal| failed(refusal.clone()))?;
    let jobs = studio.desk.next().ok_or_else(|| StudioError::FirstPicture("the server is stopping".into()))?;
    device.draw(&jobs);
    match ticket.drawn() {
        Some(drawn) => drawn.result.map(drop).map_err(failed),
        None => Err(StudioError::FirstPicture("the device gave no answer".into())),
    }
}
