//! Whole requests to another edge, which answers them by itself.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Request, Response};
use http_body_util::Empty;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use pressroom_model::id::NodeName;
use pressroom_wire::http::{AnyBody, any_body};

use super::Mesh;
use super::peers::{self, Errand, Patience, Unasked};
use crate::body::{Body, Error};
use crate::cache;
use crate::core::Core;
use crate::fastcgi::exchange::Source;
use crate::handler::Asking;
use crate::pages::Unanswered;
use crate::view::Site;

/// What is asked for: [`Kind`].
pub const KIND: HeaderName = HeaderName::from_static("x-pressroom-mesh-kind");
/// The site's name.
pub const SITE: HeaderName = HeaderName::from_static("x-pressroom-mesh-site");
/// `http` or `https`, as the visitor came.
pub const SCHEME: HeaderName = HeaderName::from_static("x-pressroom-mesh-scheme");
/// Host and port as the visitor wrote them.
pub const AUTHORITY: HeaderName = HeaderName::from_static("x-pressroom-mesh-authority");
/// The visitor's address.
pub const ADDRESS: HeaderName = HeaderName::from_static("x-pressroom-mesh-address");
/// The request's id.
pub const ID: HeaderName = HeaderName::from_static("x-pressroom-mesh-id");
/// The release that the asker serves; with [`Kind::Render`] and [`Kind::Help`].
pub const RELEASE: HeaderName = HeaderName::from_static("x-pressroom-mesh-release");
/// The purges that the asker knows; with the same.
pub const AFTER: HeaderName = HeaderName::from_static("x-pressroom-mesh-after");
/// In an answer: it is the edge's own, in PHP's place. `unsent` or `begun`.
pub const UNANSWERED: HeaderName = HeaderName::from_static("x-pressroom-mesh-unanswered");

/// All of them.
pub const HEADERS: [HeaderName; 9] =
    [KIND, SITE, SCHEME, AUTHORITY, ADDRESS, ID, RELEASE, AFTER, UNANSWERED];

/// Longest wait for a connection to another edge.
const CONNECT: Duration = Duration::from_millis(500);
/// Longest wait for the head of a file.
const FILE_HEAD: Duration = Duration::from_millis(700);
/// Another edge may take so much longer than PHP.
const MARGIN: Duration = Duration::from_secs(5);

/// What is asked of another edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file of the media folder, if it is there.
    Media,
    /// Whatever the path means, by PHP of that node.
    Page,
    /// A canonical request to the page's owner: the page as it has it, or as it has it made for all.
    Render,
    /// A canonical request to an edge that has time: the page as it has it, or as its PHP makes it for this asker.
    Help,
    /// The author instance, for a change.
    Change,
    /// The author instance, for a request that a change makes.
    Loopback,
    /// That the author instance is started.
    Soon,
}

impl Kind {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Media, "media"),
        (Self::Page, "page"),
        (Self::Render, "render"),
        (Self::Help, "help"),
        (Self::Change, "change"),
        (Self::Loopback, "loopback"),
        (Self::Soon, "soon"),
    ];

    /// As it is written.
    pub fn word(self) -> &'static str {
        Self::ALL.into_iter().find(|(kind, _)| *kind == self).map_or("page", |(_, word)| word)
    }

    /// As it was written.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, known)| *known == word).map(|(kind, _)| kind)
    }

    /// How long its answer may take.
    fn head(self, site: &Site) -> Duration {
        let limits = &site.model.limits;
        match (self, &site.author) {
            (Self::Media | Self::Soon, _) => FILE_HEAD,
            (Self::Change | Self::Loopback, Some(author)) => author.model.time.get() + MARGIN * 6,
            _ => limits.queue_time.get() + limits.time.get() + MARGIN,
        }
    }
}

/// Headers that are about one connection (RFC 9110, section 7.6.1), and ours between edges.
fn is_passed(name: &HeaderName) -> bool {
    const HOP: [HeaderName; 6] = [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::TE,
        header::TRAILER,
        header::HOST,
    ];
    !HOP.contains(name) && name != "keep-alive" && !HEADERS.contains(name)
}

fn text(value: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(value).ok()
}

