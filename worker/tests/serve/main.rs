//! `serve` with the bundled model: real processes, real HTTP.
#![cfg(feature = "serve")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod follow;
mod load;
#[cfg(unix)]
mod secure;
mod series;
mod server;

use evocache_worker::picture::Picture;
use serde_json::json;

use server::{Answer, Server, model, worker};

/// The PNG file that `generate` writes.
fn generated(more: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let (out, model) = (folder.path().join("picture.png"), model());
    let fixed = ["generate", "--model", model.to_str().unwrap(), "--out", out.to_str().unwrap()];
    let output = worker(&[&fixed[..], more].concat()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(out).unwrap()
}

fn schedule() -> String {
    model().join("golden/cached_fora_3.json").to_str().unwrap().to_owned()
}

#[test]
fn a_picture_is_the_one_that_generate_draws() {
    let schedule = schedule();
    let server = Server::start(&["--schedule", &schedule, "--guidance", "3"]);
    let owl = ["--prompt", "an owl on a pink background", "--seed", "7", "--guidance", "3"];
    let cached = generated(&[&owl[..], &["--schedule", &schedule]].concat());
    let body = json!({ "prompt": "an owl on a pink background", "seed": 7 });
    // The second time with the encoded texts of the first.
    for _ in 0..2 {
        let answer = server.ask(&body);
        assert!(answer.png(0) == cached, "{}", answer.text());
        assert_eq!(answer.header("x-evocache-schedule").map(str::len), Some(64));
        assert_eq!(answer.header("x-evocache-why"), Some("given with --schedule"));
        assert_eq!(answer.json()["data"][0]["seed"], 7);
    }
    assert_eq!(server.meter("evocache_serve_texts_encoded_total"), 2.0, "the empty prompt of the start, and this one");

    let uncached = generated(&[&owl[..], &["--steps", "20"]].concat());
    assert!(uncached != cached);
    for (more, why) in [
        (json!({ "schedule": "none" }), "uncached: the request asks for it"),
        (json!({ "num_inference_steps": 9 }), "uncached: the schedule is for 20 steps, the request for 9"),
    ] {
        let mut body = body.clone();
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = server.ask(&body);
        assert_eq!(answer.header("x-evocache-why"), Some(why));
        assert_eq!((answer.header("x-evocache-schedule"), answer.header("x-evocache-speedup")), (Some("none"), None));
        if more["schedule"] == "none" {
            assert!(answer.png(0) == uncached);
        }
    }

    let size = json!({ "prompt": "a red apple", "negative_prompt": "fog", "seed": 1, "size": "48x32",
                       "num_inference_steps": 4, "guidance_scale": 5.5, "user": "ada", "model": "emoji" });
    let wide = ["--width", "48", "--height", "32", "--steps", "4", "--guidance", "5.5", "--negative-prompt", "fog"];
    let wide = generated(&[&["--prompt", "a red apple", "--seed", "1"], &wide[..]].concat());
    assert!(server.ask(&size).png(0) == wide);
}

#[test]
fn several_pictures_and_addresses_of_pictures() {
    let server = Server::start(&["--guidance", "3", "--steps", "4"]);
    let several = server.ask(&json!({ "prompt": "an owl", "seed": 5, "n": 3 }));
    let seeds: Vec<_> = several.json()["data"].as_array().unwrap().iter().map(|one| one["seed"].clone()).collect();
    assert_eq!(seeds, [5, 6, 7]);
    // A batch adds in another order than a single picture.
    let alone = generated(&["--prompt", "an owl", "--seed", "6", "--guidance", "3", "--steps", "4"]);
    assert!(difference(&several.png(1), &alone) < 0.5);

    let body = json!({ "prompt": "an owl", "seed": 6, "response_format": "url" });
    let url = server.ask(&body).json()["data"][0]["url"].as_str().unwrap().to_owned();
    let path = format!("/{}", url.splitn(4, '/').nth(3).unwrap());
    let file = server.get(&path);
    assert_eq!((file.status, file.header("content-type")), (200, Some("image/png")));
    assert!(file.bytes() == alone);
    assert_eq!(server.get("/v1/images/files/x.png").refusal().1, "no_such_picture");

    // Without a seed, every picture is another one.
    let seed = |answer: Answer| answer.json()["data"][0]["seed"].as_u64().unwrap();
    let body = json!({ "prompt": "an owl", "num_inference_steps": 1 });
    assert_ne!(seed(server.ask(&body)), seed(server.ask(&body)));
}

/// The mean difference of two PNG files, in 255ths.
fn difference(a: &[u8], b: &[u8]) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let read = |bytes: &[u8]| {
        let path = folder.path().join("picture.png");
        std::fs::write(&path, bytes).unwrap();
        Picture::read(&path).unwrap().rgb
    };
    let (a, b) = (read(a), read(b));
    assert_eq!(a.len(), b.len());
    a.iter().zip(&b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / a.len() as f64
}

#[test]
fn other_pages_are_there_for_clients_and_operators() {
    let server = Server::start(&["--model-name", "my/emoji", "--steps", "2"]);
    let models = server.get("/v1/models").json();
    assert_eq!((&models["object"], &models["data"][0]["id"]), (&json!("list"), &json!("my/emoji")));
    assert_eq!(server.get("/v1/models/my/emoji").json()["owned_by"], "evocache");
    assert_eq!(server.get("/v1/models/other").refusal(), (404, "model_not_found".into(), String::new()));
    assert_eq!((server.get("/healthz").status, server.get("/readyz").text().as_str()), (200, "ready\n"));
    server.ask(&json!({ "prompt": "an owl", "user": "ada" }));
    server.ask(&json!({ "prompt": "an owl", "x": 1 }));
    let page = server.get("/metrics").text();
    for line in [
        "evocache_serve_ready 1",
        "evocache_serve_schedule_info{schedule=\"none\"} 1",
        "evocache_serve_requests_total{status=\"200\",code=\"ok\"} 1",
        "evocache_serve_requests_total{status=\"400\",code=\"unknown_field\"} 1",
        "evocache_serve_batch_seconds_count 1",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
    }
    for secret in ["owl", "ada"] {
        assert!(!page.contains(secret) && !server.log().contains(secret), "{secret}: {page}{}", server.log());
    }
}

#[test]
fn bad_requests_are_refused_by_name_and_harm_nothing() {
    let server = Server::start(&["--steps", "2", "--memory", "1GiB"]);
    let asked = |more: serde_json::Value| {
        let mut body = json!({ "prompt": "an owl" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.ask(&body).refusal()
    };
    for (more, code, param) in [
        (json!({ "promt": 1 }), "unknown_field", "promt"),
        (json!({ "n": 1000 }), "invalid_value", "n"),
        (json!({ "size": "0x64" }), "does_not_fit_the_model", "size"),
        (json!({ "size": "63x64" }), "does_not_fit_the_model", "size"),
        (json!({ "size": "100000x100000" }), "does_not_fit_the_model", "size"),
        (json!({ "size": "8192x8192" }), "needs_too_much_memory", "size"),
        (json!({ "guidance_scale": "NaN" }), "invalid_value", "guidance_scale"),
    ] {
        assert_eq!(asked(more), (400, code.to_owned(), param.to_owned()));
    }
    assert_eq!(asked(json!({ "model": "other" })).0, 404);
    let refused = |headers: &str, body: &str| server.ask_with(headers, body).refusal();
    let owl = r#"{"prompt": "an owl"}"#;
    for deadline in ["x", "0", "-1", "NaN", "1e9"] {
        assert_eq!(refused(&format!("x-deadline: {deadline}\r\n"), owl).2, "x-deadline");
    }
    assert_eq!(refused("", r#"{"guidance_scale": NaN}"#).1, "invalid_json");
    let megabyte = format!(r#"{{"prompt": "{}"}}"#, "x".repeat(1 << 20));
    assert_eq!(refused("", &megabyte).1, "body_too_large");
    let chunked = server.request("transfer-encoding: chunked\r\nx-", "");
    let chunked = format!("{}{:x}\r\n{megabyte}\r\n0\r\n\r\n", chunked, megabyte.len());
    assert_eq!(server.send(&chunked).refusal().1, "body_too_large");
    let form = server.request("", owl).replace("application/json", "application/x-www-form-urlencoded");
    assert_eq!(server.send(&form).refusal().0, 415);
    // Half a body, and then nothing.
    let half = server.request("", owl).replace("content-length: 20", "content-length: 21");
    let answer = server.send(&half);
    assert_eq!(answer.refusal().1, "body_too_slow");
    assert_eq!(server.get("/nothing").refusal().0, 404);
    assert_eq!(server.get("/v1/images/generations").refusal().0, 405);
    assert_eq!(server.send("nonsense\r\n\r\n").status, 400);

    assert_eq!(server.ask(&json!({ "prompt": "an owl" })).status, 200);
    assert!(!server.log().contains("WARN") && !server.log().contains("ERROR"), "{}", server.log());
}

#[test]
fn what_cannot_be_served_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.json");
    std::fs::write(&path, "{}").unwrap();
    let (path, model) = (path.to_str().unwrap(), model());
    let fixed = ["serve", "--model", model.to_str().unwrap(), "--listen", "127.0.0.1:0"];
    let dit = format!("{}/tests/fixtures/dit", env!("CARGO_MANIFEST_DIR"));
    let schedule = schedule();
    for (arguments, wanted) in [
        (&[&fixed[..], &["--schedule", path]].concat()[..], "is not a schedule"),
        (&["serve", "--model", &dit, "--listen", "127.0.0.1:0", "--schedule", &schedule], "is for a model with layout"),
        (&["serve", "--model", path, "--listen", "127.0.0.1:0"], "model_index.json"),
        (&[&fixed[..3], &["--listen", "0.0.0.0:0"]].concat(), "can be reached by other machines"),
        (&[&fixed[..], &["--memory", "1M"]].concat(), "needs about"),
    ] {
        let output = worker(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(wanted), "{arguments:?}: {said}");
    }
}
