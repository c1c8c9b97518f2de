//! Keeping the store's voters: the leader looks who votes, and takes the next step that `plan::voters` finds safe.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pressroom_model::cluster::Role;
use pressroom_model::id::NodeName;
use pressroom_plan::voters::{Candidate, Member, Step, choose, may_leave, step};
use pressroom_runtime::clock;
use pressroom_runtime::shutdown::Shutdown;
use pressroom_store::StoreError;
use pressroom_store::etcd::EtcdStore;
use pressroom_store::transaction::Transaction;
use pressroom_wire::members::Service;

use super::membership::{Membership, Stage};
use super::nodes::NodeError;
use super::{Known, keys, member};
use crate::agent::Agent;
use crate::probe::futures;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(2);
/// A voter that has not answered for so long is replaced, if it can be.
const LOST: Duration = Duration::from_secs(45);

/// A node that could not follow is tried again after so long: others may be able to.
const SPARED: Duration = Duration::from_secs(600);

/// How long a member of the store may refuse that another one leaves.
const PATIENCE: Duration = Duration::from_secs(15);

/// What a leader remembers from one look to the next.
#[derive(Debug, Default)]
struct Memory {
    /// Since when members have not answered.
    silent: BTreeMap<u64, Instant>,
    /// Since when nodes are heard.
    heard: BTreeMap<NodeName, Instant>,
    /// When nodes were given up that did not follow.
    failed: BTreeMap<NodeName, Instant>,
}

impl Agent {
    /// Keeps the voters for as long as the agent runs; as the leader alone.
    pub(crate) async fn keep_voters(self: Arc<Self>, shutdown: Shutdown) {
        let mut memory = Memory::default();
        while !shutdown.is_requested() {
            if self.leads() {
                let looked = match self.kept_etcd() {
                    Some(etcd) => self.look_at_voters(&etcd, &mut memory).await,
                    None => self.look_whether_alone().await,
                };
                if let Err(error) = looked {
                    tracing::warn!(%error, "the store's voters stay as they are for now");
                }
            } else {
                memory = Memory::default();
            }
            tokio::select! { () = shutdown.requested() => {}, () = tokio::time::sleep(LOOK) => {} }
        }
    }

    async fn look_at_voters(
        &self,
        etcd: &EtcdStore,
        memory: &mut Memory,
    ) -> Result<(), StoreError> {
        let known = self.state.lock().known.clone();
        let members = seen(etcd, &known, memory).await?;
        self.tell_voters(&known, &members).await?;
        if members.len() == 1 && known.nodes.len() == 1 && self.is_dissolving().await? {
            self.dissolve();
            return Ok(());
        }
        let wanted = choose(&candidates(&known, &members, memory));
        let Some((next, because)) = step(&wanted, &members) else { return Ok(()) };
        tracing::info!(?next, because, "the store's voters change");
        match next {
            Step::Add(name) => {
                let Some(node) = known.nodes.get(&name) else { return Ok(()) };
                let peer = format!("https://{}", member(node).at(Service::EtcdPeer));
                etcd.add_learner(&peer).await?;
            }
            Step::Promote(id) => {
                // etcd refuses while it lags behind; the next look tries again.
                if let Err(error) = etcd.promote(id).await {
                    tracing::debug!(%error, "not promoted yet");
                    return Ok(());
                }
            }
            Step::Remove(id) => {
                etcd.remove(id).await?;
                let gone = members.iter().find(|it| it.id == id && it.is_learner && it.is_lost);
                if let Some(name) = gone.and_then(|it| it.node.clone()) {
                    memory.failed.insert(name, clock::now());
                }
            }
        }
        let members = seen(etcd, &known, memory).await?;
        self.tell_voters(&known, &members).await
    }

    /// The same where nobody votes.
    async fn look_whether_alone(&self) -> Result<(), StoreError> {
        let is_alone = self.state.lock().known.nodes.len() == 1;
        if is_alone && self.is_dissolving().await? {
            self.dissolve();
        }
        Ok(())
    }

    async fn is_dissolving(&self) -> Result<bool, StoreError> {
        Ok(self.store.get(&keys::dissolving()).await?.is_some())
    }

    /// Takes a node's vote, before it is refused by all: what is refused cannot vote, and is missed until it has left.
    pub(super) async fn end_vote(&self, name: &NodeName) -> Result<(), NodeError> {
        let Some(etcd) = &self.kept_etcd() else { return Ok(()) };
        let known = self.state.lock().known.clone();
        let members = seen(etcd, &known, &mut Memory::default()).await?;
        let of_node = members.iter().find(|member| member.node.as_ref() == Some(name));
        let Some(member) = of_node else { return Ok(()) };
        may_leave(member, &members)
            .map_err(|because| NodeError::Votes { node: name.clone(), because })?;
        // It is asked nothing more: a member that leaves does not say whether it still did what it was asked.
        self.ask_no_more(etcd, &known, name);
        // etcd refuses for some seconds after one of its members has come back.
        let late = clock::now() + PATIENCE;
        while let Err(error) = etcd.remove(member.id).await {
            if clock::now() >= late {
                return Err(error.into());
            }
            tracing::debug!(%name, %error, "it cannot leave yet");
            tokio::time::sleep(LOOK / 4).await;
        }
        Ok(())
    }