/// The same request for another edge.
fn request(asking: &Asking, kind: Kind, body: AnyBody) -> Option<Request<AnyBody>> {
    let site = asking.site.as_ref()?;
    let mut request = Request::builder().method(asking.parts.method.clone()).uri(asking.uri());
    let headers = request.headers_mut()?;
    for (name, value) in asking.parts.headers.iter().filter(|(name, _)| is_passed(name)) {
        headers.append(name, value.clone());
    }
    headers.insert(KIND, HeaderValue::from_static(kind.word()));
    headers.insert(SITE, text(site.model.name.as_str())?);
    headers.insert(SCHEME, HeaderValue::from_static(asking.client.scheme.as_str()));
    headers.insert(AUTHORITY, text(&asking.authority)?);
    headers.insert(ADDRESS, text(&asking.client.address.to_string())?);
    headers.insert(ID, text(&asking.id)?);
    request.body(body).ok()
}

/// A canonical request for another edge.
#[derive(Debug, Clone)]
pub struct Canonical {
    /// Path and query.
    pub uri: String,
    /// The cookies that are declared variants, as a header.
    pub cookies: String,
    /// Its headers between edges.
    pub about: [(HeaderName, String); 5],
}

impl Canonical {
    /// As a request; `after`: the purges that the answer must know.
    pub(super) fn request(&self, kind: Kind, after: &str) -> Option<Request<AnyBody>> {
        let mut request = Request::get(&self.uri);
        let headers = request.headers_mut()?;
        headers.insert(KIND, HeaderValue::from_static(kind.word()));
        headers.insert(AFTER, text(after)?);
        for (name, value) in &self.about {
            headers.insert(name, text(value)?);
        }
        if !self.cookies.is_empty() {
            headers.insert(header::COOKIE, text(&self.cookies)?);
        }
        request.body(any_body(Empty::<Bytes>::new())).ok()
    }
}

type OnEnd = Box<dyn FnOnce() + Send>;

/// The body of another edge's answer.
pub struct Passed {
    /// What was read of it already.
    first: Bytes,
    rest: Incoming,
    errand: Option<Errand>,
    /// What is to be done when it does not come to its end.
    cut: Option<OnEnd>,
}

impl Passed {
    pub(super) fn new(first: Bytes, rest: Incoming, errand: Option<Errand>) -> Self {
        Self { first, rest, errand, cut: None }
    }

    fn whole(&mut self) {
        (self.errand, self.cut) = (None, None);
    }

    /// The next frame.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if !self.first.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.first)))));
        }
        let frame = std::task::ready!(Pin::new(&mut self.rest).poll_frame(cx));
        match &frame {
            None => self.whole(),
            Some(Err(_)) => {
                if let Some(errand) = self.errand.take() {
                    errand.broke_off();
                }
                if let Some(cut) = self.cut.take() {
                    cut();
                }
            }
            Some(Ok(_)) if self.rest.is_end_stream() => self.whole(),
            Some(Ok(_)) => {}
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    /// Whether nothing more comes.
    pub fn is_end_stream(&self) -> bool {
        self.first.is_empty() && self.rest.is_end_stream()
    }

    /// How much comes.
    pub fn size_hint(&self) -> SizeHint {
        let (mut hint, first) = (self.rest.size_hint(), self.first.len() as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + first);
        }
        hint.set_lower(hint.lower() + first);
        hint
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        if let Some(cut) = self.cut.take().filter(|_| !self.is_end_stream()) {
            cut();
        }
    }
}

/// The answer as ours; what the other edge says in PHP's place is marked as that.
fn ours(answer: Response<Incoming>, errand: Option<Errand>, cut: Option<OnEnd>) -> Response<Body> {
    let (mut head, body) = answer.into_parts();
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::DATE] {
        head.headers.remove(name);
    }
    if let Some(word) = head.headers.remove(UNANSWERED) {
        head.extensions.insert(Unanswered { was_sent: word != "unsent" });
    }
    let mut passed = Passed::new(Bytes::new(), body, errand);
    passed.cut = cut;
    Response::from_parts(head, Body::Passed(Box::new(passed)))
}

/// Says in the headers what an edge must know of an answer that is our own.
pub(super) fn mark(answer: &mut Response<Body>) {
    if let Some(unanswered) = answer.extensions().get::<Unanswered>() {
        let word = if unanswered.was_sent { "begun" } else { "unsent" };
        answer.headers_mut().insert(UNANSWERED, HeaderValue::from_static(word));
    }
}

