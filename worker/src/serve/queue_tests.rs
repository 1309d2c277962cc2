//! The order, the batches and the admission of the queue, in made-up seconds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::{At, Bounds, Closed, Cost, Margin, Queue, Unit};

const WIDE: Bounds = Bounds { all: 1000, each: 1000, batch: 1 };

fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

/// A queue, its clock, the margin of its promises, and the next request's number.
struct Bench {
    queue: Queue<char, ()>,
    now: Instant,
    margin: Margin,
    next: u64,
}

impl Bench {
    fn new(bounds: Bounds) -> Self {
        Self { queue: Queue::new(bounds), now: Instant::now(), margin: Margin::default(), next: 0 }
    }

    /// Asks for `count` pictures of a second each, within `deadline` seconds. Returns those who give way.
    fn ask(&mut self, user: &str, kind: char, count: usize, deadline: u64) -> Result<Vec<u64>, Closed> {
        let request = self.next;
        self.next += 1;
        let unit = || Unit {
            request,
            kind,
            together: 100,
            cost: Cost { batch: Duration::ZERO, picture: seconds(1) },
            deadline: self.now + seconds(deadline),
            load: (),
        };
        let units = (0..count).map(|_| unit()).collect();
        let displaced = self.queue.admit(user, units, self.at(Duration::ZERO))?;
        Ok(displaced.into_iter().map(|unit| unit.request).collect())
    }

    fn at(&self, busy: Duration) -> At {
        At { now: self.now, busy, margin: self.margin }
    }

    /// The requests that will be late if the device is busy for so long.
    fn late(&self, busy: Duration) -> BTreeMap<u64, Duration> {
        self.queue.late(self.at(busy), &BTreeSet::new()).into_iter().map(|(request, late)| (request, late.by)).collect()
    }

    /// Takes everything, batch by batch; the requests of each.
    fn order(&mut self) -> Vec<Vec<u64>> {
        std::iter::from_fn(|| {
            let batch = self.queue.take(self.now).batch;
            (!batch.is_empty()).then(|| batch.into_iter().map(|unit| unit.request).collect())
        })
        .collect()
    }
}

#[test]
fn who_asks_for_one_waits_for_one_of_each_other_user() {
    let mut bench = Bench::new(WIDE);
    bench.ask("heavy", 'a', 5, 100).unwrap();
    bench.queue.take(bench.now);
    bench.ask("light", 'a', 1, 100).unwrap();
    bench.ask("other", 'a', 2, 100).unwrap();
    assert_eq!(bench.order(), [[1], [2], [0], [2], [0], [0], [0]]);
}

#[test]
fn a_batch_is_of_one_kind_and_begins_with_the_first() {
    let mut bench = Bench::new(Bounds { batch: 3, ..WIDE });
    for (user, kind, count) in [("a", 'x', 1), ("b", 'y', 1), ("a", 'x', 3), ("c", 'x', 1)] {
        bench.ask(user, kind, count, 100).unwrap();
    }
    assert_eq!(bench.queue.gathers_until(bench.now, Duration::ZERO), None);
    assert_eq!(bench.order(), [vec![0, 3, 2], vec![1], vec![2, 2]]);
    bench.ask("a", 'x', 2, 100).unwrap();
    assert_eq!(bench.queue.gathers_until(bench.now, seconds(1)), Some(bench.now + seconds(1)));
    bench.ask("b", 'x', 1, 100).unwrap();
    assert_eq!(bench.queue.gathers_until(bench.now, seconds(1)), None, "the batch is full");
}