    fn ask_no_more(&self, etcd: &EtcdStore, known: &Known, name: &NodeName) {
        let (Some(cluster), Some(node)) = (&self.cluster, known.nodes.get(name)) else { return };
        let leaving = format!("https://{}", member(node).at(Service::Etcd));
        cluster.endpoints.send_modify(|all| all.retain(|endpoint| *endpoint != leaving));
        etcd.set_endpoints(&cluster.endpoints.borrow());
    }

    /// All other nodes are gone: the agent ends, and the next one takes the state back (see the binary's `node.rs`).
    fn dissolve(&self) {
        let Some(cluster) = &self.cluster else { return };
        let own = Membership { stage: Stage::Dissolving, ..cluster.membership() };
        match own.write(&self.layout) {
            Ok(()) => self.end.notify_one(),
            Err(error) => self.notice(format!(
                "the cluster cannot become one machine yet: {error}; it goes on as a cluster of one"
            )),
        }
    }

    /// Stores who votes, where that is news: those nodes start their etcd by it.
    async fn tell_voters(&self, known: &Known, members: &[Member]) -> Result<(), StoreError> {
        let voters: BTreeMap<NodeName, u64> =
            members.iter().filter_map(|it| Some((it.node.clone()?, it.id))).collect();
        let followers = members.iter().filter(|it| it.is_learner);
        let followers: BTreeSet<NodeName> = followers.filter_map(|it| it.node.clone()).collect();
        if (&voters, &followers) == (&known.voters, &known.followers) || voters.is_empty() {
            return Ok(());
        }
        let text = |it: serde_json::Result<Vec<u8>>| it.expect("plain data");
        let told = Transaction::new()
            .put(keys::voters(), text(serde_json::to_vec(&voters)))
            .put(keys::followers(), text(serde_json::to_vec(&followers)));
        self.commit(told).await
    }
}

/// The members as they are.
async fn seen(
    etcd: &EtcdStore,
    known: &Known,
    memory: &mut Memory,
) -> Result<Vec<Member>, StoreError> {
    let members = etcd.members().await?;
    let node_of = |peer: &str| {
        let mut nodes = known.nodes.iter();
        let found = nodes
            .find(|(_, node)| peer == format!("https://{}", member(node).at(Service::EtcdPeer)));
        found.map(|(name, node)| (name.clone(), member(node).at(Service::Etcd)))
    };
    let nodes: Vec<_> = members.iter().map(|member| node_of(&member.peer)).collect();
    let asked = nodes.iter().map(|node| async move {
        match node {
            Some((_, client)) => etcd.status(&format!("https://{client}")).await.is_ok(),
            None => false,
        }
    });
    let well = futures(asked).await;
    let now = clock::now();
    memory.silent.retain(|id, _| members.iter().any(|member| member.id == *id));
    memory.heard.retain(|name, _| known.reports.contains_key(name));
    for name in known.reports.keys() {
        memory.heard.entry(name.clone()).or_insert(now);
    }
    let members = members.into_iter().zip(nodes).zip(well).map(|((member, node), is_well)| {
        if is_well {
            memory.silent.remove(&member.id);
        }
        let since = if is_well { now } else { *memory.silent.entry(member.id).or_insert(now) };
        let is_lost = now >= since + LOST;
        let node = node.map(|(name, _)| name);
        // One that has just come up has not started its etcd yet.
        let heard = node.as_ref().and_then(|node| memory.heard.get(node));
        let is_stuck = is_lost && heard.is_some_and(|since| now >= *since + LOST);
        Member { id: member.id, node, is_learner: member.is_learner, is_well, is_lost, is_stuck }
    });
    Ok(members.collect())
}

/// All nodes that have the role.
fn candidates(known: &Known, members: &[Member], memory: &Memory) -> Vec<Candidate> {
    let now = clock::now();
    let has_failed = |name: &NodeName| memory.failed.get(name).is_some_and(|at| now < *at + SPARED);
    let voters = known.nodes.iter().filter(|(_, node)| node.roles.contains(&Role::Voter));
    voters
        .map(|(name, node)| {
            let member = members.iter().find(|it| it.node.as_ref() == Some(name));
            let may_join = known.reports.contains_key(name) && !has_failed(name);
            let zone = node.zone.clone();
            Candidate {
                has_database: known.data.as_ref() == Some(name),
                ..Candidate::new(name.clone(), zone, member, node.is_drained, may_join)
            }
        })
        .collect()
}
