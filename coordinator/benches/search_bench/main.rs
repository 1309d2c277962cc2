//! `search-bench`: strategies × landscapes × seeds, as tables on stdout.
//!
//! ```text
//! cargo bench -p evocache --no-default-features --bench search_bench -- \
//!     [--landscapes pair,age] [--strategies evocache,ecad-random] [--seeds 5] [--evaluations 2000] [--shares]
//! cargo bench … -- --timing
//! cargo bench … -- --noise 0.2 [--landscapes pair,age] [--seeds 5] [--evaluations 500]
//! ```
//!
//! `--timing` times ask and tell; `--noise` adds noise to measured latencies and evaluates the reported front by its
//! true values.
//!
//! Hypervolume is that of the true (share, error) of all evaluated schedules, with the reference point (1, 1); medians
//! over the seeds. "Reaches" is the number of evaluations until the hypervolume equals that of ECAD's algorithm after
//! 39,600 (the better of its two starts, median over the seeds). The layout is 28 blocks of one component, so
//! strategies know only the order of the slots. One candidate is in flight at a time. Does not use real workers.

#![expect(clippy::print_stdout, reason = "a benchmark prints its tables")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a benchmark fails by panicking")]

mod ecad;
mod landscapes;
mod ours;

use std::collections::BTreeMap;
use std::sync::Mutex;

use evocache_domain::hypervolume::Staircase;
use landscapes::Landscape;

/// Numbers of evaluations after which the hypervolume is shown.
const AFTER: [u64; 6] = [250, 500, 1000, 2000, 6000, 39_600];

const STRATEGIES: [&str; 10] = [
    "ecad-random",
    "ecad-heuristic",
    "nsga2",
    "random",
    "evocache",
    "no-steps",
    "no-seeds",
    "no-operators",
    "no-selection",
    "no-planning",
];

struct Options {
    landscapes: Vec<String>,
    strategies: Vec<String>,
    seeds: u64,
    evaluations: u64,
    timing: bool,
    noise: Option<f64>,
}

fn options() -> Options {
    let mut options = Options {
        landscapes: landscapes::NAMES.map(String::from).to_vec(),
        strategies: STRATEGIES.map(String::from).to_vec(),
        seeds: 5,
        evaluations: 2000,
        timing: false,
        noise: None,
    };
    let mut arguments = std::env::args().skip(1).filter(|a| a != "--bench");
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{name} needs a value"));
        match name.as_str() {
            "--landscapes" => options.landscapes = value().split(',').map(String::from).collect(),
            "--strategies" => options.strategies = value().split(',').map(String::from).collect(),
            "--seeds" => options.seeds = value().parse().unwrap(),
            "--evaluations" => options.evaluations = value().parse().unwrap(),
            "--timing" => options.timing = true,
            "--noise" => options.noise = Some(value().parse().unwrap()),
            // Read in `ours.rs`: prints what each operator added.
            "--shares" => {}
            other => panic!("unknown option '{other}'"),
        }
    }
    options
}

/// The hypervolume after each evaluation, and the CPU time per candidate, including the landscape's.
struct Run {
    volume: Vec<f64>,
    micros_per_candidate: f64,
}

struct Tracker {
    stairs: Staircase,
    volume: Vec<f64>,
}

impl Tracker {
    fn new() -> Self {
        Self { stairs: Staircase::new((1.0, 1.0)), volume: vec![] }
    }

    fn add(&mut self, (share, error): (f64, f64)) {
        self.stairs.insert(share, error);
        self.volume.push(self.stairs.area());
    }
}

