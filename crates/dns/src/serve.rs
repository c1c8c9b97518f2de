//! Datagrams and connections. Questions for our names are answered where they are read; those for others wait in tasks, a bounded
//! number of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::Name;
use pressroom_runtime::clock;
use pressroom_runtime::shutdown::Shutdown;
use pressroom_runtime::tasks::Group;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};

use crate::answer::{DATAGRAM, Outcome, answer, blank, with_code};
use crate::forward::{self, Way};
use crate::reply::{MOST, fit};
use crate::view::Current;

/// Most questions that wait for other resolvers at once.
const MOST_FORWARDED: usize = 256;
/// Most open connections.
const MOST_CONNECTIONS: usize = 256;
/// A connection on which nothing comes, or nothing goes, for so long is closed (RFC 7766 wants seconds).
const IDLE: Duration = Duration::from_secs(10);
/// After a socket failed.
const PAUSE: Duration = Duration::from_millis(20);
/// What everybody takes (RFC 1035, 4.2.1).
const LEAST_DATAGRAM: u16 = 512;

/// What all sockets have in common.
#[derive(Debug)]
pub struct Server {
    current: watch::Receiver<Current>,
    tasks: Group,
    forwarded: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

/// What is to be done about what came in.
enum Step {
    /// It was no question.
    Silence,
    Reply(Message),
    /// Put the same question to others; the last words if they are silent.
    Forward(Message),
    /// Our answer, and the name that others know the rest of.
    Finish(Message, Name),
}

impl Server {
    /// One that answers from `current`; `tasks` has what waits.
    pub fn new(current: watch::Receiver<Current>, tasks: Group) -> Self {
        Self {
            current,
            tasks,
            forwarded: Arc::new(Semaphore::new(MOST_FORWARDED)),
            connections: Arc::new(Semaphore::new(MOST_CONNECTIONS)),
        }
    }

    fn step(&self, bytes: &[u8]) -> (Message, Step) {
        let nothing = || Message::error_msg(0, OpCode::Query, ResponseCode::FormErr);
        let request = match Message::from_vec(bytes) {
            Ok(request) => request,
            Err(_) => return (nothing(), malformed(bytes)),
        };
        if request.message_type == MessageType::Response {
            return (request, Step::Silence);
        }
        let current = self.current.borrow().clone();
        let Some(names) = current.names else {
            let reply = with_code(blank(&request), ResponseCode::ServFail);
            return (request, Step::Reply(reply));
        };
        let can_ask = !current.forward.is_empty();
        let wants = can_ask && request.recursion_desired;
        let step = match answer(&request, &names, clock::now()) {
            Outcome::Alias(reply, target) if wants => Step::Finish(reply, target),
            Outcome::Otherwise(_) if wants => Step::Forward(request.clone()),
            // Others know that name, and the asker wants nobody asked.
            Outcome::Otherwise(_) if can_ask => {
                Step::Reply(with_code(blank(&request), ResponseCode::Refused))
            }
            Outcome::Reply(reply) | Outcome::Otherwise(reply) | Outcome::Alias(reply, _) => {
                Step::Reply(reply)
            }
        };
        let step = match step {
            Step::Reply(mut reply) => {
                reply.metadata.recursion_available = can_ask;
                Step::Reply(reply)
            }
            step => step,
        };
        (request, step)
    }

