//! More than the device can do at once: deadlines, users, clients that hang up, and a stop in the middle.

use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::server::{Answer, Server};
use crate::{difference, generated};

/// A request that takes seconds.
fn long() -> Value {
    json!({ "prompt": "a red apple", "seed": 1, "num_inference_steps": 900, "guidance_scale": 3 })
}

/// Sends a request and returns its connection.
fn begin(server: &Server, body: &Value) -> std::net::TcpStream {
    let mut stream = server.connect();
    stream.write_all(server.request("", &body.to_string()).as_bytes()).unwrap();
    stream
}

const RUNNING: &str = "evocache_serve_running_pictures";
const WAITING: &str = "evocache_serve_queue_pictures";
const ABANDONED: &str = "evocache_serve_abandoned_total";

/// A server that draws one picture at a time. Its first picture, of two steps, tells little of 900, hence the deadline.
fn one_by_one(more: &[&str]) -> Server {
    let fixed = ["--guidance", "3", "--steps", "2", "--max-batch", "1", "--deadline", "1h"];
    Server::start(&[&fixed[..], more].concat())
}

#[test]
fn a_client_that_hangs_up_frees_the_device() {
    let server = one_by_one(&[]);
    let running = begin(&server, &long());
    server.reaches(RUNNING, 1.0);
    let waiting = begin(&server, &long());
    server.reaches(WAITING, 1.0);
    drop(waiting);
    server.reaches(ABANDONED, 1.0);
    assert_eq!((server.meter(WAITING), server.meter(RUNNING)), (0.0, 1.0));
    drop(running);
    server.reaches(ABANDONED, 2.0);
    server.reaches("evocache_serve_requests_total{status=\"499\",code=\"client_closed\"}", 2.0);
    assert_eq!(server.ask(&json!({ "prompt": "an owl" })).status, 200);
    assert_eq!(server.meter(WAITING), 0.0);
}

#[test]
fn what_would_miss_its_deadline_is_refused_at_once() {
    let server = one_by_one(&[]);
    let running = begin(&server, &long());
    server.reaches(RUNNING, 1.0);
    let since = Instant::now();
    let answer = server.ask_with("x-deadline: 0.05\r\n", r#"{"prompt": "an owl", "user": "ada"}"#);
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
    let code = answer.refusal().1;
    assert!(answer.status == 503 && code.starts_with("deadline_"), "{}", answer.text());
    let retry: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=900).contains(&retry), "{retry}");

    // Nothing waits, but it alone takes longer than its client would wait.
    drop(running);
    server.reaches(ABANDONED, 1.0);
    let answer = server.ask_with("x-deadline: 0.1\r\n", &long().to_string());
    assert_eq!((answer.status, answer.refusal().1.as_str()), (503, "deadline_too_short"));
    assert_eq!(server.ask(&json!({ "prompt": "an owl" })).status, 200);
}

#[test]
fn a_user_with_little_does_not_wait_for_one_with_much() {
    let server = one_by_one(&[]);
    let first = begin(&server, &long());
    server.reaches(RUNNING, 1.0);
    let much = |count: u32| {
        let body = json!({ "prompt": "an owl", "user": "much", "n": count, "num_inference_steps": 200 });
        begin(&server, &body)
    };
    let much = [10, 10, 10, 1].map(much);
    server.reaches(WAITING, 31.0);
    let little = begin(&server, &json!({ "prompt": "an owl", "user": "little" }));
    server.reaches(WAITING, 32.0);
    drop(first);
    assert_eq!(Answer::read(little).status, 200);
    // One of the other user's may have come before it, and one may run.
    assert!(server.meter(WAITING) >= 27.0, "{}", server.meter(WAITING));
    drop(much);
}

#[test]
fn bounds_of_the_queue_hold_for_each_user_and_for_all() {
    let server = one_by_one(&["--queue", "4", "--queue-per-user", "2"]);
    let of = |user: &str| {
        let mut body = long();
        body["user"] = user.into();
        body
    };
    let mut held = vec![begin(&server, &of("a"))];
    server.reaches(RUNNING, 1.0);
    for user in ["a", "a", "b", "b"] {
        held.push(begin(&server, &of(user)));
        server.reaches(WAITING, held.len() as f64 - 1.0);
    }
    let refused = |user: &str| server.ask(&of(user)).refusal();
    assert_eq!(refused("a"), (429, "too_many_pictures".into(), String::new()));
    // Others have room as long as somebody has more; the one whose turn is last gives way.
    let others = ["c", "d"].map(|user| {
        let newcomer = begin(&server, &of(user));
        let place = if user == "c" { 2 } else { 3 };
        assert_eq!(Answer::read(held.remove(place)).refusal().1, "displaced", "{user}");
        newcomer
    });
    assert_eq!(refused("e").1, "queue_full", "now nobody has more than one");
    drop(others);
}

#[test]
fn requests_of_a_kind_share_a_batch() {
    let server = Server::start(&["--guidance", "3", "--steps", "4", "--max-batch", "4", "--deadline", "1h"]);
    let blocker = begin(&server, &long());
    server.reaches(RUNNING, 1.0);
    let prompts = ["an owl", "a red apple", "a pizza", "a cat"];
    let body = |(i, prompt): (usize, &&str)| json!({ "prompt": prompt, "seed": i, "user": i.to_string() });
    let asked: Vec<_> = prompts.iter().enumerate().map(|one| begin(&server, &body(one))).collect();
    server.reaches(WAITING, 4.0);
    drop(blocker);
    for (i, stream) in asked.into_iter().enumerate() {
        let alone = generated(&["--prompt", prompts[i], "--seed", &i.to_string(), "--guidance", "3", "--steps", "4"]);
        assert!(difference(&Answer::read(stream).png(0), &alone) < 0.5, "{i}");
    }
    assert_eq!(server.meter("evocache_serve_batch_seconds_count"), 2.0, "the one that was cut short, and the four");
}

#[cfg(unix)]
#[test]
fn a_stop_lets_what_waits_end_and_nothing_more_begin() {
    let mut server = one_by_one(&["--drain", "10m"]);
    let asked =
        [1, 2].map(|seed| begin(&server, &json!({ "prompt": "an owl", "seed": seed, "num_inference_steps": 100 })));
    server.reaches(WAITING, 1.0);
    let mut idle = server.connect();
    server.terminate();
    for stream in asked {
        assert_eq!(Answer::read(stream).status, 200);
    }
    assert_eq!(server.ended(), Some(0));
    // Its connection was closed, and there is nobody to connect to.
    let _ = idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(Answer::read(idle).status, 0);

    // What takes longer than the stop may take is told so.
    let mut server = one_by_one(&["--drain", "300ms"]);
    let running = begin(&server, &long());
    server.reaches(RUNNING, 1.0);
    server.terminate();
    assert_eq!(Answer::read(running).refusal().1, "stopping");
    assert_eq!(server.ended(), Some(0));
}
