//! A node's certificate is renewed when a third of its life is left, for the same key: membership goes by the key, and so does the
//! list of those that are refused, so nobody has to hear of it.
//!
//! Nodes that may admit others sign their own; the others ask one of them, over mutual TLS. Whatever is on the disk is taken over by
//! the agent itself, by the store's connections and by etcd, whoever put it there; edge and `sql` follow their copies. Nothing is
//! started again. A certificate that has ended, because the machine was off, is renewed by a join token (see [`super::joining`]).

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use pressroom_model::cluster::{Node, Role};
use pressroom_model::id::NodeName;
use pressroom_runtime::clock;
use pressroom_runtime::shutdown::Shutdown;
use pressroom_wire::WireError;
use pressroom_wire::authority::{Authority, PublicKey};
use pressroom_wire::http::{AnyBody, any_body};
use pressroom_wire::identity::{Identity, fingerprint_of, public_part};
use rand::seq::SliceRandom as _;

use super::door::{short, whole};
use super::membership::{self, MembershipError, keep};
use super::{Cluster, files_of};
use crate::agent::Agent;
use crate::engine::etcd::Etcd;
use crate::layout::Layout;

/// Between two looks at the certificate.
const LOOK: Duration = Duration::from_secs(5);
/// Between two tries to renew it, at most this and as much again: there is a month for it.
const PAUSE: Duration = Duration::from_secs(30);
/// Longest wait for a node that signs.
const PATIENCE: Duration = Duration::from_secs(5);
/// A certificate with its issuer is shorter.
const LONGEST: usize = 64 << 10;

/// Why a certificate was not renewed.
#[derive(Debug, thiserror::Error)]
pub enum RenewingError {
    /// A key or certificate, or the way to another node.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A file.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// A node would not.
    #[error("`{node}` refused: {said}")]
    Refused {
        /// Who.
        node: NodeName,
        /// What it said.
        said: String,
    },
    /// Who asks has another key than the node that it says it is.
    #[error("that is not a key of this node")]
    OtherKey,
    /// What was signed is no better than what is there.
    #[error("what `{0}` signed is for another node, or for another time: compare the clocks")]
    Odd(NodeName),
    /// Nobody who could sign is known.
    #[error("no other node may admit nodes (role `manager`)")]
    Nobody,
}

/// A new certificate for the key that a node has, as its record says; `now` in seconds since 1970.
pub fn sign_again(
    authority: &Authority,
    (name, node): (&NodeName, &Node),
    key: Vec<u8>,
    now: u64,
) -> Result<String, RenewingError> {
    let chain = authority.sign_node(name, node.address, &PublicKey(key), now)?;
    match node.keys.contains(fingerprint_of(&chain)?.as_str()) {
        true => Ok(chain),
        false => Err(RenewingError::OtherKey),
    }
}

/// Keeps a renewed certificate, if it is one. `by` is who signed it; `now` in seconds since 1970.
pub fn keep_renewed(
    layout: &Layout,
    chain: &str,
    by: &NodeName,
    now: u64,
) -> Result<(), RenewingError> {
    let paths = membership::identity_paths(layout);
    let (key, authority) = (files_of(&paths.key)?, files_of(&paths.authority)?);
    let former = Identity::parse(&files_of(&paths.chain)?, &key, &authority)?;
    let fresh = Identity::parse(chain.as_bytes(), &key, &authority)?;
    if fresh.peer != former.peer || fresh.validity().is_due(now) {
        return Err(RenewingError::Odd(by.clone()));
    }
    Ok(keep(layout, "node.pem", chain.as_bytes())?)
}

impl Agent {
    /// Keeps this node's certificate good for as long as the agent runs.
    pub(crate) async fn keep_certificate(
        self: Arc<Self>,
        cluster: Arc<Cluster>,
        shutdown: Shutdown,
    ) {
        let (mut again, mut is_told): (Option<Instant>, bool) = (None, false);
        while !shutdown.is_requested() {
            self.take_certificate(&cluster);
            let is_due = cluster.wire.identity().validity().is_due(clock::wall_ms() / 1000);
            let is_node = cluster.removal().is_none();
            if is_node && is_due && again.is_none_or(|again| clock::now() >= again) {
                match self.renew_certificate(&cluster).await {
                    Ok(()) => is_told = false,
                    Err(error) => {
                        again = Some(clock::now() + PAUSE.mul_f64(1.0 + rand::random::<f64>()));
                        tracing::warn!(%error, "this node's certificate was not renewed yet");
                        if !std::mem::replace(&mut is_told, true) {
                            self.notice(format!(
                                "this node's certificate was not renewed yet: {error}; it is good until {}, and it is tried again",
                                clock::rfc3339(cluster.wire.identity().validity().until * 1000)
                            ));
                        }
                    }
                }
            }
            tokio::select! { () = shutdown.requested() => {}, () = tokio::time::sleep(LOOK) => {} }
        }
    }

