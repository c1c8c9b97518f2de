//! What other edges ask of us.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use pressroom_model::id::NodeName;
use pressroom_wire::http::{PROTOCOL, serve as answer_calls};
use pressroom_wire::identity::Peer as Caller;
use pressroom_wire::tls::Guests;
use tokio::net::TcpListener;

use super::passing::{ADDRESS, AUTHORITY, HEADERS, ID, KIND, Kind, SCHEME, SITE, mark};
use super::{Mesh, peers, purges, rendering};
use crate::body::Body;
use crate::client::{Client, Scheme};
use crate::core::Core;
use crate::handler::{self, Asking, Peer};
use crate::notice;

/// Largest batch of purges.
const BATCH: usize = 16 << 20;

/// Serves until shutdown.
pub(super) async fn serve(mesh: &Arc<Mesh>, core: Arc<Core>, listener: TcpListener) {
    let acceptor = match mesh.wire.acceptor(&[PROTOCOL], Guests::Refused) {
        Ok(acceptor) => acceptor,
        Err(error) => return tracing::error!(%error, "other edges cannot be let in"),
    };
    let (own, wire, group) = (Arc::clone(mesh), mesh.wire.clone(), mesh.group.clone());
    let answer = move |caller: Caller, request: Request<Incoming>| {
        let (mesh, core) = (Arc::clone(&own), Arc::clone(&core));
        async move { answer(&mesh, &core, caller, request).await }
    };
    let stop = mesh.group.shutdown().clone();
    answer_calls(wire, acceptor, listener, group, stop, answer).await;
}

async fn answer(
    mesh: &Arc<Mesh>,
    core: &Arc<Core>,
    caller: Caller,
    request: Request<Incoming>,
) -> Response<Body> {
    let Caller::Node(node) = caller else {
        return notice::text(StatusCode::FORBIDDEN, "nodes alone are answered here\n");
    };
    // What a visitor asked for has its kind, so that no path of his is one of ours.
    let is_visitors = request.headers().contains_key(KIND);
    if !is_visitors {
        mesh.company.was_asked_by(&node);
    }
    match request.uri().path() {
        _ if is_visitors => {}
        peers::PROBE => return notice::text(StatusCode::OK, "alive\n"),
        purges::PATH => return purged(mesh, core, &node, request).await,
        purges::MISSED => {
            return match read(request).await {
                Some(place) => json(&mesh.outbox.missed(place)),
                None => notice::text(StatusCode::BAD_REQUEST, "no place in a stream\n"),
            };
        }
        _ => {}
    }
    let (mut parts, body) = request.into_parts();
    let needs = rendering::Needs::of(&mut parts.headers);
    let mut answer = match asking(core, parts) {
        Some((kind @ (Kind::Render | Kind::Help), asking)) => {
            rendering::answer(mesh, core, kind, asking, needs).await
        }
        Some((kind, asking)) => {
            let peer = Arc::new(Peer {
                core: Arc::clone(core),
                address: (asking.client.address, 0).into(),
                scheme: asking.client.scheme,
                watched: core.watched(),
            });
            handler::answer_edge(&peer, asking, kind, body).await
        }
        None => notice::text(StatusCode::NOT_FOUND, "this node serves no such site\n"),
    };
    mark(&mut answer);
    answer
}

async fn purged(
    mesh: &Mesh,
    core: &Core,
    node: &NodeName,
    request: Request<Incoming>,
) -> Response<Body> {
    let Some(batch) = read(request).await else {
        return notice::text(StatusCode::BAD_REQUEST, "no batch of purges\n");
    };
    match mesh.inbox.take(mesh, &core.shared, node, batch).await {
        Some(confirmed) => json(&confirmed),
        None => notice::text(StatusCode::SERVICE_UNAVAILABLE, "the journal does not take it\n"),
    }
}

async fn read<T: serde::de::DeserializeOwned>(request: Request<Incoming>) -> Option<T> {
    let body = Limited::new(request.into_body(), BATCH).collect().await.ok()?;
    serde_json::from_slice(&body.to_bytes()).ok()
}

fn json(value: &impl serde::Serialize) -> Response<Body> {
    Response::new(Body::Whole(Bytes::from(serde_json::to_vec(value).expect("plain data"))))
}

/// What another edge knows of the request.
fn asking(core: &Core, mut parts: http::request::Parts) -> Option<(Kind, Asking)> {
    let text = |name| parts.headers.get(name)?.to_str().ok();
    let kind = Kind::of(text(KIND)?)?;
    let scheme = match text(SCHEME)? {
        "https" => Scheme::Https,
        _ => Scheme::Http,
    };
    let client = Client { address: text(ADDRESS)?.parse::<IpAddr>().ok()?, scheme };
    let (authority, id) = (text(AUTHORITY)?.to_owned(), text(ID)?.to_owned());
    let host = crate::host::canonical(&authority)?.into_owned();
    let site = core.shared.view.load().site(text(SITE)?).cloned()?;
    for name in HEADERS {
        parts.headers.remove(name);
    }
    Some((kind, Asking::passed(kind, id, client, host, authority, site, parts)))
}
