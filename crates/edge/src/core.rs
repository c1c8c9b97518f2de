//! One core: its sockets, its connections, its runtime.
//!
//! Always: accepting never waits for a handshake or a request; a core that is told to stop accepts nothing more, lets
//! requests in progress finish, and leaves what waits in the sockets to the next edge.

use std::future::Future;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use pressroom_runtime::shutdown::Shutdown;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::Shared;
use crate::client::Scheme;
use crate::connection::{Connections, Stream, Watched};
use crate::handler::{Peer, handle};
use crate::metrics::Count;

const HANDSHAKE: Duration = Duration::from_secs(10);
/// Requests in progress may take so long after the edge was told to stop.
const GRACE: Duration = Duration::from_secs(10);
/// On shutdown the first request of a connection may come so late.
const FIRST: Duration = Duration::from_secs(1);

/// Everything a core shares with its connections.
pub struct Core {
    /// What all cores share.
    pub shared: Arc<Shared>,
    /// Its number.
    pub number: usize,
    connections: Connections,
    tls: TlsAcceptor,
    shutdown: Shutdown,
}

impl Core {
    /// What requests of other edges are answered with; it has no sockets of its own.
    pub fn for_edges(
        shared: Arc<Shared>,
        tls: Arc<rustls::ServerConfig>,
        shutdown: Shutdown,
    ) -> Arc<Self> {
        let (connections, tls) = (Connections::default(), TlsAcceptor::from(tls));
        Arc::new(Self { shared, number: 0, connections, tls, shutdown })
    }

    /// Watches a connection that nobody looks at for slowness: another edge's.
    pub fn watched(&self) -> Arc<Watched> {
        Watched::new(self.connections.clock.clone())
    }
}

/// Serves until shutdown, then until requests in progress have finished.
pub fn run(
    shared: Arc<Shared>,
    number: usize,
    sockets: Vec<(Scheme, StdListener)>,
    tls: Arc<rustls::ServerConfig>,
    shutdown: Shutdown,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(16)
        .build()?;
    let core = Arc::new(Core {
        shared,
        number,
        connections: Connections::default(),
        tls: TlsAcceptor::from(tls),
        shutdown,
    });
    runtime.block_on(serve(core, sockets));
    // Threads that read files or code them end with the process.
    runtime.shutdown_background();
    Ok(())
}

async fn serve(core: Arc<Core>, sockets: Vec<(Scheme, StdListener)>) {
    core.connections.sweep(1);
    let mut accepting = Vec::new();
    for (scheme, socket) in sockets {
        match socket.set_nonblocking(true).and_then(|()| TcpListener::from_std(socket)) {
            Ok(listener) => accepting.push(tokio::spawn(accept(core.clone(), scheme, listener))),
            Err(error) => tracing::error!(%error, "a listening socket cannot be used"),
        }
    }
    let begun = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let mut stop_by = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = core.shutdown.requested(), if stop_by.is_none() => {
                accepting.iter().for_each(tokio::task::JoinHandle::abort);
                stop_by = Some(Instant::now() + GRACE);
                ticks = tokio::time::interval(Duration::from_millis(20));
            }
        }
        let seconds = begun.elapsed().as_secs() as u32 + 1;
        let slow = core.connections.sweep(seconds);
        core.shared.metrics.add(core.number, Count::Slow, slow);
        core.shared.log.flush(core.number);
        if let Some(by) = stop_by
            && (core.connections.close_idle() == 0 || Instant::now() >= by)
        {
            let late = core.connections.count();
            if late > 0 {
                tracing::warn!(
                    core = core.number,
                    connections = late,
                    "cut off: they did not finish in time"
                );
            }
            return;
        }
    }
}

async fn accept(core: Arc<Core>, scheme: Scheme, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                core.shared.metrics.add(core.number, Count::Connections, 1);
                let watched = Watched::new(core.connections.clock.clone());
                let task =
                    tokio::spawn(connection(core.clone(), stream, peer, scheme, watched.clone()));
                core.connections.add(watched, task.abort_handle());
            }
            Err(error) => {
                // Usually: too many open files. Those who wait in the socket are not lost.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(
    core: Arc<Core>,
    mut stream: TcpStream,
    mut address: SocketAddr,
    scheme: Scheme,
    watched: Arc<Watched>,
) {
    let _ = stream.set_nodelay(true);
    address.set_ip(address.ip().to_canonical());
    let speaks_proxy = {
        let view = core.shared.view.load();
        view.snapshot.as_ref().is_some_and(|s| s.proxy_protocol)
            && view.trusted.contains(address.ip())
    };
    if speaks_proxy {
        match crate::proxy::read(&mut stream, address).await {
            Ok(client) => address = client,
            Err(error) => {
                tracing::debug!(%address, %error, "a trusted proxy sent no good PROXY header");
                return;
            }
        }
    }
    let peer = Arc::new(Peer { core: core.clone(), address, scheme, watched });
    if scheme == Scheme::Http {
        return serve_http1(peer, stream).await;
    }
    match tokio::time::timeout(HANDSHAKE, core.tls.accept(stream)).await {
        Ok(Ok(stream)) => {
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                serve_http2(peer, stream).await;
            } else {
                serve_http1(peer, stream).await;
            }
        }
        Ok(Err(_)) | Err(_) => core.shared.metrics.add(core.number, Count::BadHandshakes, 1),
    }
}

async fn serve_http1<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    peer: Arc<Peer>,
    stream: S,
) {
    let io = TokioIo::new(Stream::new(stream, peer.watched.clone()));
    let (shutdown, watched) = (peer.core.shutdown.clone(), peer.watched.clone());
    let service = service_fn(move |request| handle(&peer, request));
    let connection = http1::Builder::new()
        .header_read_timeout(None)
        .max_header_size(64 * 1024)
        .max_headers(100)
        .serve_connection(io, service);
    let connection = std::pin::pin!(connection);
    converse(connection, &watched, &shutdown, |it| it.graceful_shutdown()).await;
}

async fn serve_http2<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    peer: Arc<Peer>,
    stream: S,
) {
    peer.watched.multiplex();
    let io = TokioIo::new(Stream::new(stream, peer.watched.clone()));
    let (shutdown, watched) = (peer.core.shutdown.clone(), peer.watched.clone());
    let service = service_fn(move |request| handle(&peer, request));
    let connection = http2::Builder::new(TokioExecutor::new())
        .max_concurrent_streams(128)
        .max_header_list_size(64 * 1024)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(2 << 20)
        .max_send_buf_size(256 * 1024)
        .serve_connection(io, service);
    let connection = std::pin::pin!(connection);
    converse(connection, &watched, &shutdown, |it| it.graceful_shutdown()).await;
}

/// Serves a connection to its end; on shutdown to that of what was asked. hyper closes one that was asked nothing yet at once, and the
/// request that is on its way would be lost with it: such a one is given [`FIRST`].
async fn converse<C: Future>(
    mut connection: Pin<&mut C>,
    watched: &Watched,
    shutdown: &Shutdown,
    finish: impl FnOnce(Pin<&mut C>),
) {
    tokio::select! {
        biased;
        _ = &mut connection => return,
        () = shutdown.requested() => {}
    }
    let first = std::future::poll_fn(|context| match connection.as_mut().poll(context) {
        Poll::Ready(_) => Poll::Ready(true),
        Poll::Pending if watched.is_asked() => Poll::Ready(false),
        Poll::Pending => Poll::Pending,
    });
    if tokio::time::timeout(FIRST, first).await == Ok(true) {
        return;
    }
    finish(connection.as_mut());
    connection.await;
}
