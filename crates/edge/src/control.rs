//! The agent's socket: status, metrics, purges, explanations, busiest pages, drain. HTTP/1.1 on a unix socket, for the owner and its
//! group only.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use pressroom_model::affirmation::Purge;
use pressroom_model::id::SiteName;
use pressroom_model::status::Traffic;
use pressroom_runtime::shutdown::Trigger;
use tokio::net::UnixListener;

use crate::metrics::Count;
use crate::{Shared, cache, why};

const LARGEST: usize = 4 << 20;

/// Listens; a socket that an edge before us left is replaced.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Serves for ever.
pub async fn serve(listener: UnixListener, shared: Arc<Shared>, trigger: Arc<Trigger>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        let (shared, trigger) = (shared.clone(), trigger.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let (shared, trigger) = (shared.clone(), trigger.clone());
                async move {
                    Ok::<_, std::convert::Infallible>(answer(&shared, &trigger, request).await)
                }
            });
            let mut http = hyper::server::conn::http1::Builder::new();
            let _ = http
                .header_read_timeout(None)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(
    shared: &Arc<Shared>,
    trigger: &Trigger,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    match (&parts.method, parts.uri.path()) {
        (&Method::GET, "/status") => json(StatusCode::OK, &traffic(shared)),
        (&Method::GET, "/metrics") => typed(
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            metrics(shared).into(),
        ),
        (&Method::POST, "/purge") => match read::<PurgeOrder>(body).await {
            Ok(order) => purge(shared, &order).await,
            Err(answer) => answer,
        },
        (&Method::POST, "/why") => match read::<why::Question>(body).await {
            Ok(question) => match why::explain(shared, question).await {
                Ok(explanation) => json(StatusCode::OK, &explanation),
                Err(error) => fault(StatusCode::BAD_REQUEST, &error.to_string()),
            },
            Err(answer) => answer,
        },
        (&Method::POST, "/busiest") => match read::<Busiest>(body).await {
            Ok(asked) => json(StatusCode::OK, &shared.cache.busiest(&asked.site, asked.most)),
            Err(answer) => answer,
        },
        (&Method::POST, "/drain") => {
            trigger.fire("drain");
            json(StatusCode::OK, &serde_json::json!({ "draining": true }))
        }
        _ => fault(
            StatusCode::NOT_FOUND,
            "no such thing; there are /status, /metrics, /purge, /why, /busiest, /drain",
        ),
    }
}

#[derive(serde::Deserialize)]
struct PurgeOrder {
    site: SiteName,
    purge: Purge,
}

#[derive(serde::Deserialize)]
struct Busiest {
    site: SiteName,
    most: usize,
}

async fn purge(shared: &Shared, order: &PurgeOrder) -> Response<Full<Bytes>> {
    let Some(site) = shared.cache.known_site(&order.site) else {
        return fault(StatusCode::NOT_FOUND, &format!("no site `{}` is served here", order.site));
    };
    let purged = shared.cache.purge(&site, &order.purge, "an operator asked for it", cache::now());
    json(StatusCode::OK, &purged.receipt().await)
}

/// What `status` shows.
fn traffic(shared: &Shared) -> Traffic {
    let view = shared.view.load();
    let totals = shared.cache.totals();
    let mesh = shared.mesh.get();
    let busy = view
        .sites
        .iter()
        .flat_map(|s| s.pool.load())
        .map(|(id, busy, _)| (id.to_string(), busy))
        .collect();
    Traffic {
        generation: view.generation,
        requests: shared.metrics.sum(Count::Requests),
        hits: totals.hits,
        stale: totals.stale,
        misses: totals.misses,
        bypasses: totals.bypasses,
        errors: shared.metrics.sum(Count::ServerError),
        queued: view.sites.iter().map(|s| s.pool.waiting()).sum(),
        cache_bytes: totals.bytes,
        cache_pages: totals.pages,
        busy,
        peers: mesh.map(|mesh| mesh.peers.told(mesh)).unwrap_or_default(),
        partitioned: !shared.cache.trust.holds(),
    }
}

fn metrics(shared: &Shared) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    shared.metrics.render(&mut out);
    let totals = shared.cache.totals();
    for (name, value) in [
        ("cache_hits", totals.hits),
        ("cache_stale", totals.stale),
        ("cache_misses", totals.misses),
        ("cache_bypasses", totals.bypasses),
        ("cache_stored", totals.stored),
        ("cache_refused", totals.refused),
        ("cache_purges", totals.purges),
        ("cache_evicted", totals.evicted),
        ("purges_for_silence", shared.affirmations.silences()),
        ("access_log_dropped", shared.log.dropped()),
    ] {
        let _ =
            writeln!(out, "# TYPE pressroom_{name}_total counter\npressroom_{name}_total {value}");
    }
    if let Some(mesh) = shared.mesh.get() {
        out.push_str("# TYPE pressroom_peer_up gauge\n# TYPE pressroom_peer_heard gauge\n");
        for (node, peer) in mesh.peers.told(mesh) {
            let (up, heard) = (u8::from(peer.up), u8::from(peer.heard));
            let _ = writeln!(
                out,
                "pressroom_peer_up{{node=\"{node}\"}} {up}\npressroom_peer_heard{{node=\"{node}\"}} {heard}"
            );
        }
    }
    let view = shared.view.load();
    let _ =
        writeln!(out, "# TYPE pressroom_cache_bytes gauge\npressroom_cache_bytes {}", totals.bytes);
    let _ =
        writeln!(out, "# TYPE pressroom_cache_pages gauge\npressroom_cache_pages {}", totals.pages);
    let _ = writeln!(
        out,
        "# TYPE pressroom_snapshot_generation gauge\npressroom_snapshot_generation {}",
        view.generation
    );
    out.push_str("# TYPE pressroom_queue gauge\n# TYPE pressroom_instance_busy gauge\n# TYPE pressroom_instance_workers gauge\n");
    for site in &view.sites {
        let name = &site.model.name;
        let _ = writeln!(out, "pressroom_queue{{site=\"{name}\"}} {}", site.pool.waiting());
        for (id, busy, workers) in site.pool.load() {
            let labels = format!("{{site=\"{name}\",instance=\"{id}\"}}");
            let _ = writeln!(
                out,
                "pressroom_instance_busy{labels} {busy}\npressroom_instance_workers{labels} {workers}"
            );
        }
    }
    out
}

async fn read<T: serde::de::DeserializeOwned>(body: Incoming) -> Result<T, Response<Full<Bytes>>> {
    let bad = |why: String| fault(StatusCode::BAD_REQUEST, &why);
    let bytes =
        Limited::new(body, LARGEST).collect().await.map_err(|e| bad(e.to_string()))?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))
}

fn fault(status: StatusCode, why: &str) -> Response<Full<Bytes>> {
    json(status, &serde_json::json!({ "error": why }))
}

fn json(status: StatusCode, value: &impl serde::Serialize) -> Response<Full<Bytes>> {
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    typed(status, "application/json", bytes)
}

fn typed(status: StatusCode, kind: &'static str, bytes: Vec<u8>) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(bytes)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
