//! What came out of a search: the front as table, picture and files. `front`, `best` and `local` all show it through
//! these functions.
//!
//! Absent on purpose: any judgement of what is best; that is the coordinator's.

mod chart;
mod choice;
mod evaluation_table;
mod folder;
mod font;
mod noise;
mod picture;
mod sheet;

use evocache_proto::domain::{Direction, SearchId};

use crate::client::{Client, ClientError, Evaluation, Front, Search};

use choice::describe_reference;
pub(crate) use choice::describe_uncached;
pub use choice::{Choice, ask, describe};
pub use evaluation_table::{front_table, thin};
pub(crate) use folder::{lost, schedule_text};
pub use folder::{write_chart, write_folder, write_schedule, write_sheet};
pub use noise::{deviation, noise};

/// All that is known of a search.
#[derive(Debug, Clone)]
pub struct Results {
    /// The search.
    pub search: Search,
    /// Its front.
    pub front: Front,
    /// Every evaluation.
    pub evaluations: Vec<Evaluation>,
    /// The answers to the three usual questions.
    pub choices: Vec<Choice>,
}

impl Results {
    /// Fetches all of it, with pictures for the contact sheet.
    pub async fn fetch(client: &Client, id: &SearchId) -> Result<Self, ClientError> {
        let search = client.search(id).await?;
        let front = client.front(id, false).await?;
        let evaluations = client.evaluations(id, false).await?;
        let choices = ask(client, &search).await?;
        Ok(Self { search, front, evaluations, choices })
    }

    /// The metric that quality means.
    pub fn quality(&self) -> &str {
        self.search.quality_metric().unwrap_or("quality")
    }

    /// The uncached run with its pictures, if a choice came with them; else as the front gives it.
    pub fn baseline(&self) -> Option<&Evaluation> {
        let of_choice = self.choices.iter().find_map(|c| c.answer.as_ref().ok()?.baseline.as_ref());
        of_choice.or(self.front.baseline.as_ref())
    }

    /// A front that keeps the objectives' bounds, or why it does not: while nothing does, it is what comes nearest.
    pub fn out_of_bounds(&self) -> Option<String> {
        let objectives = &self.search.spec.objectives;
        let broken = |e: &Evaluation| objectives.iter().find(|o| !e.keeps(o));
        let broken = self.front.evaluations.iter().find_map(broken)?;
        let bound = broken.bound.unwrap_or_default();
        Some(format!(
            "no schedule keeps the objectives' bounds yet, so these are the nearest; '{}' is to be {} {bound}",
            broken.metric,
            if broken.direction == Direction::Minimize { "at most" } else { "at least" }
        ))
    }

    /// What the search has gained over the heuristic schedules it began with.
    pub fn gain(&self) -> String {
        let p = &self.search.progress;
        let mut text = format!("hypervolume {:.4}, of the seeds alone {:.4}", p.hypervolume, p.seeds_hypervolume);
        if p.seeds_hypervolume > 0.0 {
            text += &format!(" ({:+.1} %)", 100.0 * (p.hypervolume / p.seeds_hypervolume - 1.0));
        }
        let speedup = |x: Option<f64>| x.map_or("none".to_owned(), |x| format!("{x:.2}x"));
        text += &format!(
            "\nbest speed-up at >= 98 % of the uncached {}: {}, of the seeds alone {}\n",
            self.quality(),
            speedup(p.best_speedup),
            speedup(p.seeds_best_speedup)
        );
        text
    }
}