#[test]
fn what_would_be_late_is_refused_at_once_and_leaves_no_trace() {
    let mut bench = Bench::new(WIDE);
    bench.ask("a", 'x', 4, 100).unwrap();
    assert_eq!(bench.ask("a", 'x', 1, 3), Err(Closed::Late(seconds(2))));
    assert_eq!(bench.ask("a", 'x', 2, 5), Err(Closed::Late(seconds(1))));
    assert_eq!(bench.queue.len(), 4);
    bench.ask("a", 'x', 1, 5).unwrap();
    assert_eq!(bench.late(Duration::ZERO).len(), 0);
    assert_eq!(bench.late(seconds(1)).into_iter().collect::<Vec<_>>(), [(3, seconds(1))]);
    bench.now += seconds(5);
    let taken = bench.queue.take(bench.now);
    assert_eq!((taken.batch[0].request, taken.hopeless[0].request, taken.hopeless.len()), (0, 3, 1));
}

#[test]
fn a_promise_has_a_margin_and_nobody_else_takes_it() {
    let mut bench = Bench::new(WIDE);
    bench.margin = Margin { share: 0.5, answer: seconds(1) };
    bench.ask("a", 'x', 2, 100).unwrap();
    // After three seconds, but half as long again and one more may be needed.
    assert_eq!(bench.ask("a", 'x', 1, 5), Err(Closed::Late(Duration::from_millis(500))));
    bench.ask("a", 'x', 1, 6).unwrap();
    // It would come before the last one, which would then be in time only if nothing goes wrong.
    assert_eq!(bench.ask("b", 'x', 3, 100), Err(Closed::Crowding));
    // When everything turns out to take longer, what is late in any case is told from what has lost its margin.
    bench.queue.learned(&'x', Cost { batch: seconds(1), picture: Duration::from_millis(500) });
    let late = bench.queue.late(bench.at(Duration::ZERO), &BTreeSet::new());
    assert_eq!((late.len(), late.values().next().map(|late| late.surely)), (1, Some(false)));
    assert_eq!(bench.queue.work(), Duration::from_millis(4500));
}

#[test]
fn what_cannot_be_in_time_any_more_is_not_begun() {
    let mut bench = Bench::new(Bounds { batch: 2, ..WIDE });
    bench.ask("a", 'x', 1, 2).unwrap();
    bench.ask("a", 'x', 1, 4).unwrap();
    bench.ask("a", 'x', 1, 9).unwrap();
    // The device was held up: the first has a second left, and a batch of two takes two.
    bench.now += seconds(1);
    let taken = bench.queue.take(bench.now);
    let requests = |units: &[Unit<char, ()>]| units.iter().map(|unit| unit.request).collect::<Vec<_>>();
    assert_eq!((requests(&taken.batch), requests(&taken.hopeless)), (vec![1, 2], vec![]));
    let taken = bench.queue.take(bench.now + seconds(2));
    assert_eq!((requests(&taken.batch), requests(&taken.hopeless)), (vec![], vec![0]));
    // One that can be in time only by itself gets the device if there is no full batch instead.
    let mut bench = Bench::new(Bounds { batch: 2, ..WIDE });
    bench.ask("a", 'x', 1, 2).unwrap();
    bench.ask("a", 'x', 1, 9).unwrap();
    assert_eq!(requests(&bench.queue.take(bench.now + seconds(1)).batch), [0]);
}

#[test]
fn a_batch_ends_for_all_of_it_together() {
    let mut bench = Bench::new(Bounds { batch: 2, ..WIDE });
    bench.ask("a", 'x', 1, 1).unwrap();
    // It would share the batch of the first, which would then end a second later.
    assert_eq!(bench.ask("a", 'x', 1, 10), Err(Closed::Crowding));
    bench.ask("a", 'y', 1, 10).unwrap();
}

#[test]
fn those_who_have_more_in_the_queue_give_way() {
    let mut bench = Bench::new(WIDE);
    bench.ask("heavy", 'a', 2, 4).unwrap();
    bench.ask("heavy", 'a', 2, 4).unwrap();
    assert_eq!(bench.ask("light", 'a', 1, 4), Ok(vec![1, 1]));
    assert_eq!(bench.ask("light", 'a', 1, 4), Ok(vec![]));
    // Now both have two, and nobody gives way.
    assert_eq!(bench.ask("light", 'a', 1, 4), Err(Closed::Late(seconds(1))));
    bench.ask("light", 'a', 1, 9).unwrap();
    assert_eq!(bench.ask("third", 'a', 2, 4), Err(Closed::Late(seconds(2))));
    assert_eq!(bench.ask("third", 'a', 1, 4), Ok(vec![3]));
}

