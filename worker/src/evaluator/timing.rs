//! Interleaves a candidate's batches with uncached ones, so that both run under the same conditions of the device.

/// One batch to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// A run of the candidate; its pictures are scored the first time only.
    Candidate {
        /// Index of the batch of prompts.
        batch: usize,
        /// Whether this is the candidate's first run on this batch.
        first: bool,
    },
    /// An uncached run, for its latency only.
    Baseline {
        /// Index of the batch of prompts.
        batch: usize,
    },
}

/// Splits prompts into batches `(first, count)`; the last one may be smaller.
pub fn batches(prompts: usize, batch: usize) -> Vec<(usize, usize)> {
    let batch = batch.max(1);
    (0..prompts).step_by(batch).map(|first| (first, batch.min(prompts - first))).collect()
}

/// Whether a batch is timed. A smaller last batch takes longer per image, so it is timed only if it is the only one.
pub fn is_timed(batches: &[(usize, usize)], batch: usize) -> bool {
    batches[batch].1 == batches[0].1
}

/// Spreads `repeats` uncached turns evenly between the candidate's. If there are more repeats than timed batches, the
/// candidate's batches run again for their latency, so that both sides have as many samples.
pub fn turns(batches: &[(usize, usize)], repeats: usize) -> Vec<Turn> {
    let timed: Vec<usize> = (0..batches.len()).filter(|&batch| is_timed(batches, batch)).collect();
    let repeats = repeats.max(1);
    let again = repeats.saturating_sub(timed.len());
    let mut turns: Vec<Turn> = (0..batches.len()).map(|batch| Turn::Candidate { batch, first: true }).collect();
    turns.extend((0..again).map(|i| Turn::Candidate { batch: timed[i % timed.len()], first: false }));
    let candidates = turns.len();
    // Uncached turn i comes after a fraction (i + 1/2) / repeats of the candidate's turns.
    for i in (0..repeats).rev() {
        let after = ((2 * i + 1) * candidates + repeats) / (2 * repeats);
        turns.insert(after.min(candidates), Turn::Baseline { batch: timed[i % timed.len()] });
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(prompts: usize, batch: usize, repeats: usize) -> String {
        turns(&batches(prompts, batch), repeats)
            .into_iter()
            .map(|turn| match turn {
                Turn::Candidate { first: true, .. } => 'C',
                Turn::Candidate { .. } => 'c',
                Turn::Baseline { .. } => 'b',
            })
            .collect()
    }

    #[test]
    fn uncached_turns_stand_between_the_candidates() {
        assert_eq!(shown(8, 8, 1), "Cb");
        assert_eq!(shown(32, 8, 1), "CCbCC");
        assert_eq!(shown(32, 8, 2), "CbCCbC");
        assert_eq!(shown(32, 8, 4), "CbCbCbCb");
        assert_eq!(shown(8, 8, 3), "Cbcbcb");
        assert_eq!(shown(20, 8, 3), "CbCbCbc");
    }

    #[test]
    fn a_smaller_last_batch_is_scored_but_not_timed_unless_alone() {
        let cut = batches(20, 8);
        assert_eq!(cut, [(0, 8), (8, 8), (16, 4)]);
        assert!(is_timed(&cut, 1) && !is_timed(&cut, 2));
        assert!(is_timed(&batches(3, 8), 0));
        for turn in turns(&cut, 5) {
            if let Turn::Baseline { batch } | Turn::Candidate { batch, first: false } = turn {
                assert!(is_timed(&cut, batch), "{turn:?}");
            }
        }
    }
}
