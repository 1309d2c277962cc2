//! Limits on the contents of one message. Counts are checked before contents.
//!
//! Does not limit message bytes or call rates: those are the coordinator's `server/limits.rs`.

/// Prompts of a search.
pub const MAX_PROMPTS: usize = 10_000;
/// Bytes of one prompt, and of the negative prompt.
pub const MAX_PROMPT_BYTES: usize = 8192;
/// Bytes of the prompts and imported schedules of a specification together, so that a response can hold it.
pub const MAX_SPEC_BYTES: usize = 3 << 20;
/// Step counts of a search, and grids for them.
pub const MAX_STEP_COUNTS: usize = 16;
/// Objectives of a search.
pub const MAX_OBJECTIVES: usize = 4;
/// Rungs of a search: numbers of prompts below all of them.
pub const MAX_RUNGS: usize = 16;
/// Labels of one search or worker.
pub const MAX_LABELS: usize = 64;
/// Imported schedules of a search.
pub const MAX_IMPORTED: usize = 1000;
/// Conditions of a question for the best schedule.
pub const MAX_CONDITIONS: usize = 16;
/// Characters of the name of a worker, a device or a model.
pub const MAX_NAME: usize = 200;

/// Denoising steps of a schedule.
pub const MAX_STEPS: u32 = 1000;
/// Slots of a layout.
pub const MAX_SLOTS: usize = 4096;
/// Components over all block groups of a layout. The size of a latency model grows with the square.
pub const MAX_COMPONENTS: usize = 64;
/// Steps times slots of a schedule, which bounds the cost of every candidate.
pub const MAX_DECISIONS: usize = 1 << 18;

/// Quality metrics of a worker.
pub const MAX_METRICS: usize = 64;
/// Metrics times prompts of a search: the metric values of one result.
pub const MAX_VALUES: usize = 1 << 16;
/// Latency samples of a result.
pub const MAX_SAMPLES: usize = 10_000;
/// Pictures of a result.
pub const MAX_THUMBNAILS: usize = 16;
/// Bytes of one picture.
pub const MAX_THUMBNAIL_BYTES: usize = 256 << 10;
/// Values of a calibration profile: five lags of the largest schedule.
pub const MAX_CHANGES: usize = 5 << 18;
