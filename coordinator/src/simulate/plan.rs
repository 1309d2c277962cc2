//! What is simulated: turns the command line into a search, the declaration of a worker, and probabilities.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use evocache_proto::domain::{
    Algorithm, Budget, Declaration, Direction, Layout, MeasurementPlan, MetricDeclaration, ModelRef, Objective, Prompt,
    Sampling, SearchSpec, SpecDraft,
};

use crate::cli::kit::exit::Failure;
use crate::cli::kit::units::{parse_duration, parse_finite, parse_positive, parse_ratio, parse_share};
use crate::client::new_request_id;

/// The metric that simulated workers measure.
pub(super) const QUALITY: &str = "simulated_quality";

/// Plan a cluster: a real coordinator with simulated workers, and what it takes
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  evocache simulate --workers 8 --time 1s --failure-rate 2% --kill-rate 10
  evocache simulate --workers 64 --evaluations 5000 --time 40s±20% --price 2.50
                    in real time: this takes an hour
  evocache simulate --workers 1000 --evaluations 5000 --time 0 --json
                    how fast the coordinator can be")]
pub struct SimulateArgs {
    /// Number of workers
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub workers: u32,
    /// Evaluations of the search
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub evaluations: u64,
    /// Additional workers with another model that wait for work throughout, on a connection each
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub idle: u32,
    /// Kill and restart the coordinator before the search ends, and measure the time to the first lease
    #[arg(long, conflicts_with = "against")]
    pub restart: bool,
    /// Duration of an evaluation and its variation (2s, 2s±20%, 2s+-20%); 0: none
    #[arg(long, value_name = "TIME", default_value = "2s±20%")]
    pub time: TimeLaw,
    /// Share of the evaluations that are reported as failed
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = parse_share)]
    pub failure_rate: f64,
    /// Workers that die per minute, without notice, out of all; each is replaced at once
    #[arg(long, value_name = "N", default_value = "0", value_parser = parse_rate)]
    pub kill_rate: f64,
    /// What can be cached: pixart:BLOCKS or flux:DOUBLES:SINGLES
    #[arg(long, value_name = "LAYOUT", default_value = "pixart:28", value_parser = parse_layout)]
    pub layout: Layout,
    /// Step counts, largest first
    #[arg(long, value_name = "N,…", default_value = "20", value_delimiter = ',')]
    pub steps: Vec<u32>,
    /// Prompts of each evaluation, each with a score
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub prompts: u32,
    /// Price of an hour of one worker, in any currency
    #[arg(long, value_name = "PRICE", value_parser = parse_positive)]
    pub price: Option<f64>,
    /// Seed of the search and of all random events
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// How long a worker may be silent before another one gets its candidate; not with --against
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub lease_ttl: Duration,
    /// Use a running coordinator [default: a new one, in a temporary folder]
    ///
    /// Not --coordinator: EVOCACHE_COORDINATOR in the environment is meant for real searches.
    #[arg(long, value_name = "URL")]
    pub against: Option<String>,
}

/// How long an evaluation takes: log-normal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TimeLaw {
    /// Mean duration.
    pub mean: Duration,
    /// Standard deviation relative to the mean.
    pub deviation: f64,
}

impl FromStr for TimeLaw {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mean, deviation) = match text.split_once('±').or_else(|| text.split_once("+-")) {
            Some((mean, deviation)) => (mean, parse_ratio(deviation)?),
            None => (text, 0.0),
        };
        Ok(Self { mean: parse_duration(mean)?, deviation })
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate = parse_finite(text)?;
    if rate >= 0.0 { Ok(rate) } else { Err(format!("'{text}' is negative")) }
}

fn parse_layout(text: &str) -> Result<Layout, String> {
    let wrong = || format!("'{text}' is not a layout; write pixart:28 or flux:19:38");
    let mut parts = text.split(':');
    let name = parts.next().unwrap_or_default();
    let counts = parts.map(str::parse).collect::<Result<Vec<u32>, _>>().map_err(|_| wrong())?;
    match (name, counts.as_slice()) {
        ("pixart", [blocks]) => Layout::pixart(*blocks).map_err(|e| e.to_string()),
        ("flux", [doubles, singles]) => Layout::flux(*doubles, *singles).map_err(|e| e.to_string()),
        _ => Err(wrong()),
    }
}

