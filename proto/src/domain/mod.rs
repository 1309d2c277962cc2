//! The domain types of the contract. Most are checked when they are constructed, so that code that takes one need not
//! check it again.
//!
//! **Invariant:** knows nothing of protobuf, gRPC, JSON, files, clocks and randomness.

mod calibration;
mod canonical;
mod cost;
mod guidance;
mod ids;
mod layout;
pub mod limits;
mod measurement;
mod metric;
mod origin;
mod passes;
mod placement;
mod problems;
mod profile;
mod prompt_set;
mod quality;
mod question;
mod schedule;
mod search_state;
mod spec;
mod statistics;

pub use calibration::{Calibration, Grid, MeasurementPlan, Prompt, Sampling};
pub use cost::{CostModel, CostModelError};
pub use guidance::{GuidanceDecision, Pass};
pub use ids::{CandidateId, Epoch, IdError, RequestId, SearchId, SearchRef, SearchRefError, SearchUid, WorkerId};
pub use layout::{BlockGroup, Component, Layout, LayoutError, Slot};
pub use limits::{MAX_PROMPTS, MAX_SLOTS, MAX_STEPS};
pub use measurement::{Measurement, MeasurementError, MetricValues, median};
pub use metric::{BUILTIN_METRICS, Declaration, DeclarationError, Direction, MetricDeclaration, builtin_direction};
pub use origin::{Maker, Origin};
pub use placement::Placement;
pub use problems::{Problem, Problems, shown};
pub use profile::{MAX_LAGS, Profile, ProfileError};
pub use prompt_set::PromptSet;
pub use quality::Kept;
pub use question::{Constraint, Operator, Preference, Question};
pub use schedule::{Decision, Schedule, ScheduleError, ScheduleId};
pub use search_state::SearchState;
pub use spec::{Algorithm, Budget, Imported, ModelRef, Objective, SearchSpec, SpecDraft, SpecError, Strategy};
pub use statistics::{Level, Paired, Spread};
