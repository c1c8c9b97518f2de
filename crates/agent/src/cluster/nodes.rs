//! What operators change of a node.

use pressroom_model::cluster::Node;
use pressroom_model::id::NodeName;
use pressroom_store::StoreError;
use pressroom_store::transaction::{Compare, Transaction};

use super::keys;
use crate::agent::Agent;

/// Why a node was not changed.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// There is none of this name.
    #[error("there is no node `{0}`")]
    Unknown(NodeName),
    /// It has what the others need.
    #[error("the database is on `{0}`: it cannot be removed before the others")]
    HasData(NodeName),
    /// The store could not go on without it.
    #[error("`{node}` votes in the cluster's store: {because}")]
    Votes {
        /// Which node.
        node: NodeName,
        /// Who would be left, and what to do.
        because: String,
    },
    /// Its record cannot be read.
    #[error(
        "what is stored of node `{0}` cannot be read; `pressroom node remove {0}` takes it out, and it may join anew"
    )]
    Damaged(NodeName),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Agent {
    /// Changes the record of a node, as the leader.
    pub async fn change_node(
        &self,
        name: &NodeName,
        change: impl FnOnce(&mut Node),
    ) -> Result<(), NodeError> {
        let key = keys::node(name);
        let entry = self.store.get(&key).await?.ok_or_else(|| NodeError::Unknown(name.clone()))?;
        let mut node: Node =
            serde_json::from_slice(&entry.value).map_err(|_| NodeError::Damaged(name.clone()))?;
        change(&mut node);
        let text = serde_json::to_vec(&node).expect("plain data");
        let guard = Compare::Modified(key.clone(), entry.modified);
        Ok(self.commit(Transaction::new().when(guard).put(key, text)).await?)
    }

    /// Takes a node out of the cluster, as the leader: it is refused by all that hear of it, from then on.
    pub async fn remove_node(&self, name: &NodeName) -> Result<(), NodeError> {
        let key = keys::node(name);
        let entry = self.store.get(&key).await?.ok_or_else(|| NodeError::Unknown(name.clone()))?;
        // A record that cannot be read must not keep its node.
        let node = serde_json::from_slice::<Node>(&entry.value).ok();
        let keys_of = node.map(|node| node.keys).unwrap_or_default();
        if self.data_node().as_ref() == Some(name) {
            return Err(NodeError::HasData(name.clone()));
        }
        self.end_vote(name).await?;
        let refused = self.refused_with(&keys_of).await?;
        // It knows the key of the cluster's secrets. Nobody changes what is stored of that meanwhile.
        let _alone = match &self.cluster {
            Some(cluster) => Some(cluster.sealing.lock().await),
            None => None,
        };
        let mut removal = self
            .with_another_sealing_key_wanted(Transaction::new())
            .await?
            .delete(key)
            .delete(keys::report(name))
            .put(keys::refused(), refused.text());
        let left = self.state.lock().known.nodes.keys().filter(|node| *node != name).count();
        if left == 1 {
            removal = removal.put(keys::dissolving(), "");
        }
        self.commit(removal).await?;
        self.shut_out(&keys_of).await;
        self.notice(format!("node `{name}` was removed"));
        Ok(())
    }
}
