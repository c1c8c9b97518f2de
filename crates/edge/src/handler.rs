//! One request, from its head to its answer.
//!
//! What is there already (a fresh page, a file in memory, a redirect) is answered at once, without a task or a wait;
//! everything else goes the long way in [`crate::pages`].

use std::borrow::Cow;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use pressroom_model::snapshot::{GIT_PATH, LogFormat, READY_PATH, Snapshot};

use crate::access_log::Entry;
use crate::author;
use crate::body::{Body, Counted};
use crate::cache::{self, Asked, Bypass, Key, Lookup};
use crate::client::{Client, Scheme, identify};
use crate::connection::{Busy, Watched};
use crate::core::Core;
use crate::fastcgi::exchange::Source;
use crate::files::library::{Known, Library};
use crate::files::reply;
use crate::git;
use crate::guard;
use crate::mesh::Mesh;
use crate::mesh::choice::Place;
use crate::mesh::passing::{self, Kind};
use crate::metrics::Count;
use crate::notice::{self, Notice};
use crate::pages;
use crate::route::{Target, Tree, looks_like_file, route};
use crate::view::Site;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Where media are, in any site and blog.
const MEDIA: &str = "/wp-content/uploads/";
const ROBOTS_TAG: HeaderName = HeaderName::from_static("x-robots-tag");

/// The other end of a connection.
pub struct Peer {
    /// The core that serves it.
    pub core: Arc<Core>,
    /// Its address; behind the PROXY protocol that of the client.
    pub address: SocketAddr,
    /// What the socket speaks.
    pub scheme: Scheme,
    /// For slowness.
    pub watched: Arc<Watched>,
}

/// What is known of a request from its head.
pub struct Asking {
    /// The id in logs and on pages.
    pub id: String,
    /// When its head was whole.
    pub begun: Instant,
    /// The client.
    pub client: Client,
    /// The host, canonical.
    pub host: String,
    /// The host and port as the client wrote them.
    pub authority: String,
    /// The site; `None`: nobody has that host.
    pub site: Option<Arc<Site>>,
    /// Whether it may come in: nothing is in front of the site, or it had the password, which is gone from its headers.
    pub is_admitted: bool,
    /// What another edge that passed it on wants; `None`: a visitor asks.
    pub passed: Option<Kind>,
    /// The request's parts, without body.
    pub parts: http::request::Parts,
    busy: Option<Busy>,
    log: Option<LogFormat>,
}

impl Asking {
    /// A request that another edge passed on; who comes in was decided there.
    pub fn passed(
        kind: Kind,
        id: String,
        client: Client,
        host: String,
        authority: String,
        site: Arc<Site>,
        parts: http::request::Parts,
    ) -> Self {
        Self {
            id,
            begun: Instant::now(),
            client,
            host,
            authority,
            site: Some(site),
            is_admitted: true,
            passed: Some(kind),
            parts,
            busy: None,
            log: None,
        }
    }

    /// Path and query.
    pub fn uri(&self) -> &str {
        self.parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str)
    }

    /// Protocol, as CGI and logs write it.
    pub fn protocol(&self) -> &'static str {
        match self.parts.version {
            Version::HTTP_2 => "HTTP/2.0",
            Version::HTTP_10 => "HTTP/1.0",
            _ => "HTTP/1.1",
        }
    }

    /// What the cache needs to know.
    pub fn asked(&self) -> Asked<'_> {
        Asked {
            method: &self.parts.method,
            scheme: self.client.scheme.as_str(),
            authority: &self.authority,
            path: self.parts.uri.path(),
            query: self.parts.uri.query(),
            headers: &self.parts.headers,
        }
    }
}

/// An answer that is there, or will be.
pub enum Reply {
    /// It is there.
    Ready(Option<Response<Body>>),
    /// It will be.
    Later(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
}

impl Future for Reply {
    type Output = Result<Response<Body>, std::convert::Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Ready(answer) => {
                Poll::Ready(Ok(answer.take().unwrap_or_else(|| Response::new(Body::Empty))))
            }
            Self::Later(future) => future.as_mut().poll(cx).map(Ok),
        }
    }
}

