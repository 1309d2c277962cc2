//! The parts of the search that a benchmark can disable to measure what they contribute.

/// The enabled parts of the search. Only benchmarks and tests disable any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// Everything but random schedules.
    pub search: bool,
    /// Structure-aware operators, chosen by credit; otherwise four-point crossover and bit flips.
    pub operators: bool,
    /// Parents from the archive (by gaps and by contribution) and by tournament; otherwise uniformly from the
    /// population.
    pub selection: bool,
    /// Schedules planned with error models.
    pub planning: bool,
}

impl Default for Parts {
    fn default() -> Self {
        Self { search: true, operators: true, selection: true, planning: true }
    }
}
