//! The results of a search as files in a folder.

use std::path::Path;

use evocache_proto::domain::builtin_direction;
use evocache_proto::text;

use super::chart::{self, Chart, Point};
use super::choice::Choice;
use super::fetched::Results;
use super::schedule_file::{Format, lost, write_schedule};
use super::sheet::{self, Column};
use crate::cli::kit::exit::Failure;
use crate::cli::kit::view;
use crate::client::{Best, Evaluation};

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    std::fs::write(path, bytes).map_err(|e| Failure::file("write", path, &e))
}

/// Writes front.json, front.svg, the chosen schedules in both formats, and sheet.png. Returns a note for each file that
/// could not be written because there is nothing to write.
pub fn write_folder(results: &Results, folder: &Path) -> Result<Vec<String>, Failure> {
    std::fs::create_dir_all(folder).map_err(|e| Failure::file("create", folder, &e))?;
    let mut notes = vec![];
    let front = view::front(&results.search, &results.front);
    write(&folder.join("front.json"), format!("{}\n", text::json(&format!("{front:#}"))).as_bytes())?;
    write_chart(results, &folder.join("front.svg"))?;
    for Choice { key, question, answer, .. } in &results.choices {
        let Ok(best) = answer else {
            notes.push(format!("no {key}.json: no schedule is \"{question}\""));
            continue;
        };
        write_schedule(&results.search, best, &folder.join(format!("{key}.json")), Format::Evocache)?;
        let ecad = folder.join(format!("{key}.ecad.json"));
        if let Err(failure) = write_schedule(&results.search, best, &ecad, Format::Ecad) {
            notes.push(format!("no {key}.ecad.json: {}", failure.message));
        }
        notes.extend(lost(&results.search, best, Format::Ecad).map(|lost| format!("{key}.ecad.json: {lost}")));
    }
    if results.search.spec.plan.thumbnails == 0 {
        notes.push("no sheet.png: the specification asks for no thumbnails".into());
    } else {
        write_sheet(results, &folder.join("sheet.png"))?;
    }
    Ok(notes)
}

/// Draws the front.
pub fn write_chart(results: &Results, path: &Path) -> Result<(), Failure> {
    let svg = chart::draw(&chart(results)).map_err(|e| Failure::new(format!("cannot draw the front: {e}")))?;
    write(path, svg.as_bytes())
}

fn chart(results: &Results) -> Chart {
    let quality = results.quality();
    let point = |e: &Evaluation| -> Option<Point> { Some((e.latency_ratio(), e.value(quality)?)) };
    let on_front = |e: &&Evaluation| results.front.evaluations.iter().any(|f| f.candidate == e.candidate);
    let is_seed = |e: &&Evaluation| e.is_seed();
    let of = |keep: &dyn Fn(&&Evaluation) -> bool| -> Vec<Point> {
        // Quality on some of the prompts cannot be compared with quality on all.
        let whole = results.evaluations.iter().filter(|e| results.search.is_whole(e));
        whole.filter(keep).filter_map(point).collect()
    };
    let objectives = &results.search.spec.objectives;
    Chart {
        title: format!("{}: {} evaluations", results.search.id, results.search.progress.evaluations),
        quality: quality.to_owned(),
        dominated: of(&|e| !on_front(e) && !is_seed(e)),
        seeds: of(&|e| is_seed(e) && e.candidate.0 != 0),
        front: results.front.evaluations.iter().filter_map(point).collect(),
        line: objectives.len() == 2
            && objectives.iter().any(|o| o.metric == "latency_ratio")
            && objectives.iter().any(|o| builtin_direction(&o.metric).is_none()),
        uncached: results.baseline().and_then(point),
        chosen: answers(results).filter_map(|(c, b)| Some((c.title.to_owned(), point(&b.evaluation)?))).collect(),
    }
}

fn answers(results: &Results) -> impl Iterator<Item = (&Choice, &Best)> {
    results.choices.iter().filter_map(|c| c.answer.as_ref().ok().map(|best| (c, best)))
}

/// Composes the pictures of the chosen schedules beside the uncached ones.
pub fn write_sheet(results: &Results, path: &Path) -> Result<(), Failure> {
    let prompts: Vec<String> = results.search.spec.prompts.iter().map(|p| p.text.clone()).collect();
    let quality = results.quality();
    let facts = |e: &Evaluation| {
        vec![
            format!("{:.1} ms/image", e.latency() / 1e3),
            e.value(quality).map(|v| format!("{quality} {v:.3}")).unwrap_or_default(),
        ]
    };
    let column = |title: String, e: &Evaluation| {
        let titles = std::iter::once(title).chain(facts(e)).collect();
        Column { titles, pictures: e.measurement.thumbnails.clone() }
    };
    let uncached = results.baseline().map(|b| column(format!("uncached, {} steps", b.schedule.steps()), b));
    let chosen = answers(results).map(|(c, b)| column(format!("{}: {:.2}x", c.title, b.speedup), &b.evaluation));
    let columns: Vec<Column> = uncached.into_iter().chain(chosen).collect();
    let failed = |e: String| {
        Failure::new(format!("cannot compose a contact sheet: {e}"))
            .hint("the specification's measurement.thumbnails says how many pictures are kept")
    };
    write(path, &sheet::compose(&prompts, &columns).map_err(failed)?)
}
