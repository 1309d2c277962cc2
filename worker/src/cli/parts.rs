//! Measures the parts of a denoising run, and from them the overhead of caching.
//!
//! An uncached run through [`Watched`] times every part. A schedule skips some of them; the time that its run takes
//! beyond the parts that it computes is the overhead of caching: storing, looking up and dropping outputs.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Tensor};
use evocache_proto::domain::{CostModel, Decision, Layout, Schedule, Slot};

use crate::evaluator::clock::Stopwatch;
use crate::files::ModelError;
use crate::files::weights::WeightSize;
use crate::models::block_model::{
    Activations, BlockModel, Conditioned, Conditioning, Geometry, GuidanceKind, LatentSize, State,
};

type Result<T> = std::result::Result<T, ModelError>;

/// Times of the parts of one run, in seconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Parts {
    /// Computing each slot, summed over all steps.
    pub(super) compute: Vec<f64>,
    /// Adding each slot's output to the residual stream, summed over all steps.
    pub(super) combine: Vec<f64>,
}

impl Parts {
    /// Seconds that an uncached run of `total` seconds with these parts would take without the parts that `schedule`
    /// skips.
    pub(super) fn without_what_is_cached(&self, total: f64, schedule: &Schedule) -> f64 {
        let steps = f64::from(schedule.steps());
        let saved = |slot: usize| {
            let left_out =
                |decide: &dyn Fn(u32) -> bool| (0..schedule.steps()).filter(|&step| decide(step)).count() as f64;
            let cached = left_out(&|step| schedule.decision(step, slot) != Decision::Compute);
            let unused =
                left_out(&|step| schedule.decision(step, slot) != Decision::Compute && !schedule.consumed(step, slot));
            (cached * self.compute[slot] + unused * self.combine[slot]) / steps
        };
        total - (0..self.compute.len()).map(saved).sum::<f64>()
    }
}

/// Wraps a model and times its parts. Valid on the CPU only, where the work is done when a call returns.
pub(super) struct Watched<'a> {
    model: &'a dyn BlockModel,
    parts: Mutex<Parts>,
}

impl<'a> Watched<'a> {
    pub(super) fn new(model: &'a dyn BlockModel) -> Self {
        let none = vec![0.0; model.layout().slots()];
        Self { model, parts: Mutex::new(Parts { compute: none.clone(), combine: none }) }
    }

    pub(super) fn parts(self) -> Parts {
        self.parts.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, add: impl FnOnce(&mut Parts)) {
        add(&mut self.parts.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl BlockModel for Watched<'_> {
    fn layout(&self) -> &Arc<Layout> {
        self.model.layout()
    }

    fn latent_channels(&self) -> usize {
        self.model.latent_channels()
    }

    fn guidance(&self) -> GuidanceKind {
        self.model.guidance()
    }

    fn image_tokens(&self, size: LatentSize) -> Result<usize> {
        self.model.image_tokens(size)
    }

    fn weight_size(&self) -> WeightSize {
        self.model.weight_size()
    }

    fn dtype(&self) -> DType {
        self.model.dtype()
    }

    fn cost(&self, geometry: &Geometry) -> CostModel {
        self.model.cost(geometry)
    }

    fn activations(&self, geometry: &Geometry) -> Activations {
        self.model.activations(geometry)
    }

    fn condition<'a>(&'a self, conditioning: &Conditioning) -> Result<Box<dyn Conditioned + 'a>> {
        Ok(Box::new(WatchedPrompts { watch: self, bound: self.model.condition(conditioning)? }))
    }
}

struct WatchedPrompts<'a> {
    watch: &'a Watched<'a>,
    bound: Box<dyn Conditioned + 'a>,
}

impl Conditioned for WatchedPrompts<'_> {
    fn prepare<'a>(&'a self, latents: &Tensor, timestep: f64) -> Result<Box<dyn State + 'a>> {
        Ok(Box::new(WatchedPass { watch: self.watch, pass: self.bound.prepare(latents, timestep)? }))
    }
}

struct WatchedPass<'a> {
    watch: &'a Watched<'a>,
    pass: Box<dyn State + 'a>,
}

impl WatchedPass<'_> {
    fn index(&self, slot: Slot) -> usize {
        let layout = self.watch.layout();
        (0..layout.slots()).find(|&index| layout.slot(index) == slot).unwrap_or(0)
    }
}

impl State for WatchedPass<'_> {
    fn run(&self, slot: Slot) -> Result<Tensor> {
        let stopwatch = Stopwatch::start();
        let output = self.pass.run(slot)?;
        let took = stopwatch.elapsed().as_secs_f64();
        self.watch.add(|parts| parts.compute[self.index(slot)] += took);
        Ok(output)
    }

    fn combine(&mut self, slot: Slot, output: &Tensor) -> Result<()> {
        let stopwatch = Stopwatch::start();
        self.pass.combine(slot, output)?;
        let took = stopwatch.elapsed().as_secs_f64();
        self.watch.add(|parts| parts.combine[self.index(slot)] += took);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Tensor> {
        self.pass.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SINGLE: [&str; 3] = ["single.0.attn", "single.0.proj_mlp", "single.0.proj_out"];

    #[test]
    fn what_is_cached_is_left_out_and_what_nobody_looks_at_is_not_even_put_back() {
        let layout = Arc::new(Layout::flux(1, 1).unwrap());
        assert_eq!((3..6).map(|slot| layout.slot_name(slot)).collect::<Vec<_>>(), SINGLE);
        let parts =
            Parts { compute: vec![1.0, 1.0, 1.0, 4.0, 8.0, 16.0], combine: vec![0.125, 0.125, 0.125, 0.5, 0.25, 1.0] };
        let schedule = |cached: &'static [usize]| {
            Schedule::from_fn(layout.clone(), 2, |step, slot| match step {
                1 if cached.contains(&slot) => Decision::Reuse,
                _ => Decision::Compute,
            })
            .unwrap()
        };
        let left = |cached: &'static [usize]| parts.without_what_is_cached(40.0, &schedule(cached));
        assert_eq!(left(&[]), 40.0);
        // Saves half of the steps of `attn`, whose output `proj_out` still reads.
        assert_eq!(left(&[3]), 38.0);
        // If `proj_out` is cached too, the outputs that it reads are not needed.
        assert_eq!(left(&[3, 4, 5]), 40.0 - (28.0 + 0.75) / 2.0);
    }
}
