//! Every message that is read into a domain type: the first byte says which, the rest is the message. What is taken must
//! come out again as it went in.

#![no_main]

use evocache_proto::{pb, wire};
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 8 {
        0 => read::<pb::RegisterWorkerRequest>(bytes, |message| {
            if let Ok(declaration) = wire::declaration(message) {
                let again = wire::register_request(message.request_id.clone(), &declaration);
                assert_eq!(wire::declaration(&again).as_ref(), Ok(&declaration));
            }
        }),
        1 => read::<pb::SearchSpec>(bytes, |message| {
            if let Ok(spec) = wire::search_spec(message) {
                assert_eq!(wire::search_spec(&(&spec).into()).as_ref(), Ok(&spec));
            }
        }),
        2 => read::<pb::Measurement>(bytes, |message| {
            if let Ok(measurement) = wire::measurement(message) {
                // NaN equals nothing: compared as text.
                let again = wire::measurement(&(&measurement).into());
                assert_eq!(format!("{again:?}"), format!("{:?}", Ok::<_, wire::WireError>(measurement)));
            }
        }),
        3 => read::<pb::Layout>(bytes, |message| {
            if let Ok(layout) = wire::layout(message) {
                assert_eq!(wire::layout(&(&layout).into()).as_ref(), Ok(&layout));
            }
        }),
        4 => read::<pb::ImportedSchedule>(bytes, |message| drop(wire::imported(message))),
        5 => read::<pb::GetCalibrationResponse>(bytes, |message| {
            if let Ok(calibration) = wire::calibration(message) {
                drop(wire::calibration(&wire::calibration_response(&calibration)));
            }
        }),
        6 => read::<pb::ModelFacts>(bytes, |message| {
            drop(wire::metrics(&message.metrics));
            if let (Some(layout), Some(cost)) = (&message.layout, &message.cost)
                && let Ok(layout) = wire::layout(layout)
            {
                drop(wire::cost_model(layout.slots(), cost));
            }
        }),
        _ => read::<pb::SearchSpec>(bytes, |message| drop(wire::spec_draft(message))),
    }
});

fn read<M: Message + Default>(bytes: &[u8], check: impl FnOnce(&M)) {
    if let Ok(message) = M::decode(bytes) {
        check(&message);
    }
}