    /// The answer to a step that others have to be asked for.
    async fn asked(&self, step: Step, way: Way) -> Option<Message> {
        let resolvers = self.current.borrow().forward.clone();
        match step {
            Step::Silence => None,
            Step::Reply(reply) => Some(reply),
            Step::Forward(request) => {
                let said = forward::ask(&resolvers, &request, way).await;
                Some(said.unwrap_or_else(|| with_code(blank(&request), ResponseCode::ServFail)))
            }
            Step::Finish(mut reply, target) => {
                let kind = reply.queries.first().map(Query::query_type)?;
                let mut question = Message::query();
                question.metadata.recursion_desired = true;
                question.add_query(Query::query(target, kind));
                if let Some(said) = forward::ask(&resolvers, &question, way).await {
                    reply.answers.extend(said.answers);
                }
                reply.metadata.recursion_available = true;
                Some(reply)
            }
        }
    }
}

/// Who sent something that looks like a question hears that it is none.
fn malformed(bytes: &[u8]) -> Step {
    match bytes {
        [a, b, flags, _, ..] if bytes.len() >= 12 && flags & 0x80 == 0 => {
            let id = u16::from_be_bytes([*a, *b]);
            Step::Reply(Message::error_msg(id, OpCode::Query, ResponseCode::FormErr))
        }
        _ => Step::Silence,
    }
}

/// The most that an asker takes in a datagram, and we send.
fn datagram_limit(request: &Message) -> usize {
    let said = request.edns.as_ref().map_or(LEAST_DATAGRAM, hickory_proto::op::Edns::max_payload);
    said.clamp(LEAST_DATAGRAM, DATAGRAM).into()
}

/// Answers datagrams until the shutdown.
pub async fn datagrams(server: Arc<Server>, socket: UdpSocket, stop: Shutdown) {
    let socket = Arc::new(socket);
    let mut buffer = vec![0; MOST];
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            () = stop.requested() => return,
        };
        match received {
            Ok((length, from)) => datagram(&server, &socket, &buffer[..length], from).await,
            Err(error) => {
                tracing::debug!(%error, "a socket failed");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn datagram(server: &Arc<Server>, socket: &Arc<UdpSocket>, bytes: &[u8], from: SocketAddr) {
    let (request, step) = server.step(bytes);
    let limit = datagram_limit(&request);
    let step = match step {
        Step::Silence => return,
        Step::Reply(reply) => return send(socket, &reply, limit, from).await,
        step => step,
    };
    let Ok(permit) = Arc::clone(&server.forwarded).try_acquire_owned() else {
        let busy = with_code(blank(&request), ResponseCode::ServFail);
        return send(socket, &busy, limit, from).await;
    };
    let (server, socket) = (Arc::clone(server), Arc::clone(socket));
    let tasks = server.tasks.clone();
    tasks.spawn("question", move |_| async move {
        let _permit = permit;
        if let Some(reply) = server.asked(step, Way::Datagram).await {
            send(&socket, &reply, limit, from).await;
        }
    });
}

async fn send(socket: &UdpSocket, reply: &Message, limit: usize, to: SocketAddr) {
    let Some(bytes) = fit(reply, limit) else { return };
    if let Err(error) = socket.send_to(&bytes, to).await {
        tracing::debug!(%to, %error, "an answer could not be sent");
    }
}

/// Answers on connections until the shutdown.
pub async fn connections(server: Arc<Server>, listener: TcpListener, stop: Shutdown) {
    loop {
        let accepted = async {
            let permit = Arc::clone(&server.connections).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = stop.requested() => return,
        };
        match (permit, accepted) {
            (Ok(permit), Ok((stream, _))) => {
                let answering = Arc::clone(&server);
                server.tasks.spawn("connection", move |stop| async move {
                    let _permit = permit;
                    tokio::select! {
                        ended = connection(&answering, stream) => {
                            if let Err(error) = ended {
                                tracing::debug!(%error, "a connection ended");
                            }
                        }
                        () = stop.requested() => {}
                    }
                });
            }
            (_, Err(error)) => {
                tracing::debug!(%error, "a connection could not be taken");
                tokio::time::sleep(PAUSE).await;
            }
            (Err(_), Ok(_)) => return,
        }
    }
}

async fn connection(server: &Server, mut stream: TcpStream) -> std::io::Result<()> {
    loop {
        let question = tokio::time::timeout(IDLE, async {
            let mut question = vec![0; usize::from(stream.read_u16().await?)];
            stream.read_exact(&mut question).await?;
            Ok::<_, std::io::Error>(question)
        });
        let (_, step) = server.step(&question.await??);
        let reply = server.asked(step, Way::Connection).await;
        let Some(bytes) = reply.and_then(|reply| fit(&reply, MOST)) else { return Ok(()) };
        let length = u16::try_from(bytes.len()).map_err(std::io::Error::other)?;
        let framed = [&length.to_be_bytes()[..], &bytes].concat();
        tokio::time::timeout(IDLE, stream.write_all(&framed)).await??;
    }
}
