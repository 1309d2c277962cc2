//! Everything that the coordinator knows of a search, fetched at once.

use evocache_proto::domain::{Direction, SearchId};

use super::choice::{Choice, ask};
use crate::client::{Client, ClientError, Evaluation, Front, Search};

/// A search with its results.
#[derive(Debug, Clone)]
pub struct Results {
    /// The search.
    pub search: Search,
    /// Its front.
    pub front: Front,
    /// All its evaluations.
    pub evaluations: Vec<Evaluation>,
    /// The answers to the three usual questions.
    pub choices: Vec<Choice>,
}

impl Results {
    /// Fetches everything, including the pictures of the contact sheet.
    pub async fn fetch(client: &Client, id: &SearchId) -> Result<Self, ClientError> {
        let search = client.search(id).await?;
        let front = client.front(id, false).await?;
        let evaluations = client.evaluations(id, false).await?;
        let choices = ask(client, &search).await?;
        Ok(Self { search, front, evaluations, choices })
    }

    /// Name of the quality metric.
    pub fn quality(&self) -> &str {
        self.search.quality_metric().unwrap_or("quality")
    }

    /// The uncached run: with its pictures if an answer brought them, otherwise as the front has it.
    pub fn baseline(&self) -> Option<&Evaluation> {
        let of_choice = self.choices.iter().find_map(|c| c.answer.as_ref().ok()?.baseline.as_ref());
        of_choice.or(self.front.baseline.as_ref())
    }

    /// A warning if no schedule satisfies the objectives' bounds: the front then holds the nearest ones.
    pub fn out_of_bounds(&self) -> Option<String> {
        let objectives = &self.search.spec.objectives;
        let broken = |e: &Evaluation| objectives.iter().find(|o| !e.keeps(o));
        let broken = self.front.evaluations.iter().find_map(broken)?;
        let bound = broken.bound.unwrap_or_default();
        Some(format!(
            "no schedule satisfies the objectives' bounds yet; these are the nearest. '{}' must be {} {bound}",
            broken.metric,
            if broken.direction == Direction::Minimize { "at most" } else { "at least" }
        ))
    }

    /// What the search has gained over its heuristic seeds, as two lines.
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
