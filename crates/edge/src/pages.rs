//! Requests that need PHP, of this node or of another one: pages through the cache, everything else past it, and the readiness probe.
//!
//! Always: a render that others may wait for runs as its own task, so it does not end with the client who caused it;
//! what may not be stored is shown to nobody but its asker.

mod making;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Response, StatusCode};
use hyper::body::{Body as _, Incoming};
use pressroom_model::snapshot::READY_PATH;

use crate::affirm::Pending;
use crate::author;
use crate::body::Body;
use crate::cache::{self, Bypass, CACHE_STATUS, Hit, Key, Lead, Lookup, Refusal, Waited, X_CACHE};
use crate::commit;
use crate::core::Core;
use crate::fastcgi::exchange::{Fault, Source};
use crate::fastcgi::head::Head;
use crate::fastcgi::params::Params;
use crate::handler::{Asking, Script};
use crate::mesh::Mesh;
use crate::mesh::choice::Place;
use crate::mesh::passing;
use crate::metrics::Count;
use crate::notice::{self, Notice};
use crate::php::answer::{Answer, Outcome};
use crate::php::call::{Call, Failure, Reach, Times};
use crate::php::class::{class, is_logged_in};
use crate::php::coded::{self, Coded};
use crate::php::request::{self, Facts};
use crate::php::spool::spool;
use crate::pool::{Class, Refused};
use crate::view::Site;

use self::making::{spawn_closing, start};

/// How long the readiness probe waits for a worker before it says *busy*.
const READY_PATIENCE: Duration = Duration::from_secs(2);
/// How long an asker waits for PHP's last word about a whole answer, before it gets the answer as it is.
const LAST_WORD: Duration = Duration::from_millis(50);
/// The same of another edge, which stores what PHP affirms: it waits as long as those who want the page.
const EDGES_LAST_WORD: Duration = Duration::from_secs(2);
const READY_LIMIT: Duration = Duration::from_secs(10);
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// What a render comes to for its asker.
pub(crate) enum Outlook {
    /// A page that is stored, or an older one that may still be served.
    Page(Hit),
    /// An answer for this asker alone.
    Own(Box<Own>),
    /// Nothing.
    Failed(Failure),
}

/// An answer for its asker alone.
pub(crate) struct Own {
    /// Status and headers.
    pub head: Head,
    /// The body.
    pub body: Body,
    /// How long it took.
    pub times: Times,
    /// Why it is not stored; `None`: PHP has not said its last word.
    pub refusal: Option<Refusal>,
}

/// A page that the cache may have or get.
pub async fn page(
    core: &Arc<Core>,
    site: &Arc<Site>,
    asking: &Asking,
    script: Script,
    lookup: Lookup,
) -> Response<Body> {
    match lookup {
        Lookup::Hit(hit) => answer_hit(&hit, asking),
        Lookup::Stale(hit, lead) => {
            if let Some(lead) = lead {
                drop(start(core, site, asking, &script, lead, LAST_WORD));
            }
            answer_hit(&hit, asking)
        }
        Lookup::Miss(lead) | Lookup::Pass(lead) => {
            rendered(core, site, asking, &script, lead).await
        }
        Lookup::Wait(wait) => {
            let limits = &site.model.limits;
            let deadline =
                tokio::time::Instant::now() + limits.queue_time.get() + limits.time.get();
            match wait.until(deadline, cache::now).await {
                Waited::Page(hit) | Waited::Late(Some(hit)) => answer_hit(&hit, asking),
                Waited::Lead(lead) | Waited::Pass(lead) => {
                    rendered(core, site, asking, &script, lead).await
                }
                Waited::Late(None) => Notice::Overloaded.answer(&asking.id),
            }
        }
    }
}

async fn rendered(
    core: &Arc<Core>,
    site: &Arc<Site>,
    asking: &Asking,
    script: &Script,
    lead: Lead,
) -> Response<Body> {
    match start(core, site, asking, script, lead, LAST_WORD).await {
        Ok(Outlook::Page(hit)) => {
            let mut answer = answer_hit(&hit, asking);
            if hit.is_fresh() {
                let headers = answer.headers_mut();
                headers.insert(X_CACHE, HeaderValue::from_static("miss"));
                headers.insert(CACHE_STATUS, cache::stored(site.cached.is_cut_off()));
            }
            answer
        }
        Ok(Outlook::Own(own)) => {
            let Own { head, body, times, refusal } = *own;
            let mut answer = php_answer(asking, head, body, times);
            let headers = answer.headers_mut();
            headers.insert(X_CACHE, HeaderValue::from_static("miss"));
            headers.insert(CACHE_STATUS, cache::rendered(refusal.as_ref()));
            answer
        }
        Ok(Outlook::Failed(failure)) => failed(core, asking, &failure),
        Err(_) => Notice::BadGateway.answer(&asking.id),
    }
}

