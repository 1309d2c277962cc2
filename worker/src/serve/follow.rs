//! Follows a search: asks its coordinator for the best schedule, and again whenever a result may have changed it.
//!
//! The answer is used from the next request on. Without an answer the server goes on with what it has, and says so once.

use std::sync::Arc;
use std::time::Duration;

use evocache_net::back_off::BackOff;
use evocache_net::channel::{self, AddressError, MAX_MESSAGE_BYTES};
use evocache_net::credentials::Credentials;
use evocache_proto::domain::Grid;
use evocache_proto::pb;
use evocache_proto::pb::get_best_schedule_request::Constraint;
use evocache_proto::pb::search_service_client::SearchServiceClient;
use evocache_proto::text::plain;
use evocache_proto::wire;
use tokio::time::{sleep, timeout};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::plan::{Figures, MeasuredAt, Plan, Quality};
use super::site::Site;

const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(15);
/// The least time between two questions: a busy search has many results a second.
const PAUSE: Duration = Duration::from_secs(1);
/// How long to wait before a search that has ended is looked at again.
const ENDED: Duration = Duration::from_secs(15);
const BACK_OFF: BackOff = BackOff { first: Duration::from_millis(500), most: Duration::from_secs(30) };

type Service = SearchServiceClient<InterceptedService<Channel, Credentials>>;

/// The search to follow.
#[derive(Debug, Clone)]
pub struct Source {
    /// `https://host:port` or `http://host:port`.
    pub coordinator: String,
    /// Token and certificates for the coordinator.
    pub credentials: Credentials,
    /// The id of the search.
    pub search: String,
    /// The least share kept of the uncached quality.
    pub min_quality_ratio: f64,
}

impl Source {
    /// Checks address and credentials without a connection.
    ///
    /// # Errors
    ///
    /// If they cannot be used.
    pub fn check(&self) -> Result<(), AddressError> {
        channel::endpoint(&self.coordinator, &self.credentials, CONNECT).map(|_| ())
    }
}

/// Why there is no new schedule.
enum Problem {
    /// The search has no more changes; it may be extended.
    Ended,
    /// Nobody answers, or the stream has ended: try again.
    Away(String),
    /// The coordinator has no schedule that fits, yet.
    None(String),
    /// The answer cannot be used.
    Unusable(String),
}

impl From<Status> for Problem {
    fn from(status: Status) -> Self {
        let text = format!("{} ({:?})", status.message(), status.code());
        match status.code() {
            Code::NotFound | Code::FailedPrecondition => Self::None(text),
            Code::InvalidArgument | Code::PermissionDenied | Code::Unauthenticated => Self::Unusable(text),
            _ => Self::Away(text),
        }
    }
}

/// Follows the search until it is dropped.
pub(super) async fn follow(site: Arc<Site>, source: Source) {
    let endpoint = match channel::endpoint(&source.coordinator, &source.credentials, CONNECT) {
        Ok(endpoint) => endpoint,
        Err(error) => {
            tracing::error!(%error, "the coordinator cannot be asked");
            return;
        }
    };
    let service = SearchServiceClient::with_interceptor(endpoint.connect_lazy(), source.credentials.clone())
        .max_decoding_message_size(MAX_MESSAGE_BYTES);
    let mut follower = Follower { site, source, service, told: String::new() };
    let mut waits = BACK_OFF.start();
    loop {
        match follower.watch().await {
            Problem::Ended => {
                waits.reset();
                sleep(ENDED).await;
            }
            problem => {
                follower.tell(&problem);
                sleep(waits.next_wait()).await;
            }
        }
    }
}

struct Follower {
    site: Arc<Site>,
    source: Source,
    service: Service,
    /// The problem that was logged last; each is logged once.
    told: String,
}

