//! The node that has the data: what other nodes bring goes to the engines' own sockets.

use std::sync::Arc;
use std::time::Duration;

use pressroom_runtime::shutdown::Shutdown;
use pressroom_runtime::tasks::Group;
use pressroom_wire::WireError;
use pressroom_wire::tls::{Accepted, Acceptor, Guests, Wire};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Semaphore, watch};

use crate::channel::Channel;
use crate::forward::GO;
use crate::pulse;
use crate::view::View;

/// So many connections at a time; others wait to be accepted.
const CONNECTIONS: usize = 16_384;
/// A connection that no client took for so long is closed.
const UNUSED: Duration = Duration::from_secs(60);

/// What takes connections, in each of our protocols.
pub(crate) fn acceptor(wire: &Wire) -> Result<Acceptor, WireError> {
    let channels = Channel::ALL.map(Channel::protocol);
    let protocols: Vec<&[u8]> = channels.into_iter().chain([pulse::PROTOCOL]).collect();
    wire.acceptor(&protocols, Guests::Refused)
}

pub(crate) async fn serve(
    wire: Wire,
    acceptor: Acceptor,
    views: watch::Receiver<View>,
    listener: TcpListener,
    tasks: Group,
    shutdown: Shutdown,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = Arc::clone(&places).acquire_owned();
        let accepted = async { (place.await, listener.accept().await) };
        let (place, accepted) = tokio::select! {
            () = shutdown.requested() => return,
            accepted = accepted => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (acceptor, members, views) = (acceptor.clone(), wire.members.clone(), views.clone());
        tasks.spawn("connection of a node", move |stop| async move {
            let _place = place;
            watchful(&stream);
            let accepted = match acceptor.accept(stream).await {
                Ok(accepted) => accepted,
                Err(error) => return tracing::debug!(%error, "somebody was not let in"),
            };
            let (peer, key) = (accepted.peer.clone(), accepted.key.clone());
            tokio::select! {
                () = stop.requested() => {}
                () = members.departure(&peer, &key) => {}
                served = answer(accepted, &views) => if let Err(error) = served {
                    tracing::debug!(?peer, %error, "a connection of a node ended");
                }
            }
        });
    }
}

/// A node that is gone is noticed within six seconds: what it holds in the database (locks of rows, of scheduled events) is
/// free then. Its own side gives up sooner.
fn watchful(stream: &TcpStream) {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(3))
        .with_interval(Duration::from_secs(1))
        .with_retries(3);
    let socket = SockRef::from(stream);
    // Without it the connection is only kept for longer.
    let _ = socket.set_tcp_keepalive(&keepalive);
    let _ = socket.set_tcp_user_timeout(Some(Duration::from_secs(6)));
    let _ = stream.set_nodelay(true);
}

async fn answer(
    accepted: Accepted<TcpStream>,
    views: &watch::Receiver<View>,
) -> std::io::Result<()> {
    let mut stream = accepted.stream;
    let Some(channel) = Channel::of_protocol(&accepted.protocol) else {
        return beat(&mut stream).await;
    };
    let begun = tokio::time::timeout(UNUSED, stream.read_u8()).await;
    if begun.map_err(std::io::Error::other)?? != GO {
        return Err(std::io::Error::other("it began with something else"));
    }
    let socket = views.borrow().engines.get(&channel).cloned();
    let engine = match socket {
        Some(socket) => UnixStream::connect(socket).await,
        None => Err(std::io::Error::other("the data is not here")),
    };
    match engine {
        Ok(mut engine) => {
            tokio::io::copy_bidirectional_with_sizes(&mut stream, &mut engine, 32 << 10, 32 << 10)
                .await
                .map(drop)
        }
        Err(error) => {
            stream.write_all(&channel.apology()).await?;
            stream.shutdown().await?;
            Err(error)
        }
    }
}

/// Answers each byte by itself.
async fn beat(
    stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin),
) -> std::io::Result<()> {
    loop {
        let byte = tokio::time::timeout(UNUSED, stream.read_u8())
            .await
            .map_err(std::io::Error::other)??;
        stream.write_u8(byte).await?;
        stream.flush().await?;
    }
}