/// Answers a request.
pub fn handle(peer: &Arc<Peer>, request: Request<Incoming>) -> Reply {
    let begun = Instant::now();
    let view = peer.core.shared.view.load();
    let (mut parts, body) = request.into_parts();
    let (authority, host) = match authority(&parts) {
        Some(raw) => match crate::host::canonical(raw) {
            Some(host) => (raw.to_owned(), host.into_owned()),
            None => (String::new(), String::new()),
        },
        None => (String::new(), String::new()),
    };
    let site = view.hosts.find(&host).cloned();
    let guard = site.as_ref().and_then(|site| site.model.guard.as_ref());
    let is_admitted = guard.is_none_or(|guard| guard::admits(guard, &mut parts.headers));
    let asking = Asking {
        id: request_id(),
        begun,
        client: identify(peer.address.ip(), peer.scheme, &parts.headers, &view.trusted),
        host,
        authority,
        site,
        is_admitted,
        passed: None,
        parts,
        busy: Some(Busy::new(&peer.watched)),
        log: view.snapshot.as_ref().and_then(|s| s.access_log.as_ref()).map(|l| l.format),
    };
    let own = Own::of(view.snapshot.as_ref());
    drop(view);
    if let Some(mesh) = cut_off(peer, &asking) {
        let peer = peer.clone();
        return Reply::Later(Box::pin(async move {
            mesh.reunite(&peer.core.shared.cache.trust).await;
            let answer = match at_once(&asking, &peer, own) {
                Now::Answer(answer) => answer,
                Now::Work(work) => work_out(&peer, &asking, work, body).await,
            };
            finish(&peer, asking, answer)
        }));
    }
    match at_once(&asking, peer, own) {
        Now::Answer(answer) => Reply::Ready(Some(finish(peer, asking, answer))),
        Now::Work(work) => {
            let peer = peer.clone();
            Reply::Later(Box::pin(async move {
                let answer = work_out(&peer, &asking, work, body).await;
                finish(&peer, asking, answer)
            }))
        }
    }
}

/// The mesh, where this edge is cut off and may have a page that others have purged.
fn cut_off(peer: &Peer, asking: &Asking) -> Option<Arc<Mesh>> {
    let site = asking.site.as_ref().filter(|site| site.cached.is_cut_off())?;
    let path = asking.parts.uri.path();
    if path.starts_with("/.") || site.cached.key(&asking.asked()).is_err() {
        return None;
    }
    let is_page = !looks_like_file(path)
        || matches!(route(path, site.model.network, &*site.library), Target::Php { .. });
    peer.core.shared.mesh.get().filter(|_| is_page).cloned()
}

enum Now {
    Answer(Response<Body>),
    Work(Work),
}

enum Work {
    File(Arc<Library>, Tree, String, Arc<Known>),
    Page(Script, Lookup),
    /// A file of the media folder that is not here.
    Media(Script),
    Direct(Script, Bypass),
    Ready,
    Git(PathBuf),
}

/// The script that a request runs.
pub struct Script {
    /// Absolute below the root.
    pub script: String,
    /// What follows it.
    pub path_info: String,
}

/// What the view says of this edge itself.
#[derive(Clone, Copy)]
struct Own {
    https_port: Option<u16>,
    has_snapshot: bool,
    is_drained: bool,
    is_removed: bool,
}

impl Own {
    fn of(snapshot: Option<&Snapshot>) -> Self {
        let cluster = snapshot.and_then(|snapshot| snapshot.cluster.as_ref());
        Self {
            https_port: snapshot.and_then(|snapshot| snapshot.https_port),
            has_snapshot: snapshot.is_some(),
            is_drained: cluster.is_some_and(|cluster| cluster.is_drained),
            is_removed: cluster.is_some_and(|cluster| cluster.is_removed),
        }
    }

