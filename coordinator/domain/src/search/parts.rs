//! The parts of the search that a benchmark can leave out to measure what they add.

/// Which parts of the search are used. Searches use all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// Anything but random schedules.
    pub search: bool,
    /// Operators that know the structure of schedules, chosen by credit; otherwise four-point crossover and bit flips.
    pub operators: bool,
    /// Parents from the archive, by gaps and contribution, and by tournament; otherwise drawn evenly from the population.
    pub selection: bool,
    /// Schedules planned with an error model.
    pub planning: bool,
}

impl Default for Parts {
    fn default() -> Self {
        Self { search: true, operators: true, selection: true, planning: true }
    }
}
