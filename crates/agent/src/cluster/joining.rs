//! Joining: a machine with a token becomes a node.
//!
//! The machine makes its key itself; what it gets is a certificate for it, the authority, the sealing key, and what the cluster
//! knows. The token is used up in the same transaction that makes the node known; a machine that asks again with the same
//! key is answered again, so an answer that was lost costs nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use pressroom_model::cluster::{Node, Role};
use pressroom_model::config::Config;
use pressroom_model::id::NodeName;
use pressroom_runtime::clock;
use pressroom_store::transaction::{Compare, Transaction};
use pressroom_wire::WireError;
use pressroom_wire::authority::PublicKey;
use pressroom_wire::http::{any_body, call_as_guest};
use pressroom_wire::identity::{Fingerprint, Identity, new_key, public_part};
use pressroom_wire::token::{self, Token};
use serde::{Deserialize, Serialize};

use super::follow::Remembered;
use super::founding::{self, FoundingError};
use super::membership::{self, Membership, MembershipError, Stage, keep};
use super::removed::Removal;
use super::sealing;
use crate::agent::Agent;
use crate::layout::Layout;
use crate::secrets;

/// How long a token is good where nobody said otherwise.
pub const TOKEN_LIFE: Duration = Duration::from_secs(3600);
const PATIENCE: Duration = Duration::from_secs(20);

/// Why a machine could not join, or a token not be made.
#[derive(Debug, thiserror::Error)]
pub enum JoiningError {
    /// It is in a cluster.
    #[error("this machine is node `{0}` of a cluster already")]
    Already(NodeName),
    /// It was removed from one, and the token is another one's.
    #[error(
        "what is on this machine is of another cluster: join with an empty data directory (`--data DIR`)"
    )]
    OtherCluster,
    /// The token, or a connection.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The address, or a file.
    #[error(transparent)]
    Founding(#[from] FoundingError),
    /// A file.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// The token, by this machine's clock.
    #[error(
        "this token has expired on {}, by this machine's clock; make another one with `pressroom node token` on a node of the cluster",
        clock::rfc3339(.until * 1000)
    )]
    Expired {
        /// When, seconds since 1970.
        until: u64,
    },
    /// The cluster would not.
    #[error("the cluster refused: {0}")]
    Refused(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] pressroom_store::StoreError),
    /// This machine is in no cluster.
    #[error("this machine is in no cluster")]
    Alone,
    /// It may not let others in.
    #[error("this node has not the role `manager`; those that have it: {0}")]
    NoManager(String),
}

/// What a machine says of itself when it asks to be let in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Asking {
    /// The name that it wants.
    pub node: NodeName,
    /// Its failure domain.
    pub zone: String,
    /// Its address, as others reach it.
    pub address: IpAddr,
    /// The first of its ports for others.
    pub port: u16,
    /// Its public key (P-256, uncompressed).
    pub key: Vec<u8>,
    /// Its Pressroom.
    pub program: String,
    /// What it is to do.
    pub roles: Vec<Role>,
    /// Words about it.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// What it is told.
#[derive(Serialize, Deserialize)]
pub struct Admission {
    chain: String,
    authority: String,
    authority_key: Option<String>,
    sealing: String,
    membership: Membership,
    config: Option<Config>,
}

/// A token that was not used yet, as stored.
#[derive(Serialize, Deserialize)]
struct Unused {
    until: u64,
    by: Option<Fingerprint>,
}

/// Who wants to join.
#[derive(Debug, Clone)]
pub struct Joiner {
    /// The name that it wants.
    pub node: NodeName,
    /// Its failure domain.
    pub zone: String,
    /// Its address; `None`: the one that reaches the cluster.
    pub address: Option<IpAddr>,
    /// The first of its ports for others.
    pub port: u16,
    /// What it is to do.
    pub roles: Vec<Role>,
    /// Words about it.
    pub labels: BTreeMap<String, String>,
}

