//! How much of everything one message may hold: what others send is counted before it is looked at.
//!
//! Absent: bytes of a message and calls in a while, which are the coordinator's (`coordinator/src/server/limits.rs`).

/// Calibration images per evaluation.
pub const MAX_PROMPTS: usize = 10_000;
/// Bytes of one prompt, and of the negative one.
pub const MAX_PROMPT_BYTES: usize = 8192;
/// Bytes of all prompts and imported schedules of a specification together, so that every client can read it back.
pub const MAX_SPEC_BYTES: usize = 3 << 20;
/// Step counts of a search.
pub const MAX_STEP_COUNTS: usize = 16;
/// Objectives of a search.
pub const MAX_OBJECTIVES: usize = 4;
/// Numbers of prompts on which a search tries candidates before it takes all prompts.
pub const MAX_RUNGS: usize = 16;
/// Labels of one search or worker.
pub const MAX_LABELS: usize = 64;
/// Schedules from elsewhere that a search starts from.
pub const MAX_IMPORTED: usize = 1000;
/// Conditions of a question for the best schedule.
pub const MAX_CONDITIONS: usize = 16;
/// Characters of a name for people: of a worker, a device, a model.
pub const MAX_NAME: usize = 200;

/// Denoising steps of a schedule.
pub const MAX_STEPS: u32 = 1000;
/// Slots of a layout.
pub const MAX_SLOTS: usize = 4096;
/// Components of all block groups of a layout together: the searches' models of latency grow with the square.
pub const MAX_COMPONENTS: usize = 64;
/// Steps times slots of a schedule: what every candidate takes to make, to store and to send.
pub const MAX_DECISIONS: usize = 1 << 18;

/// Quality metrics of a worker.
pub const MAX_METRICS: usize = 64;
/// Metrics times prompts of a search: the values of one result.
pub const MAX_VALUES: usize = 1 << 16;
/// Latency samples of a result.
pub const MAX_SAMPLES: usize = 10_000;
/// Pictures of a result.
pub const MAX_THUMBNAILS: usize = 16;
/// Bytes of one picture.
pub const MAX_THUMBNAIL_BYTES: usize = 256 << 10;
/// Numbers of a calibration profile: five lags of the largest schedule.
pub const MAX_CHANGES: usize = 5 << 18;
