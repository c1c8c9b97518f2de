//! A door: an HTTP/1.1 server on a socket of this machine, for few askers, who are known.
//!
//! Always: so many connections are open at a time and no more, the others wait to be accepted; a request's head comes in time
//! or its connection is closed; on shutdown nothing new is accepted, and what was begun is finished by the group.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::rt::{Read, Write};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::shutdown::Shutdown;
use crate::tasks::Group;

/// Pause after a connection that could not be accepted: the reason may last.
const PAUSE: Duration = Duration::from_millis(100);
/// Most headers of a request.
const HEADERS: usize = 64;

/// A door and its limits.
#[derive(Debug, Clone, Copy)]
pub struct Door {
    /// What it is called in logs.
    pub name: &'static str,
    /// Open connections.
    pub connections: usize,
    /// Longest time for the head of a request, and longest rest between two.
    pub head_time: Duration,
}

/// A socket that takes connections.
pub trait Listener: Send + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// The next connection. Cancel-safe.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        UnixListener::accept(self).await.map(|(stream, _)| stream)
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        TcpListener::accept(self).await.map(|(stream, _)| stream)
    }
}

impl Door {
    /// Answers on `listener` until shutdown; connections are tasks of `group`. Whoever is not let in by `may_enter` is hung up on.
    pub async fn serve<L, A, F, B>(
        self,
        listener: L,
        group: Group,
        shutdown: Shutdown,
        may_enter: impl Fn(&L::Stream) -> bool + Send,
        answer: A,
    ) where
        L: Listener + Sync,
        A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        let places = Arc::new(Semaphore::new(self.connections));
        loop {
            let next = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place, listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                next = next => next,
                () = shutdown.requested() => return,
            };
            match accepted {
                Ok(stream) if may_enter(&stream) => {
                    let answer = answer.clone();
                    group.spawn(format!("{} connection", self.name), move |stop| async move {
                        self.converse(TokioIo::new(stream), answer, stop).await;
                        drop(place);
                    });
                }
                Ok(_) => tracing::warn!(door = self.name, "a stranger knocked"),
                Err(error) => {
                    tracing::warn!(door = self.name, %error, "cannot accept a connection");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn converse<S, A, F, B>(self, stream: S, answer: A, stop: Shutdown)
    where
        S: Read + Write + Send + Unpin + 'static,
        A: Fn(Request<Incoming>) -> F + Send,
        F: Future<Output = Response<B>> + Send,
        B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        let service = service_fn(move |request| {
            let answer = answer(request);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.head_time)
            .max_headers(HEADERS)
            .serve_connection(stream, service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stop.requested() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(door = self.name, %error, "a connection broke");
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::shutdown;

    const SOON: Duration = Duration::from_secs(5);
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

    /// A door with one place.
    async fn opened(head_time: Duration) -> (std::net::SocketAddr, shutdown::Trigger, Group) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound");
        let (trigger, stop) = shutdown::pair();
        let group = Group::new("test", stop);
        let connections = group.clone();
        group.spawn("door", move |stop| {
            let door = Door { name: "test", connections: 1, head_time };
            let answer = |_| async { Response::new("hello".to_owned()) };
            door.serve(listener, connections, stop, |_| true, answer)
        });
        (address, trigger, group)
    }

    async fn heard(stream: &mut TcpStream) -> String {
        let mut text = String::new();
        let reading = stream.read_to_string(&mut text);
        tokio::time::timeout(SOON, reading).await.expect("in time").expect("read");
        text
    }

    #[tokio::test]
    async fn whoever_is_silent_gives_the_place_to_the_next() {
        let (address, _trigger, _group) = opened(Duration::from_millis(100)).await;
        let mut silent = TcpStream::connect(address).await.expect("connected");
        let mut next = TcpStream::connect(address).await.expect("connected");
        next.write_all(REQUEST).await.expect("sent");
        assert!(heard(&mut next).await.ends_with("hello"));
        assert!(!heard(&mut silent).await.contains("hello"));
    }

    #[tokio::test]
    async fn a_door_that_is_closed_lets_go_of_who_only_waits() {
        let (address, trigger, group) = opened(Duration::from_secs(60)).await;
        let mut waiting = TcpStream::connect(address).await.expect("connected");
        let keep = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        waiting.write_all(keep).await.expect("sent");
        let mut first = [0; 8];
        waiting.read_exact(&mut first).await.expect("answered");
        trigger.fire("test");
        assert!(group.finish(SOON).await.is_empty());
        assert!(heard(&mut waiting).await.ends_with("hello"));
    }
}