    fn heartbeat(self) -> Response<Body> {
        let away = StatusCode::SERVICE_UNAVAILABLE;
        match self {
            Self { is_removed: true, .. } => notice::text(away, "removed\n"),
            Self { is_drained: true, .. } => notice::text(away, "drained\n"),
            _ => notice::text(StatusCode::OK, "alive\n"),
        }
    }
}

fn at_once(asking: &Asking, peer: &Peer, own: Own) -> Now {
    let Own { https_port, has_snapshot, .. } = own;
    let path = asking.parts.uri.path();
    if path == "/heartbeat.html" {
        return Now::Answer(own.heartbeat());
    }
    if own.is_removed {
        return Now::Answer(match path {
            READY_PATH => notice::text(
                StatusCode::SERVICE_UNAVAILABLE,
                "not ready: this machine was removed from its cluster\n",
            ),
            _ => Notice::Removed.answer(&asking.id),
        });
    }
    let Some(site) = &asking.site else {
        let what = match (has_snapshot, asking.host.is_empty()) {
            (false, _) => Notice::Starting,
            (true, true) => Notice::BadRequest,
            (true, false) => Notice::UnknownHost,
        };
        return Now::Answer(what.answer(&asking.id));
    };
    if matches!(asking.parts.method, Method::CONNECT | Method::TRACE) {
        return Now::Answer(Notice::MethodNotAllowed.answer(&asking.id));
    }
    if let Some(answer) = to_https(asking, site, https_port) {
        return Now::Answer(answer);
    }
    // Behind the redirect: no password is asked for over plain HTTP. Our own questions are for everybody.
    if let Some(guard) = site.model.guard.as_ref().filter(|_| !asking.is_admitted)
        && !path.starts_with("/.pressroom/")
    {
        let mut answer = Notice::Unauthorized.answer(&asking.id);
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, guard::question(guard));
        return Now::Answer(answer);
    }
    let mut key = None;
    if !looks_like_file(path) && !path.starts_with("/.") {
        let found = site.cached.key(&asking.asked());
        match found.map(|key| look_up(peer, site, &key)) {
            Ok(Lookup::Hit(hit)) => {
                let answer = hit.answer(&asking.parts.method, &asking.parts.headers);
                return Now::Answer(answer.map(Body::Whole));
            }
            other => key = Some(other),
        }
    }
    resolve(asking, site, peer, key)
}

fn look_up(peer: &Peer, site: &Site, key: &Key) -> Lookup {
    peer.core.shared.cache.lookup(&site.cached, key, cache::now())
}

fn resolve(
    asking: &Asking,
    site: &Arc<Site>,
    peer: &Peer,
    found: Option<Result<Lookup, Bypass>>,
) -> Now {
    match route(asking.parts.uri.path(), site.model.network, &*site.library) {
        Target::Heartbeat => Now::Answer(notice::text(StatusCode::OK, "alive\n")),
        Target::Ready => Now::Work(Work::Ready),
        Target::Git => {
            match peer.core.shared.view.load().snapshot.as_ref().and_then(|s| s.git.clone()) {
                Some(socket) => Now::Work(Work::Git(socket)),
                None => Now::Answer(Notice::NotFound.answer(&asking.id)),
            }
        }
        Target::Redirect(path) => {
            let to = match asking.parts.uri.query() {
                Some(query) => format!("{path}?{query}"),
                None => path,
            };
            Now::Answer(
                notice::redirect(StatusCode::MOVED_PERMANENTLY, &to)
                    .unwrap_or_else(|| Notice::BadRequest.answer(&asking.id)),
            )
        }
        Target::Denied => Now::Answer(Notice::NotFound.answer(&asking.id)),
        Target::Malformed => Now::Answer(Notice::BadRequest.answer(&asking.id)),
        Target::File(tree, path) => file(asking, &site.library, peer, tree, path),
        Target::Php { script, path_info, direct } => {
            if !direct && let Some((library, path)) = former(asking, site) {
                return file(asking, library, peer, Tree::Root, path);
            }
            let script = Script { script, path_info };
            if !direct && may_be_elsewhere(asking, peer) {
                return Now::Work(Work::Media(script));
            }
            let found = found.unwrap_or_else(|| {
                site.cached.key(&asking.asked()).map(|key| look_up(peer, site, &key))
            });
            match found {
                Ok(lookup) => Now::Work(Work::Page(script, lookup)),
                Err(bypass) => Now::Work(Work::Direct(script, bypass)),
            }
        }
    }
}

