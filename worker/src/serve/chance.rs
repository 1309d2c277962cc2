//! Random numbers for what must differ from run to run: seeds of requests that give none, names of pictures, jitter.

/// A number that nobody can guess.
#[expect(
    clippy::disallowed_methods,
    reason = "a server's run is never replayed; the seed of each picture is in its answer"
)]
pub(super) fn secret() -> uuid::Uuid {
    uuid::Uuid::new_v4()
}

/// A seed that JSON readers of every language read back exactly.
pub(super) fn seed() -> u64 {
    secret().as_u128() as u64 >> 32
}

/// A number in [0, 1].
pub(super) fn share() -> f64 {
    f64::from(secret().as_u128() as u16) / f64::from(u16::MAX)
}
