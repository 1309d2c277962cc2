//! The program `evocache`: everything stands in the library.

/// `local` runs its workers as copies of this program: they must measure what `evocache-worker` would, so they use its
/// allocator.
#[cfg(feature = "local")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    evocache::cli::main()
}
