//! The problems of a value in bounded space: the first ones in words, the others as a number.
//!
//! A message with a million wrong numbers thus gets a short error. Does not encode errors: that is the API's job.

use std::fmt;

/// The most problems kept in words.
const TOLD: usize = 8;
/// The most bytes of all of them together. gRPC sends errors in headers, of which clients read 8 KiB.
const TOLD_BYTES: usize = 2048;
/// The most bytes of a field's path.
const FIELD_BYTES: usize = 120;
/// The most bytes of one problem.
const PROBLEM_BYTES: usize = 600;

/// One invalid field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field, such as `sampling.steps[1]`.
    pub field: String,
    /// What is wrong, and what would be valid.
    pub problem: String,
}

impl Problem {
    /// A problem with a field. Long texts are cut.
    pub fn new(field: impl fmt::Display, problem: impl fmt::Display) -> Self {
        Self { field: shown(field, FIELD_BYTES), problem: shown(problem, PROBLEM_BYTES) }
    }

    /// The same problem with its path seen from the enclosing message.
    #[must_use]
    pub fn within(self, outer: &str) -> Self {
        Self::new(format_args!("{outer}.{}", self.field), self.problem)
    }

    fn bytes(&self) -> usize {
        self.field.len() + self.problem.len()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

/// The problems of a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems {
    told: Vec<Problem>,
    all: usize,
}

impl Problems {
    /// Adds a problem: in words while there is room, else to the count.
    pub fn add(&mut self, field: impl fmt::Display, problem: impl fmt::Display) {
        self.all += 1;
        // Once one was only counted, so are all later ones: those in words are the first, without a gap.
        if self.told.len() + 1 == self.all && self.told.len() < TOLD {
            let problem = Problem::new(field, problem);
            let bytes: usize = self.told.iter().map(Problem::bytes).sum();
            if bytes + problem.bytes() <= TOLD_BYTES {
                self.told.push(problem);
            }
        }
    }

    /// Adds a problem unless `good`.
    pub fn unless<P: fmt::Display>(&mut self, good: bool, field: impl fmt::Display, problem: impl FnOnce() -> P) {
        if !good {
            self.add(field, problem());
        }
    }

    /// Adds a problem if there are more than `most`. Returns whether there are not.
    pub fn at_most(&mut self, field: impl fmt::Display, found: usize, most: usize) -> bool {
        self.unless(found <= most, field, || format!("at most {most}, found {found}"));
        found <= most
    }

    /// Whether there are no problems.
    pub fn is_empty(&self) -> bool {
        self.all == 0
    }

    /// The problems in words.
    pub fn told(&self) -> &[Problem] {
        &self.told
    }

    /// The number of further problems.
    pub fn untold(&self) -> usize {
        self.all - self.told.len()
    }

    /// The same problems with their paths seen from the enclosing message.
    #[must_use]
    pub fn within(mut self, outer: &str) -> Self {
        self.told = self.told.into_iter().map(|problem| problem.within(outer)).collect();
        self
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self { told: vec![problem], all: 1 }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.told.iter().enumerate() {
            write!(f, "{}{problem}", if i == 0 { "" } else { "; " })?;
        }
        match self.untold() {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

/// Cuts a text to at most `most` bytes, at the end of a character.
pub fn shown(text: impl fmt::Display, most: usize) -> String {
    let mut text = text.to_string();
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most.saturating_sub(ELLIPSIS.len())));
        text.push_str(ELLIPSIS);
    }
    text
}

const ELLIPSIS: &str = "…";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_problems_are_told_as_a_few_and_a_number() {
        let mut problems = Problems::default();
        for i in 0..1_000_000 {
            problems.add(format_args!("rungs[{i}]"), "rungs ascend");
        }
        let text = problems.to_string();
        assert!(text.starts_with("rungs[0]: rungs ascend; rungs[1]: "), "{text}");
        assert!(text.ends_with("; and 999992 more"), "{text}");
        assert_eq!((problems.told().len(), problems.untold()), (8, 999_992));
    }

    #[test]
    fn long_texts_are_cut_where_a_character_ends() {
        let mut problems = Problems::default();
        for _ in 0..20 {
            problems.add("é".repeat(10_000), "ü".repeat(1_000_000));
        }
        let text = problems.to_string();
        assert!(text.len() < 2 * TOLD_BYTES && text.ends_with("; and 18 more"), "{} bytes", text.len());
        assert_eq!(shown("abcdef", 6), "abcdef");
        assert_eq!(shown("abcdefg", 6), "abc…");
        assert_eq!(shown("ééé", 5), "é…");
    }
}
