//! Supervision of real processes: shells, and this test program itself as parent and as child.

#![cfg(unix)]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, PipeReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use evocache_net::back_off::BackOff;
use evocache_net::children::{Children, Event, Restart, Restarts, end_with_parent};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;
use tokio::time::timeout;

/// Longer than anything takes that happens at all.
const PATIENCE: Duration = Duration::from_secs(60);
/// What [`role`] is to play, if anything.
const ROLE: &str = "EVOCACHE_TEST_ROLE";

/// One child that is not started yet; waits of 20 ms and 40 ms before its restarts.
fn one(most: u32, healthy_after: Duration) -> Children {
    let waits = BackOff { first: Duration::from_millis(20), most: Duration::from_millis(40) };
    Children::new(1, Restarts { most, waits, healthy_after })
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

/// Starts the child and returns its stdout.
fn start(children: &mut Children, mut command: Command) -> BufReader<PipeReader> {
    let (stdout, writer) = std::io::pipe().unwrap();
    command.stdout(writer);
    children.start(0, command).unwrap();
    BufReader::new(stdout)
}

fn line(stdout: &mut impl BufRead) -> String {
    let mut line = String::new();
    assert_ne!(stdout.read_line(&mut line).unwrap(), 0, "it ended without a word");
    line.trim().to_owned()
}

async fn next(children: &mut Children) -> Option<Event> {
    timeout(PATIENCE, children.next()).await.unwrap().map(|(_, event)| event)
}

async fn ended(children: &mut Children) -> ExitStatus {
    match next(children).await {
        Some(Event::Ended(status)) => status.unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_child_that_crashes_is_restarted_after_waits_that_double_until_it_has_crashed_too_often() {
    let mut children = one(2, Duration::MAX);
    for (number, wait) in [(1, 20), (2, 40)] {
        children.start(0, shell("exit 7")).unwrap();
        assert_eq!(ended(&mut children).await.code(), Some(7));
        let wait = Duration::from_millis(wait);
        #[expect(clippy::disallowed_methods, reason = "the wait is what is tested")]
        let asked = Instant::now();
        assert_eq!(children.restart(0), Some(Restart { wait, number }));
        assert!(matches!(next(&mut children).await, Some(Event::Due)));
        assert!(asked.elapsed() >= wait, "{:?} of {wait:?}", asked.elapsed());
    }
    children.start(0, shell("kill -KILL $$")).unwrap();
    assert_eq!(ended(&mut children).await.signal(), Some(9));
    assert_eq!(children.restart(0), None);
    assert!(next(&mut children).await.is_none());
}

#[tokio::test]
async fn crashes_before_a_healthy_run_no_longer_count() {
    let mut children = one(1, Duration::ZERO);
    for _ in 0..3 {
        children.start(0, shell("exit 7")).unwrap();
        ended(&mut children).await;
        assert_eq!(children.restart(0).unwrap().number, 1);
        next(&mut children).await;
    }
}

#[tokio::test]
async fn a_child_that_ends_in_order_stays_ended_and_leaves_the_others_alone() {
    let mut children = Children::new(2, Restarts { most: 9, waits: BackOff::default(), healthy_after: Duration::MAX });
    children.start(0, shell("exit 0")).unwrap();
    // Its stdin stays open, so this one runs until it is told to end.
    children.start(1, shell("read line")).unwrap();
    let (child, event) = timeout(PATIENCE, children.next()).await.unwrap().unwrap();
    assert!(child == 0 && matches!(event, Event::Ended(Ok(status)) if status.success()));
    assert_eq!(children.active(), 1);
    children.stop(PATIENCE);
    assert_eq!(ended(&mut children).await.signal(), Some(15));
    assert!(next(&mut children).await.is_none());
}

#[tokio::test]
async fn a_child_has_time_to_end_in_order_after_sigterm() {
    let mut children = one(9, Duration::MAX);
    let mut stdout = start(&mut children, shell("trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done"));
    assert_eq!(line(&mut stdout), "ready");
    children.stop(PATIENCE);
    assert_eq!(ended(&mut children).await.code(), Some(3));
    assert!(next(&mut children).await.is_none());
}

#[tokio::test]
async fn a_child_that_ignores_sigterm_is_killed_after_the_grace_period() {
    let mut children = one(9, Duration::MAX);
    let mut stdout = start(&mut children, shell("trap '' TERM; echo ready; while :; do sleep 0.01; done"));
    assert_eq!(line(&mut stdout), "ready");
    children.stop(Duration::from_millis(50));
    assert!(matches!(next(&mut children).await, Some(Event::Overdue)));
    assert_eq!(ended(&mut children).await.signal(), Some(9));
    assert!(next(&mut children).await.is_none());
}

#[tokio::test]
async fn the_grace_period_can_be_cut_short_and_restarts_end_with_it() {
    let mut children = Children::new(2, Restarts { most: 9, waits: BackOff::default(), healthy_after: Duration::MAX });
    let mut stdout = start(&mut children, shell("trap '' TERM; echo ready; while :; do sleep 0.01; done"));
    assert_eq!(line(&mut stdout), "ready");
    children.start(1, shell("exit 7")).unwrap();
    ended(&mut children).await;
    children.restart(1).unwrap();
    assert_eq!(children.active(), 2);
    children.stop(PATIENCE);
    children.kill();
    assert_eq!(ended(&mut children).await.signal(), Some(9));
    assert!(next(&mut children).await.is_none());
}

/// This program again, with only [`role`] to run.
fn this_program(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "role", "--nocapture"]).env(ROLE, role);
    command
}

/// Not a test of its own: the parent and the child of the next one.
#[tokio::test]
async fn role() {
    match std::env::var_os(ROLE).as_deref().and_then(|role| role.to_str()) {
        Some("parent") => {
            let mut children = one(0, Duration::MAX);
            children.start(0, this_program("child")).unwrap();
            children.next().await;
        }
        Some("child") => {
            end_with_parent();
            println!("child {}", std::process::id());
            std::future::pending::<()>().await;
        }
        _ => {}
    }
}

#[tokio::test]
async fn a_child_ends_with_its_parent_even_if_that_is_killed() {
    let mut grandparent = one(0, Duration::MAX);
    let mut stdout = start(&mut grandparent, this_program("parent"));
    let child = loop {
        let line = line(&mut stdout);
        // The test runner writes to the same stdout.
        if let Some((_, id)) = line.split_once("child ") {
            break Pid::from_raw(id.parse().unwrap()).unwrap();
        }
    };
    assert!(kill_process(child, Signal::CONT).is_ok(), "it is running");
    grandparent.kill();
    assert_eq!(ended(&mut grandparent).await.signal(), Some(9));
    // The child has the other end of this pipe, so it has ended if the pipe does.
    let rest = tokio::task::spawn_blocking(move || stdout.read_to_end(&mut vec![]));
    timeout(PATIENCE, rest).await.expect("the child ends").unwrap().unwrap();
}
