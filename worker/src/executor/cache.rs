//! The stored outputs of every slot, and the exact number of bytes they take.

use candle_core::Tensor;
use evocache_proto::domain::Schedule;

use crate::files::ModelError;

/// A stored output, the step that computed it, and the last step that reads it.
struct Stored {
    step: u32,
    until: u32,
    output: Tensor,
}

/// The outputs that a later step reads; the newest of each slot comes last.
pub(super) struct Cache {
    /// Last step that reads the output computed at (step, slot), step-major; `None` if no step does.
    retention: Vec<Option<u32>>,
    slots: Vec<Vec<Stored>>,
    held: u64,
    peak: u64,
}

fn bytes(tensor: &Tensor) -> u64 {
    (tensor.elem_count() * tensor.dtype().size_in_bytes()) as u64
}

impl Cache {
    pub(super) fn new(schedule: &Schedule) -> Self {
        let slots = std::iter::repeat_with(Vec::new).take(schedule.slots()).collect();
        Self { retention: schedule.retention(), slots, held: 0, peak: 0 }
    }

    /// Stores a computed output if a later step reads it.
    pub(super) fn store(&mut self, step: u32, slot: usize, output: &Tensor) {
        if let Some(until) = self.retention[step as usize * self.slots.len() + slot] {
            self.slots[slot].push(Stored { step, until, output: output.clone() });
            self.held += bytes(output);
            self.peak = self.peak.max(self.held);
        }
    }

    /// The newest output of a slot.
    pub(super) fn newest(&self, slot: usize) -> Result<&Tensor, ModelError> {
        self.slots[slot].last().map(|stored| &stored.output).ok_or_else(|| missing(slot))
    }

    /// Linear extrapolation of the last two outputs to `step`: `y1 + (y1 - y0) (t - t1) / (t1 - t0)`.
    pub(super) fn forecast(&self, step: u32, slot: usize) -> Result<Tensor, ModelError> {
        let [.., y0, y1] = self.slots[slot].as_slice() else { return Err(missing(slot)) };
        let factor = f64::from(step - y1.step) / f64::from(y1.step - y0.step);
        Ok((&y1.output + ((&y1.output - &y0.output)? * factor)?)?)
    }

    /// Drops the outputs of a slot that no later step reads.
    pub(super) fn release(&mut self, step: u32, slot: usize) {
        let held = &mut self.held;
        self.slots[slot].retain(|stored| {
            let keep = stored.until > step;
            if !keep {
                *held -= bytes(&stored.output);
            }
            keep
        });
    }

    /// Most bytes held at once.
    pub(super) fn peak(&self) -> u64 {
        self.peak
    }
}

fn missing(slot: usize) -> ModelError {
    ModelError::Input(format!("the schedule reads an output of slot {slot} that it does not keep; this is a bug"))
}
