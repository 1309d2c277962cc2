//! Predicted memory against measured, for ten schedules: an allocator that counts gives the true peak of every run.
//! `cargo test -p evocache-worker --test memory -- --nocapture` prints the tables.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    unsafe_code,
    reason = "a test fails by panicking and shows its numbers; only an allocator sees every allocation"
)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::Device;
use common::random_schedule;
use evocache_proto::domain::{Decision, Schedule};
use evocache_worker::cancel::CancelToken;
use evocache_worker::evaluator::pipeline::{BatchRequest, Pipeline};

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Largest relative error of a prediction.
const LIMIT: f64 = 0.05;

/// Ten schedules of four steps over the range of densities, half of them with forecasts.
fn schedules(layout: &Arc<evocache_proto::domain::Layout>) -> Vec<Schedule> {
    let mut schedules = vec![
        Schedule::all_compute(layout.clone(), 4).unwrap(),
        Schedule::from_fn(layout.clone(), 4, |step, _| if step % 2 == 0 { Decision::Compute } else { Decision::Reuse })
            .unwrap(),
        Schedule::from_fn(layout.clone(), 4, |step, _| if step < 2 { Decision::Compute } else { Decision::Forecast })
            .unwrap(),
    ];
    schedules.extend((0..7).map(|seed| random_schedule(layout, 4, seed, 20 + 10 * seed, seed % 2 == 1)));
    schedules
}

/// The most bytes that were held at once while `act` ran, beside those of before.
fn peak(mut act: impl FnMut()) -> u64 {
    // What kernels and threads keep from their first run on is no part of a run.
    act();
    let before = HELD.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    act();
    (PEAK.load(Ordering::Relaxed) - before) as u64
}

/// A table of schedules, and those that are too far off.
struct Table(Vec<String>);

impl Table {
    fn new() -> Self {
        println!("\n{:<22} {:>9} {:>12} {:>12} {:>7}", "model, schedule", "computed", "predicted", "measured", "off");
        Self(vec![])
    }

    fn row(&mut self, name: &str, i: usize, schedule: &Schedule, predicted: u64, measured: u64) {
        let off = predicted as f64 / measured as f64 - 1.0;
        let share = 100.0 * (1.0 - schedule.cache_hit_rate());
        println!("{name:<18} {i:>3} {share:>8.1}% {predicted:>12} {measured:>12} {:>6.1}%", 100.0 * off);
        if off.abs() > LIMIT {
            self.0.push(format!("{name}, schedule {i}: {off:.3}"));
        }
    }
}

/// The bundled model from texts to pictures: at the peak it denoises where the decoder works in tiles, and decodes where it
/// does not.
#[test]
fn predicted_memory_is_the_measured_on_the_bundled_model() {
    let mut table = Table::new();
    for tiled in [true, false] {
        let pipeline = Pipeline::load(&common::model_dir(), Device::Cpu).unwrap();
        let pipeline = if tiled { pipeline.with_tiles() } else { pipeline };
        let size = pipeline.latent_size(Some(128), Some(128)).unwrap();
        let encoded = pipeline.encode(&["a red cat", ""]).unwrap();
        let guidance = pipeline.guidance(3.0);
        let (cost, memory) = (pipeline.cost(size, guidance), pipeline.memory(size, guidance));
        let mut schedules = schedules(pipeline.layout());
        if !tiled {
            // The decoder is the peak of nearly all of them.
            schedules.truncate(2);
        }
        let seeds = [1, 2];
        for (i, schedule) in schedules.iter().enumerate() {
            let measured = peak(|| {
                let request = BatchRequest {
                    prompts: encoded.repeated(0, 2).unwrap(),
                    negative: encoded.repeated(1, 2).unwrap(),
                    size,
                    seeds: &seeds,
                    guidance,
                    schedule,
                };
                drop(pipeline.generate(&request, &CancelToken::new(), &mut |_, _| ()).unwrap());
            });
            let name = if tiled { "emoji, in tiles" } else { "emoji" };
            let predicted = memory.peak(schedule, &cost, seeds.len() as u64);
            table.row(name, i, schedule, predicted, measured + memory.weights);
        }
    }
    assert!(table.0.is_empty(), "{:#?}", table.0);
}