fn answer_hit(hit: &Hit, asking: &Asking) -> Response<Body> {
    hit.answer(&asking.parts.method, &asking.parts.headers).map(Body::Whole)
}

/// A page for another edge: fresh, or made by PHP of this node; with PHP's last word about it.
pub(crate) async fn for_edge(
    core: &Arc<Core>,
    site: &Arc<Site>,
    asking: &Asking,
    script: &Script,
    (key, alone): (&Key, bool),
) -> Outlook {
    let limits = &site.model.limits;
    let deadline = tokio::time::Instant::now() + limits.queue_time.get() + limits.time.get();
    let failed = || Outlook::Failed(Refused::Late.into());
    let lead = match core.shared.cache.lookup_fresh(&site.cached, key, alone, cache::now()) {
        Lookup::Hit(hit) | Lookup::Stale(hit, _) => return Outlook::Page(hit),
        Lookup::Miss(lead) | Lookup::Pass(lead) => lead,
        Lookup::Wait(wait) if wait.is_abroad() => wait.alone(cache::now()),
        Lookup::Wait(wait) => match wait.until(deadline, cache::now).await {
            Waited::Page(hit) => return Outlook::Page(hit),
            Waited::Late(hit) => return hit.map_or_else(failed, Outlook::Page),
            Waited::Lead(lead) | Waited::Pass(lead) => lead,
        },
    };
    start(core, site, asking, script, lead, EDGES_LAST_WORD).await.unwrap_or_else(|_| failed())
}

/// A request past the cache.
pub async fn direct(
    core: &Arc<Core>,
    site: &Arc<Site>,
    asking: &Asking,
    script: &Script,
    bypass: &Bypass,
    body: Incoming,
) -> Response<Body> {
    core.shared.cache.count_bypass();
    let most = site.model.limits.upload.get();
    let length = content_length(&asking.parts.headers);
    if length.is_some_and(|l| l > most) {
        return Notice::TooLarge.answer(&asking.id);
    }
    let (source, length) = if body.is_end_stream() {
        (Source::Memory(Bytes::new()), length)
    } else {
        let kept = site.author.is_some() && author::may_change_code(asking.parts.uri.path());
        match spool(body, length, most, &core.shared.spool, kept).await {
            Ok((source, length)) => (source, Some(length)),
            Err(fault) => return failed(core, asking, &fault.into()),
        }
    };
    direct_with(core, site, asking, (script, bypass), source, length).await
}

/// A request past the cache, for whichever place has PHP for it: these nodes, then this one.
pub async fn direct_anywhere(
    core: &Arc<Core>,
    mesh: &Arc<Mesh>,
    places: Vec<Place>,
    site: &Arc<Site>,
    asking: &Asking,
    what: (&Script, &Bypass),
    body: Incoming,
) -> Response<Body> {
    let length = content_length(&asking.parts.headers);
    let most = site.model.limits.upload.get();
    if length.is_some_and(|l| l > most) {
        return Notice::TooLarge.answer(&asking.id);
    }
    let is_empty = body.is_end_stream();
    let (mut source, spooled) = match spool(body, length, most, &core.shared.spool, true).await {
        Ok(spooled) => spooled,
        Err(fault) => return failed(core, asking, &fault.into()),
    };
    let nodes: Vec<_> = places.into_iter().map_while(Place::node).collect();
    let answer = passing::direct(core, mesh, &nodes, asking, &mut source).await;
    if let Some(answer) = &answer {
        learn(core, site, answer.headers());
    }
    let may_go_on = |answer: &Response<Body>| {
        let unanswered = answer.extensions().get::<Unanswered>();
        unanswered.is_some_and(|it| !it.was_sent || passing::may_repeat(asking))
    };
    match answer {
        Some(answer) if site.pool.usable().1 == 0 || !may_go_on(&answer) => answer,
        _ if source.rewind().await.is_err() => Notice::BadGateway.answer(&asking.id),
        _ => {
            let length = if is_empty { length } else { Some(spooled) };
            direct_with(core, site, asking, what, source, length).await
        }
    }
}

