//! Calls from node to node: HTTP/2 (RFC 9113) over mutual TLS, one connection to a node, kept and made anew when it is lost.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use pressroom_model::id::NodeName;
use pressroom_runtime::shutdown::Shutdown;
use pressroom_runtime::tasks::Group;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::WireError;
use crate::identity::{Peer, said_by};
use crate::members::Service;
use crate::tls::{Acceptor, Wire};

/// Any error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// A body of any kind.
pub type AnyBody = UnsyncBoxBody<Bytes, BoxError>;

/// How the protocol is called in the handshake (ALPN).
pub const PROTOCOL: &[u8] = b"h2";
/// So many may be at the handshake at a time; others wait to be accepted.
const HANDSHAKES: usize = 256;
/// A connection is asked for a sign of life so often, and closed when none came for as long again.
const PING: Duration = Duration::from_secs(1);
/// A node that asked to be removed itself still hears that it was.
pub const FAREWELL: Duration = Duration::from_secs(2);

/// Whoever asks is a member no more.
#[derive(Debug, thiserror::Error)]
#[error("it is no member any more")]
struct Departed;

/// Any body as [`AnyBody`].
pub fn any_body<B>(body: B) -> AnyBody
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    body.map_err(Into::into).boxed_unsync()
}

/// Calls one service of other nodes.
#[derive(Clone)]
pub struct Client {
    wire: Wire,
    service: Service,
    open: Arc<Mutex<BTreeMap<NodeName, SendRequest<AnyBody>>>>,
    tasks: Group,
}

impl Client {
    /// A client; its connections are tasks of `tasks`.
    pub fn new(wire: Wire, service: Service, tasks: Group) -> Self {
        Self { wire, service, open: Arc::default(), tasks }
    }

    /// Makes sure that there is a connection to a node. When this fails nothing was sent, whatever was to be.
    pub async fn reach(&self, node: &NodeName) -> Result<(), WireError> {
        self.sender(node).await.map(drop)
    }

    /// Sends a request, whose URI is a path alone, and waits for the head of the answer. Deadlines are the caller's.
    pub async fn call(
        &self,
        node: &NodeName,
        request: Request<AnyBody>,
    ) -> Result<Response<Incoming>, WireError> {
        let mut sender = self.sender(node).await?;
        let members = self.wire.members.now();
        let member = members.get(node).ok_or_else(|| WireError::Unknown(node.clone()))?;
        let address = member.at(self.service);
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let uri = http::Uri::builder().scheme("https").authority(address.to_string());
        parts.uri =
            uri.path_and_query(path).build().map_err(|error| WireError::bad("a path", error))?;
        let answer = sender.send_request(Request::from_parts(parts, body)).await;
        answer.map_err(|error| {
            if sender.is_closed() {
                self.open.lock().remove(node);
            }
            WireError::Away { node: node.to_string(), address, cause: error.to_string() }
        })
    }

    /// The connection to a node, made where there is none.
    async fn sender(&self, node: &NodeName) -> Result<SendRequest<AnyBody>, WireError> {
        let known = self.open.lock().get(node).filter(|sender| !sender.is_closed()).cloned();
        if let Some(sender) = known {
            return Ok(sender);
        }
        let stream = self.wire.connect(node, self.service, PROTOCOL).await?;
        let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let shown = leaf.and_then(said_by);
        let (peer, key) = shown.expect("the verifier has read the same certificate");
        let builder = builder();
        let (sender, connection) = builder
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| WireError::bad("HTTP/2", error))?;
        let members = self.wire.members.clone();
        self.tasks.spawn(format!("to {node}"), move |_| async move {
            tokio::select! { _ = connection => {} () = members.departure(&peer, &key) => {} }
        });
        self.open.lock().insert(node.clone(), sender.clone());
        Ok(sender)
    }
}

fn builder() -> hyper::client::conn::http2::Builder<TokioExecutor> {
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20);
    builder
}

/// One call as a guest, on a connection of its own; the answer must come within `patience`.
pub async fn call_as_guest(
    identity: &crate::identity::Identity,
    address: std::net::SocketAddr,
    request: Request<AnyBody>,
    patience: Duration,
) -> Result<Response<Bytes>, WireError> {
    let away = |cause: String| WireError::Unreached { address, cause };
    let stream = crate::tls::connect_as_guest(identity, address, PROTOCOL).await?;
    let exchange = async {
        let (mut sender, connection) = builder()
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| away(error.to_string()))?;
        let asked = async {
            let answer =
                sender.send_request(request).await.map_err(|error| away(error.to_string()))?;
            let (parts, body) = answer.into_parts();
            let body = http_body_util::Limited::new(body, 64 << 20).collect().await;
            let bytes = body.map_err(|error| away(error.to_string()))?.to_bytes();
            Ok(Response::from_parts(parts, bytes))
        };
        tokio::select! { answer = asked => answer, ended = connection => Err(away(match ended {
            Ok(()) => "it hung up".into(),
            Err(error) => error.to_string(),
        })) }
    };
    tokio::time::timeout(patience, exchange)
        .await
        .unwrap_or_else(|_| Err(away(format!("no answer within {patience:?}"))))
}

/// Answers calls until shutdown; connections are tasks of `group`. A peer that is a member no more is answered nothing new at once, and
/// its connection ends; what was being answered has [`FAREWELL`] to be finished.
pub async fn serve<A, F, B>(
    wire: Wire,
    acceptor: Acceptor,
    listener: TcpListener,
    group: Group,
    shutdown: Shutdown,
    answer: A,
) where
    A: Fn(Peer, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place.expect("nobody closes it"), listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            next = next => next,
            () = shutdown.requested() => return,
        };
        let Ok((stream, _)) = accepted else {
            // The reason may last.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let (acceptor, members, answer) = (acceptor.clone(), wire.members.clone(), answer.clone());
        group.spawn("connection of a node", move |stop| async move {
            let accepted = match acceptor.accept(stream).await {
                Ok(accepted) => accepted,
                Err(error) => return tracing::debug!(%error, "somebody was not let in"),
            };
            drop(place);
            let (peer, key) = (accepted.peer, accepted.key);
            let asked = (peer.clone(), key.clone(), members.clone());
            let service = service_fn(move |request| {
                let (peer, key, members) = &asked;
                let answer = members.admits(peer, key).then(|| answer(peer.clone(), request));
                async move {
                    match answer {
                        Some(answer) => Ok(answer.await),
                        None => Err(Departed),
                    }
                }
            });
            let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                .keep_alive_interval(PING * 5)
                .keep_alive_timeout(PING * 5)
                .initial_stream_window_size(1 << 20)
                .initial_connection_window_size(4 << 20);
            let connection = builder.serve_connection(TokioIo::new(accepted.stream), service);
            let mut connection = std::pin::pin!(connection);
            tokio::select! {
                _ = connection.as_mut() => return,
                () = members.departure(&peer, &key) => {
                    tracing::info!(?peer, "it is no member any more: its connection is closed");
                    connection.as_mut().graceful_shutdown();
                    let _ = tokio::time::timeout(FAREWELL, connection).await;
                    return;
                }
                () = stop.requested() => connection.as_mut().graceful_shutdown(),
            }
            let _ = connection.await;
        });
    }
}
