//! The stored outputs of every slot, and the exact number of bytes they take.
//!
//! Under a schedule with guidance decisions an output has two parts, one of each pass, and each is kept as long as a step
//! that runs its pass reads it. Under any other schedule it is one.

use candle_core::Tensor;
use evocache_proto::domain::{Pass, Schedule};

use super::guidance::Passes;
use crate::files::ModelError;

/// A stored output or part of one, the step that computed it, and the last step that reads it.
struct Stored {
    step: u32,
    until: u32,
    output: Tensor,
}

/// The parts of one pass that a later step reads; the newest of each slot comes last.
struct Lane {
    /// Last step that reads the output computed at (step, slot), step-major; `None` if no step does.
    retention: Vec<Option<u32>>,
    slots: Vec<Vec<Stored>>,
}

/// The outputs that a later step reads.
pub(super) struct Cache {
    /// Of whole outputs, or of their conditional parts.
    lane: Lane,
    /// Of the unconditional parts, if the schedule decides guidance.
    unconditional: Option<Lane>,
    held: u64,
    peak: u64,
}

fn bytes(tensor: &Tensor) -> u64 {
    (tensor.elem_count() * tensor.dtype().size_in_bytes()) as u64
}

impl Lane {
    fn new(schedule: &Schedule, pass: Pass) -> Self {
        let slots = std::iter::repeat_with(Vec::new).take(schedule.slots()).collect();
        Self { retention: schedule.retention_of(pass), slots }
    }

    fn until(&self, step: u32, slot: usize) -> Option<u32> {
        self.retention[step as usize * self.slots.len() + slot]
    }

    fn newest(&self, slot: usize) -> Result<&Tensor, ModelError> {
        self.slots[slot].last().map(|stored| &stored.output).ok_or_else(|| missing(slot))
    }

    fn forecast(&self, step: u32, slot: usize) -> Result<Tensor, ModelError> {
        match self.slots[slot].as_slice() {
            [.., y0, y1] => {
                let factor = f64::from(step - y1.step) / f64::from(y1.step - y0.step);
                Ok((&y1.output + ((&y1.output - &y0.output)? * factor)?)?)
            }
            // The unconditional pass may have computed once where the conditional one has twice.
            [only] => Ok(only.output.clone()),
            [] => Err(missing(slot)),
        }
    }
}

impl Cache {
    pub(super) fn new(schedule: &Schedule) -> Self {
        let unconditional = schedule.decides_guidance().then(|| Lane::new(schedule, Pass::Unconditional));
        Self { lane: Lane::new(schedule, Pass::Conditional), unconditional, held: 0, peak: 0 }
    }

    /// Stores a computed output, as far as a later step reads it.
    pub(super) fn store(&mut self, step: u32, slot: usize, output: &Tensor, passes: Passes) -> Result<(), ModelError> {
        let kept = self.lane.until(step, slot);
        let Some(lane) = self.unconditional.as_mut().filter(|_| passes == Passes::Both) else {
            if let Some(until) = kept {
                self.held += bytes(output);
                self.lane.slots[slot].push(Stored { step, until, output: output.clone() });
            }
            self.peak = self.peak.max(self.held);
            return Ok(());
        };
        let half = output.dim(0)? / 2;
        let parts = [(lane.until(step, slot), lane, 0), (kept, &mut self.lane, half)];
        for (until, lane, first) in parts {
            if let Some(until) = until {
                // A copy, because a view would hold the other part too.
                let output = output.narrow(0, first, half)?.force_contiguous()?;
                self.held += bytes(&output);
                lane.slots[slot].push(Stored { step, until, output });
            }
        }
        self.peak = self.peak.max(self.held);
        Ok(())
    }

    /// The newest output of a slot, for the passes that run.
    pub(super) fn newest(&self, slot: usize, passes: Passes) -> Result<Tensor, ModelError> {
        let conditional = self.lane.newest(slot)?;
        match &self.unconditional {
            Some(lane) if passes == Passes::Both => Ok(Tensor::cat(&[lane.newest(slot)?, conditional], 0)?),
            _ => Ok(conditional.clone()),
        }
    }

    /// Linear extrapolation of the last two outputs to `step`: `y1 + (y1 - y0) (t - t1) / (t1 - t0)`. A pass that has
    /// computed the slot only once reuses that output.
    pub(super) fn forecast(&self, step: u32, slot: usize, passes: Passes) -> Result<Tensor, ModelError> {
        let conditional = self.lane.forecast(step, slot)?;
        match &self.unconditional {
            Some(lane) if passes == Passes::Both => Ok(Tensor::cat(&[&lane.forecast(step, slot)?, &conditional], 0)?),
            _ => Ok(conditional),
        }
    }

    /// Drops the outputs of a slot that no later step reads.
    pub(super) fn release(&mut self, step: u32, slot: usize) {
        let held = &mut self.held;
        for lane in std::iter::once(&mut self.lane).chain(&mut self.unconditional) {
            lane.slots[slot].retain(|stored| {
                let keep = stored.until > step;
                if !keep {
                    *held -= bytes(&stored.output);
                }
                keep
            });
        }
    }

    /// Most bytes held at once.
    pub(super) fn peak(&self) -> u64 {
        self.peak
    }
}

fn missing(slot: usize) -> ModelError {
    ModelError::Input(format!("the schedule reads an output of slot {slot} that it does not keep; this is a bug"))
}
