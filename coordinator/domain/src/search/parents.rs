//! Chooses parents from the archive. Does not choose from the population: that is `population.rs`.

use evocache_proto::domain::CandidateId;

use crate::archive::{Archive, Member};
use crate::rng::Stream;

/// A front member drawn uniformly along a random objective, not uniformly among the members: members beside gaps are
/// chosen more often.
pub(super) fn spread(archive: &Archive, stream: &mut Stream) -> Option<CandidateId> {
    let members = archive.members();
    let (first, last) = (members.first()?, members.last()?);
    let objective = stream.below(first.score.values.len());
    let at = |m: &Member| m.score.values[objective];
    let feasible = first.score.is_feasible() && last.score.is_feasible();
    if first.score.values.len() == 2 && feasible {
        // Sorted by both objectives: ascending in the first, descending in the second.
        let sign = if objective == 0 { 1.0 } else { -1.0 };
        let (low, high) = (sign * at(first), sign * at(last));
        let target = low + (high - low) * stream.unit();
        let after = members.partition_point(|m| sign * at(m) < target).min(members.len() - 1);
        let before = after.saturating_sub(1);
        let nearer = |i: usize| (sign * at(&members[i]) - target).abs();
        return Some(members[if nearer(before) <= nearer(after) { before } else { after }].candidate);
    }
    let (low, high) = members.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), m| (l.min(at(m)), h.max(at(m))));
    let target = low + (high - low) * stream.unit();
    let nearest = members.iter().min_by(|a, b| (at(a) - target).abs().total_cmp(&(at(b) - target).abs()));
    nearest.map(|m| m.candidate)
}

/// Of two uniformly drawn members, the one with the larger hypervolume contribution; with other than two objectives,
/// the first.
pub(super) fn contribution(archive: &Archive, stream: &mut Stream) -> Option<CandidateId> {
    let members = archive.members();
    let (a, b) = (stream.below(members.len()), stream.below(members.len()));
    let better = if alone(members, a) >= alone(members, b) { a } else { b };
    members.get(better).map(|m| m.candidate)
}

/// The area that only this member of a sorted front dominates, up to the reference point 1; 0 if it is infeasible or
/// the number of objectives is not two.
fn alone(members: &[Box<Member>], i: usize) -> f64 {
    let Some(member) = members.get(i).filter(|m| m.score.is_feasible() && m.score.losses.len() == 2) else {
        return 0.0;
    };
    let above = i.checked_sub(1).map_or(1.0, |before| members[before].score.losses[1]);
    let right = members.get(i + 1).map_or(1.0, |after| after.score.losses[0]);
    (right - member.score.losses[0]).max(0.0) * (above - member.score.losses[1]).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pareto::{Point, Score};

    fn front(points: &[[f64; 2]]) -> Archive {
        let mut archive = Archive::new();
        for (i, &point) in points.iter().enumerate() {
            let point = Point::from(point);
            archive.insert(CandidateId(i as u64), Score { values: point, violation: 0.0, losses: point });
        }
        archive
    }

    fn counts(points: &[[f64; 2]], choose: impl Fn(&Archive, &mut Stream) -> Option<CandidateId>) -> Vec<usize> {
        let archive = front(points);
        let mut stream = Stream::new(1, "test", 0);
        let mut counts = vec![0; points.len()];
        for _ in 0..4000 {
            counts[choose(&archive, &mut stream).unwrap().0 as usize] += 1;
        }
        counts
    }

    #[test]
    fn members_beside_gaps_are_chosen_more_often() {
        let line = [[0.0, 1.0], [0.1, 0.9], [0.2, 0.8], [0.9, 0.1], [1.0, 0.0]];
        let even = counts(&line, spread);
        assert!(even[2] > 2 * even[1] && even[3] > 2 * even[4], "{even:?}");
    }

    #[test]
    fn members_that_contribute_more_are_chosen_more_often() {
        let bent = [[0.1, 0.8], [0.3, 0.3], [0.31, 0.29], [0.8, 0.1]];
        let chosen = counts(&bent, contribution);
        assert!(chosen[0].min(chosen[3]) > 3 * chosen[2] && chosen[1] > chosen[2], "{chosen:?}");
        assert!(alone(front(&bent).members(), 0) - 0.2 * 0.2 < 1e-12);
        assert_eq!(contribution(&Archive::new(), &mut Stream::new(1, "test", 0)), None);
        assert_eq!(spread(&Archive::new(), &mut Stream::new(1, "test", 0)), None);
    }
}
