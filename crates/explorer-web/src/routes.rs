//! What is at which address.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::routing::{get, post};
use http_body_util::{BodyExt, Limited};
use serde_json::Value;
use tokio::sync::Semaphore;
use zeroize::{Zeroize, Zeroizing};

use crate::assets::{ASSETS, Asset};
use crate::download::{DOWNLOADS_MAX, download, said};
use crate::guard::{ENTER, Guard, RUN};
use crate::headers;
use crate::hub::{Hub, Tried};
use crate::query;
use crate::wire::Message;

/// Bytes of the longest body: many lines that are typed.
const BODY_MAX: usize = 32 << 10;
/// How long a body may take.
const BODY_TIME: Duration = Duration::from_secs(10);

/// What every answer is made of.
pub(crate) struct Served {
    pub(crate) guard: Guard,
    pub(crate) hub: Arc<Hub>,
    downloads: Arc<Semaphore>,
}

type Shared = State<Arc<Served>>;

impl Served {
    pub(crate) fn new(guard: Guard, hub: Arc<Hub>) -> Self {
        Self { guard, hub, downloads: Arc::new(Semaphore::new(DOWNLOADS_MAX)) }
    }
}

pub(crate) fn router(served: Arc<Served>) -> Router {
    let root = served.guard.root();
    let at = |name: &str| format!("{root}{name}");
    let mut router = Router::new()
        .route(&at(ENTER), get(enter))
        .route(&at("scene"), get(scene))
        .route(&at("rows"), get(rows))
        .route(&at("picture"), get(picture))
        .route(&at("get"), get(handed))
        .route(&at("events"), post(events))
        .route(&at("passphrase"), post(passphrase));
    for asset in ASSETS {
        let shown = move |served: Shared| async move { page(asset, served.guard.run()) };
        router = router.route(&at(asset.name), get(shown));
    }
    let router = router.fallback(|| async { said(StatusCode::NOT_FOUND, "nothing is here") });
    let checks = from_fn_with_state(Arc::clone(&served), check);
    router.layer(checks).with_state(served)
}

/// Answers whom the guard lets in, and says of every answer what it may do.
async fn check(State(served): Shared, request: Request, next: Next) -> Response<Body> {
    let checked = served.guard.check(request.method(), request.uri().path(), request.headers());
    let is_door = request.uri().path().ends_with(ENTER);
    let mut answer = match checked {
        Ok(()) => {
            let mut answer = next.run(request).await;
            // At the door there may be somebody without a cookie.
            let run = HeaderValue::from_str(served.guard.run());
            if let Some(run) = run.ok().filter(|_| !is_door) {
                answer.headers_mut().insert(RUN, run);
            }
            answer
        }
        Err(refusal) => {
            let mut answer = said(refusal.status, refusal.why);
            // Nobody who must not be here keeps a connection from others, reading nothing.
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            answer
        }
    };
    headers::add_to(answer.headers_mut());
    answer
}

