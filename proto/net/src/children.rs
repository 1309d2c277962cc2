//! Supervises child processes: starts them, spaces the restarts of those that crash, and stops them.
//!
//! | a child | what happens | [`Event`] |
//! |---|---|---|
//! | is started with [`Children::start`] | it runs | [`Ended`](Event::Ended) once it has ended by itself |
//! | has ended, and [`Children::restart`] is called | it waits; each wait in a row doubles | [`Due`](Event::Due): start it |
//! | has ended, and nothing is called | it is not started again | |
//! | runs when [`Children::stop`] is called | it receives SIGTERM | [`Ended`](Event::Ended) |
//! | still runs after the grace period | it receives SIGKILL | [`Overdue`](Event::Overdue), then [`Ended`](Event::Ended) |
//!
//! A child has a process group of its own, so that a terminal's Ctrl-C reaches its parent only. Its stdin is a pipe that
//! the parent never writes to: the pipe ends when the parent does, even by SIGKILL, and [`end_with_parent`] makes the
//! child end then. The pipe stays open until the child has ended, because its end would be a second SIGTERM.
//!
//! **Invariant:** knows neither what a child does nor what its exit code means; that is up to the caller.

use std::future::{Future, pending, poll_fn};
use std::io;
use std::process::{ExitStatus, Stdio};
use std::task::Poll;
use std::time::Duration;

use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::back_off::BackOff;

/// When crashed children are restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restarts {
    /// Restarts of one child in a row.
    pub most: u32,
    /// The waits before them, without jitter.
    pub waits: BackOff,
    /// A child that has run for this long is healthy: its next restart is the first in a row again.
    pub healthy_after: Duration,
}

/// A restart that was scheduled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restart {
    /// The time until the child is [`Event::Due`].
    pub wait: Duration,
    /// How many restarts in a row this makes, from 1.
    pub number: u32,
}

/// What happened to a child.
#[derive(Debug)]
pub enum Event {
    /// It ended with this status. An error means that it could not be waited for.
    Ended(io::Result<ExitStatus>),
    /// The wait before its restart is over.
    Due,
    /// It did not end within the grace period and was sent SIGKILL.
    Overdue,
}

/// A fixed number of child processes, by index. Those that run when this is dropped are killed.
#[derive(Debug)]
pub struct Children {
    restarts: Restarts,
    posts: Vec<Post>,
}

impl Children {
    /// `count` children, of which none is started yet.
    pub fn new(count: usize, restarts: Restarts) -> Self {
        Self { restarts, posts: (0..count).map(|_| Post::default()).collect() }
    }

    /// Starts a child: sets the command's process group and its stdin, and leaves stdout and stderr as they are. Returns
    /// the process id.
    ///
    /// # Errors
    ///
    /// When the process cannot be started.
    pub fn start(&mut self, child: usize, mut command: Command) -> io::Result<Option<u32>> {
        command.stdin(Stdio::piped()).kill_on_drop(true);
        #[cfg(unix)]
        command.process_group(0);
        let mut process = command.spawn()?;
        // Taken out, because waiting for the process would close it.
        let _lifeline = process.stdin.take();
        let id = process.id();
        self.posts[child].state =
            State::Running(Box::new(Running { process, _lifeline, since: Instant::now(), kill_at: None }));
        Ok(id)
    }

    /// Schedules the restart of a child that has ended, or returns `None` if it was restarted too often in a row.
    pub fn restart(&mut self, child: usize) -> Option<Restart> {
        let Restarts { most, waits, healthy_after } = self.restarts;
        let post = &mut self.posts[child];
        if post.ran >= healthy_after {
            post.restarts = 0;
        }
        if post.restarts >= most {
            return None;
        }
        let wait = waits.wait(post.restarts);
        post.restarts += 1;
        post.state = State::Due(Instant::now() + wait);
        Some(Restart { wait, number: post.restarts })
    }

    /// How many children run or are to be restarted.
    pub fn active(&self) -> usize {
        self.posts.iter().filter(|post| !matches!(post.state, State::Ended)).count()
    }

