//! The line of workers that wait for work, and whose turn it is.

use std::collections::VecDeque;

use super::waiters::{Class, Waiters};

/// Waiting workers, and the classes that are still to be served.
#[derive(Default)]
pub(super) struct Line {
    pub(super) waiters: Waiters,
    /// Classes for which there may be work, in the order in which they are served.
    unserved: VecDeque<Class>,
    /// The class that was served last.
    served: Option<Class>,
    /// Something changed that may give a waiting worker work.
    woken: bool,
    /// There may be more workers whose time to wait is over.
    pub(super) overdue: bool,
}

impl Line {
    /// Says that there may be work for workers that wait.
    pub(super) fn wake(&mut self) {
        self.woken = true;
    }

    /// Whether a worker could be answered now.
    pub(super) fn has_work(&self) -> bool {
        self.overdue || !self.unserved.is_empty()
    }

    /// If there may be work, puts every class in the line, the one after the last served first.
    pub(super) fn line_up(&mut self) {
        if std::mem::take(&mut self.woken) {
            self.unserved = self.waiters.classes_after(self.served.as_ref());
        }
    }

    /// The class whose turn it is.
    pub(super) fn next_class(&mut self) -> Option<Class> {
        self.unserved.pop_front()
    }

    /// A worker of this class was asked; `again`: the next of the same class may get work too.
    pub(super) fn asked(&mut self, class: Class, again: bool) {
        if again {
            // The class goes on until its time is over.
            self.unserved.push_front(class.clone());
        }
        self.served = Some(class);
    }

    /// The time for serving is over: another class is the first next time.
    pub(super) fn give_way(&mut self) {
        self.unserved.rotate_left(usize::from(self.unserved.front() == self.served.as_ref()));
    }
}

#[cfg(test)]
mod tests {
    use evocache_proto::domain::WorkerId;

    use super::super::waiters::Waiter;
    use super::*;
    use evocache_domain::time::Timestamp;

    #[test]
    fn classes_take_turns_and_one_goes_on_while_there_is_work_and_time() {
        let mut line = Line::default();
        let classes: [Class; 3] = ["a".into(), "b".into(), "c".into()];
        let mut answers = vec![];
        for class in &classes {
            let (reply, answer) = tokio::sync::oneshot::channel();
            answers.push(answer);
            let worker = WorkerId::new(class.to_string()).unwrap();
            line.waiters.push(class.clone(), Waiter { worker, until: Timestamp(1), reply });
        }
        line.line_up();
        assert!(!line.has_work() && line.next_class().is_none(), "nothing has changed");
        line.wake();
        line.line_up();
        for again in [true, true, false] {
            assert_eq!(line.next_class().as_ref(), Some(&classes[0]));
            line.asked(classes[0].clone(), again);
        }
        assert_eq!(line.next_class().as_ref(), Some(&classes[1]));
        line.asked(classes[1].clone(), true);
        line.give_way();
        assert!(line.has_work());
        assert_eq!(line.next_class().as_ref(), Some(&classes[2]), "the time of the second is over");
        line.asked(classes[2].clone(), false);
        line.wake();
        line.line_up();
        assert_eq!(line.next_class().as_ref(), Some(&classes[0]), "the one after the last served");
    }
}
