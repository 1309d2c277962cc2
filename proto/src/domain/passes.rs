//! Schedules with guidance decisions: which passes run, and how that is packed.

use super::{GuidanceDecision, Pass, Schedule, ScheduleError};

impl Schedule {
    /// The schedule with a guidance decision per step. Step 0 always runs both passes.
    #[must_use]
    pub fn with_guidance(mut self, mut decide: impl FnMut(u32) -> GuidanceDecision) -> Self {
        let decisions: Box<[_]> =
            std::iter::once(GuidanceDecision::Both).chain((1..self.steps).map(&mut decide)).collect();
        // Without such decisions a schedule is the same as before there were any: same bytes, same id.
        let all_both = decisions.iter().all(|&decision| decision == GuidanceDecision::Both);
        self.guidance = if all_both { Box::default() } else { decisions };
        self
    }

    /// The schedule with the same reuse, in which every step runs both passes.
    #[must_use]
    pub fn without_guidance_decisions(self) -> Self {
        self.with_guidance(|_| GuidanceDecision::Both)
    }

    /// The schedule with the packed guidance decisions that [`packed_guidance`](Self::packed_guidance) gives.
    pub fn with_packed_guidance(self, packed: &[u8]) -> Result<Self, ScheduleError> {
        if packed.is_empty() {
            return Ok(self.without_guidance_decisions());
        }
        let (steps, expected) = (self.steps, (self.steps as usize).div_ceil(4));
        if packed.len() != expected {
            return Err(ScheduleError::GuidanceLength { steps, expected, found: packed.len() });
        }
        let at = |step: usize| GuidanceDecision::from_bits(packed[step / 4] >> (2 * (step % 4)) & 3);
        let mut decisions = Vec::with_capacity(steps as usize);
        for step in 0..steps as usize {
            decisions.push(at(step).ok_or(ScheduleError::GuidanceBits(step / 4))?);
        }
        if (steps as usize..expected * 4).any(|step| at(step) != Some(GuidanceDecision::Both)) {
            return Err(ScheduleError::GuidanceBits(expected - 1));
        }
        if decisions[0] != GuidanceDecision::Both {
            return Err(ScheduleError::GuidanceFirstStep);
        }
        Ok(self.with_guidance(|step| decisions[step as usize]))
    }

    /// The guidance decisions, two bits each: step `i` occupies bits `2 * (i % 4)` of byte `i / 4`. Empty if every step
    /// runs both passes.
    pub fn packed_guidance(&self) -> Vec<u8> {
        let mut packed = vec![0u8; self.guidance.len().div_ceil(4)];
        for (step, &decision) in self.guidance.iter().enumerate() {
            packed[step / 4] |= (decision as u8) << (2 * (step % 4));
        }
        packed
    }

    /// The guidance decision of a step.
    pub fn guidance(&self, step: u32) -> GuidanceDecision {
        self.guidance.get(step as usize).copied().unwrap_or_default()
    }

    /// Whether any step leaves a pass out. Such a schedule runs under classifier-free guidance only.
    pub fn decides_guidance(&self) -> bool {
        !self.guidance.is_empty()
    }

    /// The number of passes of a guided run: two for each step, less what the guidance decisions leave out.
    pub fn passes(&self) -> u32 {
        let alone = self.guidance.iter().filter(|&&decision| decision != GuidanceDecision::Both).count();
        2 * self.steps - alone as u32
    }

    /// Whether a pass runs at a step.
    pub fn runs(&self, step: u32, pass: Pass) -> bool {
        pass == Pass::Conditional || self.guidance(step) == GuidanceDecision::Both
    }

    /// Whether the difference of the passes of a step, which runs both, is used by a later one.
    pub fn keeps_difference(&self, step: u32) -> bool {
        let later = (step + 1..self.steps).map(|later| self.guidance(later));
        later.take_while(|&d| d != GuidanceDecision::Both).any(|d| d == GuidanceDecision::Kept)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::{Decision, Layout};

    fn guided(letters: &str) -> Schedule {
        let layout = Arc::new(Layout::pixart(1).unwrap());
        let letters: Vec<char> = letters.chars().collect();
        let decide = |step: u32| GuidanceDecision::from_letter(letters[step as usize]).unwrap();
        Schedule::all_compute(layout, letters.len() as u32).unwrap().with_guidance(decide)
    }

    #[test]
    fn a_schedule_without_guidance_decisions_is_what_it_was() {
        let plain = guided("BBBB");
        assert!(plain == Schedule::all_compute(plain.layout().clone(), 4).unwrap());
        assert!(!plain.decides_guidance() && plain.packed_guidance().is_empty() && plain.passes() == 8);
        let cut = guided("BBCK");
        assert_ne!(cut.id(), plain.id());
        assert_ne!(cut.id(), guided("BBKC").id());
        assert_eq!((cut.passes(), cut.packed_guidance()), (6, vec![0b10_01_00_00]));
        assert!(cut.runs(3, Pass::Conditional) && !cut.runs(3, Pass::Unconditional));
        assert_eq!([0, 1].map(|step| cut.keeps_difference(step)), [false, true]);
    }

    #[test]
    fn malformed_guidance_is_refused() {
        let plain = guided("BBBBB");
        let read = |packed: &[u8]| plain.clone().with_packed_guidance(packed);
        assert!(matches!(read(&[0]), Err(ScheduleError::GuidanceLength { expected: 2, found: 1, .. })));
        assert_eq!(read(&[0b11_00, 0]), Err(ScheduleError::GuidanceBits(0)));
        assert_eq!(read(&[0, 0b01_00]), Err(ScheduleError::GuidanceBits(1)));
        assert_eq!(read(&[0b01, 0]), Err(ScheduleError::GuidanceFirstStep));
        assert_eq!(read(&[0, 0]), Ok(plain.clone()));
    }

    proptest! {
        #[test]
        fn packing_is_reversible_and_reuse_is_untouched(
            steps in 1u32..40,
            letters in proptest::collection::vec(0u8..3, 40),
            reuse: u64,
        ) {
            let layout = Arc::new(Layout::flux(1, 1).unwrap());
            let decide = |step: u32, slot: usize| match reuse >> ((step as usize * 7 + slot) % 61) & 1 {
                0 => Decision::Compute,
                _ => Decision::Reuse,
            };
            let plain = Schedule::from_fn(layout, steps, decide).unwrap();
            let guided = plain.clone().with_guidance(|step| GuidanceDecision::from_bits(letters[step as usize]).unwrap());
            let again = plain.clone().with_packed_guidance(&guided.packed_guidance()).unwrap();
            prop_assert_eq!(again.id(), guided.id());
            prop_assert!(again == guided && guided.packed() == plain.packed());
            prop_assert_eq!(guided.decides_guidance(), guided.id() != plain.id());
        }
    }
}
