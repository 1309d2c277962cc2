//! What a store has lost, in numbers of records.

use std::fmt;

/// Numbers of records, by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Holding {
    /// Records of all kinds.
    pub records: u64,
    /// Searches.
    pub searches: u64,
    /// Candidates.
    pub candidates: u64,
    /// Evaluations.
    pub evaluations: u64,
    /// Evaluations with thumbnails.
    pub pictures: u64,
}

/// Such as "688 evaluations, 698 candidates, 3 searches".
impl fmt::Display for Holding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} evaluations, {} candidates, {} searches", self.evaluations, self.candidates, self.searches)
    }
}

/// The difference between what was acknowledged and what the store has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Loss {
    /// What was acknowledged.
    pub acknowledged: Holding,
    /// What the store has.
    pub found: Holding,
    /// Number of the last writes that are missing; 0: older records are missing or changed.
    pub writes: u64,
}

impl Loss {
    /// Each kind with the acknowledged and the found number.
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
        // Removed records have come back.
        let back = self.kinds().into_iter().filter(|(_, acknowledged, found)| found > acknowledged);
        let back =
            back.map(|(kind, acknowledged, found)| format!("{kind}: {} more than acknowledged", found - acknowledged));
        let parts: Vec<String> = missing.chain(back).collect();
        match (&parts[..], self.writes) {
            ([], 0) => write!(f, "some of its {} records are not as they were written", self.acknowledged.records),
            ([], writes) => write!(f, "the last {writes} writes, which changed records and added none"),
            (parts, _) => f.write_str(&parts.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_shown_in_numbers() {
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