/// Joins, and answers what is to be served, for the packages that it needs. A machine that joined this cluster before is told
/// again; one that was removed from it joins anew, with a new key and what it has.
pub async fn join(
    layout: &Layout,
    token: &str,
    joiner: &Joiner,
) -> Result<(Membership, Option<Config>), JoiningError> {
    let token = token::read(token)?;
    let validity = token.identity.validity();
    if validity.is_over(clock::wall_ms() / 1000) {
        // Nobody would answer it more than that its certificate has ended.
        return Err(JoiningError::Expired { until: validity.until });
    }
    match Membership::read(layout)? {
        Some(known) if Removal::of(&known).is_none() => told_again(layout, &token, known).await,
        former => join_anew(layout, &token, joiner, former.as_ref()).await,
    }
}

async fn told_again(
    layout: &Layout,
    token: &Token,
    known: Membership,
) -> Result<(Membership, Option<Config>), JoiningError> {
    let ours = membership::identity(layout)?;
    if ours.authority_fingerprint() != token.identity.authority_fingerprint() {
        return Err(JoiningError::Already(known.node));
    }
    if ours.validity().is_due(clock::wall_ms() / 1000) {
        renew(layout, token, &known).await?;
    }
    let config = Remembered::read(layout).intent.map(|intent| intent.config);
    Ok((known, config))
}

/// Joins as a machine that is no node, or none any more: `former` is what it was. That is overwritten, the membership last, so that the
/// same token and key go on where an interruption left it.
async fn join_anew(
    layout: &Layout,
    token: &Token,
    joiner: &Joiner,
    former: Option<&Membership>,
) -> Result<(Membership, Option<Config>), JoiningError> {
    if former.is_some()
        && let Ok(ours) = membership::identity(layout)
        && ours.authority_fingerprint() != token.identity.authority_fingerprint()
    {
        return Err(JoiningError::OtherCluster);
    }
    let address = match joiner.address {
        Some(address) => address,
        None => own_address(token)?,
    };
    // What it ran as a node has these ports still.
    if former.is_none_or(|former| (former.address, former.port) != (address, joiner.port)) {
        founding::try_address(address, joiner.port)?;
    }
    // The same key at the next try, so that a lost answer does not use the token up.
    let key_file = layout.cluster().join("joining.key");
    let key = match std::fs::read_to_string(&key_file) {
        Ok(key) => key,
        Err(_) => {
            let (key, _) = new_key()?;
            keep(layout, "joining.key", key.as_bytes())?;
            key
        }
    };
    let asking = Asking {
        node: joiner.node.clone(),
        zone: joiner.zone.clone(),
        address,
        port: joiner.port,
        key: public_part(&key)?,
        program: env!("CARGO_PKG_VERSION").into(),
        roles: joiner.roles.clone(),
        labels: joiner.labels.clone(),
    };
    let admission = ask(token, &asking).await?;
    Identity::parse(admission.chain.as_bytes(), key.as_bytes(), admission.authority.as_bytes())?;
    keep(layout, "authority.pem", admission.authority.as_bytes())?;
    keep(layout, "node.key", key.as_bytes())?;
    keep(layout, "node.pem", admission.chain.as_bytes())?;
    keep(layout, sealing::FILE, admission.sealing.as_bytes())?;
    match &admission.authority_key {
        Some(key) => keep(layout, "authority.key", key.as_bytes())?,
        None => forget(&membership::authority_key(layout))?,
    }
    Remembered::forget(layout).map_err(MembershipError::from)?;
    admission.membership.write(layout)?;
    // No harm if it stays.
    let _ = std::fs::remove_file(key_file);
    Ok((admission.membership, admission.config))
}

fn forget(path: &std::path::Path) -> Result<(), MembershipError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(crate::files::naming(path, &error).into())
        }
        _ => Ok(()),
    }
}

/// Has a node's certificate renewed by a token: its own may have ended, and nobody else lets it in. What the cluster knows of the
/// node stays as it is.
async fn renew(layout: &Layout, token: &Token, own: &Membership) -> Result<(), JoiningError> {
    let path = membership::identity_paths(layout).key;
    let key = String::from_utf8_lossy(&super::files_of(&path)?).into_owned();
    let asking = Asking {
        node: own.node.clone(),
        zone: own.zone.clone(),
        address: own.address,
        port: own.port,
        key: public_part(&key)?,
        program: env!("CARGO_PKG_VERSION").into(),
        roles: Vec::new(),
        labels: BTreeMap::new(),
    };
    let admission = ask(token, &asking).await?;
    let now = clock::wall_ms() / 1000;
    super::renewing::keep_renewed(layout, &admission.chain, &own.node, now)
        .map_err(|error| JoiningError::Refused(error.to_string()))
}

