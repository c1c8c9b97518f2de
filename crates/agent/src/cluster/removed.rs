//! A node that was removed notices it, says so, and acts as one no more.
//!
//! Two things tell it, and both last: its key is among those of removed nodes, in what it heard of the store while it still heard it; or
//! another node refuses it with that reason. Being refused alone says nothing, because a node that was away may not know us yet.
//!
//! A removed node keeps everything that it has. It runs no PHP, leads nothing, starts no events, and its edge sends visitors and balancers
//! away; `node join` with a fresh token makes it a node again, with a new key. Missing on purpose: going on alone. Its sites are
//! served by the others, and there would be two of each.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pressroom_model::id::NodeName;
use pressroom_runtime::clock;
use pressroom_runtime::shutdown::Shutdown;
use pressroom_wire::tls::Knock;

use super::access::Refused;
use super::membership::{self, Membership};
use super::{Cluster, Known};
use crate::agent::Agent;
use crate::probe::futures;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// The others are asked so often while the store is not heard.
const ASK: Duration = Duration::from_secs(5);

/// What people are told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removal {
    /// When it was noticed, milliseconds since 1970.
    pub noticed_ms: u64,
}

impl Removal {
    /// That of a membership, if it ended.
    pub fn of(membership: &Membership) -> Option<Self> {
        let noticed_ms = membership.removed_ms;
        (noticed_ms > 0).then_some(Self { noticed_ms })
    }

    /// The way back.
    pub const HINT: &str = "to bring it back: `pressroom node token` on a node of the cluster, then `pressroom node join TOKEN` here";
}

impl std::fmt::Display for Removal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "this machine was removed from the cluster (noticed {}): it serves nothing, and keeps what it has",
            clock::rfc3339(self.noticed_ms)
        )
    }
}

/// Whether what the store last said leaves no doubt that a node was removed: its key is refused, and its record, if there is one of its
/// name, has other keys.
fn is_over(known: &Known, own: &NodeName, key: &str, refused: &Refused) -> bool {
    !is_member(known, own, key) && refused.keys.contains_key(key)
}

fn is_member(known: &Known, own: &NodeName, key: &str) -> bool {
    known.nodes.get(own).is_some_and(|node| node.keys.contains(key))
}

impl Cluster {
    /// Whether this node was removed, and has noticed it.
    pub fn removal(&self) -> Option<Removal> {
        Removal::of(&self.membership.read())
    }
}

impl Agent {
    /// Whether this machine was a node, and was removed.
    pub fn removal(&self) -> Option<Removal> {
        self.cluster.as_ref()?.removal()
    }

    /// Notices whether this node was removed, for as long as the agent runs.
    pub(crate) async fn watch_removal(self: Arc<Self>, cluster: Arc<Cluster>, shutdown: Shutdown) {
        let mut asked: Option<Instant> = None;
        while !shutdown.is_requested() {
            match cluster.removal() {
                None if self.is_told(&cluster) => self.end_membership(&cluster, "the store"),
                None if self.state.lock().known.is_heard => asked = None,
                None if asked.is_none_or(|asked| clock::now() >= asked + ASK) => {
                    asked = Some(clock::now());
                    if let Some(by) = who_refuses(&cluster).await {
                        self.end_membership(&cluster, by.as_str());
                    }
                }
                None => {}
                Some(_) if self.joined_again() => {
                    self.notice("this machine joined the cluster again");
                    self.end.notify_one();
                    return;
                }
                Some(_) => self.look_whether_it_is_back(&cluster),
            }
            tokio::select! { () = shutdown.requested() => {}, () = tokio::time::sleep(LOOK) => {} }
        }
    }

    fn is_told(&self, cluster: &Cluster) -> bool {
        let key = cluster.wire.identity().fingerprint();
        let refused = Refused::known(&self.layout).unwrap_or_default();
        let own = cluster.node();
        is_over(&self.state.lock().known, &own, key.as_str(), &refused)
    }

