//! Keeping the store's voters: the leader looks who votes, and takes the next step that `plan::voters` finds safe.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pressroom_model::cluster::Role;
use pressroom_model::id::NodeName;
use pressroom_plan::voters::{Candidate, Fitness, Member, Step, choose, may_leave, step};
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

/// How long a member of the store may refuse that another one leaves.
const PATIENCE: Duration = Duration::from_secs(15);

/// Since when members have not answered.
type Silent = BTreeMap<u64, Instant>;

impl Agent {
    /// Keeps the voters for as long as the agent runs; as the leader alone.
    pub(crate) async fn keep_voters(self: Arc<Self>, shutdown: Shutdown) {
        let mut silent = Silent::new();
        while !shutdown.is_requested() {
            if self.leads() {
                let looked = match self.kept_etcd() {
                    Some(etcd) => self.look_at_voters(&etcd, &mut silent).await,
                    None => self.look_whether_alone().await,
                };
                if let Err(error) = looked {
                    tracing::warn!(%error, "the store's voters stay as they are for now");
                }
            } else {
                silent.clear();
            }
            tokio::select! { () = shutdown.requested() => {}, () = tokio::time::sleep(LOOK) => {} }
        }
    }

    async fn look_at_voters(
        &self,
        etcd: &EtcdStore,
        silent: &mut Silent,
    ) -> Result<(), StoreError> {
        let known = self.state.lock().known.clone();
        let members = seen(etcd, &known, silent).await?;
        self.tell_voters(&known, &members).await?;
        if members.len() == 1 && known.nodes.len() == 1 && self.is_dissolving().await? {
            self.dissolve();
            return Ok(());
        }
        let wanted = choose(&candidates(&known, &members));
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
            Step::Remove(id) => etcd.remove(id).await?,
        }
        let members = seen(etcd, &known, silent).await?;
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
        let members = seen(etcd, &known, &mut Silent::new()).await?;
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
        if voters == known.voters || voters.is_empty() {
            return Ok(());
        }
        let text = serde_json::to_vec(&voters).expect("plain data");
        self.commit(Transaction::new().put(keys::voters(), text)).await
    }
}

/// The members as they are.
async fn seen(
    etcd: &EtcdStore,
    known: &Known,
    silent: &mut Silent,
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
    silent.retain(|id, _| members.iter().any(|member| member.id == *id));
    let members = members.into_iter().zip(nodes).zip(well).map(|((member, node), is_well)| {
        if is_well {
            silent.remove(&member.id);
        }
        let since = if is_well { now } else { *silent.entry(member.id).or_insert(now) };
        let node = node.map(|(name, _)| name);
        let is_heard = node.as_ref().is_some_and(|node| known.reports.contains_key(node));
        Member {
            id: member.id,
            node,
            is_learner: member.is_learner,
            is_well,
            is_lost: now >= since + LOST,
            is_heard,
        }
    });
    Ok(members.collect())
}

/// Nodes that could vote: those that do, and those that are heard.
fn candidates(known: &Known, members: &[Member]) -> Vec<Candidate> {
    let of = |name: &NodeName| members.iter().find(|it| it.node.as_ref() == Some(name));
    let may = known.nodes.iter().filter(|(name, node)| {
        let is_there = of(name).is_some() || known.reports.contains_key(*name);
        node.roles.contains(&Role::Voter) && is_there
    });
    may.map(|(name, node)| Candidate {
        node: name.clone(),
        zone: node.zone.clone(),
        votes: of(name).is_some_and(|member| !member.is_learner),
        fitness: Fitness::of(of(name), node.is_drained),
    })
    .collect()
}
