//! Our own edge as a process: its user, the sockets it inherits, and its probe.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use pressroom_model::config::Config;
use pressroom_model::process::{ListenAddress, ListenerSpec, ProcessSpec, Stop, UserIds};
use pressroom_model::status::Traffic;
use pressroom_plan::machine::EDGE;
use tokio::net::UnixStream;

use super::{Error, fingerprint, owner, spec};
use crate::files;
use crate::layout::Layout;

/// How the edge is started.
#[derive(Debug, Clone)]
pub struct Edge {
    layout: Layout,
    user: Option<UserIds>,
    listeners: Vec<ListenerSpec>,
    config_file: std::path::PathBuf,
}

/// Name of a site's affirmation listener at the keeper.
pub fn affirm_listener(site: &str) -> String {
    format!("affirm-{site}")
}

/// All listening sockets of a configuration. `owners`: user and group of each site.
pub fn listeners(
    layout: &Layout,
    config: &Config,
    cores: u16,
    owners: &BTreeMap<String, (u32, u32)>,
) -> Vec<ListenerSpec> {
    let tcp = |kind: &str, addresses: &[SocketAddr]| {
        let kind = kind.to_owned();
        addresses
            .iter()
            .enumerate()
            .map(|(n, address)| ListenerSpec {
                name: if n == 0 { kind.clone() } else { format!("{kind}-{}", n + 1) },
                address: ListenAddress::Tcp(*address),
                sockets: cores,
            })
            .collect::<Vec<_>>()
    };
    let affirm = config.sites.iter().map(|site| ListenerSpec {
        name: affirm_listener(site.name.as_str()),
        address: ListenAddress::Unix {
            path: layout.affirm(&site.name),
            // The folder admits the site alone; the edge looks at the peer as well.
            mode: 0o666,
            owner: owners.get(site.name.as_str()).copied(),
        },
        sockets: 1,
    });
    tcp("http", &config.edge.http)
        .into_iter()
        .chain(tcp("https", &config.edge.https))
        .chain(affirm)
        .collect()
}

impl Edge {
    /// The edge with these sockets.
    pub fn new(
        layout: &Layout,
        config_file: &Path,
        user: Option<UserIds>,
        listeners: Vec<ListenerSpec>,
    ) -> Self {
        Self { layout: layout.clone(), user, listeners, config_file: config_file.to_owned() }
    }

    /// What must be equal for the running edge to be the wanted one: a socket can only be inherited at the start.
    pub fn fingerprint(&self) -> String {
        let listeners = serde_json::to_vec(&self.listeners).expect("plain structs");
        fingerprint(&[&listeners, env!("CARGO_PKG_VERSION").as_bytes()])
    }

    /// Makes its folders, and says how to start it.
    pub fn prepare(&self) -> Result<ProcessSpec, Error> {
        let ours = owner(self.user.as_ref());
        files::folder(&self.layout.edge(), 0o750, ours)?;
        files::folder(&self.layout.logs().join("edge"), 0o750, ours)?;
        if let Some(folder) = self.layout.edge_socket().parent() {
            files::folder(folder, 0o750, ours)?;
        }
        let program = crate::host::own_program()?;
        let arguments = vec![
            "edge".into(),
            "--data".into(),
            self.layout.data().display().to_string(),
            "--config".into(),
            self.config_file.display().to_string(),
        ];
        let mut spec =
            spec(EDGE, program, arguments, &self.fingerprint(), self.layout.output(EDGE));
        spec.user = self.user.clone();
        spec.listeners = self.listeners.iter().map(|listener| listener.name.clone()).collect();
        spec.open_files = Some(1 << 20);
        spec.stop = Stop { signal: 15, grace_ms: 15_000 };
        Ok(spec)
    }
}

/// Why the edge could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// It does not answer.
    #[error("the edge does not answer: {0}")]
    Away(String),
    /// It answered with another status than 200.
    #[error("the edge answered {status}: {text}")]
    Status {
        /// HTTP status.
        status: u16,
        /// Its words.
        text: String,
    },
}

/// Asks the edge's control socket, within two seconds.
pub async fn ask(
    layout: &Layout,
    method: &str,
    path: &str,
    body: Option<Vec<u8>>,
) -> Result<Bytes, AskError> {
    let exchange = async {
        let stream = UnixStream::connect(layout.edge_socket()).await.map_err(away)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(away)?;
        let request = hyper::Request::builder().method(method).uri(path).header("host", "edge");
        let request = match body {
            Some(body) => request.body(Full::new(Bytes::from(body)).boxed()),
            None => request.body(Empty::new().boxed()),
        };
        let request = request.map_err(away)?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(away)?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), 16 << 20);
            let bytes = body.collect().await.map_err(away)?.to_bytes();
            Ok::<_, AskError>((status, bytes))
        };
        let driven = async {
            // Ends when the sender is dropped; its errors reach the answer as well.
            let _ = connection.await;
            std::future::pending::<()>().await;
        };
        tokio::select! { answer = answer => answer, () = driven => unreachable!("it is pending for ever") }
    };
    match tokio::time::timeout(Duration::from_secs(2), exchange).await {
        Err(_) => Err(AskError::Away("no answer within 2 s".into())),
        Ok(Err(error)) => Err(error),
        Ok(Ok((200, bytes))) => Ok(bytes),
        Ok(Ok((status, bytes))) => {
            Err(AskError::Status { status, text: String::from_utf8_lossy(&bytes).into_owned() })
        }
    }
}

fn away(error: impl std::fmt::Display) -> AskError {
    AskError::Away(error.to_string())
}

/// The real question: what do you count, and which view do you serve?
pub async fn status(layout: &Layout) -> Result<Traffic, AskError> {
    let bytes = ask(layout, "GET", "/status", None).await?;
    serde_json::from_slice(&bytes).map_err(away)
}
