//! A state machine: random commands against the pure decisions and the in-memory store, with restarts and a clock. After
//! every step all invariants must hold, and a small independent model says which answers are allowed: who holds which lease,
//! under which epoch, and what was answered to whom. proptest shrinks a failure to the few steps that matter.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evocache::engine::{Answer, Command, Context, Decision, LeaseKey, Move, Offer, Refusal, Request, State, decide};
use evocache::ports::{IdSource, SearchState, Store};
use evocache::store::MemoryStore;
use evocache_domain::lease::RetryPolicy;
use evocache_domain::rng::Stream;
use evocache_domain::time::Timestamp;
use evocache_proto::domain::{Budget, RequestId, SearchId, SearchRef, WorkerId};
use evocache_testkit::digest::digest;
use proptest::prelude::*;

use crate::invariants;
use crate::ledger::{Ledger, Taken};
use crate::toy;

const TTL: Duration = Duration::from_secs(30);

/// A step. Its numbers index what exists when it runs, so a shrunk sequence stays valid.
#[derive(Debug, Clone)]
enum Step {
    Create {
        evaluations: u64,
    },
    Move {
        search: usize,
        to: Move,
    },
    /// Raises the budget by this many evaluations, or by none.
    Extend {
        search: usize,
        by: u64,
    },
    Register,
    Drain {
        worker: usize,
    },
    Acquire {
        worker: usize,
    },
    /// By its holder, or by another worker.
    Renew {
        lease: usize,
        by: Option<usize>,
    },
    Complete {
        lease: usize,
        by: Option<usize>,
        epoch: u64,
    },
    Fail {
        lease: usize,
        by: Option<usize>,
        retryable: bool,
    },
    Release {
        lease: usize,
        by: Option<usize>,
    },
    /// Repeats an earlier call.
    Repeat {
        call: usize,
    },
    /// Uses the request id of an earlier call for another one.
    Reuse {
        call: usize,
    },
    Pass {
        seconds: u64,
    },
    Tidy,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let any = 0..1000usize;
    let whether = prop_oneof![Just(true), Just(false)];
    let by = prop_oneof![4 => Just(None), 1 => (0..1000usize).prop_map(Some)];
    let moves = prop_oneof![
        3 => Just(Move::Pause),
        4 => Just(Move::Resume),
        1 => Just(Move::Stop),
        1 => Just(Move::Delete)
    ];
    prop_oneof![
        2 => (1..12u64).prop_map(|evaluations| Step::Create { evaluations }),
        2 => (any.clone(), moves).prop_map(|(search, to)| Step::Move { search, to }),
        3 => (any.clone(), 0..6u64).prop_map(|(search, by)| Step::Extend { search, by }),
        2 => Just(Step::Register),
        1 => any.clone().prop_map(|worker| Step::Drain { worker }),
        14 => any.clone().prop_map(|worker| Step::Acquire { worker }),
        3 => (any.clone(), by.clone()).prop_map(|(lease, by)| Step::Renew { lease, by }),
        12 => (any.clone(), by.clone(), prop_oneof![6 => Just(0), 1 => 1..3u64])
            .prop_map(|(lease, by, epoch)| Step::Complete { lease, by, epoch }),
        3 => (any.clone(), by.clone(), whether)
            .prop_map(|(lease, by, retryable)| Step::Fail { lease, by, retryable }),
        2 => (any.clone(), by).prop_map(|(lease, by)| Step::Release { lease, by }),
        3 => any.clone().prop_map(|call| Step::Repeat { call }),
        1 => any.prop_map(|call| Step::Reuse { call }),
        5 => prop_oneof![3 => 1..5u64, 2 => 20..50u64, 1 => Just(25 * 3600)].prop_map(|seconds| Step::Pass { seconds }),
        1 => Just(Step::Tidy),
        2 => Just(Step::Restart),
    ]
}

#[derive(Default)]
struct Counting(std::sync::atomic::AtomicU64);