#[test]
fn a_full_queue_has_room_for_who_has_little_in_it() {
    let mut bench = Bench::new(Bounds { all: 4, each: 3, batch: 1 });
    assert_eq!(bench.ask("heavy", 'a', 4, 100), Err(Closed::Greedy));
    bench.ask("heavy", 'a', 1, 100).unwrap();
    bench.ask("heavy", 'a', 2, 100).unwrap();
    bench.ask("light", 'a', 1, 100).unwrap();
    assert_eq!(bench.ask("light", 'a', 1, 100), Ok(vec![2, 2]));
    bench.ask("third", 'a', 1, 100).unwrap();
    assert_eq!(bench.ask("heavy", 'a', 1, 100), Err(Closed::Full));
    assert_eq!(bench.queue.len(), 4);
}

#[test]
fn a_request_that_is_gone_takes_no_time() {
    let mut bench = Bench::new(WIDE);
    bench.ask("a", 'x', 4, 100).unwrap();
    bench.ask("b", 'x', 1, 100).unwrap();
    assert_eq!((bench.queue.withdraw(0).len(), bench.queue.work()), (4, seconds(1)));
    assert_eq!(bench.order(), [[1]]);
    assert!(bench.queue.is_empty());
}

#[test]
fn what_runs_counts_and_users_who_are_gone_are_forgotten() {
    let mut bench = Bench::new(WIDE);
    bench.ask("a", 'x', 1, 100).unwrap();
    bench.queue.take(bench.now);
    bench.ask("a", 'x', 1, 100).unwrap();
    bench.ask("b", 'x', 1, 100).unwrap();
    assert_eq!(bench.order(), [[2], [1]]);
    let bounds = Bounds { all: 4, ..WIDE };
    let mut bench = Bench::new(bounds);
    bench.ask("first", 'x', 2, 1000).unwrap();
    for user in 0..100 {
        bench.ask(&user.to_string(), 'x', 1, 1000).unwrap();
        bench.queue.take(bench.now);
        assert!(bench.queue.ends.len() <= 2 * bounds.all + 1, "{}", bench.queue.ends.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever is asked: bounds hold, what is let in is not late, and everything leaves exactly once.
    #[test]
    fn the_queue_keeps_its_bounds(
        asked in prop::collection::vec((0usize..4, 0usize..3, 1usize..4, 1u64..30), 1..60),
        batch in 1usize..4,
    ) {
        let bounds = Bounds { all: 20, each: 8, batch };
        let mut bench = Bench::new(bounds);
        let (mut inside, mut left) = (0, 0);
        for (round, (user, kind, count, deadline)) in asked.into_iter().enumerate() {
            match bench.ask(&user.to_string(), ['x', 'y', 'z'][kind], count, deadline) {
                Ok(displaced) => {
                    inside += count;
                    left += displaced.len();
                    prop_assert!(bench.late(Duration::ZERO).is_empty());
                }
                Err(_) => prop_assert!(bench.queue.len() + left == inside),
            }
            prop_assert!(bench.queue.len() <= bounds.all);
            if round % 5 == 4 {
                let taken = bench.queue.take(bench.now);
                prop_assert!(taken.batch.windows(2).all(|pair| pair[0].kind == pair[1].kind));
                prop_assert!(taken.batch.len() <= batch && taken.hopeless.is_empty());
                // The device needs the time that it was said to need.
                bench.now += seconds(taken.batch.len() as u64);
                left += taken.batch.len();
            }
        }
        left += bench.order().concat().len();
        prop_assert_eq!(left, inside);
    }
}