    async fn renew_certificate(&self, cluster: &Cluster) -> Result<(), RenewingError> {
        let paths = membership::identity_paths(&self.layout);
        let key = String::from_utf8_lossy(&files_of(&paths.key)?).into_owned();
        let public = public_part(&key)?;
        let own = cluster.node();
        let (by, chain) = match membership::authority_key(&self.layout).is_file() {
            true => {
                let record =
                    cluster.membership().nodes.remove(&own).ok_or(RenewingError::Nobody)?;
                let authority = membership::authority(&self.layout)?;
                let now = clock::wall_ms() / 1000;
                (own.clone(), sign_again(&authority, (&own, &record), public, now)?)
            }
            false => self.have_signed(cluster, &own, public).await?,
        };
        keep_renewed(&self.layout, &chain, &by, clock::wall_ms() / 1000)?;
        self.take_certificate(cluster);
        tracing::info!(%by, "this node's certificate was renewed");
        Ok(())
    }

    /// Asks the nodes that may admit others, one after the other.
    async fn have_signed(
        &self,
        cluster: &Cluster,
        own: &NodeName,
        key: Vec<u8>,
    ) -> Result<(NodeName, String), RenewingError> {
        let mut managers: Vec<NodeName> = {
            let nodes = cluster.membership().nodes;
            let may = |(name, node): &(NodeName, Node)| {
                name != own && node.roles.contains(&Role::Manager)
            };
            nodes.into_iter().filter(may).map(|(name, _)| name).collect()
        };
        managers.shuffle(&mut rand::rng());
        let mut last = RenewingError::Nobody;
        for manager in managers {
            match ask_to_sign(cluster, &manager, key.clone()).await {
                Ok(chain) => return Ok((manager, chain)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Takes over what is on the disk, where that is news.
    fn take_certificate(&self, cluster: &Cluster) {
        let fresh = match membership::identity(&self.layout) {
            Ok(fresh) => fresh,
            Err(error) => {
                return tracing::error!(%error, "the identity on the disk cannot be used; the one in memory can");
            }
        };
        let used = cluster.wire.identity();
        // Another key is another membership: the next agent begins with it.
        let is_ours = fresh.fingerprint() == used.fingerprint();
        if !is_ours || fresh.validity() == used.validity() {
            return;
        }
        cluster.wire.set_identity(fresh);
        if let (Some(etcd), Ok(tls)) = (self.kept_etcd(), membership::tls(&self.layout)) {
            etcd.set_tls(Some(tls));
        }
        let own = cluster.membership();
        if own.is_voter() {
            let written = Etcd::of(&self.layout, &self.users, &own)
                .map_err(|error| error.to_string())
                .and_then(|etcd| etcd.write_certificates().map_err(|error| error.to_string()));
            if let Err(error) = written {
                tracing::error!(
                    error,
                    "etcd shows its former certificate until it is prepared anew"
                );
            }
        }
        // Edge and `sql` get their copies by the next decision.
        self.changed.notify_one();
    }

    /// Signs anew for a node that shows its certificate.
    pub(super) async fn answer_certificate(
        &self,
        node: &NodeName,
        request: Request<Incoming>,
    ) -> Response<AnyBody> {
        let key = match whole(request).await {
            Ok(key) => key.to_vec(),
            Err(error) => return short(StatusCode::BAD_REQUEST, error),
        };
        let record = self.state.lock().known.nodes.get(node).cloned();
        let (Some(record), Ok(authority)) = (record, membership::authority(&self.layout)) else {
            return short(StatusCode::NOT_FOUND, "this node may not admit others");
        };
        match sign_again(&authority, (node, &record), key, clock::wall_ms() / 1000) {
            Ok(chain) => short(StatusCode::OK, chain),
            Err(error) => short(StatusCode::FORBIDDEN, error.to_string()),
        }
    }
}

async fn ask_to_sign(
    cluster: &Cluster,
    node: &NodeName,
    key: Vec<u8>,
) -> Result<String, RenewingError> {
    let refused = |said: String| RenewingError::Refused { node: node.clone(), said };
    let body = any_body(Full::new(Bytes::from(key)));
    let request = Request::post("/certificate").body(body).expect("a good path");
    let asked = async {
        let answer = cluster.client.call(node, request).await?;
        let is_good = answer.status().is_success();
        let body = Limited::new(answer.into_body(), LONGEST).collect().await;
        let body = body.map_err(|error| refused(error.to_string()))?.to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        if is_good { Ok(text) } else { Err(refused(text)) }
    };
    let late = |_| Err(refused(format!("no answer within {PATIENCE:?}")));
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(late)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use pressroom_wire::identity::new_key;

    use super::*;

    const NOW: u64 = 1_795_000_000;

    /// A node's files, with a certificate that is good until then.
    struct House {
        layout: Layout,
        authority: Authority,
        node: Node,
        public: Vec<u8>,
        _folder: tempfile::TempDir,
    }

    fn name() -> NodeName {
        "n2".parse().expect("a name")
    }

    fn house(until: u64) -> House {
        let folder = tempfile::tempdir().expect("a folder");
        let layout = Layout::new(folder.path());
        let (authority, _) = Authority::make(NOW).expect("made");
        let (key, public) = new_key().expect("a key");
        let (shown, address) = (PublicKey(public.clone()), [127, 0, 0, 1].into());
        let chain = authority.sign_node_until(&name(), address, &shown, NOW, until);
        let chain = chain.expect("signed");
        keep(&layout, "node.key", key.as_bytes()).expect("kept");
        keep(&layout, "node.pem", chain.as_bytes()).expect("kept");
        keep(&layout, "authority.pem", authority.pem().as_bytes()).expect("kept");
        let node = Node {
            zone: "a".into(),
            address,
            port: 7400,
            keys: [fingerprint_of(&chain).expect("read").to_string()].into(),
            roles: [Role::App].into(),
            labels: BTreeMap::new(),
            is_drained: false,
            joined_ms: 0,
        };
        House { layout, authority, node, public, _folder: folder }
    }

    #[test]
    fn a_certificate_that_ends_soon_is_replaced_by_one_for_the_same_key() {
        let house = house(NOW + 60);
        let before = membership::identity(&house.layout).expect("read");
        assert!(before.validity().is_due(NOW));
        let chain = sign_again(&house.authority, (&name(), &house.node), house.public.clone(), NOW);
        keep_renewed(&house.layout, &chain.expect("signed"), &name(), NOW).expect("kept");
        let after = membership::identity(&house.layout).expect("read");
        assert_eq!(after.fingerprint(), before.fingerprint());
        assert!(!after.validity().is_due(NOW) && after.validity().until > NOW + 86_400 * 60);
    }

    #[test]
    fn a_node_gets_no_certificate_for_a_key_that_is_not_its_own() {
        let house = house(NOW + 60);
        let (_, other) = new_key().expect("a key");
        for key in [other, vec![1, 2, 3], vec![]] {
            let signed = sign_again(&house.authority, (&name(), &house.node), key, NOW);
            signed.expect_err("not its key");
        }
    }

    #[test]
    fn what_is_no_renewal_is_not_kept() {
        let house = house(NOW + 60);
        let kept = || std::fs::read(membership::identity_paths(&house.layout).chain).expect("read");
        let before = kept();
        let signed = |authority: &Authority, node: &str, at: u64| {
            let node = node.parse().expect("a name");
            let key = PublicKey(house.public.clone());
            authority.sign_node(&node, house.node.address, &key, at).expect("signed")
        };
        let (other_key, _) = new_key().map(|(_, public)| (PublicKey(public), ())).expect("a key");
        let stolen = house.authority.sign_node(&name(), house.node.address, &other_key, NOW);
        let bad = [
            // Another name, a clock far off, another key, nothing.
            signed(&house.authority, "n3", NOW),
            signed(&house.authority, "n2", NOW + 86_400 * 365),
            signed(&house.authority, "n2", NOW - 86_400 * 80),
            stolen.expect("signed"),
            String::new(),
        ];
        for chain in bad {
            keep_renewed(&house.layout, &chain, &name(), NOW).expect_err("no renewal");
            assert_eq!(kept(), before);
        }
    }
}
