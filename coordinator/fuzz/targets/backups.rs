//! Reads arbitrary bytes as a backup.

#![no_main]

use evocache::store::backup;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    if let Ok(summary) = backup::verify(&mut rest, &mut |_, _| {}) {
        assert!(summary.bytes <= bytes.len() as u64, "{summary:?} of {} bytes", bytes.len());
    }
});