/// A request past the cache by PHP of this node; an upload is answered once another node has it.
async fn direct_with(
    core: &Arc<Core>,
    site: &Arc<Site>,
    asking: &Asking,
    what: (&Script, &Bypass),
    source: Source,
    length: Option<u64>,
) -> Response<Body> {
    let answer = direct_here(core, site, asking, what, source, length).await;
    commit::committed(core, asking, answer).await
}

async fn direct_here(
    core: &Arc<Core>,
    site: &Arc<Site>,
    asking: &Asking,
    (script, bypass): (&Script, &Bypass),
    source: Source,
    length: Option<u64>,
) -> Response<Body> {
    let kept = author::Kept::of(site, &source, length).await;
    let mut params = request::direct(&facts(site, asking, script), &asking.parts.headers, length);
    if kept.is_some() {
        params.set("PRESSROOM_KEPT", "1");
    }
    let mut call = call(core, site, asking, params);
    call.source = source;
    match call.run(|| {}).await {
        Ok((mut answer, pending)) => {
            let word = author::word(&mut answer.head.headers);
            match (word, kept) {
                (None, _) => as_it_comes(core, site, asking, bypass, answer, pending),
                (Some(word), _) if word == "soon" => {
                    author::wake(core, site, asking);
                    as_it_comes(core, site, asking, bypass, answer, pending)
                }
                (Some(word), Some(kept)) => {
                    answer.body.drain().await;
                    spawn_closing(pending, Outcome::Finished);
                    kept.send(core, site, asking, script, bypass, &word).await
                }
                (Some(_), None) => Notice::NoAuthor.answer(&asking.id),
            }
        }
        Err(failure) => failed(core, asking, &failure),
    }
}

/// An answer for its asker alone.
pub(crate) fn as_it_comes(
    core: &Core,
    site: &Site,
    asking: &Asking,
    bypass: &Bypass,
    answer: Answer,
    pending: Pending,
) -> Response<Body> {
    count(core, &answer.times);
    let Answer { mut head, times, mut body, .. } = answer;
    author::word(&mut head.headers);
    learn(core, site, &head.headers);
    body.on_end(move |outcome| spawn_closing(pending, outcome));
    let mut answer = php_answer(asking, head, Body::Php(Box::new(body)), times);
    let headers = answer.headers_mut();
    headers.insert(X_CACHE, HeaderValue::from_static("bypass"));
    headers.insert(CACHE_STATUS, cache::bypassed(bypass));
    answer
}

/// Whether PHP and the database work, asked without any of WordPress's own redirects in the way.
pub async fn ready(core: &Arc<Core>, site: &Arc<Site>, asking: &Asking) -> Response<Body> {
    let script = Script { script: "/index.php".to_owned(), path_info: String::new() };
    let facts = Facts { uri: READY_PATH, method: &Method::GET, ..facts(site, asking, &script) };
    let params = request::readiness(&facts);
    let mut call = call(core, site, asking, params);
    call.patience = READY_PATIENCE.min(call.patience);
    call.class = Class::Person;
    call.safe = true;
    let mut answer = match tokio::time::timeout(READY_LIMIT, call.run(|| {})).await {
        Ok(Ok((answer, pending))) => {
            let is_ready = answer.head.status == StatusCode::OK;
            answer.body.drain().await;
            pending.finished(false).await;
            match is_ready {
                true => notice::text(StatusCode::OK, "ready\n"),
                false => notice::text(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "not ready: PHP or the database does not work\n",
                ),
            }
        }
        // Workers that all have something to do are not a fault.
        Ok(Err(Failure::Refused(_))) if site.pool.is_saturated() => {
            notice::text(StatusCode::OK, "busy\n")
        }
        Ok(Err(_)) | Err(_) => {
            notice::text(StatusCode::SERVICE_UNAVAILABLE, "not ready: PHP does not answer\n")
        }
    };
    answer.headers_mut().insert(X_CACHE, HeaderValue::from_static("bypass"));
    answer
}

pub(crate) fn facts<'a>(site: &'a Site, asking: &'a Asking, script: &'a Script) -> Facts<'a> {
    Facts {
        root: site.model.root_for_php(),
        script: &script.script,
        path_info: &script.path_info,
        method: &asking.parts.method,
        uri: asking.uri(),
        host: &asking.host,
        authority: &asking.authority,
        scheme: asking.client.scheme,
        address: asking.client.address,
        protocol: asking.protocol(),
        request_id: &asking.id,
    }
}

