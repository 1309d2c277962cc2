//! Tests of questions about the best schedule.

use std::time::Duration;

use evocache_proto::domain::{
    CandidateId, Constraint, Direction, Measurement, MetricDeclaration, MetricValues, Objective, Operator, Preference,
    Strategy,
};
use proptest::prelude::*;

use super::answer::{Asked as Resolved, Standing, best};
use super::condition::bounds;
use super::{Answer, Best, Condition, Miss, QuestionError, SPEEDUP};
use evocache_testkit::landscape::{draft, spec};

/// A schedule by its latency ratio, its quality (0.8 uncached) and its likeness to the uncached picture (100 uncached).
#[derive(Debug, Clone)]
struct Made {
    id: u64,
    ratio: f64,
    measurement: Measurement,
}

fn made(id: u64, ratio: f64, quality: f64) -> Made {
    let values = |name: &str, value: f64, baseline_mean: f64| MetricValues {
        name: name.into(),
        values: vec![value],
        baseline_mean,
    };
    let measurement = Measurement {
        metrics: vec![values("quality", quality, 0.8), values("psnr", 20.0 + 20.0 * ratio, 100.0)],
        latency_us: vec![1.0],
        baseline_latency_us: vec![1.0],
        macs: 1,
        baseline_macs: 1,
        peak_cache_bytes: 100 * id,
        device_time: Duration::from_secs(1),
        disturbed: 0,
        thumbnails: vec![],
        profile: None,
    };
    Made { id, ratio, measurement }
}

/// 0 is the uncached run, 3 is dominated by 2, 5 is the bend of the front.
fn all() -> Vec<Made> {
    let made = |(id, ratio, quality)| made(id, ratio, quality);
    [(0, 1.0, 0.80), (1, 0.7, 0.79), (2, 0.5, 0.78), (3, 0.6, 0.70), (4, 0.2, 0.40), (5, 0.3, 0.75)].map(made).into()
}

fn declared(direction: Direction) -> Vec<MetricDeclaration> {
    let metric = |name: &str, direction| MetricDeclaration {
        name: name.into(),
        direction,
        unit: "1".into(),
        description: "for people".into(),
    };
    vec![metric("quality", direction), metric("psnr", Direction::Maximize)]
}

/// An answer without the facts that come with the chosen candidate.
#[derive(Debug, PartialEq)]
enum Chosen {
    Found(CandidateId),
    Nearest(Miss),
    Nothing,
}

struct Asked {
    direction: Direction,
    bound: Option<f64>,
    ignore_bounds: bool,
}

const PLAIN: Asked = Asked { direction: Direction::Maximize, bound: None, ignore_bounds: false };

impl Asked {
    fn ask(&self, made: &[Made], conditions: &[Condition], preference: Preference) -> Result<Chosen, QuestionError> {
        Ok(match self.answer(made, conditions, preference)? {
            Answer::Found(best) => Chosen::Found(best.candidate),
            Answer::Nearest(miss) => Chosen::Nearest(miss),
            Answer::Nothing => Chosen::Nothing,
        })
    }

    fn answer(&self, made: &[Made], conditions: &[Condition], preference: Preference) -> Result<Answer, QuestionError> {
        let mut draft = draft(Strategy::SteadyState, &[4], 10, 1);
        draft.objectives[1] = Objective { metric: "quality".into(), direction: self.direction, bound: self.bound };
        let standings: Vec<Standing<'_>> = made.iter().map(of).collect();
        let spec = spec(draft);
        let bounds = if self.ignore_bounds { vec![] } else { bounds(&spec) };
        best(
            &spec,
            &declared(self.direction),
            &standings,
            Resolved { conditions: conditions.into(), bounds, preference },
        )
    }
}

fn of(made: &Made) -> Standing<'_> {
    Standing {
        candidate: CandidateId(made.id),
        measurement: &made.measurement,
        cache_hit_rate: 1.0 - made.ratio,
        latency_ratio: made.ratio,
        latency_us: 1000.0 * made.ratio,
    }
}

