//! Arguments that override the sampler's settings in the model's folder.

use clap::Args;
use evocache_proto::domain::Grid;

use crate::samplers::SamplerOptions;

/// The solver's order and the grid of timesteps or noise levels.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct SamplerArgs {
    /// Order of DPM-Solver++, 1 to 3: how many model outputs a step uses [default: the folder's]
    #[arg(long, value_name = "N")]
    solver_order: Option<usize>,
    /// Training timesteps of DPM-Solver++'s steps, noisiest first, such as 999,732,478,243,50 [default: as the folder
    /// spaces them]
    #[arg(long, value_name = "T,T,…", value_delimiter = ',', num_args = 1)]
    timesteps: Option<Vec<u32>>,
    /// Noise levels of flow matching's steps before the shift, noisiest first, such as 1,0.75,0.5,0.25 [default: evenly
    /// spaced]
    #[arg(long, value_name = "S,S,…", value_delimiter = ',', num_args = 1, conflicts_with = "timesteps")]
    sigmas: Option<Vec<f64>>,
}

/// Step count if neither the arguments nor a schedule give one.
const DEFAULT_STEPS: u32 = 20;

/// Parses a guidance scale.
pub(super) fn guidance(text: &str) -> Result<f64, String> {
    let scale: f64 = text.parse().map_err(|_| format!("'{text}' is not a number"))?;
    // The same range as in a search.
    if (0.0..=100.0).contains(&scale) { Ok(scale) } else { Err(format!("'{text}' is not between 0 and 100")) }
}

impl SamplerArgs {
    /// Step count of a run without `--steps`: that of the grid, or the default.
    pub(super) fn steps(&self) -> u32 {
        self.options().steps().and_then(|steps| u32::try_from(steps).ok()).unwrap_or(DEFAULT_STEPS)
    }

    /// The grid of a schedule file without the settings that these arguments override; `None` if nothing is left.
    pub(super) fn but_for(&self, grid: Grid) -> Option<Grid> {
        let is_spaced = self.timesteps.is_some() || self.sigmas.is_some();
        let grid = Grid {
            steps: grid.steps,
            solver_order: grid.solver_order.filter(|_| self.solver_order.is_none()),
            timesteps: if is_spaced { vec![] } else { grid.timesteps },
            sigmas: if is_spaced { vec![] } else { grid.sigmas },
        };
        (grid != Grid { steps: grid.steps, ..Grid::default() }).then_some(grid)
    }

    /// The arguments as the sampler's options.
    pub(super) fn options(&self) -> SamplerOptions {
        SamplerOptions { order: self.solver_order, timesteps: self.timesteps.clone(), sigmas: self.sigmas.clone() }
    }
}
