//! Tests of questions about the best schedule.

use proptest::prelude::*;

use super::*;

fn rating(id: u64, latency_ratio: f64, quality: f64) -> Rating {
    Rating {
        candidate: CandidateId(id),
        latency_ratio,
        latency_us: 1000.0 * latency_ratio,
        quality,
        baseline_quality: 0.8,
        cache_bytes: 100 * id,
    }
}

/// 0 is the uncached run, 3 is dominated by 2, 5 is the bend of the front.
fn ratings() -> Vec<Rating> {
    vec![
        rating(0, 1.0, 0.80),
        rating(1, 0.7, 0.79),
        rating(2, 0.5, 0.78),
        rating(3, 0.6, 0.70),
        rating(4, 0.2, 0.40),
        rating(5, 0.3, 0.75),
    ]
}

fn found(constraint: impl Into<Option<Constraint>>, preference: Preference) -> u64 {
    match best_rating(Direction::Maximize, &ratings(), constraint.into(), preference) {
        Answer::Found(CandidateId(id)) => id,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_constraint_means_what_it_says() {
    use Constraint as C;
    use Preference as P;
    assert_eq!(found(C::MaxLatencyRatio(0.55), P::BestQuality), 2);
    assert_eq!(found(C::MinSpeedup(2.0), P::BestQuality), 2);
    assert_eq!(found(C::MinSpeedup(2.1), P::BestQuality), 5);
    assert_eq!(found(C::MaxLatencyUs(250.0), P::BestQuality), 4);
    assert_eq!(found(C::MinQuality(0.78), P::Fastest), 2);
    assert_eq!(found(C::MinQualityRatio(0.98), P::Fastest), 1);
    assert_eq!(found(C::MaxCacheBytes(100), P::Fastest), 1);
}

#[test]
fn without_a_constraint_the_preference_alone_decides() {
    assert_eq!(found(None, Preference::Fastest), 4);
    assert_eq!(found(None, Preference::BestQuality), 0);
    assert_eq!(found(None, Preference::Knee), 5);
}

#[test]
fn the_knee_of_two_is_the_slower_and_of_one_is_that_one() {
    assert_eq!(found(Constraint::MaxLatencyRatio(0.3), Preference::Knee), 5);
    assert_eq!(found(Constraint::MaxLatencyRatio(0.2), Preference::Knee), 4);
}

#[test]
fn a_dominated_candidate_is_never_the_answer() {
    let two = [rating(1, 0.5, 0.8), rating(2, 0.5, 0.7)];
    for preference in [Preference::Fastest, Preference::BestQuality, Preference::Knee] {
        assert_eq!(best_rating(Direction::Maximize, &two, None, preference), Answer::Found(CandidateId(1)));
    }
}

#[test]
fn ties_go_to_less_memory_and_then_to_the_older_candidate() {
    let mut tied = [rating(7, 0.5, 0.8), rating(3, 0.5, 0.8), rating(5, 0.5, 0.8)];
    tied[0].cache_bytes = 1;
    assert_eq!(best_rating(Direction::Maximize, &tied, None, Preference::Fastest), Answer::Found(CandidateId(7)));
    tied.iter_mut().for_each(|r| r.cache_bytes = 1);
    assert_eq!(best_rating(Direction::Maximize, &tied, None, Preference::Fastest), Answer::Found(CandidateId(3)));
}

#[test]
fn the_nearest_miss_says_by_how_much() {
    let constraint = Some(Constraint::MinSpeedup(8.0));
    let Answer::Nearest(miss) = best_rating(Direction::Maximize, &ratings(), constraint, Preference::Fastest) else {
        panic!("nothing is eight times as fast")
    };
    assert_eq!((miss.candidate, miss.value, miss.wanted, miss.by()), (CandidateId(4), 5.0, 8.0, 3.0));
    assert_eq!(best_rating(Direction::Maximize, &[], constraint, Preference::Fastest), Answer::Nothing);
}

#[test]
fn minimised_quality_is_better_when_smaller() {
    let distance = |id, latency, value, baseline| Rating { baseline_quality: baseline, ..rating(id, latency, value) };
    let ratings = [distance(0, 1.0, 20.0, 20.0), distance(1, 0.5, 20.3, 20.0), distance(2, 0.3, 25.0, 20.0)];
    let ask = |constraint, preference| best_rating(Direction::Minimize, &ratings, Some(constraint), preference);
    assert_eq!(ask(Constraint::MinQuality(24.0), Preference::Fastest), Answer::Found(CandidateId(1)));
    assert_eq!(ask(Constraint::MinQualityRatio(0.98), Preference::Fastest), Answer::Found(CandidateId(1)));
    assert_eq!(ask(Constraint::MaxLatencyRatio(0.9), Preference::BestQuality), Answer::Found(CandidateId(1)));
    // A distance to the uncached picture: only no distance at all keeps all of nothing.
    let exact = [distance(0, 1.0, 0.0, 0.0), distance(1, 0.5, 0.1, 0.0)];
    let kept = best_rating(Direction::Minimize, &exact, Some(Constraint::MinQualityRatio(0.98)), Preference::Fastest);
    assert_eq!(kept, Answer::Found(CandidateId(0)));
}

proptest! {
    #[test]
    fn the_answer_satisfies_the_constraint_is_undominated_and_ignores_the_order(
        points in proptest::collection::vec((1u32..20, 0u32..20), 1..30),
        most in 1u32..20,
        preference in prop_oneof![Just(Preference::Fastest), Just(Preference::BestQuality), Just(Preference::Knee)],
    ) {
        let mut ratings: Vec<Rating> = points
            .iter()
            .zip(0..)
            .map(|(&(latency, quality), id)| rating(id, f64::from(latency) / 20.0, f64::from(quality) / 20.0))
            .collect();
        let limit = f64::from(most) / 20.0;
        let constraint = Some(Constraint::MaxLatencyRatio(limit));
        let answer = best_rating(Direction::Maximize, &ratings, constraint, preference);
        match answer {
            Answer::Found(id) => {
                let chosen = ratings[id.0 as usize];
                prop_assert!(chosen.latency_ratio <= limit);
                let better = |r: &&Rating| {
                    r.latency_ratio <= chosen.latency_ratio && r.quality >= chosen.quality
                        && (r.latency_ratio < chosen.latency_ratio || r.quality > chosen.quality)
                };
                prop_assert!(ratings.iter().find(better).is_none());
            }
            Answer::Nearest(miss) => {
                let least = ratings.iter().map(|r| r.latency_ratio).min_by(f64::total_cmp).unwrap();
                prop_assert!(least > limit && miss.value == least);
            }
            Answer::Nothing => prop_assert!(false, "there were ratings"),
        }
        ratings.reverse();
        prop_assert_eq!(best_rating(Direction::Maximize, &ratings, constraint, preference), answer);
    }
}
