//! WorkerService.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use evocache_proto::domain::{Calibration, CandidateId, Epoch, SearchRef, SearchRefError, WorkerId};
use evocache_proto::pb::worker_service_server::WorkerService;
use evocache_proto::wire::Reason;
use evocache_proto::{PROTOCOL_VERSION, pb, wire};
use tonic::{Request, Response, Status};

use super::encode;
use super::services::{Services, request};
use crate::engine::{Answer, Command, LeaseKey, Refusal, State};
use crate::server::gate::Caller;
use crate::server::{limits, status};

pub(super) struct Workers(pub(super) Services);

impl Workers {
    /// The worker of a call, if the caller may act for it.
    async fn worker(&self, caller: &Caller, text: &str) -> Result<WorkerId, Status> {
        let id = WorkerId::new(text).map_err(|e| status::invalid("worker_id", e))?;
        if caller.name().is_none() {
            // Without tokens the engine decides: it accepts late results of workers that it has forgotten.
            return Ok(id);
        }
        // The principal of an id never changes: what holds now holds when the call is carried out.
        let asked = id.clone();
        let principal = self.0.engine.query(move |state: &State, _| {
            state.workers.get(&asked).map(|worker| worker.registration.principal.clone())
        });
        match principal.await.map_err(status::refusal)? {
            Some(principal) if !caller.speaks_for(&principal) => Err(worker_of_another(&id)),
            Some(_) => Ok(id),
            // The principal is forgotten with the worker, so its late results are refused.
            None => Err(status::refusal(Refusal::NoWorker(id))),
        }
    }
}

fn lease_key(message: Option<&pb::LeaseRef>) -> Result<LeaseKey, Status> {
    let message = message.ok_or_else(|| status::invalid("lease", "is missing"))?;
    let search = message.search_ref.parse().map_err(|e: SearchRefError| status::invalid("lease.search_ref", e))?;
    Ok(LeaseKey { search, candidate: CandidateId(message.candidate), epoch: Epoch(message.epoch) })
}

fn worker_of_another(worker: &WorkerId) -> Status {
    let text = format_args!("worker '{worker}' was registered with another token; register again");
    status::with(Reason::WorkerOfAnother, text, &[("worker_id", worker.to_string())])
}

/// The worker speaks another version of the protocol.
fn protocol(theirs: u32) -> Status {
    let text = format_args!(
        "the worker speaks protocol version {theirs}, this coordinator version {PROTOCOL_VERSION}: update the older"
    );
    let facts = [("worker", theirs.to_string()), ("coordinator", PROTOCOL_VERSION.to_string())];
    status::with(Reason::ProtocolVersion, text, &facts)
}

/// How long a worker waits for work: up to half of its wait beyond [`limits::SURE_WAIT`] is taken off, by a share of its
/// own. Otherwise thousands of workers that began to wait together would come back together, again and again.
fn spread(wait: Duration, worker: &WorkerId) -> Duration {
    let mut hash = DefaultHasher::new();
    worker.hash(&mut hash);
    let share = hash.finish() as f64 / u64::MAX as f64;
    wait - wait.saturating_sub(limits::SURE_WAIT).mul_f64(share / 2.0)
}

#[tonic::async_trait]
impl WorkerService for Workers {
    async fn register_worker(
        &self,
        message: Request<pb::RegisterWorkerRequest>,
    ) -> Result<Response<pb::RegisterWorkerResponse>, Status> {
        let (caller, message) = Caller::of(message)?;
        if message.protocol_version != PROTOCOL_VERSION {
            return Err(protocol(message.protocol_version));
        }
        let declaration = Arc::new(wire::declaration(&message).map_err(status::malformed)?);
        let (name, model) = (declaration.name.clone(), declaration.model.clone());
        let request = request(&message.request_id, &message)?;
        let principal = caller.name().map_or_else(String::new, ToString::to_string);
        let answer = self.0.engine.command(request, Command::Register { declaration, principal }).await;
        let answer = answer.map_err(status::refusal)?;
        let Answer::Worker(worker) = answer else { return Err(status::unexpected(&answer)) };
        caller.about(&worker);
        tracing::info!(%worker, name, model, "worker registered");
        Ok(Response::new(pb::RegisterWorkerResponse {
            worker_id: worker.to_string(),
            lease_ttl: Some(encode::span(self.0.lease_ttl)),
            max_wait: Some(encode::span(limits::MAX_WAIT)),
        }))
    }