fn page(asset: &'static Asset, run: &str) -> Response<Body> {
    let body = match asset.name {
        "" => Body::from(asset.text.replace("{run}", run)),
        _ => Body::from(asset.text),
    };
    let mut answer = Response::new(body);
    let kind = HeaderValue::from_static(asset.content_type);
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

fn json(status: StatusCode, value: &Value) -> Response<Body> {
    let mut answer = said(status, &value.to_string());
    let kind = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

/// Something else is shown by now. Nothing went wrong.
fn nothing() -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}

async fn enter(State(served): Shared, uri: Uri) -> Response<Body> {
    let token = query::value(uri.query(), "token").and_then(|token| String::from_utf8(token).ok());
    let cookie = token.and_then(|token| served.guard.enter(&token));
    let Some(cookie) = cookie.and_then(|cookie| HeaderValue::try_from(cookie).ok()) else {
        let why = "this address was used already, or is not the one that was printed: start the \
                   explorer again";
        return said(StatusCode::FORBIDDEN, why);
    };
    let mut answer = said(StatusCode::SEE_OTHER, "this way");
    let headers = answer.headers_mut();
    headers.insert(header::SET_COOKIE, cookie);
    headers.insert(header::LOCATION, HeaderValue::from_static("./"));
    answer
}

async fn scene(State(served): Shared, uri: Uri) -> Response<Body> {
    let seen = query::number(uri.query(), "seen").unwrap_or(0);
    json(StatusCode::OK, &served.hub.wait(seen).await)
}

async fn rows(State(served): Shared, uri: Uri) -> Response<Body> {
    let number = |name| query::number(uri.query(), name);
    let count = query::number(uri.query(), "count");
    let (Some(version), Some(first), Some(count)) = (number("version"), number("first"), count)
    else {
        return said(StatusCode::BAD_REQUEST, "which rows?");
    };
    let first = usize::try_from(first).unwrap_or(usize::MAX);
    match served.hub.rows(version, first, count) {
        Some(rows) => json(StatusCode::OK, &rows),
        None => nothing(),
    }
}

async fn picture(State(served): Shared, uri: Uri) -> Response<Body> {
    let version = query::number(uri.query(), "version");
    let cells = query::number(uri.query(), "cells").unwrap_or(0);
    match version.and_then(|version| served.hub.picture(version, cells)) {
        Some(picture) => json(StatusCode::OK, &picture),
        None => nothing(),
    }
}

async fn handed(State(served): Shared, uri: Uri, headers: HeaderMap) -> Response<Body> {
    download(served.hub.shelf(), &served.downloads, uri.query(), &headers).await
}

async fn events(State(served): Shared, body: Body) -> Response<Body> {
    let Some(bytes) = read(body).await else {
        return said(StatusCode::PAYLOAD_TOO_LARGE, "that is too much, or came too slowly");
    };
    match Message::read(&bytes).map(|message| served.hub.take(message)) {
        Some(scene) => json(StatusCode::OK, &scene),
        None => said(StatusCode::BAD_REQUEST, "that is no message"),
    }
}

/// Tries a passphrase: a JSON string. It is in no address, no log, and nowhere afterwards but in
/// what the system and the server had of the connection.
async fn passphrase(State(served): Shared, body: Body) -> Response<Body> {
    let Some(bytes) = read(body).await else {
        return said(StatusCode::PAYLOAD_TOO_LARGE, "that is too much, or came too slowly");
    };
    let Ok(text) = serde_json::from_slice::<String>(&bytes).map(Zeroizing::new) else {
        return said(StatusCode::BAD_REQUEST, "that is no text");
    };
    drop(bytes);
    let hub = Arc::clone(&served.hub);
    match tokio::task::spawn_blocking(move || hub.try_passphrase(&text)).await {
        Ok(Tried::Taken) => said(StatusCode::OK, "tried"),
        Ok(Tried::Unusable(why)) => said(StatusCode::BAD_REQUEST, &why),
        Ok(Tried::TooSoon(wait)) => {
            let why = format!("too many were wrong: wait {} seconds", wait.as_secs() + 1);
            said(StatusCode::TOO_MANY_REQUESTS, &why)
        }
        _ => said(StatusCode::CONFLICT, "nobody asks for it"),
    }
}

/// A body that is small and comes soon. What its pieces were in is overwritten where nobody else
/// has it.
async fn read(body: Body) -> Option<Zeroizing<Vec<u8>>> {
    let mut body = Limited::new(body, BODY_MAX);
    let mut all = Zeroizing::new(Vec::with_capacity(BODY_MAX));
    let pieces = async {
        while let Some(frame) = body.frame().await {
            let Ok(piece) = frame.ok()?.into_data() else { continue };
            all.extend_from_slice(&piece);
            wipe(piece);
        }
        Some(())
    };
    tokio::time::timeout(BODY_TIME, pieces).await.ok()??;
    Some(all)
}

fn wipe(piece: Bytes) {
    if let Ok(mut piece) = piece.try_into_mut() {
        piece.as_mut().zeroize();
    }
}
