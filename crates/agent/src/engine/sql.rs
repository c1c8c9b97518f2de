//! Our own process that carries the database's and Redis's bytes between nodes: its sockets, its view, its probe.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pressroom_model::id::NodeName;
use pressroom_model::process::{ListenAddress, ListenerSpec, ProcessSpec, UserIds};
use pressroom_plan::health::Answer;
use pressroom_plan::machine::{REDIS_CACHE, REDIS_SESSIONS, SQL};
use pressroom_wire::identity::Paths;
use pressroom_wire::members::{Members, Service};
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use super::{Error, fingerprint, owner, spec};
use crate::cluster::membership::{Membership, identity_paths};
use crate::files::{self, Owner};
use crate::layout::Layout;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The process on this node.
#[derive(Debug, Clone)]
pub struct Forwarder {
    layout: Layout,
    config_file: PathBuf,
    user: Option<UserIds>,
    own: Membership,
    has_data: bool,
}

/// The view, as `pressroom_sql::view` reads it.
#[derive(Debug, Serialize)]
struct View<'a> {
    node: &'a NodeName,
    data: Option<&'a NodeName>,
    members: &'a Members,
    identity: Paths,
    engines: BTreeMap<&'static str, PathBuf>,
}

impl Forwarder {
    /// The one that this node should have.
    pub fn new(
        layout: &Layout,
        config_file: &Path,
        user: Option<UserIds>,
        own: Membership,
        has_data: bool,
    ) -> Self {
        let config_file = config_file.to_owned();
        Self { layout: layout.clone(), config_file, user, own, has_data }
    }

    /// Whether it is the one of the node that has the data.
    pub fn has_data(&self) -> bool {
        self.has_data
    }

    fn mesh(&self) -> SocketAddr {
        SocketAddr::new(self.own.address, self.own.port + Service::Sql as u16)
    }

    /// The sockets of the engines, where clients of this node look for them.
    fn sockets(&self) -> [(&'static str, PathBuf); 4] {
        [
            ("writer", self.layout.writer()),
            ("reader", self.layout.reader()),
            ("cache", self.layout.redis(REDIS_CACHE)),
            ("sessions", self.layout.redis(REDIS_SESSIONS)),
        ]
    }

    /// What it listens on: for other nodes where the data is here, for PHP everywhere else.
    pub fn listeners(&self) -> Vec<ListenerSpec> {
        if self.has_data {
            let address = ListenAddress::Tcp(self.mesh());
            return vec![ListenerSpec { name: "sql-mesh".into(), address, sockets: 1 }];
        }
        let local = self.sockets().map(|(name, path)| ListenerSpec {
            name: format!("sql-{name}"),
            // As the engines have theirs: whoever gets there still needs a password.
            address: ListenAddress::Unix { path, mode: 0o777, owner: None },
            sockets: 1,
        });
        local.into()
    }

    /// What must be equal for the running process to be the wanted one.
    pub fn fingerprint(&self) -> String {
        let listeners = serde_json::to_vec(&self.listeners()).expect("plain values");
        fingerprint(&[&listeners, env!("CARGO_PKG_VERSION").as_bytes()])
    }

    fn reader(&self) -> Owner {
        owner(self.user.as_ref()).map(|(_, gid)| (0, gid))
    }

    fn folder(&self) -> PathBuf {
        self.layout.engine(SQL)
    }

    /// Publishes the view, where it is news.
    pub fn publish(&self, data: Option<&NodeName>, members: &Members) -> Result<(), Error> {
        let engines = self.sockets().into_iter().filter(|_| self.has_data).collect();
        let identity = crate::cluster::lend_identity(&self.layout, &self.folder(), self.reader())?;
        let view = View { node: &self.own.node, data, members, identity, engines };
        let text = serde_json::to_vec_pretty(&view).expect("plain values");
        files::write(&self.layout.sql_view(), &text, 0o640, self.reader())?;
        Ok(())
    }

    /// Says how to start it.
    pub fn prepare(&self) -> Result<ProcessSpec, Error> {
        let program = crate::host::own_program()?;
        let arguments = vec![
            "sql".into(),
            "--data".into(),
            self.layout.data().display().to_string(),
            "--config".into(),
            self.config_file.display().to_string(),
        ];
        let mut spec = spec(SQL, program, arguments, &self.fingerprint(), self.layout.output(SQL));
        spec.user = self.user.clone();
        spec.listeners = self.listeners().into_iter().map(|listener| listener.name).collect();
        spec.open_files = Some(1 << 20);
        Ok(spec)
    }

    /// The real question: is somebody answered? Whether the data node answers is another one.
    pub async fn probe(&self) -> Answer {
        let asked = async {
            if self.has_data {
                return TcpStream::connect(self.mesh()).await.map(drop);
            }
            let mut stream = UnixStream::connect(self.layout.redis(REDIS_CACHE)).await?;
            stream.write_all(b"PING\r\n").await?;
            stream.read_u8().await.map(drop)
        };
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(())) => Answer::Well,
            Ok(Err(error)) => Answer::Badly(error.to_string()),
            Err(_) => Answer::Badly(format!("no answer within {PATIENCE:?}")),
        }
    }
}

/// Where the copies of an identity are that another user reads.
pub(crate) fn lent(folder: &Path) -> Paths {
    let file = |name: &str| folder.join(name);
    Paths { chain: file("node.pem"), key: file("node.key"), authority: file("authority.pem") }
}

/// Copies this node's identity into a folder that its reader enters.
pub(crate) fn lend(layout: &Layout, folder: &Path, reader: Owner) -> Result<Paths, Error> {
    files::folder(folder, 0o750, reader)?;
    let (from, to) = (identity_paths(layout), lent(folder));
    // The certificate last: whoever follows these files looks at it.
    let pairs = [(from.key, &to.key), (from.authority, &to.authority), (from.chain, &to.chain)];
    for (from, to) in pairs {
        let bytes = std::fs::read(&from).map_err(|error| files::naming(&from, &error))?;
        files::write(to, &bytes, 0o640, reader)?;
    }
    Ok(to)
}
