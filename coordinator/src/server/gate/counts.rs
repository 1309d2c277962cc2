//! Counts the repeated fields of a message in its bytes, before it is decoded.
//!
//! Two bytes can encode an empty prompt, which takes 32 bytes decoded; an imported schedule takes 112. So repeated fields
//! are counted first, and refused by name. The field numbers are those of the `.proto` files; a test checks them against
//! real messages. Contents are checked by the conversions. Packed numbers are not counted: decoded they are no larger than
//! a few times their bytes.

use evocache_proto::domain::limits::{
    MAX_COMPONENTS, MAX_IMPORTED, MAX_LABELS, MAX_METRICS, MAX_OBJECTIVES, MAX_PROMPTS, MAX_STEP_COUNTS, MAX_THUMBNAILS,
};
use tonic::Status;

use crate::server::{limits, status};

/// The field numbers that lead to a repeated field, its name, and the largest count.
type Rule = (&'static [u32], &'static str, usize);

const CREATE: &[Rule] = &[
    (&[3, 4], "spec.prompts", MAX_PROMPTS),
    (&[3, 6], "spec.objectives", MAX_OBJECTIVES),
    (&[3, 10], "spec.labels", MAX_LABELS),
    (&[3, 11], "spec.imported", MAX_IMPORTED),
    (&[3, 11, 2, 1], "spec.imported.layout.groups", MAX_IMPORTED * MAX_COMPONENTS),
    (&[3, 11, 2, 1, 3], "spec.imported.layout.groups.components", MAX_IMPORTED * MAX_COMPONENTS),
    (&[3, 12, 5], "spec.placement.labels", MAX_LABELS),
    (&[5], "start_from", limits::START_FROM),
    (&[3, 2, 6], "spec.sampling.grids", MAX_STEP_COUNTS),
];
const REGISTER: &[Rule] = &[
    (&[8, 1], "layout.groups", MAX_COMPONENTS),
    (&[8, 1, 3], "layout.groups.components", MAX_COMPONENTS),
    (&[10], "metrics", MAX_METRICS),
    (&[14], "labels", MAX_LABELS),
];
const COMPLETE: &[Rule] =
    &[(&[4, 1], "measurement.metrics", MAX_METRICS), (&[4, 8], "measurement.thumbnails", MAX_THUMBNAILS)];
const RENEW: &[Rule] = &[(&[2], "leases", limits::RENEWALS)];

/// Checks the counts of a call's message.
pub(super) fn check(path: &str, message: &[u8]) -> Result<(), Status> {
    let rules = match path {
        "/evocache.v1.SearchService/CreateSearch" => CREATE,
        "/evocache.v1.WorkerService/RegisterWorker" => REGISTER,
        "/evocache.v1.WorkerService/CompleteEvaluation" => COMPLETE,
        "/evocache.v1.WorkerService/RenewLeases" => RENEW,
        _ => return Ok(()),
    };
    let mut counts = vec![0; rules.len()];
    // The decoder refuses what cannot be read.
    let _ = count(message, rules, &mut Vec::new(), &mut counts);
    match rules.iter().zip(counts).find(|((_, _, most), found)| found > most) {
        Some(((_, field, most), found)) => Err(status::invalid(field, format_args!("at most {most}, found {found}"))),
        None => Ok(()),
    }
}

