//! Workers that wait for work. Waiting costs memory only, however many wait.
//!
//! Workers that declared the same are one class: if there is no work for the one that waits longest, there is none for the
//! others. Does not know what work there is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use evocache_proto::domain::WorkerId;

use crate::engine::handle::Reply;
use evocache_domain::time::Timestamp;

/// What workers of one class have in common: [`Worker::class`](crate::engine::Worker::class).
pub(super) type Class = Arc<str>;

/// A worker that waits.
pub(super) struct Waiter {
    pub(super) worker: WorkerId,
    /// When it is answered at the latest.
    pub(super) until: Timestamp,
    pub(super) reply: Reply,
}

/// All workers that wait.
#[derive(Default)]
pub(super) struct Waiters {
    classes: BTreeMap<Class, BTreeMap<u64, Waiter>>,
    patience: BTreeSet<(Timestamp, u64, Class)>,
    places: BTreeMap<WorkerId, BTreeSet<(Class, u64)>>,
    next: u64,
}

impl Waiters {
    pub(super) fn push(&mut self, class: Class, waiter: Waiter) {
        let place = self.next;
        self.next += 1;
        self.patience.insert((waiter.until, place, class.clone()));
        self.places.entry(waiter.worker.clone()).or_default().insert((class.clone(), place));
        self.classes.entry(class).or_default().insert(place, waiter);
    }

    pub(super) fn len(&self) -> usize {
        self.patience.len()
    }

    /// All classes that have a waiting worker, starting with the one after `class`.
    pub(super) fn classes_after(&self, class: Option<&Class>) -> VecDeque<Class> {
        let after = class.map_or(Unbounded, |class| Excluded(class.clone()));
        let up_to = class.into_iter().flat_map(|class| self.classes.range(..=class.clone()));
        self.classes.range((after, Unbounded)).chain(up_to).map(|(class, _)| class.clone()).collect()
    }

    /// Place and id of the worker of this class that waits longest and whose call is still open. It stays in line.
    pub(super) fn first(&mut self, class: &Class) -> Option<(u64, WorkerId)> {
        loop {
            let (&place, waiter) = self.classes.get(class)?.first_key_value()?;
            if !waiter.reply.is_closed() {
                return Some((place, waiter.worker.clone()));
            }
            self.take(class, place);
        }
    }

    /// Takes the worker at this place out of the line.
    pub(super) fn take(&mut self, class: &Class, place: u64) -> Option<Waiter> {
        let of_class = self.classes.get_mut(class)?;
        let waiter = of_class.remove(&place)?;
        if of_class.is_empty() {
            self.classes.remove(class);
        }
        self.patience.remove(&(waiter.until, place, class.clone()));
        if let Some(places) = self.places.get_mut(&waiter.worker) {
            places.remove(&(class.clone(), place));
            if places.is_empty() {
                self.places.remove(&waiter.worker);
            }
        }
        Some(waiter)
    }

    /// Takes a worker whose time to wait is over.
    pub(super) fn take_impatient(&mut self, now: Timestamp) -> Option<Waiter> {
        let (_, place, class) = self.patience.first().filter(|(until, ..)| *until <= now).cloned()?;
        self.take(&class, place)
    }

    /// Takes all waiting calls of one worker.
    pub(super) fn take_worker(&mut self, worker: &WorkerId) -> Vec<Waiter> {
        let places = self.places.get(worker).cloned().unwrap_or_default();
        places.into_iter().filter_map(|(class, place)| self.take(&class, place)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_served_in_turn_and_leave_no_trace() {
        let mut waiters = Waiters::default();
        let classes: [Class; 2] = ["a".into(), "b".into()];
        let worker = |i: usize| WorkerId::new(format!("w{i}")).unwrap();
        let mut answers = vec![];
        for i in 0..6usize {
            let (reply, answer) = tokio::sync::oneshot::channel();
            answers.push(answer);
            let until = Timestamp(100 - 10 * i as u64);
            waiters.push(classes[i % 2].clone(), Waiter { worker: worker(i), until, reply });
        }
        assert_eq!(waiters.len(), 6);
        assert_eq!(waiters.classes_after(None), classes.clone());
        assert_eq!(waiters.classes_after(Some(&classes[0])), [classes[1].clone(), classes[0].clone()]);
        // The call of the worker that waits longest is closed.
        answers[0].close();
        assert_eq!(waiters.first(&classes[0]).unwrap().1, worker(2));
        assert_eq!(waiters.len(), 5);
        let (place, _) = waiters.first(&classes[0]).unwrap();
        assert_eq!(waiters.take(&classes[0], place).unwrap().worker, worker(2));
        assert_eq!(waiters.take_impatient(Timestamp(50)).unwrap().worker, worker(5));
        assert!(waiters.take_impatient(Timestamp(50)).is_none());
        assert_eq!(waiters.take_worker(&worker(3)).len(), 1);
        for _ in 0..2 {
            assert!(waiters.take_impatient(Timestamp(1000)).is_some());
        }
        assert!(waiters.len() == 0 && waiters.classes_after(None).is_empty() && waiters.places.is_empty());
    }
}
