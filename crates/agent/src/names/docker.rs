//! What we ask Docker's daemon, over its API on its socket: which containers run, what they say of themselves, and what happens
//! (<https://docs.docker.com/reference/api/engine/>). Paths without a version: each daemon answers in its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::UnixStream;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most bytes of an answer.
const MOST_BYTES: usize = 16 << 20;
/// Most bytes of one event.
const MOST_OF_AN_EVENT: usize = 1 << 20;

/// Why Docker could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The socket.
    #[error("{}: {source}", path.display())]
    Socket {
        /// Where it should be.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// What came is no HTTP.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// It refused.
    #[error("Docker answered {status} to `{path}`")]
    Status {
        /// The question.
        path: String,
        /// The status.
        status: u16,
    },
    /// It said something that makes no sense.
    #[error("Docker's answer to `{path}` cannot be read: {cause}")]
    Answer {
        /// The question.
        path: String,
        /// Why.
        cause: String,
    },
    /// It said nothing.
    #[error("Docker did not answer within {PATIENCE:?}")]
    Late,
    /// It ended.
    #[error("Docker ended the list of events")]
    Ended,
}

impl AskError {
    /// Whether it says that there is no such container (any more).
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Status { status: 404, .. })
    }
}

/// A container that runs.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Listed {
    /// Its id.
    pub id: String,
}

/// What is known of a container.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Container {
    /// Its name, with a slash before it.
    pub name: String,
    /// What it was made with.
    pub config: ContainerConfig,
    /// How it is attached to the machine.
    pub host_config: HostConfig,
    /// Its networks and ports.
    pub network_settings: NetworkSettings,
}

/// What a container was made with.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerConfig {
    /// `NAME=value`.
    pub env: Option<Vec<String>>,
    /// Labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// Its image, as it was asked for.
    pub image: String,
    /// Ports that it says it has: `80/tcp`.
    pub exposed_ports: Option<BTreeMap<String, serde_json::Value>>,
}

/// How a container is attached to the machine.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HostConfig {
    /// `host`: it has the machine's network.
    pub network_mode: String,
}

/// A container's networks and ports.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkSettings {
    /// Its ports, and where on the machine they are published.
    pub ports: Option<BTreeMap<String, Option<Vec<Published>>>>,
    /// Its networks.
    pub networks: Option<BTreeMap<String, Network>>,
}

/// Where a port is published.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Published {
    /// An address of the machine; empty or a wildcard: all of them.
    pub host_ip: String,
    /// The port there.
    pub host_port: String,
}

/// A network of a container.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Network {
    /// Its address in it; empty: none.
    #[serde(rename = "IPAddress")]
    pub address: String,
    /// Its address of IPv6 in it.
    #[serde(rename = "GlobalIPv6Address")]
    pub address_v6: String,
}

/// All containers that run.
pub async fn list(socket: &Path) -> Result<Vec<Listed>, AskError> {
    ask(socket, "/containers/json").await
}

/// One container.
pub async fn inspect(socket: &Path, id: &str) -> Result<Container, AskError> {
    ask(socket, &format!("/containers/{id}/json")).await
}

async fn ask<T: serde::de::DeserializeOwned>(socket: &Path, path: &str) -> Result<T, AskError> {
    let unreadable = |cause: String| AskError::Answer { path: path.to_owned(), cause };
    let asked = async {
        let body = Limited::new(get(socket, path).await?, MOST_BYTES);
        let bytes = body.collect().await.map_err(|error| unreadable(error.to_string()))?;
        serde_json::from_slice(&bytes.to_bytes()).map_err(|error| unreadable(error.to_string()))
    };
    tokio::time::timeout(PATIENCE, asked).await.map_err(|_| AskError::Late)?
}

/// An answer's body, as it comes. Its connection is driven where it is read from, see [`Driven`].
async fn get(socket: &Path, path: &str) -> Result<Driven, AskError> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|source| AskError::Socket { path: socket.to_owned(), source })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await?;
    let request = hyper::Request::get(path).header("host", "docker").body(Empty::new());
    let request = request
        .map_err(|error| AskError::Answer { path: path.to_owned(), cause: error.to_string() })?;
    let mut connection: Connection = Box::pin(async move {
        let _ = connection.await;
    });
    let mut answer = Box::pin(sender.send_request(request));
    let response = std::future::poll_fn(|context| {
        if let std::task::Poll::Ready(done) = answer.as_mut().poll(context) {
            return std::task::Poll::Ready(done);
        }
        // Ready or not: the answer says how it ended.
        let _ = connection.as_mut().poll(context);
        answer.as_mut().poll(context)
    });
    let response = response.await?;
    match response.status().as_u16() {
        200 => Ok(Driven { body: response.into_body(), connection: Some(connection) }),
        status => Err(AskError::Status { path: path.to_owned(), status }),
    }
}

type Connection = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// A body with the connection that brings it: no task of its own is needed.
struct Driven {
    body: Incoming,
    connection: Option<Connection>,
}

impl hyper::body::Body for Driven {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, hyper::Error>>> {
        let is_over = match &mut self.connection {
            Some(connection) => connection.as_mut().poll(context).is_ready(),
            None => false,
        };
        if is_over {
            self.connection = None;
        }
        std::pin::Pin::new(&mut self.body).poll_frame(context)
    }
}

/// What happens to containers, as it happens.
pub struct Events {
    body: Driven,
    line: Vec<u8>,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("begun", &self.line.len()).finish_non_exhaustive()
    }
}

impl Events {
    /// From now on. What happens before the next listing is seen in both.
    pub async fn of(socket: &Path) -> Result<Self, AskError> {
        // {"type":["container","network"],"event":["start","die","rename","update","connect","disconnect"]}
        let path = "/events?filters=%7B%22type%22%3A%5B%22container%22%2C%22network%22%5D%2C%22event%22%3A%5B%22start%22%2C%22die%22%2C%22rename%22%2C%22connect%22%2C%22disconnect%22%5D%7D";
        let begun = tokio::time::timeout(PATIENCE, get(socket, path)).await;
        Ok(Self { body: begun.map_err(|_| AskError::Late)??, line: Vec::new() })
    }

    /// Waits until something happened. Cancel-safe.
    pub async fn next(&mut self) -> Result<(), AskError> {
        loop {
            if let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
                self.line.drain(..=end);
                return Ok(());
            }
            let frame = self.body.frame().await.ok_or(AskError::Ended)??;
            let data = frame.into_data().unwrap_or_default();
            if self.line.len() + data.len() > MOST_OF_AN_EVENT {
                return Err(AskError::Ended);
            }
            self.line.extend_from_slice(&data);
        }
    }
}
