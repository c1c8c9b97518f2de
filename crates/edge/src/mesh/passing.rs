//! Whole requests to another edge, which answers them by itself.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use pressroom_model::id::NodeName;
use pressroom_wire::http::{AnyBody, any_body};

use super::Mesh;
use crate::body::Body;
use crate::handler::Asking;

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

/// All of them.
pub const HEADERS: [HeaderName; 6] = [KIND, SITE, SCHEME, AUTHORITY, ADDRESS, ID];

/// Between two pieces of an answer, and before its head.
const FILE_HEAD: Duration = Duration::from_millis(700);
const PAGE_HEAD: Duration = Duration::from_secs(70);

/// What is asked of another edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file of the media folder, if it is there.
    Media,
    /// Whatever the path means, by PHP of that node.
    Page,
    /// The author instance, for a change.
    Change,
    /// The author instance, for a request that a change makes.
    Loopback,
    /// That the author instance is started.
    Soon,
}

impl Kind {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Media, "media"),
        (Self::Page, "page"),
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

/// The same request for another edge.
fn request(asking: &Asking, kind: Kind, body: AnyBody) -> Option<Request<AnyBody>> {
    let site = asking.site.as_ref()?;
    let mut request = Request::builder().method(asking.parts.method.clone()).uri(asking.uri());
    let headers = request.headers_mut()?;
    for (name, value) in asking.parts.headers.iter().filter(|(name, _)| is_passed(name)) {
        headers.append(name, value.clone());
    }
    let text = |value: &str| HeaderValue::from_str(value).ok();
    headers.insert(KIND, HeaderValue::from_static(kind.word()));
    headers.insert(SITE, text(site.model.name.as_str())?);
    headers.insert(SCHEME, HeaderValue::from_static(asking.client.scheme.as_str()));
    headers.insert(AUTHORITY, text(&asking.authority)?);
    headers.insert(ADDRESS, text(&asking.client.address.to_string())?);
    headers.insert(ID, text(&asking.id)?);
    request.body(body).ok()
}

fn ours(answer: Response<Incoming>) -> Response<Body> {
    let (mut head, body) = answer.into_parts();
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::DATE] {
        head.headers.remove(name);
    }
    Response::from_parts(head, Body::Passed(Box::new(body)))
}

/// Asks one edge; `None`: it does not answer.
pub async fn pass(
    mesh: &Mesh,
    node: &NodeName,
    asking: &Asking,
    kind: Kind,
    body: AnyBody,
) -> Option<Response<Body>> {
    let request = request(asking, kind, body)?;
    let limit = if kind == Kind::Media { FILE_HEAD } else { PAGE_HEAD };
    match tokio::time::timeout(limit, mesh.client.call(node, request)).await {
        Ok(Ok(answer)) => Some(ours(answer)),
        Ok(Err(error)) => {
            tracing::debug!(%node, %error, "another edge did not answer");
            None
        }
        Err(_) => None,
    }
}

/// Has the author instance of another node started; nobody waits for it.
pub fn knock(
    mesh: &Mesh,
    node: &NodeName,
    asking: &Asking,
) -> Option<impl Future<Output = ()> + Send + use<>> {
    let request = request(asking, Kind::Soon, any_body(Empty::<Bytes>::new()))?;
    let (client, node) = (mesh.client.clone(), node.clone());
    Some(async move {
        // The change itself waits until it runs.
        let _ = tokio::time::timeout(FILE_HEAD, client.call(&node, request)).await;
    })
}

/// A file that is not here, from whichever edge has it; `None`: nobody has, of those who answered.
pub async fn media(mesh: &Mesh, asking: &Asking) -> Option<Response<Body>> {
    let mut asked: tokio::task::JoinSet<Option<Response<Incoming>>> = tokio::task::JoinSet::new();
    for node in mesh.others() {
        let request = request(asking, Kind::Media, any_body(Empty::<Bytes>::new()))?;
        let client = mesh.client.clone();
        asked.spawn(async move {
            let answer = tokio::time::timeout(FILE_HEAD, client.call(&node, request)).await;
            answer.ok()?.ok()
        });
    }
    while let Some(answer) = asked.join_next().await {
        let answer = answer.ok().flatten().filter(|it| it.status() != http::StatusCode::NOT_FOUND);
        if let Some(answer) = answer {
            return Some(ours(answer));
        }
    }
    None
}

/// Whether a request may be given to another node although this one may have begun with it: it changes nothing, and its body is
/// empty.
pub fn may_repeat(asking: &Asking) -> bool {
    matches!(asking.parts.method, Method::GET | Method::HEAD)
}

/// A page from a node that runs PHP of the site; `None`: nobody answers well.
pub async fn page(mesh: &Mesh, asking: &Asking) -> Option<Response<Body>> {
    let site = asking.site.as_ref()?;
    let others = mesh.others();
    for node in others.iter().filter(|node| site.model.remote.contains(node)) {
        let answer = pass(mesh, node, asking, Kind::Page, any_body(Empty::<Bytes>::new())).await;
        if let Some(answer) = answer.filter(|it| !matches!(it.status().as_u16(), 502..=504)) {
            return Some(answer);
        }
    }
    None
}
