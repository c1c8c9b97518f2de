//! etcd as a process, on the nodes that vote: mutual TLS by the node's own certificate, only on the node's own address.

use std::net::SocketAddr;
use std::path::PathBuf;

use pressroom_model::process::{ProcessSpec, Stop, UserIds};
use pressroom_plan::health::Answer;
use pressroom_plan::machine::ETCD;
use pressroom_store::etcd::EtcdStore;
use pressroom_wire::members::Service;

use super::{Error, fingerprint, owner, program, spec};
use crate::cluster::membership::{Membership, identity_paths};
use crate::files;
use crate::layout::Layout;
use crate::users::{self, Users};

/// etcd on this node.
#[derive(Debug, Clone)]
pub struct Etcd {
    layout: Layout,
    user: Option<UserIds>,
    name: String,
    client: SocketAddr,
    peer: SocketAddr,
    token: String,
    /// etcd's number of this member: another one than its data is of means that it was removed and let in again.
    member: Option<u64>,
    /// Members at its first start, itself among them; later etcd knows better.
    initial: Vec<String>,
}

impl Etcd {
    /// The one of this node, as its membership has it.
    pub fn of(layout: &Layout, users: &Users, own: &Membership) -> Result<Self, users::Error> {
        let at = |service| SocketAddr::new(own.address, own.port + service as u16);
        let peer = at(Service::EtcdPeer);
        let others = own.voters.keys().filter(|name| **name != own.node);
        let others = others.filter_map(|name| {
            let node = own.nodes.get(name)?;
            Some(format!("{name}=https://{}", crate::cluster::member(node).at(Service::EtcdPeer)))
        });
        let initial = others.chain([format!("{}=https://{peer}", own.node)]).collect();
        Ok(Self {
            layout: layout.clone(),
            user: users.etcd()?,
            name: own.node.to_string(),
            client: at(Service::Etcd),
            peer,
            token: own.token.clone(),
            member: own.member,
            initial,
        })
    }

    fn folder(&self) -> PathBuf {
        self.layout.engine(ETCD)
    }

    /// Where it answers clients.
    pub fn endpoint(&self) -> String {
        format!("https://{}", self.client)
    }

    /// What must be equal for the running etcd to be the wanted one.
    pub fn fingerprint(&self) -> String {
        let parts = [&self.name, &self.token, &self.client.to_string(), &self.peer.to_string()];
        fingerprint(&parts.map(|part| part.as_bytes()))
    }

    /// Gives etcd its copies of the node's certificate; it reads them anew for each connection.
    pub fn write_certificates(&self) -> Result<(), Error> {
        let ours = owner(self.user.as_ref());
        let paths = identity_paths(&self.layout);
        for (from, name) in [
            (&paths.chain, "node.pem"),
            (&paths.key, "node.key"),
            (&paths.authority, "authority.pem"),
        ] {
            let bytes = std::fs::read(from).map_err(|error| files::naming(from, &error))?;
            files::write(&self.folder().join(name), &bytes, 0o600, ours)?;
        }
        Ok(())
    }

    /// Makes its folders, and says how to start it.
    pub fn prepare(&self) -> Result<ProcessSpec, Error> {
        let ours = owner(self.user.as_ref());
        let folder = self.folder();
        files::folder(&folder, 0o700, ours)?;
        self.set_former_aside()?;
        files::folder(&folder.join("data"), 0o700, ours)?;
        self.write_certificates()?;
        let server = program(&["/usr/bin/etcd", "/usr/local/bin/etcd"])?;
        let arguments = self.arguments();
        let mut spec = spec(ETCD, server, arguments, &self.fingerprint(), self.layout.output(ETCD));
        spec.user = self.user.clone();
        spec.stop = Stop { signal: 15, grace_ms: 10_000 };
        Ok(spec)
    }

    fn arguments(&self) -> Vec<String> {
        let file = |name: &str| self.folder().join(name).display().to_string();
        let (client, peer) = (self.endpoint(), format!("https://{}", self.peer));
        let state = if self.initial.len() == 1 { "new" } else { "existing" };
        let pairs = [
            ("--name", self.name.clone()),
            ("--data-dir", file("data")),
            ("--listen-client-urls", client.clone()),
            ("--advertise-client-urls", client),
            ("--listen-peer-urls", peer.clone()),
            ("--initial-advertise-peer-urls", peer),
            ("--initial-cluster", self.initial.join(",")),
            ("--initial-cluster-token", self.token.clone()),
            ("--initial-cluster-state", state.into()),
            // Failure of its leader is over in about a second (measured; a slower network than a continent's needs more).
            ("--heartbeat-interval", "100".into()),
            ("--election-timeout", "1000".into()),
            ("--auto-compaction-mode", "periodic".into()),
            ("--auto-compaction-retention", "30m".into()),
            ("--quota-backend-bytes", (4u64 << 30).to_string()),
            ("--cert-file", file("node.pem")),
            ("--key-file", file("node.key")),
            ("--trusted-ca-file", file("authority.pem")),
            ("--peer-cert-file", file("node.pem")),
            ("--peer-key-file", file("node.key")),
            ("--peer-trusted-ca-file", file("authority.pem")),
            ("--logger", "zap".into()),
            ("--log-level", "warn".into()),
        ];
        let pairs = pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
        let flags = ["--client-cert-auth", "--peer-client-cert-auth"].map(str::to_owned);
        pairs.chain(flags).collect()
    }

    /// Deletes what it has as a member that was removed; etcd would not start with it.
    fn set_former_aside(&self) -> Result<(), Error> {
        let (Some(member), mark) = (self.member, self.folder().join("member")) else {
            return Ok(());
        };
        let known = std::fs::read_to_string(&mark).unwrap_or_default();
        if !known.is_empty() && known != member.to_string() {
            pressroom_runtime::tree::remove(&self.folder().join("data"))?;
        }
        files::write(&mark, member.to_string().as_bytes(), 0o600, None)?;
        Ok(())
    }

    /// The real question: does this member answer?
    pub async fn probe(&self, store: &EtcdStore) -> Answer {
        match store.status(&self.endpoint()).await {
            // One that has no quorum is well by itself: starting it again would help nobody.
            Ok(_) => Answer::Well,
            Err(error) => Answer::Badly(error.to_string()),
        }
    }
}
