//! The caching schedule: for every step and slot, compute, reuse or forecast.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::limits::{MAX_DECISIONS, MAX_STEPS};
use super::{GuidanceDecision, Layout};

/// What to do with one slot at one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Decision {
    /// Run the module.
    Compute = 0,
    /// Reuse the output stored last.
    Reuse = 1,
    /// Extrapolate the last two computed outputs linearly over the step index:
    /// `y1 + (y1 - y0) * (t - t1) / (t1 - t0)`.
    Forecast = 2,
}

impl Decision {
    /// `C`, `R` or `F`.
    pub fn letter(self) -> char {
        match self {
            Self::Compute => 'C',
            Self::Reuse => 'R',
            Self::Forecast => 'F',
        }
    }

    /// The decision for a letter.
    pub fn from_letter(letter: char) -> Option<Self> {
        match letter {
            'C' => Some(Self::Compute),
            'R' => Some(Self::Reuse),
            'F' => Some(Self::Forecast),
            _ => None,
        }
    }
}

/// Why something is not a schedule of a layout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// No step, or more than [`MAX_STEPS`].
    #[error("a schedule has 1 to {MAX_STEPS} steps, found {0}")]
    Steps(u32),
    /// More decisions than [`MAX_DECISIONS`].
    #[error("{steps} steps of {slots} slots exceed {MAX_DECISIONS} decisions")]
    Decisions {
        /// Steps of the shape.
        steps: u32,
        /// Slots of the shape.
        slots: usize,
    },
    /// The packed decisions have the wrong length.
    #[error("{steps} steps of {slots} slots take {expected} packed bytes, found {found}")]
    Length {
        /// Steps of the shape.
        steps: u32,
        /// Slots of the shape.
        slots: usize,
        /// Bytes that the shape needs.
        expected: usize,
        /// Bytes found.
        found: usize,
    },
    /// The invalid decision `11`, or bits after the last decision.
    #[error("packed byte {0} has bits that are not a decision")]
    Bits(usize),
    /// Step 0 does not compute the slot of this name.
    #[error("step 0 must compute every slot; {0} is not computed")]
    FirstStep(String),
    /// The packed guidance decisions have the wrong length.
    #[error("the guidance decisions of {steps} steps take {expected} packed bytes, found {found}")]
    GuidanceLength {
        /// Steps of the schedule.
        steps: u32,
        /// Bytes that the steps need.
        expected: usize,
        /// Bytes found.
        found: usize,
    },
    /// The invalid guidance decision `11`, or bits after the last step.
    #[error("packed byte {0} of the guidance has bits that are not a decision")]
    GuidanceBits(usize),
    /// Step 0 leaves out a pass.
    #[error("step 0 must run both passes of the guidance")]
    GuidanceFirstStep,
}

/// The SHA-256 of a version tag, the layout, the step count, the packed decisions and, if there are any, the guidance
/// decisions. Schedules with the same id do the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ScheduleId(pub [u8; 32]);

impl ScheduleId {
    /// The first 12 hexadecimal digits.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl fmt::Display for ScheduleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ScheduleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScheduleId({self})")
    }
}

impl FromStr for ScheduleId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.as_bytes();
        let mut id = [0u8; 32];
        if digits.len() != 64 {
            return Err(format!("a schedule id has 64 hexadecimal digits, found {}", digits.len()));
        }
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = std::str::from_utf8(pair)
                .ok()
                .and_then(|pair| u8::from_str_radix(pair, 16).ok())
                .ok_or_else(|| format!("'{text}' is not hexadecimal"))?;
        }
        Ok(Self(id))
    }
}

/// A caching schedule in canonical form; see [`Schedule::from_fn`].
///
/// Decision (step, slot) has index `step * slots + slot`; index `i` occupies bits `2 * (i % 4)` of packed byte `i / 4`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Schedule {
    pub(super) layout: Arc<Layout>,
    pub(super) steps: u32,
    pub(super) packed: Box<[u8]>,
    /// One for each step; empty if every step runs both passes.
    pub(super) guidance: Box<[GuidanceDecision]>,
}

impl Schedule {
    /// The schedule that computes everything: the uncached run.
    pub fn all_compute(layout: Arc<Layout>, steps: u32) -> Result<Self, ScheduleError> {
        Self::from_fn(layout, steps, |_, _| Decision::Compute)
    }

    /// Builds a schedule from a decision per (step, slot) and brings it into canonical form: step 0 computes, and
    /// decisions that cannot change the result are normalized, so that schedules that do the same have the same id.
    pub fn from_fn(
        layout: Arc<Layout>,
        steps: u32,
        mut decide: impl FnMut(u32, usize) -> Decision,
    ) -> Result<Self, ScheduleError> {
        let slots = check_shape(&layout, steps)?;
        let packed = vec![0u8; (steps as usize * slots).div_ceil(4)].into_boxed_slice();
        let mut schedule = Self { layout, steps, packed, guidance: Box::default() };
        for step in 1..steps {
            for slot in 0..slots {
                schedule.set(step, slot, decide(step, slot));
            }
        }
        schedule.make_canonical();
        Ok(schedule)
    }