fn run(strategy: &str, landscape: &Landscape, seed: u64, evaluations: u64) -> Run {
    let mut tracker = Tracker::new();
    let begin = ours::cpu_micros();
    if let Some(start) = strategy.strip_prefix("ecad-") {
        ecad::run(start == "heuristic", seed, |bits| {
            let index = tracker.volume.len() as u64;
            let truth = landscape.truth(bits);
            (index < evaluations).then(|| {
                tracker.add(truth);
                landscape.measured(truth, seed, index)
            })
        });
    } else {
        ours::run(strategy, landscape, seed, evaluations, |truth| tracker.add(truth));
    }
    let micros_per_candidate = (ours::cpu_micros() - begin) / tracker.volume.len() as f64;
    Run { volume: tracker.volume, micros_per_candidate }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn main() {
    let options = options();
    if options.timing {
        return ours::timing();
    }
    if let Some(noise) = options.noise {
        return noisy(&options, noise);
    }
    let mut jobs = Vec::new();
    for landscape in &options.landscapes {
        for strategy in &options.strategies {
            jobs.extend((1..=options.seeds).map(|seed| (landscape.clone(), strategy.clone(), seed)));
        }
    }
    let total = jobs.len();
    let queue = Mutex::new(jobs.into_iter());
    let results = Mutex::new(BTreeMap::<(String, String), Vec<Run>>::new());
    std::thread::scope(|scope| {
        for _ in 0..2.min(total) {
            scope.spawn(|| {
                loop {
                    let job = queue.lock().unwrap().next();
                    let Some((name, strategy, seed)) = job else { break };
                    let landscape = Landscape::new(&name).unwrap_or_else(|| panic!("no landscape '{name}'"));
                    // ECAD's algorithm always runs its own full budget, whose result is the target.
                    let most = if strategy.starts_with("ecad") { 39_600 } else { options.evaluations };
                    let run = run(&strategy, &landscape, seed, most);
                    results.lock().unwrap().entry((name, strategy)).or_default().push(run);
                }
            });
        }
    });
    let results = results.into_inner().unwrap();
    for landscape in &options.landscapes {
        table(landscape, &options.strategies, &results);
    }
}

fn table(landscape: &str, strategies: &[String], results: &BTreeMap<(String, String), Vec<Run>>) {
    let of = |strategy: &str| results.get(&(landscape.to_owned(), strategy.to_owned()));
    let at = |runs: &[Run], n: u64| median(runs.iter().filter_map(|r| r.volume.get(n as usize - 1).copied()).collect());
    let ecad = ["ecad-random", "ecad-heuristic"].iter().filter_map(|s| of(s)).map(|runs| at(runs, 39_600));
    let target = ecad.fold(f64::NAN, f64::max);
    println!(
        "\n| {landscape} | 250 | 500 | 1,000 | 2,000 | 6,000 | 39,600 | reaches {target:.3} | CPU per candidate |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for strategy in strategies {
        let Some(runs) = of(strategy) else { continue };
        let cells = AFTER.map(|n| at(runs, n)).map(|v| if v.is_nan() { "–".into() } else { format!("{v:.3}") });
        let first = |run: &Run| run.volume.iter().position(|v| *v >= target).map_or(f64::INFINITY, |i| i as f64 + 1.0);
        let reached = median(runs.iter().map(first).collect());
        let reached = if reached.is_finite() { format!("{reached}") } else { "–".into() };
        let micros = median(runs.iter().map(|r| r.micros_per_candidate).collect());
        println!("| {strategy} | {} | {reached} | {micros:.0} µs |", cells.join(" | "));
    }
}

/// The reported front under noisy latencies, with and without repeated measurements.
fn noisy(options: &Options, noise: f64) {
    println!("| landscape | repeats | worst member is slower than necessary by | members | repeated measurements |");
    println!("|---|---|---|---|---|");
    for name in &options.landscapes {
        let landscape = Landscape::new(name).unwrap_or_else(|| panic!("no landscape '{name}'"));
        for remeasure in [true, false] {
            let runs: Vec<ours::Luck> = (1..=options.seeds)
                .map(|seed| ours::luck(&landscape, seed, options.evaluations, noise, remeasure))
                .collect();
            let list = |value: &dyn Fn(&ours::Luck) -> String| runs.iter().map(value).collect::<Vec<_>>().join(", ");
            println!(
                "| {name} | {} | {} | {} | {} |",
                if remeasure { "yes" } else { "no" },
                list(&|run| format!("{:.1} %", 100.0 * run.worst)),
                list(&|run| run.members.to_string()),
                list(&|run| run.repeated.to_string()),
            );
        }
    }
}
