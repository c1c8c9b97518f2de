//! Pages for the cache, asked of another edge: of the page's owner, which has it or has it made once for all, or of any that runs PHP.
//!
//! The answer's head comes at once, so that an edge that is there and one that is not are told apart within [`HEAD`], however long
//! the page takes. Its body begins with a line of JSON, [`Told`], when PHP has said its last word; then comes the page.
//!
//! Always: an edge that does not know a purge that the asker knows, or serves another release, does not answer (409). A page is
//! stored by the asker as PHP affirmed it there, and is stale at once if a purge met it here since it was asked for.
//! No two edges wait for each other's flight: an owner waits for its own, and may look for help; a helper waits for none.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Frame, Incoming};
use pressroom_model::id::NodeName;
use serde::{Deserialize, Serialize};

use super::Mesh;
use super::horizon::Horizon;
use super::passing::{self, AFTER, Canonical, Kind, Passed, RELEASE};
use super::peers::{self, Errand, Patience};
use crate::body::{Body, Error};
use crate::cache::{self, Key, Refusal};
use crate::core::Core;
use crate::fastcgi::head::Head;
use crate::handler::{Asking, Script};
use crate::pages::{self, Outlook, Own};
use crate::route::{Target, route};
use crate::view::Site;

/// Longest wait for a connection, and for the word that an edge is at it.
const HEAD: Duration = Duration::from_millis(300);
/// The same where this node has no PHP.
const HEAD_WITHOUT_PHP: Duration = Duration::from_secs(2);
/// An edge that lacks purges waits so long for them.
const PURGES: Duration = Duration::from_millis(60);
/// Another edge may take so much longer than PHP.
const MARGIN: Duration = Duration::from_secs(2);
/// Longest first line.
const LINE: usize = 1 << 20;

/// What an asker needs.
#[derive(Debug, Default)]
pub(super) struct Needs {
    release: Option<String>,
    after: Option<Horizon>,
}

impl Needs {
    /// From the request's headers, which are the worse for it.
    pub(super) fn of(headers: &mut HeaderMap) -> Self {
        let mut text = |name: HeaderName| {
            headers.remove(name).and_then(|value| value.to_str().ok().map(str::to_owned))
        };
        Self { release: text(RELEASE), after: text(AFTER).and_then(|text| Horizon::of(&text)) }
    }
}

/// The first line of the body.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    status: u16,
    /// Names and values; a character for each byte.
    headers: Vec<(String, String)>,
    what: What,
}

/// What an answer is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum What {
    /// A page that may be stored.
    Page(Stored),
    /// An older page: PHP failed.
    Stale,
    /// For its asker alone.
    Own {
        /// Why.
        because: Because,
    },
    /// Nothing: PHP did not answer.
    Nothing,
}

/// How a page may be stored.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    /// Milliseconds since its render began.
    age: u64,
    /// Milliseconds for which it is fresh since then.
    ttl: u64,
    /// Hashes of its tags and addresses.
    tags: Vec<u64>,
    /// It was purged while it was made.
    purged: bool,
    /// Bytes.
    length: u64,
}

/// Why an answer is for its asker alone.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Because {
    Silence,
    Incomplete,
    TooLarge(usize),
    /// Status and headers say it, or PHP does.
    Other(String),
}

impl Because {
    fn of(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::Silence => Self::Silence,
            Refusal::Incomplete | Refusal::NoAnswer => Self::Incomplete,
            Refusal::TooLarge(size) => Self::TooLarge(*size),
            Refusal::Denied(because) => Self::Other(because.to_string()),
            other => Self::Other(other.to_string()),
        }
    }

    fn refusal(self) -> Refusal {
        match self {
            Self::Silence => Refusal::Silence,
            Self::Incomplete => Refusal::Incomplete,
            Self::TooLarge(size) => Refusal::TooLarge(size),
            Self::Other(because) => Refusal::Denied(because.into()),
        }
    }
}

fn written(headers: &HeaderMap) -> Vec<(String, String)> {
    let text =
        |value: &HeaderValue| value.as_bytes().iter().map(|byte| char::from(*byte)).collect();
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect()
}

fn headers(written: Vec<(String, String)>) -> Option<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(written.len());
    for (name, value) in written {
        let bytes: Option<Vec<u8>> = value.chars().map(|c| u8::try_from(c).ok()).collect();
        let value = HeaderValue::from_bytes(&bytes?).ok()?;
        headers.append(HeaderName::from_bytes(name.as_bytes()).ok()?, value);
    }
    Some(headers)
}

// ── asking ──

