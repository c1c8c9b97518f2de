//! Our own edge as a process: its user, the sockets it inherits, and its probe.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use pressroom_model::config::Config;
use pressroom_model::id::SiteName;
use pressroom_model::process::{ListenAddress, ListenerSpec, ProcessSpec, Stop, UserIds};
use pressroom_model::status::Traffic;
use pressroom_plan::affirm;
use pressroom_plan::machine::EDGE;
use pressroom_wire::members::Service;
use tokio::net::UnixStream;

use super::{Error, fingerprint, owner, spec};
use crate::cluster::membership::Membership;
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

/// Name of an affirmation socket at the keeper.
pub fn affirm_listener(number: u16) -> String {
    format!("affirm-{number}")
}

/// What the keeper's sockets and the edge's last view say about whose affirmation socket is which.
pub fn known(layout: &Layout, sites: &[SiteName], held: &[ListenerSpec]) -> affirm::Known {
    let number = |name: &str| name.strip_prefix("affirm-")?.parse::<u16>().ok();
    let mut known = affirm::Known::default();
    for listener in held {
        let (Some(number), ListenAddress::Unix { path, .. }) =
            (number(&listener.name), &listener.address)
        else {
            continue;
        };
        known.sockets = known.sockets.max(number + 1);
        if let Some(site) = sites.iter().find(|site| layout.affirm(site) == *path) {
            known.held.insert(site.clone(), number);
        }
    }
    let view = crate::view::published(layout);
    known.published = view
        .into_iter()
        .flat_map(|view| view.sites)
        .filter_map(|site| Some((site.name, number(&site.affirm_listener)?)))
        .collect();
    known
}

/// All listening sockets of a configuration. `owners`: user and group of each site.
pub fn listeners(
    layout: &Layout,
    config: &Config,
    cores: u16,
    assignment: &affirm::Assignment,
    owners: &BTreeMap<SiteName, (u32, u32)>,
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
    let affirm = (0..assignment.sockets).map(|number| {
        let site = assignment.of.iter().find(|(_, given)| **given == number).map(|(site, _)| site);
        let (path, mode, owner) = match site {
            // The folder admits the site alone; the edge looks at the peer as well.
            Some(site) => (layout.affirm(site), 0o666, owners.get(site).copied()),
            None => (layout.spare_affirm(number), 0o600, Some((0, 0))),
        };
        let address = ListenAddress::Unix { path, mode, owner };
        ListenerSpec { name: affirm_listener(number), address, sockets: 1 }
    });
    tcp("http", &config.edge.http)
        .into_iter()
        .chain(tcp("https", &config.edge.https))
        .chain(affirm)
        .collect()
}

/// The socket that edges of other nodes connect to.
pub fn mesh(own: &Membership) -> ListenerSpec {
    let address = SocketAddr::new(own.address, own.port + Service::Edge as u16);
    ListenerSpec { name: "mesh".into(), address: ListenAddress::Tcp(address), sockets: 1 }
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

    /// What must be equal for the running edge to be the wanted one: a socket can only be inherited at the start. The file of
    /// an affirmation socket may move meanwhile.
    pub fn fingerprint(&self) -> String {
        let sockets: Vec<_> = self
            .listeners
            .iter()
            .map(|listener| match listener.address {
                ListenAddress::Tcp(address) | ListenAddress::Udp(address) => {
                    (&listener.name, Some(address), listener.sockets)
                }
                ListenAddress::Unix { .. } => (&listener.name, None, listener.sockets),
            })
            .collect();
        let listeners = serde_json::to_vec(&sockets).expect("plain values");
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
