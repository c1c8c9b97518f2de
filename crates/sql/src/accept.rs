//! The node that has the data: what other nodes bring goes to the engines' own sockets.

use std::sync::Arc;
use std::time::Duration;

use pressroom_model::id::NodeName;
use pressroom_runtime::shutdown::Shutdown;
use pressroom_runtime::tasks::Group;
use pressroom_wire::WireError;
use pressroom_wire::identity::Peer;
use pressroom_wire::tls::{Accepted, Acceptor, Guests, Wire};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Semaphore, watch};

use crate::channel::Channel;
use crate::forward::GO;
use crate::pulse;
use crate::silence::Silences;
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
    let (places, silences) = (Arc::new(Semaphore::new(CONNECTIONS)), Silences::default());
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
        let silences = silences.clone();
        tasks.spawn("connection of a node", move |stop| async move {
            let _place = place;
            watchful(&stream);
            let accepted = match acceptor.accept(stream).await {
                Ok(accepted) => accepted,
                Err(error) => return tracing::debug!(%error, "somebody was not let in"),
            };
            let (peer, key) = (accepted.peer.clone(), accepted.key.clone());
            // Guests are refused before.
            let Peer::Node(node) = &peer else { return };
            let silence = silences.next(node);
            tokio::select! {
                () = stop.requested() => {}
                () = members.departure(&peer, &key) => {}
                () = silence.begins() => tracing::debug!(%node, "a connection of a silent node is closed"),
                served = answer(accepted, node, &views, &silences) => if let Err(error) = served {
                    tracing::debug!(?peer, %error, "a connection of a node ended");
                }
            }
        });
    }
}

/// The last resort, where a node that is gone had no pulse: six seconds later nothing is held for it any more.
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
    node: &NodeName,
    views: &watch::Receiver<View>,
    silences: &Silences,
) -> std::io::Result<()> {
    let mut stream = accepted.stream;
    let Some(channel) = Channel::of_protocol(&accepted.protocol) else {
        return beat(&mut stream, node, silences, pulse::SILENCE).await;
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

/// Answers each byte by itself, and notes when the node is not heard any more.
async fn beat(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    node: &NodeName,
    silences: &Silences,
    silence: Duration,
) -> std::io::Result<()> {
    let mut longest = UNUSED;
    loop {
        match tokio::time::timeout(longest, stream.read_u8()).await {
            Ok(byte) => {
                let byte = byte?;
                silences.heard(node);
                stream.write_u8(byte).await?;
                stream.flush().await?;
                longest = silence;
            }
            Err(_) if longest == UNUSED => return Err(std::io::Error::other("it has no beat")),
            // A pulse that was given up for another one says nothing, nor does one whose node opens connections.
            Err(_) => match silences.note(node, silence) {
                Some(left) => longest = left,
                None => {
                    tracing::warn!(%node, "a node fell silent; its connections are closed");
                    return Err(std::io::Error::other("the node fell silent"));
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(300);
    const DEADLINE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn what_a_node_holds_is_let_go_when_its_pulse_is_missed() {
        let node: NodeName = "n2".parse().expect("a name");
        let other: NodeName = "n3".parse().expect("a name");
        let silences = Silences::default();
        let (mut far, mut near) = tokio::io::duplex(8);
        let (held, others) = (silences.next(&node), silences.next(&other));
        let beating = beat(&mut near, &node, &silences, SHORT);
        let silent = async {
            for byte in [7, 9] {
                far.write_u8(byte).await.expect("asked");
                assert_eq!(far.read_u8().await.expect("answered"), byte);
            }
            held.begins().await;
        };
        let both = async { tokio::join!(beating, silent) };
        let (beaten, ()) = tokio::time::timeout(DEADLINE, both).await.expect("it is let go");
        beaten.expect_err("the node fell silent");
        // Not what another node holds, nor what this one opens when it is back.
        for silence in [others, silences.next(&node)] {
            let begins = tokio::time::timeout(Duration::ZERO, silence.begins());
            begins.await.expect_err("it is not silent");
        }
    }

    #[tokio::test]
    async fn a_pulse_that_ends_is_no_silence() {
        let node: NodeName = "n2".parse().expect("a name");
        let silences = Silences::default();
        let (far, mut near) = tokio::io::duplex(8);
        let held = silences.next(&node);
        drop(far);
        beat(&mut near, &node, &silences, SHORT).await.expect_err("it ended");
        tokio::time::timeout(Duration::ZERO, held.begins()).await.expect_err("nothing was noted");
    }

    #[tokio::test]
    async fn a_pulse_that_was_given_up_for_another_one_says_nothing() {
        let node: NodeName = "n2".parse().expect("a name");
        let silences = Silences::default();
        let (mut old, mut near) = tokio::io::duplex(8);
        let held = silences.next(&node);
        old.write_u8(1).await.expect("asked");
        // The node is heard by another pulse until well after this one's silence.
        let other = async {
            let begun = tokio::time::Instant::now();
            while begun.elapsed() < 3 * SHORT {
                silences.heard(&node);
                tokio::task::yield_now().await;
            }
            tokio::time::timeout(Duration::ZERO, held.begins()).await.expect_err("it is heard");
        };
        tokio::select! {
            _ = beat(&mut near, &node, &silences, SHORT) => panic!("it was taken for silent"),
            () = other => {}
        }
    }
}