/// Adds the fields of one message to the counts; `None` if it cannot be read. `path` leads to the message.
fn count(mut bytes: &[u8], rules: &[Rule], path: &mut Vec<u32>, counts: &mut [usize]) -> Option<()> {
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let length = match tag & 7 {
            0 => {
                varint(&mut bytes)?;
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut bytes)?).ok()?,
            5 => 4,
            // The contract has no groups.
            _ => return None,
        };
        let (field, rest) = bytes.split_at_checked(length)?;
        bytes = rest;
        path.push(u32::try_from(tag >> 3).ok()?);
        for ((rule, ..), found) in rules.iter().zip(counts.iter_mut()) {
            *found += usize::from(rule == path);
        }
        if tag & 7 == 2 && rules.iter().any(|(rule, ..)| rule.len() > path.len() && rule.starts_with(path)) {
            count(field, rules, path, counts)?;
        }
        path.pop();
    }
    Some(())
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use evocache_proto::pb;
    use prost::Message;

    use super::*;

    const SERVICES: [&str; 4] = [
        "/evocache.v1.SearchService/CreateSearch",
        "/evocache.v1.WorkerService/RegisterWorker",
        "/evocache.v1.WorkerService/CompleteEvaluation",
        "/evocache.v1.WorkerService/RenewLeases",
    ];

    fn create(spec: pb::SearchSpec) -> Vec<u8> {
        pb::CreateSearchRequest { search_id: "s".into(), spec: Some(spec), ..Default::default() }.encode_to_vec()
    }

    fn labels(count: usize) -> std::collections::BTreeMap<String, String> {
        (0..count).map(|i| (i.to_string(), "x".into())).collect()
    }

    fn layout(groups: usize, components: usize) -> pb::Layout {
        let components = vec![pb::Component::default(); components];
        pb::Layout { groups: vec![pb::BlockGroup { components, ..Default::default() }; groups] }
    }

    fn complete(measurement: pb::Measurement) -> Vec<u8> {
        pb::CompleteEvaluationRequest { measurement: Some(measurement), ..Default::default() }.encode_to_vec()
    }

    /// A message for each rule, with `n` of its field.
    fn message(service: usize, rule: usize, n: usize) -> Vec<u8> {
        let spec = pb::SearchSpec::default;
        let worker = pb::RegisterWorkerRequest::default;
        let imported = |layout| vec![pb::ImportedSchedule { layout: Some(layout), ..Default::default() }; MAX_IMPORTED];
        let near = n.div_ceil(MAX_IMPORTED);
        match (service, rule) {
            (0, 0) => create(pb::SearchSpec { prompts: vec![pb::Prompt::default(); n], ..spec() }),
            (0, 1) => create(pb::SearchSpec { objectives: vec![pb::Objective::default(); n], ..spec() }),
            (0, 2) => create(pb::SearchSpec { labels: labels(n), ..spec() }),
            (0, 3) => create(pb::SearchSpec { imported: vec![pb::ImportedSchedule::default(); n], ..spec() }),
            (0, 4) => create(pb::SearchSpec { imported: imported(layout(near, 0)), ..spec() }),
            (0, 5) => create(pb::SearchSpec { imported: imported(layout(1, near)), ..spec() }),
            (0, 6) => {
                let placement = Some(pb::Placement { labels: labels(n), ..Default::default() });
                create(pb::SearchSpec { placement, ..spec() })
            }
            (0, 7) => pb::CreateSearchRequest { start_from: vec!["s".into(); n], ..Default::default() }.encode_to_vec(),
            (0, 8) => {
                let sampling = Some(pb::Sampling { grids: vec![pb::Grid::default(); n], ..Default::default() });
                create(pb::SearchSpec { sampling, ..spec() })
            }
            (1, 0) => pb::RegisterWorkerRequest { layout: Some(layout(n, 0)), ..worker() }.encode_to_vec(),
            (1, 1) => pb::RegisterWorkerRequest { layout: Some(layout(1, n)), ..worker() }.encode_to_vec(),
            (1, 2) => {
                let metrics = vec![pb::MetricDeclaration::default(); n];
                pb::RegisterWorkerRequest { metrics, ..worker() }.encode_to_vec()
            }
            (1, 3) => pb::RegisterWorkerRequest { labels: labels(n), ..worker() }.encode_to_vec(),
            (2, 0) => complete(pb::Measurement { metrics: vec![pb::MetricValues::default(); n], ..Default::default() }),
            (2, 1) => complete(pb::Measurement { thumbnails: vec![vec![1].into(); n], ..Default::default() }),
            (3, 0) => pb::RenewLeasesRequest { leases: vec![pb::LeaseRef::default(); n], ..Default::default() }
                .encode_to_vec(),
            (service, rule) => panic!("rule {rule} of {} has no message here", SERVICES[service]),
        }
    }

    #[test]
    fn every_rule_counts_the_field_that_it_names() {
        for (service, rules) in [CREATE, REGISTER, COMPLETE, RENEW].into_iter().enumerate() {
            for (i, (_, field, most)) in rules.iter().enumerate() {
                let path = SERVICES[service];
                assert!(check(path, &message(service, i, *most)).is_ok(), "{field}: {most} are allowed");
                let status = check(path, &message(service, i, most + 1)).unwrap_err();
                let told = status.message().strip_prefix(&format!("{field}: at most {most}, found ")).unwrap();
                assert!(told.parse::<usize>().unwrap() > *most);
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_left_to_the_decoder() {
        for bytes in [&[0x80][..], &[0x1a, 0xff, 0xff], &[0x1b], &[0xff; 32]] {
            assert!(check(SERVICES[0], bytes).is_ok());
        }
    }
}
