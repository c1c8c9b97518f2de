//! etcd as a process, on the nodes that vote: mutual TLS by the node's own certificate, only on the node's own address.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use pressroom_model::process::{ProcessSpec, Stop, UserIds};
use pressroom_plan::health::Answer;
use pressroom_plan::machine::ETCD;
use pressroom_runtime::tree;
use pressroom_store::etcd::EtcdStore;
use pressroom_wire::members::Service;

use super::{Error, fingerprint, owner, program, run, spec};
use crate::cluster::access::Refused;
use crate::cluster::membership::{Membership, Stage, identity_paths};
use crate::files;
use crate::layout::Layout;
use crate::users::{self, Users};

/// The file that says of which membership its data is.
const MARK: &str = "member";

/// The list of refused keys that etcd reads.
const REFUSED: &str = "refused.pem";

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
    /// The cluster is being founded: it may begin from nothing.
    is_new: bool,
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
            is_new: own.stage == Stage::Forming,
            initial,
        })
    }

    /// Whether it is the member that has this number; 0: it is not known which one that is.
    pub fn is_member(&self, id: u64) -> bool {
        id == 0 || self.member.is_none_or(|own| own == id)
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
        write_refused_for(&self.layout, owner(self.user.as_ref()))?;
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
        let mut arguments: Vec<String> = pairs.collect();
        // What asks by JSON is not known by its certificate.
        let flags =
            ["--client-cert-auth", "--peer-client-cert-auth", "--enable-grpc-gateway=false"];
        arguments.extend(flags.map(str::to_owned));
        let refused = self.folder().join(REFUSED);
        // It is read anew for each connection, and refuses everybody where it is missing.
        if refused.is_file() {
            let refused = refused.display().to_string();
            for name in ["--client-crl-file", "--peer-crl-file"] {
                arguments.extend([name.to_owned(), refused.clone()]);
            }
        }
        arguments
    }

    /// Deletes what it has as a member that was removed, or of a store that counts no more; etcd would not start with the one,
    /// and be a second store with the other. Refuses to begin from nothing where it had something: it would forget votes.
    fn set_former_aside(&self) -> Result<(), Error> {
        let (mark, data) = (self.folder().join(MARK), self.folder().join("data"));
        let known = std::fs::read_to_string(&mark).unwrap_or_default();
        let (token, member) = known.split_once(' ').unwrap_or_default();
        let is_known = !known.is_empty();
        let is_other = |member: &str| self.member.is_some_and(|own| own.to_string() != member);
        if is_known && (token != self.token || !member.is_empty() && is_other(member)) {
            tree::remove(&data)?;
        } else if is_known && !self.is_new && !data.join("member").exists() {
            return Err(Error::Refused {
                engine: "etcd",
                what: "to start".into(),
                said: format!(
                    "what it had in `{}` is gone; the other voters replace it, and without others `pressroom cluster restore FILE` goes back to a copy",
                    data.display()
                ),
            });
        }
        self.write_mark()
    }

    /// Keeps whose data it has.
    fn write_mark(&self) -> Result<(), Error> {
        let member = self.member.map(|id| id.to_string()).unwrap_or_default();
        let mark = format!("{} {member}", self.token);
        files::write(&self.folder().join(MARK), mark.as_bytes(), 0o600, None)?;
        Ok(())
    }

    /// Makes its data a state that was kept, as the only member of a new cluster; etcd does not run. `from` is a snapshot; `None`:
    /// what etcd here had last. What it had is set aside under `at_ms`, and the same again after an interruption does the rest.
    pub fn restore(&self, from: Option<&Path>, at_ms: u64) -> Result<(), Error> {
        let folder = self.folder();
        let (data, former) = (folder.join("data"), self.former(at_ms));
        files::folder(&folder, 0o700, owner(self.user.as_ref()))?;
        if data.exists() && !former.exists() {
            std::fs::rename(&data, &former)?;
        }
        let own = former.join("member/snap/db");
        let mut tool = match program(&["/usr/bin/etcdutl", "/usr/local/bin/etcdutl"]) {
            Ok(tool) => Command::new(tool),
            // Until etcd 3.5 etcdctl does it.
            Err(_) => Command::new(program(&["/usr/bin/etcdctl", "/usr/local/bin/etcdctl"])?),
        };
        tool.env("ETCDCTL_API", "3").args(["snapshot", "restore"]).arg(from.unwrap_or(&own));
        if from.is_none() {
            // Only what was sent as a snapshot has its digest at its end.
            tool.arg("--skip-hash-check");
        }
        let (fresh, peer) = (folder.join("data.new"), format!("https://{}", self.peer));
        for old in [&fresh, &data] {
            tree::remove(old)?;
        }
        tool.arg("--data-dir").arg(&fresh).args(["--name", &self.name]);
        tool.args(["--initial-cluster", &format!("{}={peer}", self.name)]);
        tool.args(["--initial-cluster-token", &self.token, "--initial-advertise-peer-urls", &peer]);
        run("etcd", "to restore its state", &mut tool)?;
        if let Some(user) = &self.user {
            own_all(&fresh, (user.uid, user.gid))?;
        }
        std::fs::rename(&fresh, &data)?;
        self.write_mark()
    }

    /// Takes back what [`Etcd::restore`] did.
    pub fn unrestore(&self, at_ms: u64) -> Result<(), Error> {
        let former = self.former(at_ms);
        if former.exists() {
            let data = self.folder().join("data");
            tree::remove(&data)?;
            std::fs::rename(former, data)?;
        }
        Ok(())
    }

    /// Where its data is set aside when a state is restored.
    pub fn former(&self, at_ms: u64) -> PathBuf {
        self.folder().join(format!("data-before-{at_ms}"))
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

/// Gives etcd, where it is on this node, its copy of the list of refused keys.
pub(crate) fn write_refused(layout: &Layout) -> Result<(), Error> {
    let folder = layout.engine(ETCD);
    match std::fs::metadata(&folder) {
        Ok(found) => {
            use std::os::unix::fs::MetadataExt as _;
            let is_root = rustix::process::geteuid().is_root();
            write_refused_for(layout, is_root.then(|| (found.uid(), found.gid())))
        }
        // It does not vote.
        Err(_) => Ok(()),
    }
}

fn write_refused_for(layout: &Layout, owner: files::Owner) -> Result<(), Error> {
    if let Some(refused) = Refused::known(layout) {
        files::write(&layout.engine(ETCD).join(REFUSED), refused.list.as_bytes(), 0o600, owner)?;
    }
    Ok(())
}

fn own_all(path: &Path, (uid, gid): (u32, u32)) -> std::io::Result<()> {
    std::os::unix::fs::lchown(path, Some(uid), Some(gid))?;
    if path.is_dir() {
        for entry in std::fs::read_dir(path)? {
            own_all(&entry?.path(), (uid, gid))?;
        }
    }
    Ok(())
}