    fn end_membership(&self, cluster: &Cluster, by: &str) {
        let membership = {
            let mut membership = cluster.membership.write();
            membership.removed_ms = clock::wall_ms().max(1);
            // Its etcd has no vote, and would ask for one for ever.
            if membership.voters.len() > 1 {
                let own = membership.node.clone();
                membership.voters.remove(&own);
                membership.member = None;
            }
            // What opens an etcd that others keep is for nodes alone.
            if membership.external.take().is_some() {
                cluster.endpoints.send_replace(Vec::new());
            }
            membership.clone()
        };
        cluster.lose_office();
        self.keep_membership(&membership);
        if let Some(removal) = Removal::of(&membership) {
            // `status` says it for as long as it is so.
            tracing::error!(by, "{removal}; {}", Removal::HINT);
        }
        self.changed.notify_one();
    }

    /// The state was restored to a time when this was a node: then it is one.
    fn look_whether_it_is_back(&self, cluster: &Cluster) {
        let (own, key) = (cluster.node(), cluster.wire.identity().fingerprint());
        {
            let state = self.state.lock();
            if !state.known.is_heard || !is_member(&state.known, &own, key.as_str()) {
                return;
            }
        }
        let membership = {
            let mut membership = cluster.membership.write();
            membership.removed_ms = 0;
            membership.clone()
        };
        self.keep_membership(&membership);
        self.notice("the cluster knows this node again");
        self.changed.notify_one();
    }

    fn keep_membership(&self, membership: &Membership) {
        if let Err(error) = membership.write(&self.layout) {
            tracing::warn!(%error, "the membership cannot be kept");
        }
    }

    /// Whether the membership on the disk is a new one, which the next agent begins with.
    fn joined_again(&self) -> bool {
        let on_disk = Membership::read(&self.layout).ok().flatten();
        on_disk.is_some_and(|it| it.removed_ms == 0) && membership::identity(&self.layout).is_ok()
    }
}

/// Asks all others; one that refuses us because we were removed.
async fn who_refuses(cluster: &Cluster) -> Option<NodeName> {
    let own = cluster.node();
    let members = cluster.wire.members.now();
    let asked = members.keys().filter(|name| **name != own).map(|name| async move {
        let knock = cluster.wire.knock(name).await;
        knock.is_ok_and(|knock| knock == Knock::Removed).then(|| name.clone())
    });
    futures(asked).await.into_iter().flatten().next()
}

#[cfg(test)]
mod tests {
    use pressroom_model::cluster::Node;

    use super::*;

    #[test]
    fn only_a_refused_key_without_a_record_says_that_a_node_was_removed() {
        let own: NodeName = "n2".parse().expect("a name");
        let node = |key: &str| Node {
            zone: "a".into(),
            address: [127, 0, 0, 1].into(),
            port: 7400,
            keys: [key.to_owned()].into(),
            roles: pressroom_model::cluster::Role::ALL.into(),
            labels: Default::default(),
            is_drained: false,
            joined_ms: 0,
        };
        let check = |record: Option<&str>, refused: &[&str], expected: bool| {
            let nodes = record.map(|key| (own.clone(), node(key))).into_iter().collect();
            let known = Known { nodes, ..Known::default() };
            let keys = refused.iter().map(|key| ((*key).to_owned(), u64::MAX)).collect();
            let refused = Refused { keys, ..Refused::default() };
            assert_eq!(is_over(&known, &own, "k2", &refused), expected, "{record:?} {refused:?}");
        };
        check(Some("k2"), &[], false);
        check(None, &["k2"], true);
        // Somebody else has its name now.
        check(Some("k3"), &["k1", "k2"], true);
        // A record that cannot be read; and a state that was restored while the list stayed.
        check(None, &["k1"], false);
        check(Some("k2"), &["k2"], false);
    }
}