/// Whether it is a file of the media folder that another node may have. It is not here.
fn may_be_elsewhere(asking: &Asking, peer: &Peer) -> bool {
    let path = asking.parts.uri.path();
    asking.passed.is_none()
        && passing::may_repeat(asking)
        && looks_like_file(path)
        && path.contains(MEDIA)
        && peer.core.shared.mesh.get().is_some()
}

/// Answers what another edge asks; it is not passed on.
pub async fn answer_edge(
    peer: &Arc<Peer>,
    asking: Asking,
    kind: Kind,
    body: Incoming,
) -> Response<Body> {
    let Some(site) = asking.site.clone() else { return Notice::UnknownHost.answer(&asking.id) };
    let now = match kind {
        Kind::Page | Kind::Render | Kind::Help => resolve(&asking, &site, peer, None),
        Kind::Media => match route(asking.parts.uri.path(), site.model.network, &*site.library) {
            Target::File(Tree::Uploads, path) => {
                file(&asking, &site.library, peer, Tree::Uploads, path)
            }
            _ => Now::Answer(Notice::NotFound.answer(&asking.id)),
        },
        Kind::Change | Kind::Loopback | Kind::Soon => {
            match route(asking.parts.uri.path(), site.model.network, &*site.library) {
                Target::Php { script, path_info, .. } => {
                    let script = Script { script, path_info };
                    let answer =
                        author::answer_edge(&peer.core, &site, &asking, &script, kind, body).await;
                    return finish(peer, asking, answer);
                }
                _ => Now::Answer(Notice::NotFound.answer(&asking.id)),
            }
        }
    };
    let answer = match now {
        Now::Answer(answer) => answer,
        Now::Work(work) => work_out(peer, &asking, work, body).await,
    };
    finish(peer, asking, answer)
}

/// A file that a former release had and this one has not, because pages that were made before the switch still name it; or one
/// that a plugin keeps for visitors. Pages that plugins keep are no files for visitors: they may be somebody's.
fn former<'a>(asking: &Asking, site: &'a Site) -> Option<(&'a Arc<Library>, String)> {
    let path = asking.parts.uri.path();
    if !looks_like_file(path) {
        return None;
    }
    site.former.iter().find_map(|library| match route(path, site.model.network, &**library) {
        Target::File(Tree::Root, path) if !is_page(&path) => Some((library, path)),
        _ => None,
    })
}

/// Whether a file is a page, or a compressed one, by the names that plugins give them.
fn is_page(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    name.contains(".htm") || [".gz", ".br", ".zst", "_gzip"].iter().any(|end| name.ends_with(end))
}

fn file(asking: &Asking, library: &Arc<Library>, peer: &Peer, tree: Tree, path: String) -> Now {
    if !matches!(asking.parts.method, Method::GET | Method::HEAD) {
        return Now::Answer(Notice::MethodNotAllowed.answer(&asking.id));
    }
    let Some(known) = library.find(tree, &path) else {
        return Now::Answer(Notice::NotFound.answer(&asking.id));
    };
    peer.core.shared.metrics.add(peer.core.number, Count::Files, 1);
    match reply::from_memory(library, &known, &file_asked(asking, tree)) {
        Some(answer) => Now::Answer(answer),
        None => Now::Work(Work::File(library.clone(), tree, path, known)),
    }
}