impl IdSource for Counting {
    fn unique(&self) -> String {
        format!("id-{}", self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
    }
}

/// What the model knows of a candidate: grants, and how it ended.
#[derive(Debug, Default)]
struct Known {
    grants: Vec<(u64, WorkerId)>,
    taken: Option<(u64, WorkerId)>,
}

struct Call {
    request: Request,
    command: Command,
    answer: Answer,
    at: Timestamp,
}

struct World {
    store: MemoryStore,
    state: State,
    now: Timestamp,
    policy: RetryPolicy,
    ids: Counting,
    chance: Stream,
    calls: Vec<Call>,
    offers: Vec<(WorkerId, Offer)>,
    known: BTreeMap<(SearchRef, u64), Known>,
    ledger: Ledger,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            store: MemoryStore::new(),
            state: State::default(),
            now: Timestamp(1_000_000),
            policy: toy::policy(TTL),
            ids: Counting::default(),
            chance: Stream::new(seed, "machine", 0),
            calls: vec![],
            offers: vec![],
            known: BTreeMap::new(),
            ledger: Ledger::default(),
        }
    }

    /// Decides, commits and applies, as the engine does, and checks the invariants before and after.
    fn carry_out(&mut self, request: Option<&Request>, command: &Command) -> Result<Result<Answer, Refusal>, String> {
        let before = self.state.clone();
        let context = Context { now: self.now, policy: &self.policy, ids: &self.ids, scarce: None };
        let Decision { facts, touches, answer } = match decide(&self.state, request, command, &context) {
            Ok(decision) => decision,
            Err(refusal) => return Ok(Err(refusal)),
        };
        self.store.commit(&facts).map_err(|e| e.to_string())?;
        for fact in facts {
            self.state.apply(fact).map_err(|e| format!("a decision contradicts the state: {e}"))?;
        }
        touches.into_iter().for_each(|touch| self.state.touch(touch));
        invariants::state(&self.state)?;
        // Only tidying forgets workers and requests.
        if !matches!(command, Command::Tidy) {
            invariants::sequence(&before, &self.state)?;
        }
        Ok(Ok(answer.unwrap_or(Answer::Accepted)))
    }

    /// Makes a call with a request id; its answer is remembered.
    fn call(&mut self, command: Command) -> Result<Result<Answer, Refusal>, String> {
        let id = RequestId::new(format!("r-{}", self.ids.unique())).map_err(|e| e.to_string())?;
        let request = Request { id: id.clone(), digest: [self.calls.len() as u8; 32] };
        let answer = self.carry_out(Some(&request), &command)?;
        if let Ok(answer) = &answer {
            self.ledger.requests.push(id);
            self.calls.push(Call { request, command, answer: answer.clone(), at: self.now });
        }
        Ok(answer)
    }

    fn worker(&self, number: usize) -> Option<WorkerId> {
        let workers: Vec<_> = self.state.workers.keys().collect();
        workers.get(number % workers.len().max(1)).map(|&id| id.clone())
    }

    fn search(&self, number: usize) -> Option<SearchId> {
        let searches: Vec<_> = self.state.searches.keys().collect();
        searches.get(number % searches.len().max(1)).map(|&id| id.clone())
    }

    /// An earlier lease, and the worker that claims it.
    fn lease(&self, number: usize, by: Option<usize>) -> Option<(WorkerId, Offer)> {
        let (holder, offer) = self.offers.get(number % self.offers.len().max(1))?;
        let by = by.and_then(|by| self.worker(by)).unwrap_or_else(|| holder.clone());
        Some((by, offer.clone()))
    }

    fn take(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Create { evaluations } => {
                let spec = Arc::new(toy::spec(*evaluations, self.chance.bits() >> 12));
                // Half of the searches reuse one id.
                let search = self.chance.bits().is_multiple_of(2).then(|| SearchId::new("again").unwrap());
                match self.call(Command::Create { search, spec, from: vec![] })? {
                    Ok(Answer::Search(id)) => self.ledger.searches.push(id),
                    Err(Refusal::Exists(_) | Refusal::BeingDeleted(_)) => {}
                    other => return Err(format!("create: {other:?}")),
                }
            }
            Step::Move { search, to } => {
                let Some(search) = self.search(*search) else { return Ok(()) };
                let moved = self.call(Command::Move { search: search.clone(), to: *to })?;
                if *to == Move::Delete && moved.is_ok() {
                    self.ledger.searches.retain(|id| *id != search);
                    self.ledger.results.retain(|taken| taken.lease.search.id != search);
                    // Its leases are kept: their holders may report after the id is used again.
                    self.known.retain(|(known, _), _| known.id != search);
                }
            }
            Step::Extend { search, by } => self.extend(*search, *by)?,
            Step::Register => {
                let declaration = Arc::new(toy::declaration("w"));
                let registered = self.call(Command::Register { declaration, principal: String::new() })?;
                let Ok(Answer::Worker(id)) = registered else { return Err(format!("register: {registered:?}")) };
                self.ledger.workers.push(id);
            }
            Step::Drain { worker } => {
                if let Some(worker) = self.worker(*worker) {
                    self.call(Command::Drain { worker })?.map_err(|e| e.to_string())?;
                }
            }
            Step::Acquire { worker } => self.acquire(*worker)?,
            Step::Renew { lease, by } => self.renew(*lease, *by)?,
            Step::Complete { lease, by, epoch } => self.complete(*lease, *by, *epoch)?,
            Step::Fail { lease, by, retryable } => {
                let Some((worker, offer)) = self.lease(*lease, *by) else { return Ok(()) };
                let reason = "bad luck".to_owned();
                let command =
                    Command::Fail { worker: worker.clone(), lease: offer.lease.clone(), reason, retryable: *retryable };
                let failed = self.call(command)?;
                self.only_the_holder(&worker, &offer.lease, failed.is_ok(), "failed")?;
            }
            Step::Release { lease, by } => {
                let Some((worker, offer)) = self.lease(*lease, *by) else { return Ok(()) };
                let released = self.call(Command::Release { worker: worker.clone(), lease: offer.lease.clone() })?;
                self.only_the_holder(&worker, &offer.lease, released.is_ok(), "released")?;
            }
            Step::Repeat { call } => self.repeat(*call)?,
            Step::Reuse { call } => {
                let Some(call) = self.calls.get(*call % self.calls.len().max(1)) else { return Ok(()) };
                let request = Request { id: call.request.id.clone(), digest: [255; 32] };
                let young = self.state.requests.contains_key(&request.id);
                let command = call.command.clone();
                let answer = self.carry_out(Some(&request), &command)?;
                if young && !matches!(answer, Err(Refusal::RequestReused(_))) {
                    return Err(format!("a request id was taken for two calls: {answer:?}"));
                }
            }
            Step::Pass { seconds } => {
                self.now = self.now.plus(Duration::from_secs(*seconds));
                self.carry_out(None, &Command::Tick)?.map_err(|e| e.to_string())?;
            }
            Step::Tidy => {
                self.carry_out(None, &Command::Tidy)?.map_err(|e| e.to_string())?;
                self.ledger.requests.retain(|id| self.state.requests.contains_key(id));
                self.ledger.workers.retain(|id| self.state.workers.contains_key(id));
                self.calls.retain(|call| self.state.requests.contains_key(&call.request.id));
            }
            Step::Restart => {
                invariants::replays(&self.store, &self.state, self.now, &self.policy)?;
                let before = self.state.clone();
                let facts = self.store.load().map_err(|e| e.to_string())?;
                self.state = State::recover(facts, self.now, &self.policy).map_err(|e| e.to_string())?;
                invariants::state(&self.state)?;
                invariants::sequence(&before, &self.state)?;
            }
        }
        invariants::acknowledged(&self.ledger, &self.state)
    }

    fn extend(&mut self, search: usize, by: u64) -> Result<(), String> {
        let Some(id) = self.search(search) else { return Ok(()) };
        let before = self.state.searches[&id].clone();
        let evaluations = before.spec.budget.evaluations.map(|n| n + by);
        let budget = Budget { evaluations, ..Budget::default() };
        let answer = self.call(Command::Extend { search: id.clone(), budget })?;
        let after = &self.state.searches[&id];
        match (answer, before.phase) {
            (Err(Refusal::State { .. }), SearchState::Stopped | SearchState::Failed) => Ok(()),
            (Err(Refusal::Budget { .. }), _) if by == 0 || evaluations.is_some_and(|n| before.spent() >= n as f64) => {
                Ok(())
            }
            // The search may have nothing left to try.
            (Err(Refusal::Budget { .. }), SearchState::Completed) => Ok(()),
            (Ok(_), SearchState::Completed)
                if by > 0 && after.phase == SearchState::Running && after.ended.is_none() =>
            {
                Ok(())
            }
            (Ok(_), phase) if by > 0 && after.phase == phase => Ok(()),
            (answer, phase) => Err(format!("extend {phase:?} by {by}: {answer:?}, then {:?}", after.phase)),
        }
    }

    fn acquire(&mut self, worker: usize) -> Result<(), String> {
        let Some(worker) = self.worker(worker) else { return Ok(()) };
        let answer = self.carry_out(None, &Command::Acquire { worker: worker.clone() })?;
        let Ok(Answer::Work { offer, draining, .. }) = answer else { return Err(format!("acquire: {answer:?}")) };
        let Some(offer) = offer else { return Ok(()) };
        if draining {
            return Err(format!("{worker} drains and got {}", offer.lease));
        }
        let known = self.known.entry((offer.lease.search.clone(), offer.lease.candidate.0)).or_default();
        if known.taken.is_some() {
            return Err(format!("{} is done and was handed out", offer.lease));
        }
        if known.grants.last().is_some_and(|(epoch, _)| *epoch >= offer.lease.epoch.0) {
            return Err(format!("{} was handed out under {} after {:?}", offer.lease, offer.lease.epoch, known.grants));
        }
        known.grants.push((offer.lease.epoch.0, worker.clone()));
        self.offers.push((worker, offer));
        Ok(())
    }

    fn renew(&mut self, lease: usize, by: Option<usize>) -> Result<(), String> {
        let Some((worker, offer)) = self.lease(lease, by) else { return Ok(()) };
        let command = Command::Renew { worker: worker.clone(), leases: vec![offer.lease.clone()] };
        match self.carry_out(None, &command)? {
            Ok(Answer::Renewed { leases, .. }) => {
                let granted = self.granted(&worker, &offer.lease);
                if leases[0].ttl.is_some() && !granted {
                    return Err(format!("{} was renewed for {worker}, who never had it", offer.lease));
                }
                Ok(())
            }
            Err(Refusal::NoWorker(_)) => Ok(()),
            other => Err(format!("renew: {other:?}")),
        }
    }

    fn complete(&mut self, lease: usize, by: Option<usize>, ahead: u64) -> Result<(), String> {
        let Some((worker, mut offer)) = self.lease(lease, by) else { return Ok(()) };
        offer.lease.epoch.0 += ahead;
        let measurement = toy::measure(&offer.schedule, offer.prompts.to_number(), vec![], &mut self.chance);
        let key = (offer.lease.search.clone(), offer.lease.candidate.0);
        let by = (offer.lease.epoch.0, worker.clone());
        let command =
            Command::Complete { worker: worker.clone(), lease: offer.lease.clone(), measurement: measurement.clone() };
        let held = self.is_held(&worker, &offer.lease);
        let answer = self.call(command)?;
        let known = self.known.entry(key).or_default();
        match (answer, &known.taken) {
            (Ok(_), None) if known.grants.contains(&by) => {
                known.taken = Some(by);
                self.ledger.results.push(Taken { worker, lease: offer.lease, measurement });
                Ok(())
            }
            (Ok(_) | Err(Refusal::ResultDiffers(_)), Some(taken)) if *taken == by => Ok(()),
            (Ok(_), taken) => Err(format!(
                "{} was taken from {worker} under epoch {}; granted {:?}, taken {taken:?}",
                offer.lease, offer.lease.epoch, known.grants
            )),
            (Err(Refusal::Superseded(_)), _) if held => {
                Err(format!("{} was refused to {worker}, who held it", offer.lease))
            }
            (Err(Refusal::Superseded(_) | Refusal::Ended(_) | Refusal::NoSearch(_)), _) => Ok(()),
            (Err(refusal), _) => Err(format!("complete: {refusal}")),
        }
    }

    fn granted(&self, worker: &WorkerId, lease: &LeaseKey) -> bool {
        let known = self.known.get(&(lease.search.clone(), lease.candidate.0));
        known.is_some_and(|known| known.grants.contains(&(lease.epoch.0, worker.clone())))
    }

    fn is_held(&self, worker: &WorkerId, lease: &LeaseKey) -> bool {
        let held = self.state.searches.get(&lease.search.id).filter(|search| search.is(&lease.search));
        let held = held.and_then(|search| search.candidate(lease.candidate));
        held.is_some_and(|candidate| {
            matches!(&candidate.lease, evocache_domain::lease::State::Leased { worker: by, epoch, .. }
                if by == worker && *epoch == lease.epoch)
        })
    }

    fn only_the_holder(&self, worker: &WorkerId, lease: &LeaseKey, accepted: bool, what: &str) -> Result<(), String> {
        if accepted && !self.granted(worker, lease) {
            return Err(format!("{lease} was {what} by {worker}, who never had it under epoch {}", lease.epoch));
        }
        Ok(())
    }

    /// A repeated call gets the first answer and changes nothing, as long as the answer is remembered.
    fn repeat(&mut self, call: usize) -> Result<(), String> {
        let Some(call) = self.calls.get(call % self.calls.len().max(1)) else { return Ok(()) };
        if !self.state.requests.contains_key(&call.request.id) {
            return Ok(());
        }
        let (request, command, first, at) = (call.request.clone(), call.command.clone(), call.answer.clone(), call.at);
        let before = digest(&self.state);
        let again = self.carry_out(Some(&request), &command)?;
        if again != Ok(first.clone()) {
            return Err(format!("{command:?} of {at} was answered with {first:?}, its repeat with {again:?}"));
        }
        if digest(&self.state) != before {
            return Err(format!("the repeat of {command:?} changed something"));
        }
        Ok(())
    }
}

fn cases() -> u32 {
    u32::try_from(crate::kills::setting("CHAOS_ROUNDS", 64)).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn machine_of_random_commands_keeps_all_invariants(
        seed in 0..1_000_000u64,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new(seed);
        // Without a search and a worker nothing happens.
        world.take(&Step::Register).map_err(TestCaseError::fail)?;
        world.take(&Step::Create { evaluations: 8 }).map_err(TestCaseError::fail)?;
        for (i, step) in steps.iter().enumerate() {
            if let Err(problem) = world.take(step) {
                return Err(TestCaseError::fail(format!("step {i}, {step:?}: {problem}")));
            }
        }
        world.take(&Step::Restart).map_err(TestCaseError::fail)?;
    }
}
