//! The pictures that wait for the device: in which order they come, which share a batch, and which are let in.
//!
//! **Order**: start-time fair queuing (Goyal, Vin and Cheng 1996) over users. Each picture starts, in virtual time, when
//! the one before it of the same user has finished, but not before now. So a user who asks for one picture waits for one
//! of each other user's and not for all that they have queued. A batch is the first picture and the next ones of its
//! kind.
//!
//! **Admission**: the batches to come are laid out in time. A request that would be late is refused at once. If letting
//! it in makes others late, those of users with more pictures in the queue give way, and otherwise it is refused. Times
//! are estimates, so what is let in has a margin: without one, a full queue stands exactly at the deadline, where every
//! batch that takes a little longer is late as a whole and was drawn for nobody.
//!
//! **Shedding**: what cannot be in time any more is not begun, so that an overrun costs the pictures that it made late and
//! no others.
//!
//! **Invariant:** reads no clock, and knows nothing of pictures, models or HTTP.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::estimate::{Cost, Margin};

/// Sizes of the queue and of a batch, in pictures.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// All that wait.
    pub(super) all: usize,
    /// Those of one user.
    pub(super) each: usize,
    /// A batch.
    pub(super) batch: usize,
}

impl Bounds {
    /// Most pictures in a batch with this one.
    fn together<K, T>(&self, unit: &Unit<K, T>) -> usize {
        self.batch.min(unit.together).max(1)
    }
}

/// The moment at which the batches to come are laid out in time.
#[derive(Debug, Clone, Copy)]
pub(super) struct At {
    pub(super) now: Instant,
    /// How long the device still draws the batch that it has.
    pub(super) busy: Duration,
    /// What promises need beyond estimates.
    pub(super) margin: Margin,
}

/// One picture of a request.
#[derive(Debug)]
pub(super) struct Unit<K, T> {
    /// The request that it belongs to.
    pub(super) request: u64,
    /// Pictures of the same kind may share a batch.
    pub(super) kind: K,
    /// How many of its kind fit in a batch.
    pub(super) together: usize,
    /// How long a batch of its kind takes the device.
    pub(super) cost: Cost,
    /// When it is of no use any more.
    pub(super) deadline: Instant,
    /// What is to be done.
    pub(super) load: T,
}

/// Why a request is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    /// This user has as many pictures in the queue as one may have.
    Greedy,
    /// The queue is full.
    Full,
    /// It would be late by so much.
    Late(Duration),
    /// It would make others late.
    Crowding,
}

/// When a unit starts, in microseconds of virtual time, and its number.
type Place = (u64, u64);

#[derive(Debug)]
struct Waiting<K, T> {
    user: Arc<str>,
    since: Instant,
    unit: Unit<K, T>,
}

/// The queue.
#[derive(Debug)]
pub(super) struct Queue<K, T> {
    bounds: Bounds,
    places: BTreeMap<Place, Waiting<K, T>>,
    /// Where each user's last picture ends in virtual time, if that is ahead of `time`.
    ends: BTreeMap<Arc<str>, u64>,
    /// Virtual time: the start of the picture that was taken last.
    time: u64,
    count: u64,
}

/// What leaves the queue.
#[derive(Debug)]
pub(super) struct Taken<K, T> {
    /// The next batch, of one kind.
    pub(super) batch: Vec<Unit<K, T>>,
    /// Those that cannot be in time any more.
    pub(super) hopeless: Vec<Unit<K, T>>,
}

/// How a request will miss its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Late {
    /// By how much, with the margin.
    pub(super) by: Duration,
    /// Also without the margin.
    pub(super) surely: bool,
}