/// A canonical request as another edge is asked for it.
pub fn canonical(site: &Site, asking: &Asking, key: &Key) -> Canonical {
    Canonical {
        uri: key.path_and_query().to_owned(),
        cookies: key.cookies().to_owned(),
        about: [
            (passing::SITE, site.model.name.to_string()),
            (passing::SCHEME, asking.client.scheme.as_str().to_owned()),
            (passing::AUTHORITY, key.authority().to_owned()),
            (passing::ADDRESS, asking.client.address.to_string()),
            (passing::ID, asking.id.clone()),
        ],
    }
}

/// What another edge brought.
pub enum Brought {
    /// A page to be stored.
    Page(cache::Borrowed),
    /// An older page, which is served if nothing better is found.
    Stale(Head, Bytes),
    /// An answer for the asker alone, and why.
    Own(Head, Body, Refusal),
    /// Nothing.
    Nothing,
}

/// Asks one edge. To be called after the site's purge position was noted: `mesh` is asked for its horizon here.
pub async fn ask(
    mesh: &Arc<Mesh>,
    node: &NodeName,
    site: &Site,
    (kind, what): (Kind, &Canonical),
    most: usize,
) -> Brought {
    let after = mesh.horizon_begun().written();
    let Some(mut request) = what.request(kind, &after) else { return Brought::Nothing };
    if let Ok(release) = HeaderValue::from_str(site.model.release.as_str()) {
        request.headers_mut().insert(RELEASE, release);
    }
    let errand = Errand::begin(mesh, node);
    let has_php = site.pool.usable().1 > 0;
    let head = if has_php { HEAD } else { HEAD_WITHOUT_PHP };
    let patience = Patience { connect: head, head };
    let answer = match peers::ask(mesh, node, request, patience).await {
        Ok(answer) if answer.status() == StatusCode::OK => answer,
        // It says that it cannot, or not now; or nothing. To make a page may be repeated.
        Ok(_) | Err(_) => return Brought::Nothing,
    };
    let limits = &site.model.limits;
    let limit = limits.queue_time.get() + limits.time.get() + MARGIN;
    match tokio::time::timeout(limit, brought(answer.into_body(), most)).await {
        Ok(Some((told, Rest::Whole(bytes)))) => whole(told, bytes),
        Ok(Some((told, Rest::Begun(first, rest)))) => {
            let passed = Passed::new(first, rest, Some(errand));
            own(told, Body::Passed(Box::new(passed)))
        }
        Ok(None) | Err(_) => {
            errand.broke_off();
            Brought::Nothing
        }
    }
}

enum Rest {
    Whole(Bytes),
    Begun(Bytes, Incoming),
}

/// Reads the first line, and of what may be stored the rest; `None`: it broke off.
async fn brought(mut body: Incoming, most: usize) -> Option<(Told, Rest)> {
    let mut bytes = BytesMut::new();
    let end = loop {
        if let Some(end) = memchr::memchr(b'\n', &bytes) {
            break end;
        }
        if bytes.len() > LINE {
            return None;
        }
        bytes.extend_from_slice(&piece(&mut body).await?);
    };
    let told: Told = serde_json::from_slice(&bytes[..end]).ok()?;
    bytes.advance(end + 1);
    if matches!(told.what, What::Own { .. }) {
        return Some((told, Rest::Begun(bytes.freeze(), body)));
    }
    while !body.is_end_stream() {
        let Some(frame) = body.frame().await else { break };
        bytes.extend_from_slice(&frame.ok()?.into_data().unwrap_or_default());
        if bytes.len() > most {
            return None;
        }
    }
    if let What::Page(stored) = &told.what
        && stored.length != bytes.len() as u64
    {
        return None;
    }
    Some((told, Rest::Whole(bytes.freeze())))
}

async fn piece(body: &mut Incoming) -> Option<Bytes> {
    body.frame().await?.ok().map(|frame| frame.into_data().unwrap_or_default())
}

fn head(told: Vec<(String, String)>, status: u16) -> Option<Head> {
    Some(Head { status: StatusCode::from_u16(status).ok()?, headers: headers(told)? })
}

fn whole(told: Told, body: Bytes) -> Brought {
    let Some(head) = head(told.headers, told.status) else { return Brought::Nothing };
    match told.what {
        What::Page(stored) => Brought::Page(cache::Borrowed {
            status: head.status,
            headers: head.headers,
            body,
            age: stored.age,
            ttl: stored.ttl,
            tags: stored.tags,
            purged: stored.purged,
        }),
        What::Stale => Brought::Stale(head, body),
        What::Own { because } => Brought::Own(head, Body::Whole(body), because.refusal()),
        What::Nothing => Brought::Nothing,
    }
}

