//! Schedules as JSON, evocache's own and ECAD's: any text. What is taken is written and read again as the same schedule.

#![no_main]

use evocache_proto::formats;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(schedule) = formats::read(text) {
        let again = formats::read_own(&formats::write_own(&schedule, None));
        assert_eq!(again.map(|s| s.id()).ok(), Some(schedule.id()));
        if let Ok(text) = formats::write_ecad(&schedule, "fuzz") {
            assert_eq!(formats::read_ecad(&text).map(|s| s.id()).ok(), Some(schedule.id()));
        }
    }
    drop(formats::read_own(text));
    drop(formats::read_ecad(text));
});
