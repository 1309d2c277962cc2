//! The verb `simulate`: small runs, with and without mishaps.

use crate::support::evocache;

const SMALL: &[&str] = &["simulate", "--layout", "pixart:2", "--steps", "6,4", "--prompts", "3"];

#[test]
fn a_simulation_makes_all_evaluations_and_tells_what_they_took() {
    let more = ["--evaluations", "30", "--workers", "4", "--time", "0", "--price", "2", "--json"];
    let told = evocache(&[SMALL, &more].concat()).json();
    assert_eq!((told["evaluations"].as_u64(), told["workers"].as_u64()), (Some(30), Some(4)));
    assert!(told["evaluations_per_second"].as_f64().unwrap() > 0.0);
    assert_eq!(told["complete_evaluation"]["calls"], 30);
    assert!(told["cost"].as_f64().unwrap() > 0.0 && told["store_bytes"].as_u64().unwrap() > 0);
    if cfg!(target_os = "linux") {
        assert!(told["coordinator"]["peak_memory_bytes"].as_u64().unwrap() > 0);
    }
}

#[test]
fn failures_and_deaths_cost_time_and_no_evaluation() {
    // A worker lives for 200 ms on average, an evaluation takes 20: of 100 about ten die, and hardly any again and again.
    let more = ["--workers", "3", "--time", "20ms+-30%", "--failure-rate", "10%", "--kill-rate", "900"];
    let outcome = evocache(&[SMALL, &more, &["--evaluations", "100", "--lease-ttl", "300ms", "--json"]].concat());
    let told = outcome.json();
    assert_eq!(told["evaluations"], 100);
    assert!(told["killed"].as_u64().unwrap() > 0, "{}", outcome.stdout);
    assert!(told["utilisation"].as_f64().unwrap() < 1.0);
}

#[test]
fn what_cannot_be_simulated_is_a_wrong_command_line() {
    for wrong in
        [["--time", "2"], ["--layout", "unet:3"], ["--failure-rate", "1"], ["--steps", "4,6"], ["--workers", "0"]]
    {
        evocache(&[&["simulate"][..], &wrong].concat()).fails(2, &[]);
    }
    evocache(&["simulate", "--against", "http://127.0.0.1:1"]).fails(1, &["not reachable"]);
}