    /// Waits for the next event and returns it with the child's index, or `None` if no child is active. Cancel-safe.
    pub async fn next(&mut self) -> Option<(usize, Event)> {
        if self.active() == 0 {
            return None;
        }
        let mut events: Vec<_> = self.posts.iter_mut().map(|post| Box::pin(post.next())).collect();
        let first = poll_fn(|context| {
            let ready = events.iter_mut().enumerate().find_map(|(child, event)| match event.as_mut().poll(context) {
                Poll::Ready(event) => Some((child, event)),
                Poll::Pending => None,
            });
            ready.map_or(Poll::Pending, Poll::Ready)
        });
        Some(first.await)
    }

    /// Sends SIGTERM to all children that run, and SIGKILL to those that still do after `grace`, while [`next`](Self::next)
    /// is awaited. Cancels restarts.
    pub fn stop(&mut self, grace: Duration) {
        let kill_at = Instant::now() + grace;
        self.end_all(|running| {
            running.terminate();
            running.kill_at = Some(kill_at);
        });
    }

    /// Sends SIGKILL to all children that run. Cancels restarts.
    pub fn kill(&mut self) {
        self.end_all(Running::kill);
    }

    fn end_all(&mut self, end: impl Fn(&mut Running)) {
        for post in &mut self.posts {
            match &mut post.state {
                State::Running(running) => end(running),
                State::Due(_) => post.state = State::Ended,
                State::Ended => {}
            }
        }
    }
}

/// A child over all its processes.
#[derive(Debug, Default)]
struct Post {
    state: State,
    /// In a row.
    restarts: u32,
    /// How long the last process ran.
    ran: Duration,
}

#[derive(Debug, Default)]
enum State {
    /// Not started yet, or ended.
    #[default]
    Ended,
    Running(Box<Running>),
    /// To be started again at this time.
    Due(Instant),
}

#[derive(Debug)]
struct Running {
    process: Child,
    /// The parent's end of the child's stdin.
    _lifeline: Option<ChildStdin>,
    since: Instant,
    kill_at: Option<Instant>,
}

impl Post {
    async fn next(&mut self) -> Event {
        match &mut self.state {
            State::Ended => pending().await,
            State::Due(at) => {
                sleep_until(*at).await;
                self.state = State::Ended;
                Event::Due
            }
            State::Running(running) => {
                let status = match running.kill_at {
                    None => running.process.wait().await,
                    Some(at) => match timeout_at(at, running.process.wait()).await {
                        Ok(status) => status,
                        Err(_) => {
                            running.kill();
                            return Event::Overdue;
                        }
                    },
                };
                self.ran = running.since.elapsed();
                self.state = State::Ended;
                Event::Ended(status)
            }
        }
    }
}

impl Running {
    #[cfg(unix)]
    fn terminate(&mut self) {
        let id = self.process.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
        if let Some(id) = id {
            // An error means that it has ended by itself.
            let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        }
    }

    /// Without signals, the end of stdin is what remains to tell a child.
    #[cfg(not(unix))]
    fn terminate(&mut self) {
        self._lifeline = None;
    }

    fn kill(&mut self) {
        self.kill_at = None;
        // An error means that it has ended by itself.
        let _ = self.process.start_kill();
    }
}

/// Makes this process, a child started by [`Children::start`], end with its parent: when its stdin ends, it sends SIGTERM
/// to itself. Call it once, early, in a process that reads nothing from stdin.
pub fn end_with_parent() {
    // A thread of its own: it also works while the main thread computes, and does not hold up the end of a runtime.
    let watch = std::thread::Builder::new().name("parent".into()).spawn(|| {
        // An error means, as the end does, that nothing will be heard of the parent.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        tracing::info!("the parent process has ended");
        terminate_self();
    });
    if let Err(error) = watch {
        tracing::warn!(%error, "cannot watch the parent process");
    }
}

#[cfg(unix)]
fn terminate_self() {
    // A process may always send signals to itself.
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM);
}

#[cfg(not(unix))]
#[expect(clippy::disallowed_methods, reason = "there is no signal to send")]
fn terminate_self() {
    std::process::exit(1);
}
