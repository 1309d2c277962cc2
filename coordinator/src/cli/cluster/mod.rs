//! Clusters: what `launch --on`, `scale` and `down` have an engine do.
//!
//! - [`profile`]: the file with what a site always says;
//! - [`step`]: files to write and programs to run, as a dry run prints them and as they are carried out;
//! - [`slurm`], [`kubernetes`]: the steps of an engine. The files are those of `deploy`, compiled in.
//!
//! **Invariant:** schedules no machine and remembers nothing: the engines do, and are asked.

pub mod kubernetes;
pub mod profile;
pub mod slurm;
pub mod step;
