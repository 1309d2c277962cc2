//! Who may make which call, and what the audit log says about it: one row per call.
//!
//! A call without a row is for admins only, and a test fails for it. How a caller is identified is `layer.rs`.

use super::quota::Kind;
use evocache_net::tokens::Role;

/// The least role that a call needs, where tokens are required at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// No token: health checks have none.
    Nothing,
    /// Any valid token.
    Token,
    /// A reader's token.
    Reader,
    /// An operator's token.
    Operator,
    /// A worker's token.
    Worker,
    /// An admin's token.
    Admin,
}

impl Need {
    /// Whether a role is sufficient.
    pub(super) fn admits(self, role: Role) -> bool {
        match (self, role) {
            (Self::Nothing | Self::Token, _) | (_, Role::Admin) => true,
            (Self::Reader, Role::Reader | Role::Operator) | (Self::Operator, Role::Operator) => true,
            (Self::Worker, Role::Worker) => true,
            (Self::Reader, Role::Worker) | (Self::Operator | Self::Admin, Role::Reader | Role::Worker) => false,
            (Self::Worker, Role::Reader | Role::Operator) | (Self::Admin, Role::Operator) => false,
            // Of an image server.
            (Self::Reader | Self::Operator | Self::Worker | Self::Admin, Role::Client) => false,
        }
    }

    /// The name in errors.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::Token => "any",
            Self::Reader => Role::Reader.as_str(),
            Self::Operator => Role::Operator.as_str(),
            Self::Worker => Role::Worker.as_str(),
            Self::Admin => Role::Admin.as_str(),
        }
    }
}

/// What a call does, and so what the audit log says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// Changes nothing that is stored: logged only if it is denied.
    Reads,
    /// Changes something, or discloses the whole store: always logged.
    Changes,
    /// What workers do all the time and the store records anyway: logged if it is denied, otherwise at the debug level if
    /// there was anything to do.
    Routine,
}

/// Call, least role, effect.
pub(super) type Row = (&'static str, Need, Effect);

/// The calls of the four services.
pub(super) const TABLE: &[Row] = &[
    ("/evocache.v1.SearchService/CreateSearch", Need::Operator, Effect::Changes),
    ("/evocache.v1.SearchService/GetSearch", Need::Reader, Effect::Reads),
    ("/evocache.v1.SearchService/ListSearches", Need::Reader, Effect::Reads),
    ("/evocache.v1.SearchService/PauseSearch", Need::Operator, Effect::Changes),
    ("/evocache.v1.SearchService/ResumeSearch", Need::Operator, Effect::Changes),
    ("/evocache.v1.SearchService/ExtendSearch", Need::Operator, Effect::Changes),
    ("/evocache.v1.SearchService/StopSearch", Need::Operator, Effect::Changes),
    ("/evocache.v1.SearchService/DeleteSearch", Need::Operator, Effect::Changes),
    ("/evocache.v1.SearchService/WatchSearch", Need::Reader, Effect::Reads),
    ("/evocache.v1.SearchService/ListEvaluations", Need::Reader, Effect::Reads),
    ("/evocache.v1.SearchService/GetFront", Need::Reader, Effect::Reads),
    ("/evocache.v1.SearchService/GetBestSchedule", Need::Reader, Effect::Reads),
    ("/evocache.v1.WorkerService/RegisterWorker", Need::Worker, Effect::Changes),
    ("/evocache.v1.WorkerService/GetCalibration", Need::Worker, Effect::Reads),
    ("/evocache.v1.WorkerService/AcquireLease", Need::Worker, Effect::Routine),
    ("/evocache.v1.WorkerService/RenewLeases", Need::Worker, Effect::Reads),
    ("/evocache.v1.WorkerService/CompleteEvaluation", Need::Worker, Effect::Routine),
    ("/evocache.v1.WorkerService/FailEvaluation", Need::Worker, Effect::Changes),
    ("/evocache.v1.WorkerService/ReleaseLease", Need::Worker, Effect::Changes),
    ("/evocache.v1.WorkerService/DeregisterWorker", Need::Worker, Effect::Changes),
    ("/evocache.v1.FleetService/ListWorkers", Need::Reader, Effect::Reads),
    ("/evocache.v1.FleetService/GetWorker", Need::Reader, Effect::Reads),
    ("/evocache.v1.FleetService/DrainWorker", Need::Operator, Effect::Changes),
    ("/evocache.v1.StoreService/BackUpStore", Need::Admin, Effect::Changes),
];

/// The services that are not evocache's own, by the beginning of their calls.
const OTHERS: &[Row] = &[
    ("/grpc.health.v1.Health/", Need::Nothing, Effect::Reads),
    ("/grpc.reflection.v1.ServerReflection/", Need::Token, Effect::Reads),
    ("/grpc.reflection.v1alpha.ServerReflection/", Need::Token, Effect::Reads),
];

/// The row of a call.
pub(super) fn rule(path: &str) -> (Need, Effect) {
    let own = TABLE.iter().find(|(call, ..)| *call == path);
    let row = own.or_else(|| OTHERS.iter().find(|(service, ..)| path.starts_with(service)));
    // Forgetting the row of a new call closes it instead of opening it.
    row.map_or((Need::Admin, Effect::Changes), |&(_, need, effect)| (need, effect))
}

/// The kind of a call, for the caller's rate limit.
pub(super) fn kind(need: Need, effect: Effect) -> Kind {
    match (need, effect) {
        (Need::Worker, _) => Kind::Workers,
        (_, Effect::Reads) => Kind::Reads,
        (_, Effect::Changes | Effect::Routine) => Kind::Changes,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use evocache_proto::pb;
    use prost::Message;

    use super::*;

    #[test]
    fn every_call_has_a_row_and_every_row_a_call() {
        let set = prost_types::FileDescriptorSet::decode(pb::FILE_DESCRIPTOR_SET).unwrap();
        let mut calls = BTreeSet::new();
        for file in &set.file {
            for service in &file.service {
                let name = format!("/{}.{}/", file.package(), service.name());
                calls.extend(service.method.iter().map(|method| format!("{name}{}", method.name())));
            }
        }
        let rows: BTreeSet<String> = TABLE.iter().map(|(call, ..)| (*call).to_owned()).collect();
        assert_eq!(calls.difference(&rows).collect::<Vec<_>>(), [""; 0], "calls without a row");
        assert_eq!(rows.difference(&calls).collect::<Vec<_>>(), [""; 0], "rows without a call");
        assert_eq!(TABLE.len(), rows.len(), "a call has two rows");
    }

    #[test]
    fn an_unknown_call_is_for_admins() {
        for path in ["/evocache.v1.SearchService/Other", "/evocache.v1.SearchService/GetSearch/", "/", ""] {
            assert_eq!(rule(path).0, Need::Admin, "{path}");
        }
        assert_eq!(rule("/grpc.health.v1.Health/Check").0, Need::Nothing);
    }
}