/// The address by which this machine reaches the cluster.
fn own_address(token: &Token) -> Result<IpAddr, JoiningError> {
    let found = token.addresses.iter().find_map(|address| {
        let any: IpAddr = if address.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
        let socket = std::net::UdpSocket::bind((any, 0)).ok()?;
        // Nothing is sent: the system chooses the route, and with it our address.
        socket.connect(address).ok()?;
        Some(socket.local_addr().ok()?.ip())
    });
    found.ok_or_else(|| {
        JoiningError::Refused(
            "no address of this machine reaches the cluster; give `--address`".into(),
        )
    })
}

async fn ask(token: &Token, asking: &Asking) -> Result<Admission, JoiningError> {
    let text = serde_json::to_vec(asking).expect("plain data");
    let mut last = JoiningError::Refused("the token names no address".into());
    for address in &token.addresses {
        let request = Request::post(format!("https://{address}/join"))
            .body(any_body(Full::new(Bytes::from(text.clone()))))
            .expect("a good path");
        match call_as_guest(&token.identity, *address, request, PATIENCE).await {
            Ok(answer) if answer.status().is_success() => {
                return serde_json::from_slice(answer.body())
                    .map_err(|error| JoiningError::Refused(error.to_string()));
            }
            Ok(answer) => {
                let said = String::from_utf8_lossy(answer.body()).trim().to_owned();
                last = JoiningError::Refused(said);
            }
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

impl Agent {
    /// Makes a token that is good once, for this long.
    pub async fn make_token(&self, life: Duration) -> Result<String, JoiningError> {
        let cluster = self.cluster.as_ref().ok_or(JoiningError::Alone)?;
        if !membership::authority_key(&self.layout).exists() {
            return Err(JoiningError::NoManager(self.managers().join(", ")));
        }
        let authority = membership::authority(&self.layout)?;
        let now = clock::wall_ms() / 1000;
        let until = now + life.as_secs();
        let id = secrets::random(16).reveal().to_ascii_lowercase();
        let addresses: Vec<_> = {
            let state = self.state.lock();
            let managers = state.known.nodes.iter();
            let managers = managers.filter(|(_, node)| node.roles.contains(&Role::Manager));
            // Our own first: it is known to answer.
            let (ours, others): (Vec<_>, Vec<_>) =
                managers.partition(|(name, _)| **name == cluster.node());
            let all = ours.into_iter().chain(others).take(5);
            all.map(|(_, node)| super::member(node).at(pressroom_wire::members::Service::Agent))
                .collect()
        };
        let text = token::write(&authority, &id, &addresses, now, until)?;
        let unused = serde_json::to_vec(&Unused { until, by: None }).expect("plain data");
        let key = super::keys::token(&id).expect("letters and digits");
        self.store.commit(Transaction::new().put(key, unused)).await?;
        Ok(text)
    }

    fn managers(&self) -> Vec<String> {
        let state = self.state.lock();
        let nodes = state.known.nodes.iter();
        let managers = nodes.filter(|(_, node)| node.roles.contains(&Role::Manager));
        managers.map(|(name, _)| name.to_string()).collect()
    }

    /// Admits a machine that showed the token `id`.
    pub(crate) async fn admit(&self, id: &str, asking: Asking) -> Result<Admission, JoiningError> {
        let cluster = self.cluster.as_ref().ok_or(JoiningError::Alone)?;
        let refused = |because: String| Err(JoiningError::Refused(because));
        if asking.program != env!("CARGO_PKG_VERSION") {
            tracing::warn!(node = %asking.node, program = asking.program, "joins with another version");
        }
        let Some(key) = super::keys::token(id) else { return refused("a strange token".into()) };
        let Some(entry) = self.store.get(&key).await? else {
            return refused(
                "this token was used, or revoked; make another one with `pressroom node token`"
                    .into(),
            );
        };
        let unused: Unused = serde_json::from_slice(&entry.value)
            .map_err(|error| JoiningError::Refused(error.to_string()))?;
        let now = clock::wall_ms() / 1000;
        if now > unused.until {
            return refused(
                "this token has expired; make another one with `pressroom node token`".into(),
            );
        }
        let authority = membership::authority(&self.layout)?;
        let chain = authority.sign_node(
            &asking.node,
            asking.address,
            &PublicKey(asking.key.clone()),
            now,
        )?;
        let shown = pressroom_wire::identity::fingerprint_of(&chain)?;
        if unused.by.as_ref().is_some_and(|by| *by != shown) {
            return refused("this token was used by another machine".into());
        }
        let refused_keys = super::access::Refused::stored(&*self.store).await?;
        if refused_keys.keys.contains_key(shown.as_str()) {
            return refused("its key is that of a node which was removed".into());
        }
        let record = super::keys::node(&asking.node);
        let known = self.store.get(&record).await?;
        let known_node =
            known.as_ref().and_then(|entry| serde_json::from_slice::<Node>(&entry.value).ok());
        let is_again = known_node.as_ref().is_some_and(|it| it.keys.contains(shown.as_str()));
        if known.is_some() && !is_again {
            return refused(format!(
                "there is a node `{0}` already; choose another name with `--name`, or remove it first: `pressroom node remove {0}`",
                asking.node
            ));
        }
        // One that asks again, for an answer that was lost or a certificate that has ended, stays who it is.
        let node = known_node.filter(|_| is_again).unwrap_or_else(|| Node {
            zone: asking.zone.clone(),
            address: asking.address,
            port: asking.port,
            keys: [shown.to_string()].into(),
            roles: asking.roles.iter().copied().collect(),
            labels: asking.labels,
            is_drained: false,
            joined_ms: now * 1000,
        });
        let used = Unused { by: Some(shown.clone()), ..unused };
        let guard = match &known {
            Some(entry) => Compare::Modified(record.clone(), entry.modified),
            None => Compare::Absent(record.clone()),
        };
        let transaction = Transaction::new()
            .when(Compare::Modified(key.clone(), entry.modified))
            .when(guard)
            .put(key, serde_json::to_vec(&used).expect("plain data"))
            .put(record, serde_json::to_vec(&node).expect("plain data"));
        if !self.store.commit(transaction).await?.is_committed() {
            return refused(
                "somebody else joined with this token or name at the same moment".into(),
            );
        }
        if let Some(etcd) = self.kept_etcd()
            && let Err(error) = etcd.allow(shown.as_str()).await
        {
            tracing::warn!(node = %asking.node, %error, "it can ask the store some seconds later");
        }
        let ours = cluster.membership();
        let mut nodes = ours.nodes.clone();
        nodes.insert(asking.node.clone(), node.clone());
        let membership = Membership {
            version: 1,
            stage: Stage::Formed,
            node: asking.node.clone(),
            zone: node.zone.clone(),
            address: node.address,
            port: node.port,
            token: ours.token,
            restored_ms: ours.restored_ms,
            removed_ms: 0,
            voters: ours.voters,
            member: None,
            external: ours.external,
            own: Some(node.clone()),
            nodes,
        };
        // It is let in by us at once; by the others when they have heard of it.
        cluster.wire.members.set(super::members(&membership.nodes));
        self.notice(match is_again {
            true => format!("node `{}` was told again", asking.node),
            false => format!("node `{}` joined from {}", asking.node, asking.address),
        });
        let read = |path: std::path::PathBuf| {
            std::fs::read_to_string(&path)
                .map_err(|error| MembershipError::from(crate::files::naming(&path, &error)))
        };
        let authority_key = match node.roles.contains(&Role::Manager) {
            true => Some(read(membership::authority_key(&self.layout))?),
            false => None,
        };
        Ok(Admission {
            chain,
            authority: authority.pem().to_owned(),
            authority_key,
            sealing: read(self.layout.cluster().join(sealing::FILE))?,
            membership,
            config: self.written(),
        })
    }
}
