//! Draws many prompts without clients: as many at once as fill the device's batches, each answered as it is done.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::desk::Order;
use super::refusal::Refusal;
use super::request::Wanted;
use super::studio::{Painter, StudioError, StudioOptions};
use crate::evaluator::pipeline::Pipeline;
use crate::files::ModelError;
use crate::picture::Picture;

/// Nobody waits.
const PATIENCE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// One picture to draw.
#[derive(Debug, Clone, PartialEq)]
pub struct Sketch {
    /// Its number, which comes back with the picture.
    pub number: usize,
    /// The prompt.
    pub prompt: String,
    /// The negative prompt.
    pub negative: String,
    /// The seed of its noise.
    pub seed: u64,
    /// Height and width in pixels; `None`: those of the schedule's measurement, or the native ones.
    pub size: Option<(u32, u32)>,
    /// Denoising steps.
    pub steps: Option<u32>,
    /// Guidance scale.
    pub guidance: Option<f64>,
}

/// A sketch that is done.
#[derive(Debug)]
pub struct Finished {
    /// Its number.
    pub number: usize,
    /// The picture with the id of its schedule (`none`: uncached), or why there is none.
    pub picture: Result<(Picture, String), String>,
}

/// A loaded model that draws sketches.
pub struct Series {
    painter: Painter,
    running: JoinSet<Finished>,
    /// Most sketches at once.
    window: usize,
}

impl Series {
    /// Loads the model. At most as many sketches are drawn at once as the queue has places.
    ///
    /// # Errors
    ///
    /// If the model or the schedule cannot be used.
    pub async fn open(
        options: StudioOptions,
        load: impl FnOnce() -> Result<Pipeline, ModelError> + Send + 'static,
    ) -> Result<Self, StudioError> {
        let window = options.queue.min(options.each).max(1);
        let mut painter = Painter::start(options, load)?;
        painter.ready().await?;
        Ok(Self { painter, running: JoinSet::new(), window })
    }

    /// Whether another sketch may be begun.
    pub fn has_room(&self) -> bool {
        self.running.len() < self.window
    }

    /// Begins a sketch.
    pub fn begin(&mut self, sketch: Sketch) {
        let Sketch { number, seed, .. } = sketch;
        let ticket = self.order(sketch);
        self.running.spawn(async move {
            let picture = async {
                let (mut ticket, schedule) = ticket?;
                let drawn = ticket.next().await.ok_or_else(|| Refusal::failed("the device is gone"))?;
                Ok((drawn.result?, schedule))
            };
            let picture: Result<_, Refusal> = picture.await;
            Finished { number, picture: picture.map_err(|refusal| format!("seed {seed}: {}", refusal.message())) }
        });
    }

    fn order(&self, sketch: Sketch) -> Result<(super::desk::Ticket, String), Refusal> {
        let studio = &self.painter.studio;
        let scene = studio.scene.get().ok_or_else(|| Refusal::failed("the model is not loaded"))?;
        let Sketch { prompt, negative, seed, size, steps, guidance, .. } = sketch;
        let wanted = Wanted { prompt, negative, size, steps, guidance, ..Wanted::plain() };
        let run = Arc::new(scene.run(&wanted)?);
        let schedule = run.told.schedule.clone();
        let order = Order {
            user: String::new(),
            run,
            prompt: wanted.prompt.into(),
            negative: wanted.negative.into(),
            seeds: vec![seed],
            patience: PATIENCE,
        };
        Ok((studio.desk.submit(order)?, schedule))
    }

    /// The next sketch that is done; `None` if none has been begun.
    pub async fn next(&mut self) -> Option<Finished> {
        loop {
            match self.running.join_next().await? {
                Ok(finished) => return Some(finished),
                // A task that panicked; its sketch is drawn in the next run.
                Err(error) => tracing::error!(%error, "a sketch is lost"),
            }
        }
    }

    /// Ends the device's thread, between two steps.
    pub async fn stop(self) {
        drop(self.running);
        self.painter.stop().await;
    }
}
