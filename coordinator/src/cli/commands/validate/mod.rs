//! The verb `validate`: the front of a search, measured again on prompts that the search has not seen.
//!
//! It creates a search of its own that measures the front and the heuristic schedules, follows it, and compares the
//! two. The calls to the coordinator are here; `plan.rs` decides what is measured, `report.rs` what follows from it. A
//! schedule that does not hold is reported, not improved.

mod figures;
mod json;
mod plan;
mod report;
mod text;

use std::path::PathBuf;

use clap::Args;
use evocache_proto::domain::{Prompt, SearchId, SearchSpec};

use crate::cli::kit::exit::{Exit, Failure};
use crate::cli::kit::follow::{Followed, until_end};
use crate::cli::kit::global::Global;
use crate::cli::kit::printer::Printer;
use crate::cli::kit::search::{SearchArg, waits};
use crate::cli::kit::units::parse_ratio;
use crate::cli::spec::prompts;
use crate::client::{Client, ErrorKind, Search, SearchState};
use plan::{Conditions, Plan};
use report::{Measured, Report};

/// Measure a front again on other prompts, beside the heuristic schedules that it claims to beat
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  evocache validate my-search --prompts-file held-out.txt
  evocache validate my-search --prompts-file held-out.txt --prompts 64 --json
  evocache validate my-search --prompts-file held-out.txt --batch 1 \\
    --height 1024 --width 1024 --first-seed 1000 --name held-out

Creates a search of its own that measures the front and the heuristic schedules
of the given one on the prompts of the file, follows it, and reports. The same
command with the --name of such a search resumes it.")]
pub struct ValidateArgs {
    /// The search whose front is validated.
    #[command(flatten)]
    pub search: SearchArg,
    /// Prompts that the search has not seen, one a line
    #[arg(long, value_name = "FILE")]
    pub prompts_file: PathBuf,
    /// Use only the first N of them [default: all]
    #[arg(long, value_name = "N")]
    pub prompts: Option<usize>,
    /// Noise seed of the first prompt; the next ones count up
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub first_seed: u64,
    /// Images generated together, if serving will use another batch size [default: the search's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub batch: Option<u32>,
    /// Height in pixels, if serving will use another size [default: the search's]
    #[arg(long, value_name = "PIXELS")]
    pub height: Option<u32>,
    /// Width in pixels [default: the search's]
    #[arg(long, value_name = "PIXELS")]
    pub width: Option<u32>,
    /// Classifier-free guidance scale [default: the search's]
    #[arg(long, value_name = "SCALE")]
    pub guidance_scale: Option<f64>,
    /// Id of the search that is created [default: one that the coordinator makes]
    #[arg(long, visible_alias = "id", value_name = "NEW_ID")]
    pub name: Option<SearchId>,
    /// Share of the uncached quality that a schedule must keep (0.98 or 98%)
    #[arg(long, value_name = "RATIO", default_value = "0.98", value_parser = parse_ratio)]
    pub quality_ratio: f64,
}

/// Runs the verb. Connects after reading the file, so that a mistake in the file is reported without a coordinator.
pub async fn validate(global: &Global, args: ValidateArgs, printer: Printer) -> Result<Exit, Failure> {
    let prompts = prompts::read(&args.prompts_file, args.prompts, args.first_seed)
        .map_err(|(setting, problem)| Failure::usage(format!("--{}: {problem}", setting.replace('_', "-"))))?;
    let client = global.connect().await?;
    let search = client.search(&args.search.id).await?;
    let front = client.front(&args.search.id, false).await?;
    let evaluations = client.evaluations(&args.search.id, false).await?;
    warn_of_seen(&search, &prompts, printer);
    let conditions = Conditions {
        prompts,
        batch: args.batch,
        height: args.height,
        width: args.width,
        guidance_scale: args.guidance_scale,
    };
    let plan = plan::plan(&search, &front.evaluations, &evaluations, conditions)?;
    if plan.left_out > 0 {
        printer.warning(&format!("{} heuristic schedules are left out: a search imports 1,000 at most", plan.left_out));
    }
    let validation = open(&client, &args, &plan.spec).await?;
    announce(&validation, &plan, printer);
    let (state, reason) = if validation.state.is_final() {
        (validation.state, validation.end_reason.clone())
    } else {
        match until_end(&client, &validation.id, plan.spec.budget, printer, false).await? {
            Followed::Ended { state, reason } => (state, reason),
            Followed::Interrupted => {
                printer.note(&format!(
                    "the search goes on; the same command with --name {} follows it again",
                    validation.id
                ));
                return Ok(Exit::Interrupted);
            }
        }
    };
    if state == SearchState::Failed {
        return Err(Failure::new(format!("search {} failed: {reason}", validation.id)));
    }
    let validation = client.search(&validation.id).await?;
    let measured = client.evaluations(&validation.id, false).await?;
    let seen = Measured { search: &search, evaluations: &evaluations };
    let held_out = Measured { search: &validation, evaluations: &measured };
    let report = Report::new(&seen, &front.evaluations, &held_out, args.quality_ratio).ok_or_else(|| {
        Failure::new(format!("search {} has not measured the uncached run", validation.id))
            .hint(format!("`evocache show {}` says how it ended", validation.id))
    })?;
    printer.answer(|| json::report(&report), || text::report(&report))?;
    Ok(Exit::Ok)
}

/// Warns of prompts that the search has seen: on those, nothing is held out.
fn warn_of_seen(search: &Search, prompts: &[Prompt], printer: Printer) {
    let seen = |prompt: &&Prompt| search.spec.prompts.iter().any(|p| p.text == prompt.text);
    let common = prompts.iter().filter(seen).count();
    if common > 0 {
        printer.warning(&format!(
            "{common} of {} prompts are also prompts of search {}; a schedule chosen on a prompt looks better on it",
            prompts.len(),
            search.id
        ));
    }
}

/// The search with this name if it is the same validation, otherwise a new one.
async fn open(client: &Client, args: &ValidateArgs, spec: &SearchSpec) -> Result<Search, Failure> {
    if let Some(id) = &args.name {
        match client.search(id).await {
            Ok(search) if plan::is_validation(&search, &args.search.id, spec) => return Ok(search),
            // Another search has the name: creating one reports that.
            Ok(_) => {}
            Err(error) if error.kind() == Some(ErrorKind::NotFound) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(client.create_search(args.name.as_ref(), spec).await?)
}

fn announce(validation: &Search, plan: &Plan, printer: Printer) {
    printer.note(&format!(
        "search {} measures {} schedules on {} prompts, each twice",
        validation.id,
        plan.spec.imported.len(),
        plan.spec.prompts.len()
    ));
    if validation.state == SearchState::Pending {
        printer.note(&waits(validation));
    }
}
