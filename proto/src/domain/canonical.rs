//! Which outputs a schedule reads: the retention of every computed output, and the canonical form that follows from it.

use super::{Decision, Pass, Schedule};

impl Schedule {
    /// Whether the slot's output is used at this step: always for a residual component; for one that feeds another,
    /// only if that one is computed.
    pub fn consumed(&self, step: u32, slot: usize) -> bool {
        self.layout().consumer(slot).is_none_or(|consumer| self.decision(step, consumer) == Decision::Compute)
    }

    /// For each (step, slot), step-major: the last later step that reads the conditional part of the output computed
    /// there, or `None` if it is not computed or never read again. A reuse reads the output computed last, a forecast the
    /// last two. An output must be kept until the slot has run at the given step, and no longer.
    pub fn retention(&self) -> Vec<Option<u32>> {
        self.retention_of(Pass::Conditional)
    }

    /// The same for the part of one pass, of which only the steps that run it compute and read.
    pub fn retention_of(&self, pass: Pass) -> Vec<Option<u32>> {
        let slots = self.slots();
        let mut last_read = vec![None; self.steps() as usize * slots];
        for slot in 0..slots {
            let (mut newest, mut older) = (0u32, None);
            for step in (1..self.steps()).filter(|&step| self.runs(step, pass)) {
                match self.decision(step, slot) {
                    Decision::Compute => (older, newest) = (Some(newest), step),
                    _ if !self.consumed(step, slot) => {}
                    Decision::Reuse => last_read[newest as usize * slots + slot] = Some(step),
                    Decision::Forecast => {
                        last_read[newest as usize * slots + slot] = Some(step);
                        if let Some(older) = older {
                            last_read[older as usize * slots + slot] = Some(step);
                        }
                    }
                }
            }
        }
        last_read
    }

    /// Normalizes decisions that cannot change the result:
    /// - a forecast with one stored output becomes a reuse;
    /// - where the output is not used, a forecast becomes a reuse, and so does a compute that is never read later.
    ///
    /// One sweep is enough: a removed compute was never read, so the sources of other decisions do not change. Guidance
    /// decisions change nothing here: the conditional pass runs at every step and reads whatever the other one does.
    pub(super) fn make_canonical(&mut self) {
        let slots = self.slots();
        // Fast path for the common case: without forecasts, and with every output in the residual stream, a schedule is
        // canonical already.
        let residual = (0..slots).all(|slot| self.layout().consumer(slot).is_none());
        if residual && self.packed.iter().all(|byte| byte & 0b1010_1010 == 0) {
            return;
        }
        let last_read = self.retention();
        for slot in 0..slots {
            let mut stored = 1u32;
            for step in 1..self.steps() {
                let decision = self.decision(step, slot);
                let unconsumed = !self.consumed(step, slot);
                let unread = last_read[step as usize * slots + slot].is_none();
                match decision {
                    Decision::Compute if unconsumed && unread => self.set(step, slot, Decision::Reuse),
                    Decision::Compute => stored += 1,
                    Decision::Forecast if unconsumed || stored < 2 => self.set(step, slot, Decision::Reuse),
                    Decision::Reuse | Decision::Forecast => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::Layout;

    fn schedule(layout: &Arc<Layout>, rows: &[&str]) -> Schedule {
        Schedule::from_fn(layout.clone(), rows[0].len() as u32, |step, slot| {
            Decision::from_letter(rows[slot].as_bytes()[step as usize].into()).unwrap()
        })
        .unwrap()
    }

    fn rows(schedule: &Schedule) -> Vec<String> {
        (0..schedule.slots())
            .map(|slot| (0..schedule.steps()).map(|step| schedule.decision(step, slot).letter()).collect())
            .collect()
    }

    #[test]
    fn a_forecast_from_one_output_is_a_reuse() {
        let layout = Arc::new(Layout::pixart(1).unwrap());
        let s = schedule(&layout, &["CFCF", "RRRR", "CCFF"]);
        assert_eq!(rows(&s), ["CRCF", "CRRR", "CCFF"]);
    }

    #[test]
    fn what_feeds_a_cached_projection_is_normalised_unless_it_is_read_later() {
        let layout = Arc::new(Layout::flux(1, 1).unwrap());
        // proj_out is reused at steps 1 and 3. The reuse at step 2 reads attn of step 1; nothing reads attn of step 3.
        let s = schedule(&layout, &["CCCC", "CCCC", "CCCC", "CCRC", "CFFC", "CRCR"]);
        assert_eq!(rows(&s), ["CCCC", "CCCC", "CCCC", "CCRR", "CRRR", "CRCR"]);
    }

    #[test]
    fn retention_names_the_last_reader() {
        let layout = Arc::new(Layout::pixart(1).unwrap());
        let s = schedule(&layout, &["CRRCFR", "CCCCCC", "CRCRRR"]);
        let last = s.retention();
        let of = |slot: usize| (0..6).map(|step| last[step * 3 + slot]).collect::<Vec<_>>();
        assert_eq!(of(0), [Some(4), None, None, Some(5), None, None]);
        assert_eq!(of(1), [None; 6]);
        assert_eq!(of(2), [Some(1), None, Some(5), None, None, None]);
    }

    /// The computed outputs that each used output is made of: what a schedule does.
    fn meaning(s: &Schedule) -> Vec<Vec<u32>> {
        let mut all = vec![];
        for slot in 0..s.slots() {
            let mut computed = vec![0];
            for step in 1..s.steps() {
                let decision = s.decision(step, slot);
                if decision == Decision::Compute {
                    computed.push(step);
                }
                let take = if decision == Decision::Forecast { 2 } else { 1 };
                if s.consumed(step, slot) {
                    all.push(computed[computed.len().saturating_sub(take)..].to_vec());
                }
            }
        }
        all
    }

    proptest! {
        #[test]
        fn canonical_form_is_idempotent_and_keeps_the_meaning(
            steps in 1u32..9,
            letters in proptest::collection::vec(0u8..3, 9 * 9),
        ) {
            let layout = Arc::new(Layout::flux(1, 2).unwrap());
            let slots = layout.slots();
            let pick = |step: u32, slot: usize| match letters[step as usize * slots + slot] {
                0 => Decision::Compute,
                1 => Decision::Reuse,
                _ => Decision::Forecast,
            };
            let mut raw = Schedule::all_compute(layout.clone(), steps).unwrap();
            for step in 1..steps {
                for slot in 0..slots {
                    raw.set(step, slot, pick(step, slot));
                }
            }
            let canonical = Schedule::from_fn(layout.clone(), steps, pick).unwrap();
            prop_assert_eq!(meaning(&raw), meaning(&canonical));
            let again = Schedule::from_packed(layout, steps, canonical.packed()).unwrap();
            prop_assert_eq!(again.id(), canonical.id());
            prop_assert!(canonical.computed() <= raw.computed());
        }
    }
}