/// Asks one edge. A request that may have changed something, and of which nobody knows how it ended, makes the site's pages stale.
pub async fn pass(
    core: &Core,
    mesh: &Arc<Mesh>,
    node: &NodeName,
    asking: &Asking,
    kind: Kind,
    body: AnyBody,
) -> Result<Response<Body>, Unasked> {
    let site = asking.site.as_ref().ok_or(Unasked::Unreached)?;
    let request = request(asking, kind, body).ok_or(Unasked::Unreached)?;
    let patience = Patience { connect: CONNECT, head: kind.head(site) };
    let is_for_php = !matches!(kind, Kind::Media | Kind::Soon);
    let errand = is_for_php.then(|| Errand::begin(mesh, node));
    let silence = (!asking.parts.method.is_safe()).then(|| purge_for_silence(core, site));
    match peers::ask(mesh, node, request, patience).await {
        Ok(answer) => Ok(ours(answer, errand, silence)),
        Err(unasked) => {
            if let Some(purge) = silence.filter(|_| unasked == Unasked::Unanswered) {
                purge();
            }
            Err(unasked)
        }
    }
}

fn purge_for_silence(core: &Core, site: &Site) -> OnEnd {
    let (cache, site) = (Arc::clone(&core.shared.cache), Arc::clone(&site.cached));
    Box::new(move || {
        let because = "another edge did not say how an unsafe request ended";
        let _ = cache.purge(&site, &cache::all(), because, cache::now());
    })
}

/// Asks one edge after the other for what PHP answers, until one does; `None`: nobody did.
pub async fn direct(
    core: &Core,
    mesh: &Arc<Mesh>,
    nodes: &[NodeName],
    asking: &Asking,
    source: &mut Source,
) -> Option<Response<Body>> {
    let mut last = None;
    for (tries, node) in nodes.iter().enumerate() {
        match tries {
            0 => mesh.peers.earn(),
            _ if mesh.peers.may_retry() => {}
            _ => break,
        }
        source.rewind().await.ok()?;
        let body = source.again().await?.into_body();
        match pass(core, mesh, node, asking, Kind::Page, body).await {
            Ok(answer) => match answer.extensions().get::<Unanswered>().copied() {
                None => return Some(answer),
                Some(Unanswered { was_sent }) => {
                    last = Some(answer);
                    if was_sent && !may_repeat(asking) {
                        break;
                    }
                }
            },
            Err(Unasked::Unanswered) if !may_repeat(asking) => {
                return Some(crate::notice::Notice::BadGateway.answer(&asking.id));
            }
            Err(_) => {}
        }
    }
    last
}

/// Has the author instance of another node started; nobody waits for it.
pub fn knock(
    mesh: &Arc<Mesh>,
    node: &NodeName,
    asking: &Asking,
) -> Option<impl Future<Output = ()> + Send + use<>> {
    let request = request(asking, Kind::Soon, any_body(Empty::<Bytes>::new()))?;
    let (mesh, node) = (Arc::clone(mesh), node.clone());
    Some(async move {
        // The change itself waits until it runs.
        let patience = Patience { connect: CONNECT, head: FILE_HEAD };
        let _ = peers::ask(&mesh, &node, request, patience).await;
    })
}

/// A file that is not here, from whichever edge has it; `None`: nobody has, of those who answered in time.
pub async fn media(mesh: &Arc<Mesh>, asking: &Asking) -> Option<Response<Body>> {
    let mut asked: tokio::task::JoinSet<Option<Response<Incoming>>> = tokio::task::JoinSet::new();
    for node in mesh.others().into_iter().filter(|node| mesh.peers.is_up(node)) {
        let request = request(asking, Kind::Media, any_body(Empty::<Bytes>::new()))?;
        let mesh = Arc::clone(mesh);
        asked.spawn(async move {
            let patience = Patience { connect: CONNECT, head: FILE_HEAD };
            peers::ask(&mesh, &node, request, patience).await.ok()
        });
    }
    while let Some(answer) = asked.join_next().await {
        let has_it = |it: &Response<Incoming>| {
            it.status().is_success() || matches!(it.status().as_u16(), 304 | 412 | 416)
        };
        if let Some(answer) = answer.ok().flatten().filter(has_it) {
            return Some(ours(answer, None, None));
        }
    }
    None
}

/// Whether a request may be given to another node although this one may have begun with it: it changes nothing, and its body is
/// empty.
pub fn may_repeat(asking: &Asking) -> bool {
    matches!(asking.parts.method, Method::GET | Method::HEAD)
}