/// Everything that a simulated worker needs to know.
#[derive(Debug)]
pub(super) struct Plan {
    /// Number of workers.
    pub(super) workers: u32,
    /// Number of additional idle workers.
    pub(super) idle: u32,
    /// Evaluations until the simulation is over.
    pub(super) evaluations: u64,
    /// Specification of the search.
    pub(super) spec: SearchSpec,
    /// The cacheable modules.
    pub(super) layout: Arc<Layout>,
    /// What every worker declares, apart from its name.
    pub(super) declaration: Declaration,
    /// Duration of an evaluation.
    pub(super) time: TimeLaw,
    /// Share of the evaluations that fail.
    pub(super) failure_rate: f64,
    /// Probability per second that a worker dies.
    pub(super) death_rate: f64,
    /// Price of a worker-hour.
    pub(super) price: Option<f64>,
    /// Seed of all random draws.
    pub(super) seed: u64,
    /// Lifetime of a lease, if the simulation starts the coordinator.
    pub(super) lease_ttl: Duration,
}

impl Plan {
    /// Turns the command line into a plan; refuses what makes no valid search.
    pub(super) fn new(args: &SimulateArgs) -> Result<Self, Failure> {
        // No real worker has this model, so none gets a lease.
        let model = format!("simulated-{}", &new_request_id().as_str()[..8]);
        let layout = Arc::new(args.layout.clone());
        let declaration = Declaration {
            name: String::new(),
            device: "simulated".into(),
            software: concat!("evocache simulate ", env!("CARGO_PKG_VERSION")).into(),
            model: model.clone(),
            fingerprint: model.clone(),
            layout: args.layout.clone(),
            forecast: false,
            guidance_decisions: false,
            profiles: false,
            grids: false,
            memory_bytes: 0,
            labels: Default::default(),
            metrics: vec![MetricDeclaration {
                name: QUALITY.into(),
                direction: Direction::Maximize,
                unit: "1".into(),
                description: "falls with the age of reused outputs".into(),
            }],
            cost: None,
        };
        let objective = |metric: &str, direction| Objective { metric: metric.into(), direction, bound: None };
        // A search that must outlive a restart needs work left, however fast it is between two polls.
        let left = if args.restart { args.evaluations + 2 * u64::from(args.workers) + 1 } else { 0 };
        let budget = Budget { evaluations: Some(args.evaluations + left), ..Budget::default() };
        let draft = SpecDraft {
            model: ModelRef { name: model, fingerprint: None },
            sampling: Sampling {
                steps: args.steps.clone(),
                guidance_scale: 4.5,
                height: None,
                width: None,
                negative_prompt: String::new(),
                grids: vec![],
            },
            forecast: false,
            guidance_decisions: false,
            prompts: (0..args.prompts).map(|i| Prompt { text: format!("prompt {i}"), seed: u64::from(i) }).collect(),
            plan: MeasurementPlan { batch: 1, warmup: 0, repeats: 5, thumbnails: 0 },
            objectives: vec![objective("latency_ratio", Direction::Minimize), objective(QUALITY, Direction::Maximize)],
            budget,
            algorithm: Algorithm::default(),
            seed: args.seed,
            labels: BTreeMap::from([("purpose".into(), "simulation".into())]),
            placement: Default::default(),
            imported: vec![],
        };
        Ok(Self {
            workers: args.workers,
            idle: args.idle,
            evaluations: args.evaluations,
            spec: draft.validate().map_err(Failure::usage)?,
            layout,
            declaration,
            time: args.time,
            failure_rate: args.failure_rate,
            death_rate: args.kill_rate / 60.0 / f64::from(args.workers),
            price: args.price,
            seed: args.seed,
            lease_ttl: args.lease_ttl,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_layouts_are_read() {
        let law = |text: &str| text.parse::<TimeLaw>();
        let two = Duration::from_secs(2);
        assert_eq!(law("2s±20%").unwrap(), TimeLaw { mean: two, deviation: 0.2 });
        assert_eq!(law("2s+-0.2").unwrap(), law("2s±20%").unwrap());
        assert_eq!(law("2s").unwrap(), TimeLaw { mean: two, deviation: 0.0 });
        assert_eq!(law("0").unwrap(), TimeLaw { mean: Duration::ZERO, deviation: 0.0 });
        assert!(law("2").is_err() && law("2s±much").is_err());
        assert_eq!(parse_layout("pixart:28").unwrap(), Layout::pixart(28).unwrap());
        assert_eq!(parse_layout("flux:19:38").unwrap(), Layout::flux(19, 38).unwrap());
        assert!(parse_layout("pixart").is_err() && parse_layout("pixart:0").is_err() && parse_layout("a:1").is_err());
        assert!(parse_rate("-1").is_err());
    }
}