impl Follower {
    /// Asks, and asks again at every change, as long as the stream lasts.
    async fn watch(&mut self) -> Problem {
        let request = pb::WatchSearchRequest { search_id: self.source.search.clone() };
        let mut changes = match within(self.service.watch_search(request)).await {
            Ok(changes) => changes.into_inner(),
            Err(problem) => return problem,
        };
        loop {
            // The first message comes at once.
            match changes.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return Problem::Ended,
                Err(status) => return status.into(),
            }
            match self.ask().await {
                Ok(()) => self.told.clear(),
                Err(problem @ Problem::Away(_)) => return problem,
                Err(problem) => self.tell(&problem),
            }
            sleep(PAUSE).await;
        }
    }

    /// Asks for the best schedule and puts it to use.
    async fn ask(&mut self) -> Result<(), Problem> {
        let search_id = self.source.search.clone();
        let search = within(self.service.get_search(pb::GetSearchRequest { search_id: search_id.clone() })).await?;
        let constraint = Some(Constraint::MinQualityRatio(self.source.min_quality_ratio));
        let request = pb::GetBestScheduleRequest { search_id, constraint, ..Default::default() };
        let best = within(self.service.get_best_schedule(request)).await?.into_inner();
        let (plan, grids) = self.plan(&search.into_inner(), &best)?;
        let Ok(scene) = self.site.scene() else { return Ok(()) };
        let id = plan.schedule.id();
        if scene.plan().is_some_and(|used| used.schedule.id() == id && used.figures == plan.figures) {
            return Ok(());
        }
        let speedup = plan.figures.speedup.unwrap_or(1.0);
        scene.replace(plan, &grids).map_err(Problem::Unusable)?;
        tracing::info!(schedule = id.short(), speedup, "another schedule from the next request on");
        Ok(())
    }

    fn plan(
        &self,
        search: &pb::GetSearchResponse,
        best: &pb::GetBestScheduleResponse,
    ) -> Result<(Plan, Vec<Grid>), Problem> {
        let unusable = |problem: String| Problem::Unusable(problem);
        let missing = |field: &str| Problem::Unusable(format!("the coordinator's answer has no {field}"));
        let spec = search.search.as_ref().and_then(|search| search.spec.as_ref()).ok_or_else(|| missing("spec"))?;
        let spec = wire::spec_draft(spec).map_err(|e| unusable(e.to_string()))?;
        let layout = wire::layout(best.layout.as_ref().ok_or_else(|| missing("layout"))?);
        let layout = Arc::new(layout.map_err(|e| unusable(e.to_string()))?);
        let evaluation = best.evaluation.as_ref().ok_or_else(|| missing("evaluation"))?;
        let schedule = evaluation.schedule.as_ref().ok_or_else(|| missing("schedule"))?;
        let schedule = wire::schedule(&layout, schedule).map_err(|e| unusable(e.to_string()))?;
        let metrics = evaluation.measurement.iter().flat_map(|measurement| &measurement.metrics);
        let quality = metrics.filter_map(|metric| {
            let quality = Quality::of(&metric.name, &metric.values, Some(metric.baseline_mean))?;
            let kept = best.quality_ratio.filter(|_| metric.name == best.quality_metric);
            Some(Quality { kept, ..quality })
        });
        let ratio = self.source.min_quality_ratio;
        let sampling = &spec.sampling;
        let plan = Plan {
            grid: sampling.grid(schedule.steps()).cloned(),
            measured_at: Some(MeasuredAt {
                guidance: sampling.guidance_scale,
                height: sampling.height,
                width: sampling.width,
            }),
            figures: Figures { speedup: Some(best.speedup).filter(|x| x.is_finite()), quality: quality.collect() },
            why: format!("best of search {} that keeps {ratio} of the quality", self.source.search),
            schedule: Arc::new(schedule),
        };
        Ok((plan, sampling.grids.clone()))
    }

    /// Logs a problem, but not the same one again.
    fn tell(&mut self, problem: &Problem) {
        let (Problem::Away(text) | Problem::None(text) | Problem::Unusable(text)) = problem else { return };
        if *text == self.told {
            return;
        }
        let (coordinator, search) = (&self.source.coordinator, &self.source.search);
        let shown = plain(text);
        match problem {
            Problem::Away(_) => tracing::warn!("no answer from {coordinator}; going on as before: {shown}"),
            Problem::Ended | Problem::None(_) => {
                tracing::info!("search {search} has no schedule that fits, so far: {shown}");
            }
            Problem::Unusable(_) => tracing::error!("the best schedule of search {search} cannot be used: {shown}"),
        }
        self.told = text.clone();
    }
}

async fn within<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Problem> {
    match timeout(ANSWER, call).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Problem::Away(format!("no answer within {} s", ANSWER.as_secs()))),
    }
}
