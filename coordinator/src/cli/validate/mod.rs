//! The verb `validate`: the front of a search, measured again on prompts that the search has not seen.
//!
//! It creates a search of its own that measures the front and the heuristic schedules, follows it, and compares the
//! two. Talking to the coordinator is here; what is measured is in [`plan`], what follows from it in [`report`]. Absent
//! on purpose: any measuring, and any way to make schedules better; a schedule that does not hold is told, not mended.

mod figures;
mod json;
mod plan;
mod report;
mod text;

use evocache_proto::domain::{Prompt, SearchSpec};

use super::args::{Global, ValidateArgs};
use super::exit::{Exit, Failure};
use super::follow::{Followed, until_end};
use super::printer::Printer;
use super::searches::waits;
use super::{connect, prompts};
use crate::client::{Client, ErrorKind, Search, SearchState};
use plan::{Conditions, Plan};
use report::{Measured, Report};

pub(super) async fn validate(global: &Global, args: ValidateArgs, printer: Printer) -> Result<Exit, Failure> {
    // The file first: a mistake in it is told without a coordinator.
    let prompts = prompts::read(&args.prompts_file, args.prompts, args.first_seed)
        .map_err(|(setting, problem)| Failure::usage(format!("--{}: {problem}", setting.replace('_', "-"))))?;
    let client = connect(global).await?;
    let search = client.search(&args.id).await?;
    let front = client.front(&args.id, false).await?;
    let evaluations = client.evaluations(&args.id, false).await?;
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
        printer.warning(&format!("{} heuristic schedules are left out: there are too many", plan.left_out));
    }
    let validation = open(&client, &args, &plan.spec).await?;
    tell(&validation, &plan, printer);
    let (state, reason) = if validation.state.is_final() {
        (validation.state, validation.end_reason.clone())
    } else {
        match until_end(&client, &validation.id, plan.spec.budget, printer, false).await? {
            Followed::Ended { state, reason } => (state, reason),
            Followed::Interrupted => {
                printer.note(&format!("it goes on; the same command with --name {} does too", validation.id));
                return Ok(Exit::Interrupted);
            }
        }
    };
    if state == SearchState::Failed {
        return Err(Failure::new(format!("search {} has failed: {reason}", validation.id)));
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

/// On prompts of the search itself nothing is held out.
fn warn_of_seen(search: &Search, prompts: &[Prompt], printer: Printer) {
    let seen = |prompt: &&Prompt| search.spec.prompts.iter().any(|p| p.text == prompt.text);
    let common = prompts.iter().filter(seen).count();
    if common > 0 {
        printer.warning(&format!(
            "{common} of {} prompts are prompts of search {} too; what is chosen on a prompt looks better on it",
            prompts.len(),
            search.id
        ));
    }
}

/// The search of this name, if it is the same validation; else a new one.
async fn open(client: &Client, args: &ValidateArgs, spec: &SearchSpec) -> Result<Search, Failure> {
    if let Some(id) = &args.name {
        match client.search(id).await {
            Ok(search) if plan::is_validation(&search, &args.id, spec) => return Ok(search),
            // Another search has the name: creating one says so.
            Ok(_) => {}
            Err(error) if error.kind() == Some(ErrorKind::NotFound) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(client.create_search(args.name.as_ref(), spec).await?)
}

fn tell(validation: &Search, plan: &Plan, printer: Printer) {
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