fn found(conditions: &[Condition], preference: Preference) -> u64 {
    match PLAIN.ask(&all(), conditions, preference).unwrap() {
        Chosen::Found(CandidateId(id)) => id,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_condition_means_what_it_says() {
    use Condition as C;
    use Preference as P;
    assert_eq!(found(&[C::at_most("latency_ratio", 0.55)], P::BestQuality), 2);
    assert_eq!(found(&[C::at_least(SPEEDUP, 2.0)], P::BestQuality), 2);
    assert_eq!(found(&[C::at_least(SPEEDUP, 2.1)], P::BestQuality), 5);
    assert_eq!(found(&[C::at_most("latency_us", 250.0)], P::BestQuality), 4);
    assert_eq!(found(&[C::at_least("quality", 0.78)], P::Fastest), 2);
    assert_eq!(found(&[C::keeps("quality", 0.98)], P::Fastest), 1);
    assert_eq!(found(&[C::at_most("cache_bytes", 100.0)], P::Fastest), 1);
    assert_eq!(found(&[C::at_most("cache_hit_rate", 0.5)], P::Fastest), 2);
}

#[test]
fn conditions_combine_and_any_metric_will_do() {
    let psnr = Condition::at_least("psnr", 33.0);
    assert_eq!(found(std::slice::from_ref(&psnr), Preference::Fastest), 1);
    assert_eq!(found(&[Condition::keeps("quality", 0.97), Condition::at_least("psnr", 30.0)], Preference::Fastest), 2);
    let impossible = [Condition::at_least(SPEEDUP, 2.0), psnr];
    let Chosen::Nearest(miss) = PLAIN.ask(&all(), &impossible, Preference::Fastest).unwrap() else {
        panic!("nothing has both")
    };
    assert_eq!(
        miss.to_string(),
        "no schedule has speed-up >= 2.00x and psnr >= 33; candidate 2 comes nearest, with psnr 30"
    );
}

#[test]
fn answers_stay_within_the_bounds_unless_asked_to_look_beyond() {
    let asked = Asked { bound: Some(0.5), ..PLAIN };
    let four = [Condition::at_least(SPEEDUP, 4.0)];
    let Chosen::Nearest(miss) = asked.ask(&all(), &four, Preference::Fastest).unwrap() else {
        panic!("only 4 is four times as fast, and it is out of bounds")
    };
    assert_eq!(miss.beyond, Some((CandidateId(4), vec![Condition::at_least("quality", 0.5)])));
    let told = miss.to_string();
    assert!(told.starts_with("no schedule has speed-up >= 4.00x within the search's bound quality >= 0.5; "), "{told}");
    assert!(told.contains("candidate 4 has the rest, outside of the bound quality >= 0.5"), "{told}");
    assert_eq!(asked.ask(&all(), &[], Preference::Fastest).unwrap(), Chosen::Found(CandidateId(5)));
    let beyond = Asked { ignore_bounds: true, ..asked };
    assert_eq!(beyond.ask(&all(), &four, Preference::Fastest).unwrap(), Chosen::Found(CandidateId(4)));
}

#[test]
fn what_cannot_be_judged_is_refused_by_name() {
    let refused = |condition: Condition| PLAIN.ask(&all(), &[condition], Preference::Fastest).unwrap_err().to_string();
    assert!(
        refused(Condition::at_least("pnsr", 30.0)).starts_with("no metric 'pnsr' is measured in this search; there")
    );
    assert!(refused(Condition::keeps("macs", 0.5)).contains("'macs' is no quality metric"));
    assert!(refused(Condition::at_least("psnr", f64::NAN)).contains("NaN"));
    // A distance to the uncached picture: there is no share of nothing.
    let mut distance = made(1, 0.5, 0.1);
    distance.measurement.metrics[0].baseline_mean = 0.0;
    let asked = Asked { direction: Direction::Minimize, ..PLAIN };
    let share = asked.ask(std::slice::from_ref(&distance), &[Condition::keeps("quality", 0.98)], Preference::Fastest);
    assert_eq!(share, Err(QuestionError::NoShare("quality".into())));
    let value = asked.ask(&[distance], &[Condition::at_most("quality", 0.2)], Preference::Fastest);
    assert_eq!(value, Ok(Chosen::Found(CandidateId(1))));
}

#[test]
fn without_a_condition_the_preference_alone_decides() {
    assert_eq!(found(&[], Preference::Fastest), 4);
    assert_eq!(found(&[], Preference::BestQuality), 0);
    assert_eq!(found(&[], Preference::Knee), 5);
}

#[test]
fn the_knee_of_two_is_the_slower_and_of_one_is_that_one() {
    assert_eq!(found(&[Condition::at_most("latency_ratio", 0.3)], Preference::Knee), 5);
    assert_eq!(found(&[Condition::at_most("latency_ratio", 0.2)], Preference::Knee), 4);
}

#[test]
fn a_dominated_candidate_is_never_the_answer() {
    let two = [made(1, 0.5, 0.8), made(2, 0.5, 0.7)];
    for preference in [Preference::Fastest, Preference::BestQuality, Preference::Knee] {
        assert_eq!(PLAIN.ask(&two, &[], preference), Ok(Chosen::Found(CandidateId(1))));
    }
}

#[test]
fn ties_go_to_less_memory_and_then_to_the_older_candidate() {
    let mut tied = [made(7, 0.5, 0.8), made(3, 0.5, 0.8), made(5, 0.5, 0.8)];
    tied[0].measurement.peak_cache_bytes = 1;
    assert_eq!(PLAIN.ask(&tied, &[], Preference::Fastest), Ok(Chosen::Found(CandidateId(7))));
    tied.iter_mut().for_each(|m| m.measurement.peak_cache_bytes = 1);
    assert_eq!(PLAIN.ask(&tied, &[], Preference::Fastest), Ok(Chosen::Found(CandidateId(3))));
}

#[test]
fn the_nearest_miss_is_told_in_words() {
    let told = |condition: Condition| match PLAIN.ask(&all(), &[condition], Preference::Fastest) {
        Ok(Chosen::Nearest(miss)) => miss.to_string(),
        other => panic!("{other:?}"),
    };
    let nearest = |words: &str| format!("no schedule has {words}");
    assert_eq!(
        told(Condition::at_least(SPEEDUP, 8.0)),
        nearest("speed-up >= 8.00x; candidate 4 comes nearest, with speed-up 5.00x")
    );
    assert_eq!(
        told(Condition::at_most("latency_us", 35.0)),
        nearest("latency <= 0.035 ms; candidate 4 comes nearest, with latency 0.200 ms")
    );
    assert_eq!(
        told(Condition::keeps("quality", 1.05)),
        nearest("quality >= 105.0 % of uncached; candidate 0 comes nearest, with quality 100.0 % of uncached")
    );
    assert_eq!(PLAIN.ask(&[], &[Condition::at_least(SPEEDUP, 8.0)], Preference::Fastest), Ok(Chosen::Nothing));
}

#[test]
fn minimised_quality_is_better_when_smaller() {
    let distance = |id, ratio, value| {
        let mut made = made(id, ratio, value);
        made.measurement.metrics[0].baseline_mean = 20.0;
        made
    };
    let made = [distance(0, 1.0, 20.0), distance(1, 0.5, 20.3), distance(2, 0.3, 25.0)];
    let asked = Asked { direction: Direction::Minimize, ..PLAIN };
    let ask = |condition, preference| asked.ask(&made, &[condition], preference);
    assert_eq!(ask(Condition::at_most("quality", 24.0), Preference::Fastest), Ok(Chosen::Found(CandidateId(1))));
    assert_eq!(ask(Condition::keeps("quality", 0.98), Preference::Fastest), Ok(Chosen::Found(CandidateId(1))));
    let within = ask(Condition::at_most("latency_ratio", 0.9), Preference::BestQuality);
    assert_eq!(within, Ok(Chosen::Found(CandidateId(1))));
}

#[test]
fn the_answer_comes_with_its_speed_up_quality_and_conditions() {
    let asked = Asked { bound: Some(0.5), ..PLAIN };
    let two = Condition::at_least(SPEEDUP, 2.0);
    let answer = asked.answer(&all(), std::slice::from_ref(&two), Preference::BestQuality).unwrap();
    let Answer::Found(Best { candidate, speedup, quality_metric, quality_ratio, conditions }) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!((candidate, speedup, quality_metric.as_str()), (CandidateId(2), 2.0, "quality"));
    assert!((quality_ratio.unwrap() - 0.975).abs() < 1e-12, "{quality_ratio:?}");
    assert_eq!(conditions, [two, Condition::at_least("quality", 0.5)]);
}

#[test]
fn constraints_become_conditions_on_the_metrics_of_the_search() {
    let resolve = |direction, constraint: &Constraint| {
        let mut draft = draft(Strategy::SteadyState, &[4], 10, 1);
        draft.objectives[1] = Objective { metric: "quality".into(), direction, bound: None };
        Condition::resolve(constraint, &spec(draft), &declared(direction))
    };
    let of = |name: &str, of_uncached| Constraint::Metric {
        name: name.into(),
        operator: Operator::AtLeast,
        value: 0.5,
        of_uncached,
    };
    let as_good_as = |name: &str| Constraint::AsGoodAs { name: name.into(), value: 0.5 };
    use Direction::{Maximize, Minimize};
    for (direction, constraint, condition) in [
        (Maximize, Constraint::MaxLatencyRatio(0.5), Condition::at_most("latency_ratio", 0.5)),
        (Maximize, Constraint::MinSpeedup(0.5), Condition::at_least(SPEEDUP, 0.5)),
        (Maximize, Constraint::MaxLatency(Duration::from_micros(5)), Condition::at_most("latency_us", 5.0)),
        (Maximize, Constraint::MaxCacheBytes(5), Condition::at_most("cache_bytes", 5.0)),
        (Maximize, Constraint::MinQuality(0.5), Condition::at_least("quality", 0.5)),
        (Minimize, Constraint::MinQuality(0.5), Condition::at_most("quality", 0.5)),
        (Minimize, Constraint::MinQualityRatio(0.5), Condition::keeps("quality", 0.5)),
        (Minimize, as_good_as(""), Condition::at_most("quality", 0.5)),
        (Minimize, as_good_as("psnr"), Condition::at_least("psnr", 0.5)),
        (Maximize, as_good_as("macs"), Condition::at_most("macs", 0.5)),
        (Minimize, of("", true), Condition::keeps("quality", 0.5)),
        (Maximize, of("cache_hit_rate", true), Condition::at_least("cache_hit_rate", 0.5)),
    ] {
        assert_eq!(resolve(direction, &constraint), condition, "{constraint:?}, {direction:?}");
    }
}

proptest! {
    #[test]
    fn the_answer_satisfies_the_condition_is_undominated_and_ignores_the_order(
        points in proptest::collection::vec((1u32..20, 0u32..20), 1..30),
        most in 1u32..20,
        preference in prop_oneof![Just(Preference::Fastest), Just(Preference::BestQuality), Just(Preference::Knee)],
    ) {
        let mut made: Vec<Made> = points
            .iter()
            .zip(0..)
            .map(|(&(latency, quality), id)| made(id, f64::from(latency) / 20.0, f64::from(quality) / 20.0))
            .collect();
        let limit = f64::from(most) / 20.0;
        let conditions = [Condition::at_most("latency_ratio", limit)];
        let answer = PLAIN.ask(&made, &conditions, preference);
        match &answer {
            Ok(Chosen::Found(id)) => {
                let chosen = &made[id.0 as usize];
                let quality = |m: &Made| m.measurement.metrics[0].mean();
                prop_assert!(chosen.ratio <= limit);
                let better = |r: &&Made| {
                    r.ratio <= chosen.ratio && quality(r) >= quality(chosen)
                        && (r.ratio < chosen.ratio || quality(r) > quality(chosen))
                };
                prop_assert!(made.iter().find(better).is_none());
            }
            Ok(Chosen::Nearest(miss)) => {
                let least = made.iter().map(|m| m.ratio).min_by(f64::total_cmp).unwrap();
                prop_assert!(least > limit && miss.missed[0].1 == least);
            }
            other => prop_assert!(false, "{other:?}"),
        }
        made.reverse();
        prop_assert_eq!(PLAIN.ask(&made, &conditions, preference), answer);
    }
}
