//! Resamples a genome to another step count by relative time.
//!
//! Copying step `round(t · from / to)` would drop some computed steps and double others. Instead, each slot keeps its
//! *number of computed steps up to each relative time*: with computed steps `s_0 < s_1 < …` of `from`,
//! `G` is the line through `(s_j, j)`, closed by `(from, number computed)`; target step `t` computes when
//! `floor(G(t · from / to) · to / from)` grows. So
//!
//! - the computed share, in total and up to each relative time, changes by less than one step;
//! - all-compute stays all-compute, and "every n-th" stays "every n-th", because `G` is straight for both;
//! - slots with equal patterns keep equal patterns, so whole-step schedules remain whole-step;
//! - step 0 computes.
//!
//! A step that is not computed forecasts if any source step that it covers does. A step has the guidance decision of the
//! first source step that it covers.

use evocache_proto::domain::Decision;

use super::genome::{Genome, Space};

pub(super) fn resample(space: &Space, genome: &Genome, steps: u32) -> Genome {
    let (from, to) = (genome.steps(), steps as usize);
    if from == to {
        return genome.clone();
    }
    let mut target = Genome::from_fn(space, steps, |_, _| Decision::Compute);
    for slot in 0..genome.slots() {
        let mut computed: Vec<usize> = (0..from).filter(|&s| s == 0 || genome.computes(s, slot)).collect();
        let count = computed.len();
        computed.push(from);
        let (mut j, mut before) = (0, None);
        for t in 0..to {
            while j + 1 < count && computed[j + 1] * to <= t * from {
                j += 1;
            }
            let gap = computed[j + 1] - computed[j];
            // floor(G(t · from / to) · to / from), in integers.
            let done = (j * to * gap + t * from - computed[j] * to) / (gap * from);
            if before == Some(done) {
                let covered = t * from / to..((t + 1) * from).div_ceil(to);
                let forecast = covered.into_iter().any(|s| genome.at(s, slot) == Decision::Forecast);
                target.set(t, slot, if forecast { Decision::Forecast } else { Decision::Reuse });
            }
            before = Some(done);
        }
    }
    for t in 0..to {
        target.set_guidance(t, genome.guidance(t * from / to));
    }
    target
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use evocache_proto::domain::{BlockGroup, Component, Layout};
    use proptest::prelude::*;

    use super::*;

    fn space() -> Space {
        let group = BlockGroup { name: "block".into(), count: 1, components: vec![Component::new("ff")] };
        Space::new(Arc::new(Layout::new(vec![group]).unwrap()), &[20, 12, 10], true)
    }

    fn move_row(row: &str, steps: u32) -> String {
        let space = space();
        let decide = |step: usize, _| Decision::from_letter(row.as_bytes()[step].into()).unwrap();
        let genome = Genome::from_fn(&space, row.len() as u32, decide);
        let moved = resample(&space, &genome, steps);
        (0..moved.steps()).map(|step| moved.at(step, 0).letter()).collect()
    }

    #[test]
    fn patterns_are_preserved() {
        assert_eq!(move_row("CCCCCCCCCC", 20), "C".repeat(20));
        assert_eq!(move_row(&"C".repeat(20), 12), "C".repeat(12));
        assert_eq!(move_row("CRCRCRCRCR", 20), "CR".repeat(10));
        assert_eq!(move_row(&"CR".repeat(10), 10), "CRCRCRCRCR");
        assert_eq!(move_row("CRRRRRRRRR", 20), "CRRRRRRRRRCRRRRRRRRR");
        assert_eq!(move_row("CCFFCRCRRC", 5), "CFCRR");
    }

    proptest! {
        #[test]
        fn the_computed_share_is_preserved(bits in proptest::collection::vec(any::<bool>(), 2..60), to in 2usize..60) {
            let row: String = bits.iter().enumerate().map(|(i, &b)| if i == 0 || b { 'C' } else { 'R' }).collect();
            let moved = move_row(&row, to as u32);
            let count = |row: &str| row.bytes().filter(|&b| b == b'C').count();
            let wanted = count(&row) as f64 * to as f64 / row.len() as f64;
            prop_assert!(moved.starts_with('C'));
            prop_assert!((count(&moved) as f64 - wanted).abs() < 1.0 + 1e-9, "{} -> {}", row, moved);
        }
    }
}
