//! Schedules: packed decisions of any bytes for a layout of any shape. What is taken has the canonical form's laws.

#![no_main]

use std::sync::Arc;

use evocache_proto::domain::{Layout, Schedule};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, u8, u16, &[u8])| {
    let (blocks, singles, steps, packed) = input;
    let layout = if singles == 0 {
        Layout::pixart(u32::from(blocks))
    } else {
        Layout::flux(u32::from(blocks), u32::from(singles))
    };
    let Ok(layout) = layout.map(Arc::new) else { return };
    if let Ok(schedule) = Schedule::from_packed(layout.clone(), u32::from(steps), packed) {
        let again = Schedule::from_packed(layout, schedule.steps(), schedule.packed());
        assert_eq!(again.map(|s| s.id()), Ok(schedule.id()));
        assert!(schedule.computed() <= schedule.steps() as usize * schedule.slots());
    }
});
