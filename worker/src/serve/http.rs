//! The pages of the server: OpenAI's images API as its clients speak it, health, readiness and metrics.
//!
//! Lengths are checked before anything is allocated for them, and nothing that a client sends is logged.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tokio::time::Instant;

use super::desk::Order;
use super::door::Need;
use super::refusal::Refusal;
use super::request::{Form, Wanted};
use super::run::{Scene, Told};
use super::site::{Site, Unready};
use super::{chance, limits, wall};
use crate::evaluator::clock::Stopwatch;
use crate::picture::Picture;

/// How long the client waits for its pictures, in seconds.
const DEADLINE: &str = "x-deadline";
const SCHEDULE: HeaderName = HeaderName::from_static("x-evocache-schedule");
const SPEEDUP: HeaderName = HeaderName::from_static("x-evocache-speedup");
const QUALITY: HeaderName = HeaderName::from_static("x-evocache-quality");
const WHY: HeaderName = HeaderName::from_static("x-evocache-why");
/// The text format of Prometheus.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The status that servers count for a client that hung up.
const CLIENT_GONE: u16 = 499;

type Shared = State<Arc<Site>>;
type Who = Extension<Peer>;

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// All pages.
pub(super) fn router(site: Arc<Site>) -> Router {
    Router::new()
        .route("/v1/images/generations", post(generations))
        .route("/v1/images/files/{name}", get(file))
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .fallback(async || Refusal::unusable(StatusCode::NOT_FOUND, "unknown_path", "there is no such page"))
        .method_not_allowed_fallback(async || {
            let message = "this page does not take this method";
            Refusal::unusable(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
        })
        .with_state(site)
}

impl IntoResponse for Unready {
    fn into_response(self) -> Response {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", self.text())).into_response()
    }
}

async fn readyz(State(site): Shared) -> Response {
    site.scene().map_or_else(Unready::into_response, |_| "ready\n".into_response())
}

async fn metrics(State(site): Shared, Extension(peer): Who, headers: HeaderMap) -> Result<Response, Refusal> {
    site.door.admit(&headers, peer.0, Need::Token)?;
    let scene = site.scene();
    let plan = scene.ok().and_then(Scene::plan);
    let schedule = plan.map_or_else(|| "none".to_owned(), |plan| plan.schedule.id().to_string());
    Ok(([(header::CONTENT_TYPE, METRICS)], site.studio.meters.page(scene.is_ok(), &schedule)).into_response())
}

async fn models(State(site): Shared, Extension(peer): Who, headers: HeaderMap) -> Result<Response, Refusal> {
    site.door.admit(&headers, peer.0, Need::Token)?;
    Ok(answer(json!({ "object": "list", "data": [about(ready(&site)?)] }).to_string()))
}

async fn model(
    State(site): Shared,
    Extension(peer): Who,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    site.door.admit(&headers, peer.0, Need::Token)?;
    let scene = ready(&site)?;
    if name == scene.name { Ok(answer(about(scene).to_string())) } else { Err(unknown_model(scene)) }
}

fn ready(site: &Site) -> Result<&Scene, Refusal> {
    site.scene().map_err(|unready| Refusal::busy("not_ready", unready.text(), Duration::from_secs(5)))
}

fn about(scene: &Scene) -> serde_json::Value {
    json!({ "id": scene.name, "object": "model", "created": 0, "owned_by": "evocache" })
}

fn unknown_model(scene: &Scene) -> Refusal {
    let message = format!("there is no such model; this server has '{}'", scene.name);
    Refusal::unusable(StatusCode::NOT_FOUND, "model_not_found", message)
}

fn answer(body: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

async fn file(State(site): Shared, Path(name): Path<String>) -> Response {
    match site.pictures.get(&name) {
        Some(png) => ([(header::CONTENT_TYPE, "image/png")], png.to_vec()).into_response(),
        None => {
            let message = "the picture is not kept any more; ask for it again";
            Refusal::unusable(StatusCode::NOT_FOUND, "no_such_picture", message).into_response()
        }
    }
}

/// Counts a request when it ends, however it ends.
struct Counted {
    site: Arc<Site>,
    since: Stopwatch,
    outcome: (u16, &'static str),
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.site.studio.meters.answered(self.outcome.0, self.outcome.1, self.since.elapsed());
    }
}

async fn generations(State(site): Shared, Extension(peer): Who, headers: HeaderMap, body: Body) -> Response {
    let mut counted =
        Counted { site: site.clone(), since: Stopwatch::start(), outcome: (CLIENT_GONE, "client_closed") };
    match draw(&site, peer, &headers, body).await {
        Ok(response) => {
            counted.outcome = (200, "ok");
            response
        }
        Err(refusal) => {
            counted.outcome = (refusal.status().as_u16(), refusal.code());
            refusal.into_response()
        }
    }
}

async fn draw(site: &Site, peer: Peer, headers: &HeaderMap, body: Body) -> Result<Response, Refusal> {
    let guest = site.door.admit(headers, peer.0, Need::Pictures)?;
    let body = read(headers, body).await?;
    let wanted = Wanted::read(&body, site.count)?;
    let patience = patience(headers)?.unwrap_or(site.deadline);
    let scene = ready(site)?;
    if wanted.model.as_ref().is_some_and(|name| *name != scene.name) {
        return Err(unknown_model(scene));
    }
    let run = Arc::new(scene.run(&wanted)?);
    let first = wanted.seed.unwrap_or_else(chance::seed);
    let seeds: Vec<u64> = (0..u64::from(wanted.count)).map(|number| first.wrapping_add(number)).collect();
    let charge = site.door.charge(&guest, wanted.count)?;
    let mut ticket = site.studio.desk.submit(Order {
        // A separator that is in no address and no holder's name: two users never have one name.
        user: format!("{} {}", guest.name, wanted.user),
        run: run.clone(),
        prompt: wanted.prompt.into(),
        negative: wanted.negative.into(),
        seeds: seeds.clone(),
        patience,
    })?;
    charge.keep();
    let mut drawn: Vec<Option<Picture>> = seeds.iter().map(|_| None).collect();
    let mut last = Instant::now();
    while drawn.iter().any(Option::is_none) {
        let next = ticket.next().await.ok_or_else(|| Refusal::failed("the device is gone"))?;
        last = next.at;
        if let Some(place) = drawn.get_mut(next.number) {
            *place = Some(next.result?);
        }
    }
    drop(ticket);
    let pictures: Vec<Picture> = drawn.into_iter().flatten().collect();
    let files = tokio::task::spawn_blocking(move || pictures.iter().map(Picture::png).collect::<Result<Vec<_>, _>>());
    let files = files.await.ok().and_then(Result::ok).ok_or_else(|| Refusal::failed("a picture cannot be encoded"))?;
    let mut data = Vec::with_capacity(files.len());
    for (file, seed) in files.into_iter().zip(&seeds) {
        data.push(match wanted.form {
            Form::Base64 => format!("{{\"b64_json\":\"{}\",\"seed\":{seed}}}", STANDARD.encode(file)),
            Form::Url => {
                let name = site.pictures.put(file).ok_or_else(too_large_to_keep)?;
                let url = format!("{}/v1/images/files/{name}", origin(site, headers)?);
                json!({ "url": url, "seed": seed }).to_string()
            }
        });
    }
    let created = wall::now() / 1000;
    let mut response = answer(format!("{{\"created\":{created},\"data\":[{}]}}\n", data.join(",")));
    tell(response.headers_mut(), &run.told);
    site.studio.desk.answered(last.elapsed());
    Ok(response)
}

fn too_large_to_keep() -> Refusal {
    let message = "the picture is larger than the server keeps; use response_format b64_json";
    Refusal::invalid("response_format", "too_large_to_keep", message)
}

/// The body, if it is JSON by its own account and short enough.
async fn read(headers: &HeaderMap, body: Body) -> Result<axum::body::Bytes, Refusal> {
    // Forms of web pages cannot send this type to other sites without asking.
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        let message = "send the request as content-type: application/json";
        return Err(Refusal::unusable(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message));
    }
    let too_large = || {
        let message = format!("the body has more than {} bytes", limits::BODY);
        Refusal::unusable(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    };
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > limits::BODY) {
        return Err(too_large());
    }
    let slow = || {
        let message = format!("the body was not complete within {} s", limits::BODY_TIME.as_secs());
        Refusal::unusable(StatusCode::REQUEST_TIMEOUT, "body_too_slow", message)
    };
    let body = tokio::time::timeout(limits::BODY_TIME, to_bytes(body, limits::BODY)).await.map_err(|_| slow())?;
    // The other cause, a connection that broke, has nobody to read the answer.
    body.map_err(|_| too_large())
}

fn patience(headers: &HeaderMap) -> Result<Option<Duration>, Refusal> {
    let Some(value) = headers.get(DEADLINE) else { return Ok(None) };
    let seconds = value.to_str().ok().and_then(|text| text.trim().parse::<f64>().ok());
    let seconds = seconds.filter(|seconds| *seconds > 0.0 && *seconds <= limits::LONGEST.as_secs_f64());
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration.map(Some).ok_or_else(|| {
        let longest = limits::LONGEST.as_secs();
        Refusal::invalid(DEADLINE, "invalid_value", format!("'{DEADLINE}' must be seconds above 0 up to {longest}"))
    })
}

/// The address that the client used.
fn origin(site: &Site, headers: &HeaderMap) -> Result<String, Refusal> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".:-[]_".contains(&byte);
    if host.is_empty() || host.len() > 255 || !host.bytes().all(fits) {
        return Err(Refusal::invalid("host", "invalid_value", "the header 'host' is not a host and a port"));
    }
    let scheme = if site.tls.is_some() { "https" } else { "http" };
    Ok(format!("{scheme}://{host}"))
}

fn tell(headers: &mut HeaderMap, told: &Told) {
    let parts = [
        (SCHEDULE, Some(&told.schedule)),
        (SPEEDUP, told.speedup.as_ref()),
        (QUALITY, told.quality.as_ref()),
        (WHY, Some(&told.why)),
    ];
    for (name, value) in parts {
        // All of them are ASCII.
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
            headers.insert(name, value);
        }
    }
}