impl<K: PartialEq, T> Queue<K, T> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, places: BTreeMap::new(), ends: BTreeMap::new(), time: 0, count: 0 }
    }

    /// Pictures that wait.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The time that all that wait take.
    pub(super) fn work(&self) -> Duration {
        self.batches(&BTreeSet::new())
            .into_iter()
            .fold(Duration::ZERO, |sum, batch| sum.saturating_add(time_of(&batch)))
    }

    /// Batches of this kind are now known to take this long.
    pub(super) fn learned(&mut self, kind: &K, cost: Cost) {
        for waiting in self.places.values_mut().filter(|waiting| waiting.unit.kind == *kind) {
            waiting.unit.cost = cost;
        }
    }

    /// Lets in the pictures of a request, all or none. Returns those that give way.
    pub(super) fn admit(&mut self, user: &str, units: Vec<Unit<K, T>>, at: At) -> Result<Vec<Unit<K, T>>, Closed> {
        let Some(request) = units.first().map(|unit| unit.request) else { return Ok(Vec::new()) };
        if self.held_by(user) + units.len() > self.bounds.each {
            return Err(Closed::Greedy);
        }
        let late_before = self.late(at, &BTreeSet::new());
        let end = self.ends.get(user).copied();
        self.enter(user, units, at.now);
        let displaced = self.displaced(user, request, &late_before, at);
        match displaced {
            Ok(displaced) => Ok(displaced.into_iter().flat_map(|request| self.withdraw(request)).collect()),
            Err(closed) => {
                self.withdraw(request);
                // As if it had never asked: the next request is not to pay for this one.
                match end {
                    Some(end) => self.ends.insert(user.into(), end),
                    None => self.ends.remove(user),
                };
                Err(closed)
            }
        }
    }

    /// The requests that have to leave because this one has come.
    fn displaced(
        &self,
        user: &str,
        request: u64,
        late_before: &BTreeMap<u64, Late>,
        at: At,
    ) -> Result<BTreeSet<u64>, Closed> {
        let harmed =
            |(other, late): &(&u64, &Late)| late_before.get(other).is_none_or(|before| late.surely && !before.surely);
        let held = self.held_by(user);
        let mut gone = BTreeSet::new();
        // Each that leaves may bring others into other batches, so the rest is laid out again.
        loop {
            let late = self.late(at, &gone);
            if let Some(late) = late.get(&request) {
                return Err(Closed::Late(late.by));
            }
            let stay: Vec<&Waiting<K, T>> =
                self.places.values().filter(|waiting| !gone.contains(&waiting.unit.request)).collect();
            let holds = |user: &str| stay.iter().filter(|waiting| &*waiting.user == user).count();
            let leaves = if let Some((other, _)) = late.iter().find(harmed) {
                let owner = stay.iter().find(|waiting| waiting.unit.request == *other);
                owner.filter(|owner| holds(&owner.user) > held).ok_or(Closed::Crowding)?
            } else if stay.len() > self.bounds.all {
                // The last request of the user with the most; of several, of the one whose turn is last.
                let heaviest = stay.iter().max_by_key(|waiting| holds(&waiting.user));
                let heaviest = heaviest.filter(|waiting| holds(&waiting.user) > held).ok_or(Closed::Full)?;
                stay.iter().rev().find(|waiting| waiting.user == heaviest.user).ok_or(Closed::Full)?
            } else {
                return Ok(gone);
            };
            gone.insert(leaves.unit.request);
        }
    }

    fn enter(&mut self, user: &str, units: Vec<Unit<K, T>>, now: Instant) {
        let user: Arc<str> = user.into();
        let mut start = self.ends.get(&user).copied().unwrap_or(0).max(self.time);
        for unit in units {
            let cost = u64::try_from(unit.cost.of(1).as_micros()).unwrap_or(u64::MAX).max(1);
            self.places.insert((start, self.count), Waiting { user: user.clone(), since: now, unit });
            self.count += 1;
            start = start.saturating_add(cost);
        }
        self.ends.insert(user, start);
    }

    fn held_by(&self, user: &str) -> usize {
        self.places.values().filter(|waiting| &*waiting.user == user).count()
    }

    /// The batches to come if nothing else comes and the requests that are `gone` leave.
    fn batches(&self, gone: &BTreeSet<u64>) -> Vec<Vec<&Unit<K, T>>> {
        let mut left: Vec<&Unit<K, T>> = self.places.values().map(|waiting| &waiting.unit).collect();
        left.retain(|unit| !gone.contains(&unit.request));
        let mut batches = Vec::new();
        while let Some(first) = left.first().copied() {
            let most = self.bounds.together(first);
            let mut batch = Vec::with_capacity(most);
            left.retain(|unit| {
                let joins = batch.len() < most && unit.kind == first.kind;
                if joins {
                    batch.push(*unit);
                }
                !joins
            });
            batches.push(batch);
        }
        batches
    }

    /// The requests that will be late, if nothing else comes and those that are `gone` leave.
    fn late(&self, at: At, gone: &BTreeSet<u64>) -> BTreeMap<u64, Late> {
        let mut clock = at.busy;
        let mut late: BTreeMap<u64, Late> = BTreeMap::new();
        for batch in self.batches(gone) {
            clock = clock.saturating_add(time_of(&batch));
            let promised = at.margin.promise(clock);
            for unit in batch {
                let left = unit.deadline.saturating_duration_since(at.now);
                let (by, surely) = (promised.saturating_sub(left), clock > left);
                if !by.is_zero() {
                    let worst = late.entry(unit.request).or_insert(Late { by, surely });
                    *worst = Late { by: by.max(worst.by), surely: surely || worst.surely };
                }
            }
        }
        late
    }

    /// Until when the next batch may wait for more of its kind, if it is not full and its first has waited less than
    /// `most`.
    pub(super) fn gathers_until(&self, now: Instant, most: Duration) -> Option<Instant> {
        let (_, first) = self.places.first_key_value()?;
        let until = first.since + most;
        let alike = self.places.values().filter(|waiting| waiting.unit.kind == first.unit.kind).count();
        (until > now && alike < self.bounds.together(&first.unit)).then_some(until)
    }

    /// Takes the next batch, and everything that cannot be in time any more.
    pub(super) fn take(&mut self, now: Instant) -> Taken<K, T> {
        let in_time = |unit: &Unit<K, T>, count: usize| {
            now.checked_add(unit.cost.of(count)).is_some_and(|end| end <= unit.deadline)
        };
        let hopeless = self.places.iter().filter(|(_, waiting)| !in_time(&waiting.unit, 1)).map(|(place, _)| *place);
        let hopeless: Vec<Place> = hopeless.collect();
        let hopeless = self.remove(&hopeless);
        let mut batch = Vec::new();
        if let Some((place, first)) = self.places.first_key_value() {
            self.time = self.time.max(place.0);
            let alike: Vec<_> =
                self.places.iter().filter(|(_, waiting)| waiting.unit.kind == first.unit.kind).collect();
            // As many as can be together and still in time: a full batch is worth more than the one that it makes late.
            let of = |count: usize| {
                let fit = alike.iter().filter(|(_, waiting)| in_time(&waiting.unit, count)).take(count);
                let fit: Vec<_> = fit.collect();
                (fit.len() == count).then_some(fit)
            };
            let most = self.bounds.together(&first.unit).min(alike.len());
            let fit = (1..=most).rev().find_map(of).unwrap_or_default();
            let (places, users): (Vec<Place>, BTreeSet<Arc<str>>) =
                fit.into_iter().map(|(place, waiting)| (**place, waiting.user.clone())).unzip();
            batch = self.remove(&places);
            self.forget(&users);
        }
        Taken { batch, hopeless }
    }

    /// Forgets the users who owe nothing any more. If nothing waits, only those in the batch owe anything; and one user
    /// after the other who asks once, and whom virtual time does not pass, is not remembered for good either.
    fn forget(&mut self, batch: &BTreeSet<Arc<str>>) {
        self.ends.retain(|_, end| *end > self.time);
        if self.places.is_empty() || self.ends.len() > 2 * self.bounds.all {
            let waiting: BTreeSet<Arc<str>> = self.places.values().map(|waiting| waiting.user.clone()).collect();
            self.ends.retain(|user, _| batch.contains(user) || waiting.contains(user));
        }
    }

    /// Takes out a request.
    pub(super) fn withdraw(&mut self, request: u64) -> Vec<Unit<K, T>> {
        let places: Vec<Place> =
            self.places.iter().filter(|(_, waiting)| waiting.unit.request == request).map(|(p, _)| *p).collect();
        self.remove(&places)
    }

    /// Takes out everything.
    pub(super) fn clear(&mut self) -> Vec<Unit<K, T>> {
        std::mem::take(&mut self.places).into_values().map(|waiting| waiting.unit).collect()
    }

    fn remove(&mut self, places: &[Place]) -> Vec<Unit<K, T>> {
        places.iter().filter_map(|place| self.places.remove(place)).map(|waiting| waiting.unit).collect()
    }
}

/// The time of a batch of one kind.
fn time_of<K, T>(batch: &[&Unit<K, T>]) -> Duration {
    batch.first().map_or(Duration::ZERO, |first| first.cost.of(batch.len()))
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