    async fn get_calibration(
        &self,
        message: Request<pb::GetCalibrationRequest>,
    ) -> Result<Response<pb::GetCalibrationResponse>, Status> {
        let (caller, message) = Caller::of(message)?;
        let worker = self.worker(&caller, &message.worker_id).await?;
        let wanted: SearchRef =
            message.search_ref.parse().map_err(|e: SearchRefError| status::invalid("search_ref", e))?;
        let question = move |state: &State, _| {
            if !state.workers.contains_key(&worker) {
                return Err(Refusal::NoWorker(worker));
            }
            let search = state.searches.get(&wanted.id).filter(|search| search.is(&wanted));
            Ok(search.ok_or(Refusal::NoSearch(wanted.id))?.spec.clone())
        };
        let spec = self.0.engine.query(question).await.and_then(|found| found).map_err(status::refusal)?;
        let calibration =
            Calibration { prompts: spec.prompts.clone(), sampling: spec.sampling.clone(), plan: spec.plan };
        Ok(Response::new(wire::calibration_response(&calibration)))
    }

    async fn acquire_lease(
        &self,
        message: Request<pb::AcquireLeaseRequest>,
    ) -> Result<Response<pb::AcquireLeaseResponse>, Status> {
        let (caller, message) = Caller::of(message)?;
        let worker = self.worker(&caller, &message.worker_id).await?;
        let wait = match message.wait {
            Some(wait) => Duration::try_from(wait)
                .map_err(|_| status::invalid("wait", "must be a non-negative duration"))?
                .min(limits::MAX_WAIT),
            None => Duration::ZERO,
        };
        let wait = spread(wait, &worker);
        let answer = tokio::select! {
            answer = self.0.engine.acquire(worker, wait) => answer.map_err(status::refusal)?,
            () = self.0.stopped() => return Err(status::stopping()),
        };
        let Answer::Work { offer, draining, idle } = answer else { return Err(status::unexpected(&answer)) };
        if let Some(offer) = &offer {
            caller.about(&offer.lease);
        }
        let lease = offer.map(|offer| pb::Lease {
            search_ref: offer.lease.search.to_string(),
            candidate: offer.lease.candidate.0,
            epoch: offer.lease.epoch.0,
            schedule: Some(offer.schedule.as_ref().into()),
            ttl: Some(encode::span(offer.ttl)),
            attempt: offer.attempt,
            prompts: offer.prompts.to_number(),
            profile: offer.profile,
        });
        Ok(Response::new(pb::AcquireLeaseResponse { lease, draining, idle_reason: idle }))
    }

    async fn renew_leases(
        &self,
        message: Request<pb::RenewLeasesRequest>,
    ) -> Result<Response<pb::RenewLeasesResponse>, Status> {
        let (caller, message) = Caller::of(message)?;
        let worker = self.worker(&caller, &message.worker_id).await?;
        let leases = message.leases.iter().map(|l| lease_key(Some(l))).collect::<Result<Vec<_>, _>>()?;
        let answer = self.0.engine.command(None, Command::Renew { worker, leases }).await;
        let answer = answer.map_err(status::refusal)?;
        let Answer::Renewed { leases, draining } = answer else { return Err(status::unexpected(&answer)) };
        let leases = leases.iter().map(|renewal| pb::LeaseStatus {
            lease: Some(encode::lease_ref(&renewal.lease)),
            cancel: renewal.ttl.is_none(),
            ttl: renewal.ttl.map(encode::span),
        });
        Ok(Response::new(pb::RenewLeasesResponse { leases: leases.collect(), draining }))
    }