    /// Reads packed decisions and brings them into canonical form. Refuses a wrong length, undefined bits, and a step 0
    /// that does not compute.
    pub fn from_packed(layout: Arc<Layout>, steps: u32, packed: &[u8]) -> Result<Self, ScheduleError> {
        let slots = check_shape(&layout, steps)?;
        let decisions = steps as usize * slots;
        let expected = decisions.div_ceil(4);
        if packed.len() != expected {
            return Err(ScheduleError::Length { steps, slots, expected, found: packed.len() });
        }
        // Byte by byte, because a coordinator may read a hundred thousand schedules when it starts.
        if let Some(byte) = packed.iter().position(|byte| byte & byte >> 1 & 0b0101_0101 != 0) {
            return Err(ScheduleError::Bits(byte));
        }
        let is_set = |i: &usize| packed[i / 4] >> (2 * (i % 4)) & 3 != 0;
        if (decisions..expected * 4).any(|i| is_set(&i)) {
            return Err(ScheduleError::Bits(expected - 1));
        }
        if let Some(slot) = (0..slots).find(is_set) {
            return Err(ScheduleError::FirstStep(layout.slot_name(slot)));
        }
        let mut schedule = Self { layout, steps, packed: packed.into(), guidance: Box::default() };
        schedule.make_canonical();
        Ok(schedule)
    }

    /// The layout that the slots belong to.
    #[inline]
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// Denoising steps.
    #[inline]
    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// Slots per step.
    #[inline]
    pub fn slots(&self) -> usize {
        self.layout.slots()
    }

    /// The packed decisions, two bits each; see [`Schedule`].
    #[inline]
    pub fn packed(&self) -> &[u8] {
        &self.packed
    }

    /// The decision for `slot` at `step`. Panics if either is out of range.
    #[inline]
    pub fn decision(&self, step: u32, slot: usize) -> Decision {
        assert!(step < self.steps && slot < self.slots(), "step {step}, slot {slot} is outside the schedule");
        let i = step as usize * self.slots() + slot;
        unpack(self.packed[i / 4], i % 4)
    }

    #[inline]
    pub(super) fn set(&mut self, step: u32, slot: usize, decision: Decision) {
        let i = step as usize * self.slots() + slot;
        let shift = 2 * (i % 4);
        let byte = &mut self.packed[i / 4];
        *byte = *byte & !(3 << shift) | (decision as u8) << shift;
    }

    /// All decisions, step-major.
    pub fn decisions(&self) -> impl Iterator<Item = Decision> + '_ {
        // Byte by byte, because searches read thousands of schedules.
        self.packed
            .iter()
            .flat_map(|&byte| (0..4).map(move |i| unpack(byte, i)))
            .take(self.steps as usize * self.slots())
    }

    /// The number of [`Decision::Compute`] decisions.
    pub fn computed(&self) -> usize {
        // Reuse and forecast have exactly one of two bits set; compute and padding have none.
        let cached: u32 = self.packed.iter().map(|byte| byte.count_ones()).sum();
        self.steps as usize * self.slots() - cached as usize
    }

    /// The share of decisions that the cache serves (reuse or forecast), in `[0, 1)`.
    pub fn cache_hit_rate(&self) -> f64 {
        let all = self.steps as usize * self.slots();
        (all - self.computed()) as f64 / all as f64
    }

    /// Whether any decision is a forecast.
    pub fn forecasts(&self) -> bool {
        // Only a forecast has the upper bit set.
        self.packed.iter().any(|byte| byte & 0b1010_1010 != 0)
    }

    /// The content id; see [`ScheduleId`].
    pub fn id(&self) -> ScheduleId {
        let mut hash = Sha256::new();
        hash.update(b"evocache.schedule.v1\0");
        hash.update(self.layout.to_string().as_bytes());
        hash.update([0]);
        hash.update(self.steps.to_le_bytes());
        hash.update(&self.packed);
        if self.decides_guidance() {
            hash.update(b"guidance\0");
            hash.update(self.packed_guidance());
        }
        ScheduleId(hash.finalize().into())
    }
}

/// The number of slots, if a schedule may have this many steps of them.
fn check_shape(layout: &Layout, steps: u32) -> Result<usize, ScheduleError> {
    if !(1..=MAX_STEPS).contains(&steps) {
        return Err(ScheduleError::Steps(steps));
    }
    let slots = layout.slots();
    if steps as usize * slots > MAX_DECISIONS {
        return Err(ScheduleError::Decisions { steps, slots });
    }
    Ok(slots)
}

/// The decision at index `i`, 0 to 3, of a packed byte.
#[inline]
fn unpack(byte: u8, i: usize) -> Decision {
    match byte >> (2 * i) & 3 {
        0 => Decision::Compute,
        1 => Decision::Reuse,
        _ => Decision::Forecast,
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hit = self.cache_hit_rate();
        write!(f, "Schedule({} × {} [{}], {:.1} % cached)", self.steps, self.slots(), self.id().short(), 100.0 * hit)
    }
}
