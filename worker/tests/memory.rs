//! Predicted memory against measured, for ten schedules: an allocator that counts gives the true peak of every run.
//! `cargo test -p evocache-worker --test memory -- --nocapture` prints the table.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    unsafe_code,
    reason = "a test fails by panicking and shows its numbers; only an allocator sees every allocation"
)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
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

/// Model, height, width, whether the decoder works in tiles (so that denoising is the peak), and the largest relative
/// error. Beside the tiny models' tensors what is not predicted shows: scratch space of kernels, latents, pictures.
const CASES: [(&str, u32, u32, bool, f64); 4] = [
    ("models/emoji", 128, 128, false, 0.05),
    ("models/emoji", 128, 128, true, 0.05),
    ("tests/fixtures/flux", 128, 96, true, 0.25),
    ("tests/fixtures/dit", 128, 128, true, 0.25),
];

#[test]
fn predicted_memory_is_the_measured() {
    println!("{:<22} {:>9} {:>12} {:>12} {:>7}", "model, schedule", "computed", "predicted", "measured", "off");
    let mut wrong = vec![];
    for (folder, height, width, tiled, limit) in CASES {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let name = folder.file_name().unwrap().to_str().unwrap();
        let pipeline = Pipeline::load(&folder, Device::Cpu).unwrap();
        let pipeline = if tiled { pipeline.with_tiles() } else { pipeline };
        let size = pipeline.latent_size(Some(height), Some(width)).unwrap();
        let text = if name == "dit" { "1" } else { "a red cat" };
        let encoded = pipeline.encode(&[text, ""]).unwrap();
        let (guidance, layout) = (pipeline.guidance(3.0), pipeline.layout().clone());
        let (cost, memory) = (pipeline.cost(size, guidance), pipeline.memory(size, guidance));
        let mut schedules = vec![
            Schedule::all_compute(layout.clone(), 4).unwrap(),
            Schedule::from_fn(
                layout.clone(),
                4,
                |step, _| if step % 2 == 0 { Decision::Compute } else { Decision::Reuse },
            )
            .unwrap(),
            Schedule::from_fn(
                layout.clone(),
                4,
                |step, _| if step < 2 { Decision::Compute } else { Decision::Forecast },
            )
            .unwrap(),
        ];
        schedules.extend((0..7).map(|seed| random_schedule(&layout, 4, seed, 20 + 10 * seed, seed % 2 == 1)));
        if !tiled {
            // The decoder is the peak of nearly all of them.
            schedules.truncate(2);
        }
        let seeds = [1, 2];
        for (i, schedule) in schedules.iter().enumerate() {
            let request = BatchRequest {
                prompts: encoded.repeated(0, 2).unwrap(),
                negative: encoded.repeated(1, 2).unwrap(),
                size,
                seeds: &seeds,
                guidance,
                schedule,
            };
            let before = HELD.load(Ordering::Relaxed);
            PEAK.store(before, Ordering::Relaxed);
            drop(pipeline.generate(&request, &CancelToken::new(), &mut |_, _| ()).unwrap());
            let measured = (PEAK.load(Ordering::Relaxed) - before) as u64 + memory.weights;
            let predicted = memory.peak(schedule, &cost, seeds.len() as u64);
            let off = predicted as f64 / measured as f64 - 1.0;
            let share = 1.0 - schedule.cache_hit_rate();
            println!("{name:<18} {i:>3} {:>8.1}% {predicted:>12} {measured:>12} {:>6.1}%", 100.0 * share, 100.0 * off);
            if off.abs() > limit {
                wrong.push(format!("{name}, schedule {i}, tiles {tiled}: {off:.3}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