    async fn complete_evaluation(
        &self,
        message: Request<pb::CompleteEvaluationRequest>,
    ) -> Result<Response<pb::CompleteEvaluationResponse>, Status> {
        let (caller, message) = Caller::of(message)?;
        let worker = self.worker(&caller, &message.worker_id).await?;
        let lease = lease_key(message.lease.as_ref())?;
        caller.about(&lease);
        let measurement = message.measurement.as_ref().ok_or_else(|| status::invalid("measurement", "is missing"))?;
        let measurement = wire::measurement(measurement).map_err(|e| status::malformed(e.within("measurement")))?;
        // Identified by its lease: a repeat is recognized from the state, without a record of the call.
        let command = Command::Complete { worker, lease, measurement };
        self.0.engine.command(None, command).await.map_err(status::refusal)?;
        Ok(Response::new(pb::CompleteEvaluationResponse {}))
    }

    async fn fail_evaluation(
        &self,
        message: Request<pb::FailEvaluationRequest>,
    ) -> Result<Response<pb::FailEvaluationResponse>, Status> {
        let (caller, message) = Caller::of(message)?;
        let worker = self.worker(&caller, &message.worker_id).await?;
        let lease = lease_key(message.lease.as_ref())?;
        caller.about(&lease);
        let request = request(&message.request_id, &message)?;
        let mut reason = message.reason;
        if let Some(cut) = (0..=limits::REASON_BYTES).rev().find(|&at| reason.is_char_boundary(at)) {
            reason.truncate(cut);
        }
        tracing::warn!(%worker, search = %lease.search.id, candidate = %lease.candidate, reason, "evaluation failed");
        let command = Command::Fail { worker, lease, reason, retryable: message.retryable };
        self.0.engine.command(request, command).await.map_err(status::refusal)?;
        Ok(Response::new(pb::FailEvaluationResponse {}))
    }

    async fn release_lease(
        &self,
        message: Request<pb::ReleaseLeaseRequest>,
    ) -> Result<Response<pb::ReleaseLeaseResponse>, Status> {
        let (caller, message) = Caller::of(message)?;
        let worker = self.worker(&caller, &message.worker_id).await?;
        let lease = lease_key(message.lease.as_ref())?;
        caller.about(&lease);
        let request = request(&message.request_id, &message)?;
        self.0.engine.command(request, Command::Release { worker, lease }).await.map_err(status::refusal)?;
        Ok(Response::new(pb::ReleaseLeaseResponse {}))
    }

    async fn deregister_worker(
        &self,
        message: Request<pb::DeregisterWorkerRequest>,
    ) -> Result<Response<pb::DeregisterWorkerResponse>, Status> {
        let (caller, message) = Caller::of(message)?;
        let worker = self.worker(&caller, &message.worker_id).await?;
        caller.about(&worker);
        let request = request(&message.request_id, &message)?;
        let command = Command::Deregister { worker: worker.clone() };
        self.0.engine.command(request, command).await.map_err(status::refusal)?;
        tracing::info!(%worker, "worker deregistered");
        Ok(Response::new(pb::DeregisterWorkerResponse {}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_waits_end_one_after_another_and_short_ones_when_asked() {
        let workers = || (0..1000).map(|i| WorkerId::new(format!("w-{i}")).unwrap());
        assert!(workers().all(|worker| spread(limits::SURE_WAIT, &worker) == limits::SURE_WAIT));
        let mut waits: Vec<_> = workers().map(|worker| spread(Duration::from_secs(21), &worker).as_millis()).collect();
        waits.sort_unstable();
        assert!(waits[0] >= 11_000 && waits[999] <= 21_000, "{} to {}", waits[0], waits[999]);
        // 10 s for 1,000: none comes with a crowd.
        let crowd = waits.windows(50).map(|some| some[49] - some[0]).min().unwrap();
        assert!(crowd > 200, "50 of 1000 within {crowd} ms");
    }
}
