//! Leading: one node at a time decides for all, by a lease in the store. Whoever lost it stops at once, and what it writes late
//! is refused by the store, because each of its transactions carries the fence of its office.

use std::sync::Arc;
use std::time::Duration;

use pressroom_model::cluster::Role;
use pressroom_runtime::shutdown::Shutdown;
use pressroom_store::StoreError;
use pressroom_store::election::campaign;
use pressroom_store::key::Prefix;
use pressroom_store::transaction::{Outcome, Transaction};

use super::{Cluster, keys};
use crate::agent::Agent;

/// A leader that could not renew its lease for so long is none any more.
pub const TTL: Duration = Duration::from_secs(4);
const PAUSE: Duration = Duration::from_millis(500);

impl Agent {
    /// Whether this agent decides for all: always where there is one machine.
    pub fn leads(&self) -> bool {
        self.cluster.as_ref().is_none_or(|cluster| cluster.fence().is_some())
    }

    /// Waits until this node has lost the office to whoever comes next, who may begin the same work; not at all where it does not lead
    /// now, and forever where there is one machine.
    pub async fn deposed(&self) {
        let Some(cluster) = &self.cluster else { return std::future::pending().await };
        // First, so that what is lost from here on is not missed.
        let mut lost = cluster.lost.subscribe();
        if !self.leads() {
            return;
        }
        if lost.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Stands for the office for as long as the agent runs.
    pub(crate) async fn stand(self: Arc<Self>, cluster: Arc<Cluster>, shutdown: Shutdown) {
        while !shutdown.is_requested() {
            if self.may_lead(&cluster) {
                let ended = self.lead_once(&cluster, &shutdown).await;
                cluster.take_office(None);
                if let Err(error) = ended {
                    tracing::debug!(%error, "no office");
                }
            }
            tokio::select! { () = shutdown.requested() => {}, () = tokio::time::sleep(PAUSE) => {} }
        }
    }

    fn may_lead(&self, cluster: &Cluster) -> bool {
        if cluster.removal().is_some() {
            return false;
        }
        let (own, known) = (cluster.node(), &self.state.lock().known);
        let node = known.nodes.get(&own).filter(|node| node.roles.contains(&Role::Manager));
        node.is_some() && !known.rests(&own, Role::Manager)
    }

    async fn until_it_may_not(&self, cluster: &Cluster) {
        while self.may_lead(cluster) {
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn lead_once(
        self: &Arc<Self>,
        cluster: &Cluster,
        shutdown: &Shutdown,
    ) -> Result<(), StoreError> {
        let node = cluster.node();
        let mut office = tokio::select! {
            office = campaign(Arc::clone(&self.store), keys::leader(), node.as_str(), TTL) => office?,
            () = self.until_it_may_not(cluster) => return Ok(()),
        };
        // What the one before us has stored counts: it is read after the office is ours, when nobody else can write any more.
        loop {
            let listing = self.store.list(&Prefix::all()).await?;
            cluster.check_ours(&listing.entries)?;
            let _order = cluster.taking.lock();
            let mut heard = cluster.heard.lock();
            if heard.is_behind(listing.revision) {
                heard.begin(listing.revision);
                drop(heard);
                self.take_all(cluster, &listing.entries);
                cluster.take_office(Some(office.fence()));
                break;
            }
            // Others told us more while it was on its way.
        }
        tracing::info!(%node, "leads now");
        self.notice(format!("node `{node}` leads now"));
        self.took_office();
        let lost = tokio::select! {
            lost = office.hold() => Some(lost),
            () = self.until_it_may_not(cluster) => None,
            () = shutdown.requested() => None,
        };
        match lost {
            None => {
                cluster.take_office(None);
                office.resign().await
            }
            Some(error) => {
                cluster.lose_office();
                tracing::warn!(%node, %error, "leads no more");
                self.notice(format!(
                    "node `{node}` leads no more: {error}; what runs goes on, and another one takes its place"
                ));
                Err(error)
            }
        }
    }

    /// Commits what counts for all: in a cluster only as its leader.
    pub(crate) async fn commit(&self, transaction: Transaction) -> Result<(), StoreError> {
        let Some(cluster) = &self.cluster else {
            return self.store.commit(transaction).await.map(drop);
        };
        let deposed = || StoreError::Failed {
            doing: "writing for all nodes",
            cause: "this node does not lead the cluster now; nothing was changed".into(),
        };
        let fence = cluster.fence().ok_or_else(deposed)?;
        match self.store.commit(transaction.when(fence)).await? {
            Outcome::Committed(_) => Ok(()),
            Outcome::Refused { .. } => Err(deposed()),
        }
    }
}
