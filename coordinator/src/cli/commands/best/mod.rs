//! The verb `best`: asks the coordinator for the best schedule under conditions, and writes it to a file on request.

mod conditions;
mod constraints;

use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::kit::exit::{Exit, Failure};
use crate::cli::kit::printer::Printer;
use crate::cli::kit::search::SearchArg;
use crate::cli::kit::view;
use crate::cli::results::{self, Format};
use crate::client::Client;

pub use constraints::{ConstraintArgs, Prefer};

/// Ask for the best schedule under conditions
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  evocache best my-search --min-quality-ratio 98%
  evocache best my-search --max-latency 35ms --prefer quality
  evocache best my-search --prefer knee --out schedule.json
  evocache best my-search --min-quality-ratio 98% --where 'psnr>=28'
  evocache best my-search --min-speedup 2x --prefer quality \\
    --out ecad.json --format ecad

The answer satisfies all conditions, and the bounds of the search's objectives
unless --ignore-bounds is given. Exit code 3 if no schedule does; the error
names the nearest.")]
pub struct BestArgs {
    /// The search.
    #[command(flatten)]
    pub search: SearchArg,
    /// The conditions.
    #[command(flatten)]
    pub constraints: ConstraintArgs,
    /// Which to prefer among the schedules that satisfy the conditions
    #[arg(long, value_enum, default_value = "fastest")]
    pub prefer: Prefer,
    /// Write the schedule to a file; '-' for stdout
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Format of that file
    #[arg(long, value_enum, default_value = "evocache", requires = "out")]
    pub format: Format,
}

/// Runs the verb.
pub async fn best(client: &Client, args: BestArgs, printer: Printer) -> Result<Exit, Failure> {
    let best = client.best(&args.search.id, args.constraints.question(args.prefer.into()), false).await?;
    let search = client.search(&args.search.id).await?;
    if let Some(lost) = args.out.as_ref().and_then(|_| results::lost(&search, &best, args.format)) {
        printer.warning(&lost);
    }
    match &args.out {
        Some(file) if file == Path::new("-") => {
            printer.data(&results::schedule_text(&search, &best, args.format)?)?;
            printer.note(&results::describe(&best));
            return Ok(Exit::Ok);
        }
        Some(file) => results::write_schedule(&search, &best, file, args.format)?,
        None => {}
    }
    printer.answer(|| view::best(&search, &best), || results::describe(&best))?;
    if let Some(file) = &args.out {
        let format = match args.format {
            Format::Evocache => "evocache's",
            Format::Ecad => "ECAD's",
        };
        printer.note(&format!("written in {format} format: {}", file.display()));
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;

    use super::*;
    use crate::client::{Constraint, Preference, Question};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        best: BestArgs,
    }

    fn parse(args: &str) -> Result<BestArgs, clap::Error> {
        Line::try_parse_from(args.split(' ')).map(|line| line.best)
    }

    #[test]
    fn conditions_combine() {
        let best = parse("best s --max-latency 35ms --prefer quality").unwrap();
        assert_eq!(
            best.constraints.question(best.prefer.into()),
            Question::new(vec![Constraint::MaxLatency(Duration::from_millis(35))], Preference::BestQuality)
        );
        let all = "best s --min-quality-ratio 98% --min-speedup 2x --where psnr>=28 --where lpips<=0.1 --ignore-bounds";
        let question = parse(all).unwrap().constraints.question(Preference::Fastest);
        assert!(question.ignore_bounds && question.constraints.len() == 4, "{question:?}");
        assert_eq!(question.constraints[..2], [Constraint::MinSpeedup(2.0), Constraint::MinQualityRatio(0.98)]);
        let percent = parse("best s --min-quality-ratio 98").unwrap_err();
        assert!(percent.exit_code() == 2 && percent.to_string().contains("98% or 0.98"), "{percent}");
        assert!(parse("best s --min-quality -0.5").is_ok());
        assert!(parse("best S").is_err(), "an id in capitals");
        assert!(parse("best s --format ecad").is_err(), "a format without a file");
    }
}
