//! Talking to the keeper: [`Client`] for the agent, [`call`] for commands without a runtime.
//!
//! One connection a call: a new keeper is found at once, a watch blocks nobody else, and the keeper needs to know nothing of sessions. Every
//! call has a deadline, also against a keeper that is stopped and only its kernel answers.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pressroom_model::process::{Reply, Request};
use pressroom_runtime::clock;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How long the keeper may take to answer; a watch gets its own waiting time on top.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer that is read.
const LONGEST: u64 = 64 << 20;

/// Why the keeper gave no answer. A refusal is an answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens: no keeper runs, or it is overrun.
    #[error("no keeper answers on {}: {source}", socket.display())]
    Absent {
        /// The socket.
        socket: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It listens but did not answer in time; whether it did what was asked is unknown.
    #[error("the keeper on {} did not answer within {} s", socket.display(), waited.as_secs())]
    Late {
        /// The socket.
        socket: PathBuf,
        /// How long it had.
        waited: Duration,
    },
    /// The connection broke; whether it did what was asked is unknown.
    #[error("the connection to the keeper on {} broke: {source}", socket.display())]
    Broken {
        /// The socket.
        socket: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The request cannot be written down: a path in it is no text.
    #[error("this request cannot be put to the keeper: {source}")]
    Unspeakable {
        /// Why not.
        source: serde_json::Error,
    },
    /// It answered what this version does not understand.
    #[error("the keeper on {} answered what this version does not understand: {source}", socket.display())]
    Garbled {
        /// The socket.
        socket: PathBuf,
        /// Where it stopped making sense.
        source: serde_json::Error,
    },
}

impl CallError {
    fn broken(socket: &Path, source: io::Error) -> Self {
        Self::Broken { socket: socket.to_owned(), source }
    }
}

/// The keeper as the agent sees it.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A keeper that listens on this socket, now or later.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Asks and waits for the answer, at most ten seconds (and a watch's own time).
    pub async fn call(&self, request: &Request) -> Result<Reply, CallError> {
        let waited = patience(request);
        match tokio::time::timeout(waited, self.exchange(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(CallError::Late { socket: self.socket.clone(), waited }),
        }
    }

    async fn exchange(&self, request: &Request) -> Result<Reply, CallError> {
        let absent = |source| CallError::Absent { socket: self.socket.clone(), source };
        let broken = |source| CallError::broken(&self.socket, source);
        let mut stream = tokio::net::UnixStream::connect(&self.socket).await.map_err(absent)?;
        stream.write_all(&line(request)?).await.map_err(broken)?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\n") && answer.len() as u64 <= LONGEST {
            if stream.read_buf(&mut answer).await.map_err(broken)? == 0 {
                return Err(broken(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        parse(&self.socket, &answer)
    }
}

/// Asks and blocks until the answer, at most ten seconds (and a watch's own time).
pub fn call(socket: &Path, request: &Request) -> Result<Reply, CallError> {
    let waited = patience(request);
    let deadline = clock::now() + waited;
    let broken = |source| CallError::broken(socket, source);
    let late = || CallError::Late { socket: socket.to_owned(), waited };
    let mut stream =
        open(socket).map_err(|source| CallError::Absent { socket: socket.to_owned(), source })?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(broken)?;
    stream.write_all(&line(request)?).map_err(broken)?;
    let (mut answer, mut chunk) = (Vec::new(), [0; 16 << 10]);
    while !answer.ends_with(b"\n") && answer.len() as u64 <= LONGEST {
        let left = deadline.saturating_duration_since(clock::now());
        if left.is_zero() {
            return Err(late());
        }
        stream.set_read_timeout(Some(left)).map_err(broken)?;
        match stream.read(&mut chunk) {
            Ok(0) => return Err(broken(io::ErrorKind::UnexpectedEof.into())),
            Ok(count) => answer.extend_from_slice(chunk.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(late()),
            Err(error) => return Err(broken(error)),
        }
    }
    parse(socket, &answer)
}

/// Connects without waiting: the queue of a keeper that is stopped may be full, and a blocking connect would never return.
fn open(path: &Path) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    connect(&socket, &address)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

fn patience(request: &Request) -> Duration {
    match request {
        Request::Watch { wait_ms, .. } => {
            PATIENCE + Duration::from_millis(*wait_ms).min(Duration::from_hours(1))
        }
        _ => PATIENCE,
    }
}

fn line(request: &Request) -> Result<Vec<u8>, CallError> {
    let mut bytes =
        serde_json::to_vec(request).map_err(|source| CallError::Unspeakable { source })?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn parse(socket: &Path, answer: &[u8]) -> Result<Reply, CallError> {
    serde_json::from_slice(answer)
        .map_err(|source| CallError::Garbled { socket: socket.to_owned(), source })
}
