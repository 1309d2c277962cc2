//! Named moments at which a test kills the coordinator or makes its store fail: before and after each step of
//! decide → commit → apply → flush → fsync → mark → answer.
//!
//! Compiled in only with `EVOCACHE_PLANT=faults`, which no release build has; otherwise every call here does nothing. An
//! environment variable selects the fault: with `EVOCACHE_FAULT=commit.after:17:kill` the process sends itself SIGKILL at the
//! 17th pass of that moment; `apply.before:3:panic` panics there, and `commit.after:17:error` makes the store fail there.
//!
//! No randomness: the test draws the moment and the pass, from a seed that it prints.

use crate::ports::StoreError;

/// The environment variable that selects the fault.
pub const VARIABLE: &str = "EVOCACHE_FAULT";

/// A moment at which a fault can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// A command is about to be decided.
    DecideBefore,
    /// The decision is made; its facts exist nowhere else.
    DecideAfter,
    /// The facts are about to be handed to the database.
    CommitBefore,
    /// The database has the facts, though perhaps not on disk.
    CommitAfter,
    /// The facts are about to be applied to the state in memory.
    ApplyBefore,
    /// The state has the facts.
    ApplyAfter,
    /// The database is about to write out its buffers.
    FlushBefore,
    /// The operating system has everything.
    FlushAfter,
    /// The operating system is about to write it to the disk.
    FsyncBefore,
    /// The database is on the disk.
    FsyncAfter,
    /// The mark of what is acknowledged is about to be written to its own file.
    MarkBefore,
    /// The operating system has the mark.
    MarkWritten,
    /// The mark is on the disk: answers may go out.
    MarkAfter,
    /// The first answer is about to be sent.
    AnswerBefore,
    /// All answers are sent.
    AnswerAfter,
}

impl Point {
    /// All moments, for tests that go through each.
    pub const ALL: [Self; 15] = [
        Self::DecideBefore,
        Self::DecideAfter,
        Self::CommitBefore,
        Self::CommitAfter,
        Self::ApplyBefore,
        Self::ApplyAfter,
        Self::FlushBefore,
        Self::FlushAfter,
        Self::FsyncBefore,
        Self::FsyncAfter,
        Self::MarkBefore,
        Self::MarkWritten,
        Self::MarkAfter,
        Self::AnswerBefore,
        Self::AnswerAfter,
    ];

    /// The moment's name in the variable.
    pub fn name(self) -> &'static str {
        match self {
            Self::DecideBefore => "decide.before",
            Self::DecideAfter => "decide.after",
            Self::CommitBefore => "commit.before",
            Self::CommitAfter => "commit.after",
            Self::ApplyBefore => "apply.before",
            Self::ApplyAfter => "apply.after",
            Self::FlushBefore => "flush.before",
            Self::FlushAfter => "flush.after",
            Self::FsyncBefore => "fsync.before",
            Self::FsyncAfter => "fsync.after",
            Self::MarkBefore => "mark.before",
            Self::MarkWritten => "mark.written",
            Self::MarkAfter => "mark.after",
            Self::AnswerBefore => "answer.before",
            Self::AnswerAfter => "answer.after",
        }
    }

    /// Whether the moment is inside the store, which can fail there.
    pub fn is_of_the_store(self) -> bool {
        match self {
            Self::CommitBefore
            | Self::CommitAfter
            | Self::FlushBefore
            | Self::FlushAfter
            | Self::FsyncBefore
            | Self::FsyncAfter
            | Self::MarkBefore
            | Self::MarkWritten
            | Self::MarkAfter => true,
            Self::DecideBefore
            | Self::DecideAfter
            | Self::ApplyBefore
            | Self::ApplyAfter
            | Self::AnswerBefore
            | Self::AnswerAfter => false,
        }
    }
}

/// The variable has a value that is not a fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{VARIABLE}='{value}': {problem}")]
pub struct FaultError {
    /// The variable's value.
    pub value: String,
    /// What is wrong with the value.
    pub problem: String,
}

/// The engine reaches this moment.
#[inline(always)]
pub fn pass(point: Point) {
    #[cfg(faults)]
    armed::hit(point);
    #[cfg(not(faults))]
    let _ = point;
}

