//! What a store has lost, in numbers.

use std::fmt;

/// How many records of the kinds that people ask about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Holding {
    /// Of all kinds.
    pub records: u64,
    /// Searches.
    pub searches: u64,
    /// Candidates.
    pub candidates: u64,
    /// Results.
    pub evaluations: u64,
    /// Results with thumbnails.
    pub pictures: u64,
}

/// Such as "688 evaluations, 698 candidates, 3 searches".
impl fmt::Display for Holding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} evaluations, {} candidates, {} searches", self.evaluations, self.candidates, self.searches)
    }
}

/// How what is there differs from what was acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Loss {
    /// What was acknowledged.
    pub acknowledged: Holding,
    /// What is there.
    pub found: Holding,
    /// How many of the last writes are missing; 0: what is missing or changed is from before.
    pub writes: u64,
}

impl Loss {
    /// Each kind with the number that was acknowledged and the number that is there.
    fn kinds(&self) -> [(&'static str, u64, u64); 5] {
        let (a, f) = (self.acknowledged, self.found);
        [
            ("evaluations", a.evaluations, f.evaluations),
            ("candidates", a.candidates, f.candidates),
            ("searches", a.searches, f.searches),
            ("thumbnails", a.pictures, f.pictures),
            ("records in all", a.records, f.records),
        ]
    }
}

/// Such as "12 of 700 evaluations, 14 of 712 candidates, 27 of 1431 records in all".
impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missing = self.kinds().into_iter().filter(|(_, acknowledged, found)| acknowledged > found);
        let missing =
            missing.map(|(kind, acknowledged, found)| format!("{} of {acknowledged} {kind}", acknowledged - found));
        // What was removed is there again.
        let back = self.kinds().into_iter().filter(|(_, acknowledged, found)| found > acknowledged);
        let back =
            back.map(|(kind, acknowledged, found)| format!("{kind}: {} more than acknowledged", found - acknowledged));
        let told: Vec<String> = missing.chain(back).collect();
        match (&told[..], self.writes) {
            ([], 0) => write!(f, "some of its {} records are not as they were written", self.acknowledged.records),
            ([], writes) => write!(f, "the last {writes} writes, which changed records and added none"),
            (told, _) => f.write_str(&told.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_told_in_numbers() {
        let acknowledged = Holding { records: 1431, searches: 3, candidates: 712, evaluations: 700, pictures: 0 };
        let found = Holding { records: 1404, candidates: 698, evaluations: 688, ..acknowledged };
        let loss = Loss { acknowledged, found, writes: 2 };
        assert_eq!(loss.to_string(), "12 of 700 evaluations, 14 of 712 candidates, 27 of 1431 records in all");
        let back = Loss { acknowledged, found: Holding { searches: 4, ..acknowledged }, writes: 1 };
        assert_eq!(back.to_string(), "searches: 1 more than acknowledged");
        let same = Loss { acknowledged, found: acknowledged, writes: 2 };
        assert_eq!(same.to_string(), "the last 2 writes, which changed records and added none");
        let changed = Loss { writes: 0, ..same };
        assert_eq!(changed.to_string(), "some of its 1431 records are not as they were written");
    }
}