fn file_asked(asking: &Asking, tree: Tree) -> reply::Asked<'_> {
    reply::Asked {
        method: &asking.parts.method,
        headers: &asking.parts.headers,
        query: asking.parts.uri.query().unwrap_or(""),
        tree,
    }
}

async fn work_out(peer: &Arc<Peer>, asking: &Asking, work: Work, body: Incoming) -> Response<Body> {
    let Some(site) = &asking.site else { return Notice::UnknownHost.answer(&asking.id) };
    let core = &peer.core;
    match work {
        Work::File(library, tree, path, known) => {
            let answer = reply::from_disk(library, known, file_asked(asking, tree), path).await;
            answer.unwrap_or_else(|| Notice::NotFound.answer(&asking.id))
        }
        Work::Page(script, lookup) => pages::page(core, site, asking, script, lookup).await,
        Work::Media(script) => {
            if let Some(mesh) = core.shared.mesh.get()
                && let Some(answer) = passing::media(mesh, asking).await
            {
                return answer;
            }
            match site.cached.key(&asking.asked()).map(|key| look_up(peer, site, &key)) {
                Ok(lookup) => pages::page(core, site, asking, script, lookup).await,
                Err(bypass) => direct(core, site, asking, &script, &bypass, body).await,
            }
        }
        Work::Direct(script, bypass) => direct(core, site, asking, &script, &bypass, body).await,
        Work::Ready => pages::ready(core, site, asking).await,
        Work::Git(socket) => git::pass(asking, &site.model.name, &socket, body).await,
    }
}

/// A request past the cache: to PHP of this node while its queue is short, else to another node's.
async fn direct(
    core: &Arc<Core>,
    site: &Arc<Site>,
    asking: &Asking,
    script: &Script,
    bypass: &Bypass,
    body: Incoming,
) -> Response<Body> {
    let Some(mesh) = core.shared.mesh.get() else {
        return pages::direct(core, site, asking, script, bypass, body).await;
    };
    let places = mesh.places(site, asking.passed, None);
    if places.first() != Some(&Place::Here) {
        let what = (script, bypass);
        return pages::direct_anywhere(core, mesh, places, site, asking, what, body).await;
    }
    let answer = pages::direct(core, site, asking, script, bypass, body).await;
    // What PHP of this node did not answer, that of another one may, where that changes nothing.
    let is_unanswered = answer.extensions().get::<pages::Unanswered>().is_some();
    if !is_unanswered || !passing::may_repeat(asking) || places.len() == 1 {
        return answer;
    }
    let nodes: Vec<_> = places.into_iter().filter_map(Place::node).collect();
    let mut nothing = Source::Memory(Bytes::new());
    passing::direct(core, mesh, &nodes, asking, &mut nothing).await.unwrap_or(answer)
}

/// The host that the client means; `None`: none, or more than one.
fn authority(parts: &http::request::Parts) -> Option<&str> {
    if let Some(authority) = parts.uri.authority() {
        return Some(authority.as_str());
    }
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok(),
        _ => None,
    }
}

/// Plain HTTP is redirected to the site's own name, where the site wants that.
fn to_https(asking: &Asking, site: &Site, https_port: Option<u16>) -> Option<Response<Body>> {
    let path = asking.parts.uri.path();
    if asking.client.scheme == Scheme::Https
        || !site.model.redirect_to_https
        // A token is not sent in the clear where there is another way.
        || (path.starts_with("/.pressroom/") && !path.starts_with(GIT_PATH))
    {
        return None;
    }
    if path.starts_with("/.well-known/acme-challenge/") {
        return None;
    }
    let port = match https_port? {
        443 => Cow::Borrowed(""),
        port => Cow::Owned(format!(":{port}")),
    };
    notice::redirect(
        StatusCode::PERMANENT_REDIRECT,
        &format!("https://{}{port}{}", asking.host, asking.uri()),
    )
}