fn own(told: Told, body: Body) -> Brought {
    match (head(told.headers, told.status), told.what) {
        (Some(head), What::Own { because }) => Brought::Own(head, body, because.refusal()),
        _ => Brought::Nothing,
    }
}

// ── answering ──

type Coming = Pin<Box<dyn Future<Output = (Bytes, Body)> + Send>>;

/// What an edge is told of a page, once it is known; then the page.
pub struct Telling {
    coming: Option<Coming>,
    body: Body,
}

impl Telling {
    /// The next frame.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(coming) = &mut self.coming {
            let (line, body) = std::task::ready!(coming.as_mut().poll(cx));
            (self.coming, self.body) = (None, body);
            return Poll::Ready(Some(Ok(Frame::data(line))));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }
}

/// Answers another edge's canonical request, by PHP of this node or from its cache.
pub(super) async fn answer(
    mesh: &Mesh,
    core: &Arc<Core>,
    kind: Kind,
    asking: Asking,
    needs: Needs,
) -> Response<Body> {
    let Some(site) = asking.site.clone() else { return cannot("no such site is served here") };
    if needs.release.as_deref() != Some(site.model.release.as_str()) {
        return cannot("another release is served here");
    }
    let Target::Php { script, path_info, .. } =
        route(asking.parts.uri.path(), site.model.network, &*site.library)
    else {
        return cannot("it is no page here");
    };
    let Ok(key) = site.cached.key(&asking.asked()) else { return cannot("it is not stored here") };
    let Some(wanted) = needs.after else { return cannot("nobody said what it must know") };
    if !knows(mesh, &wanted).await {
        return cannot("purges are missing here");
    }
    let (core, script) = (Arc::clone(core), Script { script, path_info });
    let coming = async move {
        let begun = cache::now();
        let outlook =
            pages::for_edge(&core, &site, &asking, &script, (&key, kind == Kind::Help)).await;
        told(outlook, begun)
    };
    let telling = Telling { coming: Some(Box::pin(coming)), body: Body::Empty };
    Response::new(Body::Telling(Box::new(telling)))
}

fn cannot(words: &'static str) -> Response<Body> {
    crate::notice::text(StatusCode::CONFLICT, words)
}

/// Whether all these purges hold here; those that are on their way are waited for.
async fn knows(mesh: &Mesh, wanted: &Horizon) -> bool {
    let mut pause = Duration::from_millis(1);
    let mut waited = Duration::ZERO;
    while !mesh.inbox.horizon().reaches(wanted, &mesh.node) {
        if waited >= PURGES {
            return false;
        }
        tokio::time::sleep(pause).await;
        (waited, pause) = (waited + pause, pause * 2);
    }
    true
}

fn told(outlook: Outlook, begun: cache::Millis) -> (Bytes, Body) {
    let (status, headers, what, body) = match outlook {
        Outlook::Page(hit) => {
            let now = cache::now();
            let lent = hit.lent(now);
            let what = match hit.is_fresh() || lent.age <= now.saturating_sub(begun) {
                true => What::Page(Stored {
                    age: lent.age,
                    ttl: lent.ttl,
                    tags: lent.tags,
                    purged: !hit.is_fresh(),
                    length: lent.body.len() as u64,
                }),
                false => What::Stale,
            };
            (lent.status, lent.headers, what, Body::Whole(lent.body))
        }
        Outlook::Own(own) => {
            let Own { head, body, refusal, .. } = *own;
            let because = refusal.as_ref().map_or(Because::Silence, Because::of);
            (head.status, head.headers, What::Own { because }, body)
        }
        Outlook::Failed(failure) => {
            tracing::debug!(%failure, "another edge gets no page");
            (StatusCode::BAD_GATEWAY, HeaderMap::new(), What::Nothing, Body::Empty)
        }
    };
    let told = Told { status: status.as_u16(), headers: written(&headers), what };
    let mut line = serde_json::to_vec(&told).expect("plain data");
    line.push(b'\n');
    (line.into(), body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_byte_by_byte() {
        let mut map = HeaderMap::new();
        map.append("link", HeaderValue::from_static("<a>"));
        map.append("link", HeaderValue::from_bytes(&[b'x', 0xe4, 0xff]).expect("opaque bytes"));
        assert_eq!(headers(written(&map)), Some(map));
        assert_eq!(headers(vec![("a".into(), "\u{100}".into())]), None);
    }
}