/// The store reaches this moment; the error makes it fail.
#[inline(always)]
pub fn check(point: Point) -> Result<(), StoreError> {
    #[cfg(faults)]
    if armed::hit(point) {
        return Err(StoreError::Failed(format!("{VARIABLE} asks for an error at {}", point.name())));
    }
    #[cfg(not(faults))]
    let _ = point;
    Ok(())
}

#[cfg(faults)]
pub use armed::arm;

#[cfg(faults)]
mod armed {
    use std::str::FromStr;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::{FaultError, Point, VARIABLE};

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Action {
        Kill,
        Error,
        Panic,
    }

    #[derive(Debug)]
    struct Fault {
        point: Point,
        nth: u64,
        action: Action,
        passed: AtomicU64,
    }

    static FAULT: OnceLock<Fault> = OnceLock::new();

    /// Reads the variable; only the first call has an effect.
    #[expect(clippy::disallowed_methods, reason = "for tests of the real binary, whose help must not list it")]
    pub fn arm() -> Result<(), FaultError> {
        if let Ok(value) = std::env::var(VARIABLE) {
            let fault = value.parse()?;
            tracing::warn!(fault = value, "faults are armed");
            FAULT.get_or_init(|| fault);
        }
        Ok(())
    }

    impl FromStr for Fault {
        type Err = FaultError;

        fn from_str(value: &str) -> Result<Self, FaultError> {
            let wrong = |problem: &str| FaultError { value: value.to_owned(), problem: problem.to_owned() };
            let parts: Vec<&str> = value.split(':').collect();
            let [name, nth, action] = parts[..] else {
                return Err(wrong("write moment:pass:kill, moment:pass:panic or moment:pass:error"));
            };
            let point = Point::ALL.into_iter().find(|point| point.name() == name);
            let point = point.ok_or_else(|| {
                let names: Vec<&str> = Point::ALL.iter().map(|point| point.name()).collect();
                wrong(&format!("there is no moment '{name}'; there are {}", names.join(", ")))
            })?;
            let nth = nth.parse().ok().filter(|&nth| nth > 0).ok_or_else(|| wrong("passes are counted from 1"))?;
            let action = match action {
                "kill" => Action::Kill,
                "panic" => Action::Panic,
                "error" if point.is_of_the_store() => Action::Error,
                "error" => return Err(wrong("only moments of the store can have an error; write kill or panic")),
                _ => return Err(wrong("the action is kill, panic or error")),
            };
            Ok(Self { point, nth, action, passed: AtomicU64::new(0) })
        }
    }

    /// Counts a pass and does what the fault says. Returns whether the store must fail.
    pub(super) fn hit(point: Point) -> bool {
        let Some(fault) = FAULT.get().filter(|fault| fault.point == point) else { return false };
        if fault.passed.fetch_add(1, Ordering::Relaxed) + 1 != fault.nth {
            return false;
        }
        match fault.action {
            Action::Error => true,
            Action::Kill => die(),
            #[expect(clippy::panic, reason = "a test asks for it")]
            Action::Panic => panic!("{VARIABLE} asks for it, at {}", point.name()),
        }
    }

    /// Sends SIGKILL: no handler runs and nothing is flushed.
    #[cfg(unix)]
    fn die() -> bool {
        // Cannot fail: a process may always signal itself.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        true
    }

    #[cfg(not(unix))]
    fn die() -> bool {
        std::process::abort()
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn faults_are_parsed_and_mistakes_are_named() {
            for point in Point::ALL {
                let fault: Fault = format!("{}:3:kill", point.name()).parse().unwrap();
                assert_eq!((fault.point, fault.nth, fault.action), (point, 3, Action::Kill));
                let error = format!("{}:1:error", point.name()).parse::<Fault>();
                assert_eq!(error.is_ok(), point.is_of_the_store(), "{error:?}");
            }
            let problem = |value: &str| value.parse::<Fault>().unwrap_err().to_string();
            assert!(
                problem("commit.during:1:kill").contains("there is no moment 'commit.during'; there are decide.before")
            );
            assert!(problem("commit.after:0:kill").contains("from 1"));
            assert!(problem("commit.after:1:explode").contains("kill, panic or error"));
            assert!(problem("commit.after").contains("moment:pass:kill"));
        }
    }
}
