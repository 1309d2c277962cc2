//! The pictures that wait for the device: in which order they come, which share a batch, and which are let in.
//!
//! **Order**: start-time fair queuing (Goyal, Vin and Cheng 1996) over users. Each picture starts, in virtual time, when
//! the one before it of the same user has finished, but not before now. So a user who asks for one picture waits for one
//! of each other user's and not for all that they have queued. A batch is the first picture and the next ones of its
//! kind.
//!
//! **Admission**: the batches to come are laid out in time. A request that would be late is refused at once. If letting
//! it in makes others late, those of users with more pictures in the queue give way, and otherwise it is refused.
//!
//! **Invariant:** reads no clock, and knows nothing of pictures, models or HTTP.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

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

/// One picture of a request.
#[derive(Debug)]
pub(super) struct Unit<K, T> {
    /// The request that it belongs to.
    pub(super) request: u64,
    /// Pictures of the same kind may share a batch.
    pub(super) kind: K,
    /// How many of its kind fit in a batch.
    pub(super) together: usize,
    /// How long it takes the device.
    pub(super) cost: Duration,
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
    /// Those whose deadline has passed.
    pub(super) passed: Vec<Unit<K, T>>,
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
        self.places.values().fold(Duration::ZERO, |sum, waiting| sum.saturating_add(waiting.unit.cost))
    }

    /// Lets in the pictures of a request, all or none, while the device is busy for `busy`. Returns those that give way.
    pub(super) fn admit(
        &mut self,
        user: &str,
        units: Vec<Unit<K, T>>,
        now: Instant,
        busy: Duration,
    ) -> Result<Vec<Unit<K, T>>, Closed> {
        let Some(request) = units.first().map(|unit| unit.request) else { return Ok(Vec::new()) };
        if self.held_by(user) + units.len() > self.bounds.each {
            return Err(Closed::Greedy);
        }
        let late_before: BTreeSet<u64> = self.late(now, busy, &BTreeSet::new()).into_keys().collect();
        let end = self.ends.get(user).copied();
        self.enter(user, units, now);
        let displaced = self.displaced(user, request, &late_before, now, busy);
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
        late_before: &BTreeSet<u64>,
        now: Instant,
        busy: Duration,
    ) -> Result<BTreeSet<u64>, Closed> {
        let held = self.held_by(user);
        let mut gone = BTreeSet::new();
        // Each that leaves may bring others into other batches, so the rest is laid out again.
        loop {
            let late = self.late(now, busy, &gone);
            if let Some(by) = late.get(&request) {
                return Err(Closed::Late(*by));
            }
            let stay: Vec<&Waiting<K, T>> =
                self.places.values().filter(|waiting| !gone.contains(&waiting.unit.request)).collect();
            let holds = |user: &str| stay.iter().filter(|waiting| &*waiting.user == user).count();
            let leaves = if let Some(other) = late.keys().find(|other| !late_before.contains(other)) {
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
            let cost = u64::try_from(unit.cost.as_micros()).unwrap_or(u64::MAX).max(1);
            self.places.insert((start, self.count), Waiting { user: user.clone(), since: now, unit });
            self.count += 1;
            start = start.saturating_add(cost);
        }
        self.ends.insert(user, start);
    }

    fn held_by(&self, user: &str) -> usize {
        self.places.values().filter(|waiting| &*waiting.user == user).count()
    }

    /// The requests that will be late, and by how much, if nothing else comes and those that are `gone` leave.
    fn late(&self, now: Instant, busy: Duration, gone: &BTreeSet<u64>) -> BTreeMap<u64, Duration> {
        let mut left: Vec<&Unit<K, T>> = self.places.values().map(|waiting| &waiting.unit).collect();
        left.retain(|unit| !gone.contains(&unit.request));
        let mut clock = busy;
        let mut late = BTreeMap::new();
        while let Some(first) = left.first().copied() {
            let most = self.bounds.batch.min(first.together).max(1);
            let mut batch = Vec::with_capacity(most);
            left.retain(|unit| {
                let joins = batch.len() < most && unit.kind == first.kind;
                if joins {
                    batch.push(*unit);
                }
                !joins
            });
            clock = batch.iter().fold(clock, |clock, unit| clock.saturating_add(unit.cost));
            for unit in batch {
                let by = clock.saturating_sub(unit.deadline.saturating_duration_since(now));
                if !by.is_zero() {
                    let worst: &mut Duration = late.entry(unit.request).or_default();
                    *worst = by.max(*worst);
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
        (until > now && alike < self.bounds.batch.min(first.unit.together)).then_some(until)
    }

    /// Takes the next batch, and everything whose deadline has passed.
    pub(super) fn take(&mut self, now: Instant) -> Taken<K, T> {
        let passed: Vec<Place> = self.places.iter().filter(|(_, w)| w.unit.deadline <= now).map(|(p, _)| *p).collect();
        let passed = self.remove(&passed);
        let mut batch = Vec::new();
        if let Some((place, first)) = self.places.first_key_value() {
            self.time = self.time.max(place.0);
            let most = self.bounds.batch.min(first.unit.together).max(1);
            let alike = self.places.iter().filter(|(_, waiting)| waiting.unit.kind == first.unit.kind);
            let (places, users): (Vec<Place>, BTreeSet<Arc<str>>) =
                alike.take(most).map(|(place, waiting)| (*place, waiting.user.clone())).unzip();
            batch = self.remove(&places);
            self.forget(&users);
        }
        Taken { batch, passed }
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

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