/// What is behind a password is for whoever asked: not for search engines, nor for caches on the way.
fn keep_private(headers: &mut http::HeaderMap) {
    headers.insert(ROBOTS_TAG, HeaderValue::from_static("noindex, nofollow"));
    let control = headers.get(header::CACHE_CONTROL).and_then(|control| control.to_str().ok());
    if !control.is_some_and(|control| control.contains("no-store") || control.contains("private")) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    }
}

/// Adds what every answer has, counts it, and logs it when its last byte is known.
fn finish(peer: &Arc<Peer>, mut asking: Asking, mut answer: Response<Body>) -> Response<Body> {
    let core = &peer.core;
    if let Ok(id) = HeaderValue::from_str(&asking.id) {
        answer.headers_mut().insert(REQUEST_ID, id);
    }
    if asking.site.as_ref().is_some_and(|site| site.model.guard.is_some()) {
        keep_private(answer.headers_mut());
    }
    let status = answer.status();
    let class = match status.as_u16() {
        500.. => Count::ServerError,
        400.. => Count::ClientError,
        300.. => Count::Redirect,
        _ => Count::Success,
    };
    let metrics = &core.shared.metrics;
    metrics.add(core.number, Count::Requests, 1);
    metrics.add(core.number, class, 1);
    let busy = asking.busy.take();
    let streamed = match answer.body() {
        Body::Empty => {
            note(core, &asking, &answer, 0);
            false
        }
        Body::Whole(bytes) => {
            let length = bytes.len() as u64;
            metrics.add(core.number, Count::Bytes, length);
            note(core, &asking, &answer, length);
            false
        }
        _ => true,
    };
    if !streamed {
        return answer;
    }
    let word = answer.headers().get(cache::X_CACHE).cloned();
    let core = core.clone();
    answer.map(|body| {
        Body::Counted(Box::new(Counted::new(body, move |bytes| {
            drop(busy);
            core.shared.metrics.add(core.number, Count::Bytes, bytes);
            let word = word.as_ref().and_then(|w| w.to_str().ok()).unwrap_or("");
            write_entry(&core, &asking, status.as_u16(), word, bytes);
        })))
    })
}

fn note(core: &Core, asking: &Asking, answer: &Response<Body>, bytes: u64) {
    if asking.log.is_some() {
        let word = answer.headers().get(cache::X_CACHE).and_then(|w| w.to_str().ok()).unwrap_or("");
        write_entry(core, asking, answer.status().as_u16(), word, bytes);
    }
}

fn write_entry(core: &Core, asking: &Asking, status: u16, word: &str, bytes: u64) {
    let Some(format) = asking.log else { return };
    let text = |name| {
        asking.parts.headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok()).unwrap_or("")
    };
    let entry = Entry {
        site: asking.site.as_ref().map_or("", |s| s.model.name.as_str()),
        address: asking.client.address,
        method: asking.parts.method.as_str(),
        host: &asking.authority,
        uri: asking.uri(),
        protocol: asking.protocol(),
        status,
        bytes,
        micros: asking.begun.elapsed().as_micros() as u64,
        cache: word,
        referer: text(header::REFERER),
        agent: text(header::USER_AGENT),
        request_id: &asking.id,
    };
    core.shared.log.note(core.number, format, &entry);
}

/// Sixteen hexadecimal digits: unique, not secret.
fn request_id() -> String {
    use std::cell::Cell;
    thread_local! {
        static NEXT: Cell<u64> = Cell::new(rand::random());
    }
    let n = NEXT.get();
    NEXT.set(n.wrapping_add(1));
    // A mixing step, so that neighbours do not look alike.
    let mut x = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^= x >> 32;
    x = x.wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^= x >> 32;
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    (0..16).rev().map(|i| DIGITS[(x >> (i * 4)) as usize & 15] as char).collect()
}