pub(crate) fn call(core: &Core, site: &Site, asking: &Asking, params: Params) -> Call {
    Call {
        site: site.model.name.as_str().to_owned(),
        affirmations: core.shared.affirmations.clone(),
        cached: site.cached.clone(),
        pool: site.pool.clone(),
        limits: site.model.limits.clone(),
        params,
        source: Source::Memory(Bytes::new()),
        safe: asking.parts.method.is_safe(),
        class: class(&asking.parts.method, asking.parts.uri.path(), &asking.parts.headers),
        request_id: asking.id.clone(),
        patience: site.model.limits.queue_time.get(),
        reach: Reach::Direct,
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn count(core: &Core, times: &Times) {
    core.shared.metrics.add(core.number, Count::Php, 1);
    core.shared.metrics.add(core.number, Count::PhpMillis, times.php.as_millis() as u64);
}

/// Notes the names of cookies that a site sets.
fn learn(core: &Core, site: &Site, headers: &HeaderMap) {
    for cookie in headers.get_all(header::SET_COOKIE) {
        let name = cookie.as_bytes().split(|b| *b == b'=').next().unwrap_or_default();
        if let Ok(name) = std::str::from_utf8(name) {
            core.shared.cache.learn_cookie(&site.cached, name.trim());
        }
    }
}

fn php_answer(asking: &Asking, head: Head, body: Body, times: Times) -> Response<Body> {
    let mut answer = Response::new(body);
    *answer.status_mut() = head.status;
    *answer.headers_mut() = head.headers;
    if is_logged_in(&asking.parts.headers) {
        let total = asking.begun.elapsed();
        let ms = |d: Duration| d.as_secs_f64() * 1000.0;
        let text = format!(
            "queue;dur={:.1}, php;dur={:.1}, edge;dur={:.1}",
            ms(times.queue),
            ms(times.php),
            ms(total)
        );
        if let Ok(value) = HeaderValue::try_from(text) {
            answer.headers_mut().insert(SERVER_TIMING, value);
        }
    }
    let bodyless = asking.parts.method == Method::HEAD
        || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if bodyless {
        // The script shall finish, though nobody reads what it says.
        if let Body::Php(body) = std::mem::replace(answer.body_mut(), Body::Empty) {
            tokio::spawn(body.drain());
        }
        return answer;
    }
    let (mut parts, mut body) = answer.into_parts();
    if let Body::Php(php) = body {
        body = match coded::prepare(&asking.parts.headers, &mut parts.headers) {
            true => Body::Coded(Box::new(Coded::new(*php))),
            false => Body::Php(php),
        };
    }
    Response::from_parts(parts, body)
}

fn failed(core: &Core, asking: &Asking, failure: &Failure) -> Response<Body> {
    let site = asking.site.as_ref().map_or("", |s| s.model.name.as_str());
    let what = match failure {
        Failure::Refused(refused) => {
            core.shared.metrics.add(core.number, Count::Refused, 1);
            tracing::warn!(site, request = asking.id, uri = asking.uri(), %refused, "no worker");
            Notice::Overloaded
        }
        Failure::Fault(Fault::TooLarge) => Notice::TooLarge,
        Failure::Fault(Fault::ClientGone) => Notice::RequestTimeout,
        other => {
            core.shared.metrics.add(core.number, Count::PhpFailed, 1);
            tracing::error!(site, request = asking.id, uri = asking.uri(), error = %other, "PHP did not answer");
            if matches!(other, Failure::Fault(Fault::TimedOut)) {
                Notice::GatewayTimeout
            } else {
                Notice::BadGateway
            }
        }
    };
    let mut answer = what.answer(&asking.id);
    answer.headers_mut().insert(X_CACHE, HeaderValue::from_static("bypass"));
    if !matches!(what, Notice::TooLarge | Notice::RequestTimeout) {
        let was_sent = !matches!(failure, Failure::Refused(_));
        answer.extensions_mut().insert(Unanswered { was_sent });
    }
    answer
}

/// Marks our own answer in PHP's place: another node's PHP may do better.
#[derive(Debug, Clone, Copy)]
pub struct Unanswered {
    /// Whether PHP was sent the request, and may have begun with it.
    pub was_sent: bool,
}
