//! The same secrets on all nodes. They are files of their own on each; the store has them sealed.
//!
//! Whichever side changed since both agreed last counts; where nobody remembers, the store does. Only the leader writes the store.

use std::sync::Arc;
use std::time::Duration;

use pressroom_runtime::shutdown::Shutdown;
use pressroom_store::StoreError;
use pressroom_store::transaction::Transaction;

use super::{Cluster, keys, sealing};
use crate::agent::Agent;
use crate::engine::fingerprint;
use crate::files;
use crate::layout::Layout;

/// Between two looks whether a secret is new here.
const LOOK: Duration = Duration::from_millis(300);

/// Secrets that are one node's own affair: shown once, or made for this node's certificates.
fn is_own(name: &str) -> bool {
    ["admin-", "given-", "certificate-", "."].iter().any(|front| name.starts_with(front))
}

/// The local authority's certificate goes with its key: browsers trust it on all nodes.
const AUTHORITY: &str = "ca.pem";

fn file(layout: &Layout, name: &str) -> std::path::PathBuf {
    match name {
        AUTHORITY => layout.authority(),
        _ => layout.secrets().join(name),
    }
}

/// The keys that secrets are sealed with.
pub(crate) fn sealing_key(layout: &Layout) -> Option<sealing::SealingKey> {
    let path = layout.cluster().join(sealing::FILE);
    sealing::SealingKey::parse(&std::fs::read_to_string(path).ok()?)
}

/// What this node has of a secret that all have.
pub(super) fn own(layout: &Layout, name: &str) -> Option<Vec<u8>> {
    if is_own(name) || name.contains('/') {
        return None;
    }
    std::fs::read(file(layout, name)).ok()
}

/// All secrets of this node that others must have as well.
fn shared(layout: &Layout) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(layout.secrets())? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string()
            && !is_own(&name)
            && entry.file_type()?.is_file()
        {
            names.push(name);
        }
    }
    if layout.authority().is_file() {
        names.push(AUTHORITY.into());
    }
    names.sort();
    Ok(names)
}

impl Agent {
    /// Whether the secrets of a name are here, or may be made here.
    pub(crate) fn has_secret(&self, name: &str) -> bool {
        self.leads() || self.layout.secrets().join(name).is_file()
    }

    /// Takes a secret over from the store; `None`: it is gone.
    pub(super) fn take_secret(&self, cluster: &Cluster, name: &str, sealed: Option<&[u8]>) {
        if is_own(name) || name.contains('/') {
            return;
        }
        let path = file(&self.layout, name);
        let Some(sealed) = sealed else {
            if cluster.agreed.lock().remove(name).is_some() && !self.leads() {
                let _ = std::fs::remove_file(&path);
            }
            return;
        };
        let Some(key) = sealing_key(&self.layout) else { return };
        let secret = match key.open(name, sealed) {
            Ok(secret) => secret,
            Err(error) => {
                return tracing::error!(name, %error, "a secret of the cluster cannot be read");
            }
        };
        let own = std::fs::read(&path).ok();
        let is_changed_here = own.as_ref().is_some_and(|own| {
            let agreed = cluster.agreed.lock().get(name).cloned();
            agreed.is_some_and(|agreed| agreed != fingerprint(&[own]))
        });
        if self.leads() && is_changed_here {
            return;
        }
        let mode = if name == AUTHORITY { 0o644 } else { 0o600 };
        match files::write(&path, &secret, mode, None) {
            Ok(_) => drop(cluster.agreed.lock().insert(name.to_owned(), fingerprint(&[&secret]))),
            Err(error) => tracing::error!(name, %error, "a secret of the cluster cannot be kept"),
        }
    }

    /// Stores what is new here, for as long as the agent runs; as the leader alone.
    pub(crate) async fn share_secrets(self: Arc<Self>, cluster: Arc<Cluster>, shutdown: Shutdown) {
        while !shutdown.is_requested() {
            if self.leads()
                && let Err(error) = self.share_news(&cluster).await
            {
                tracing::debug!(%error, "secrets cannot be shared now");
            }
            tokio::select! { () = shutdown.requested() => {}, () = tokio::time::sleep(LOOK) => {} }
        }
    }

    /// Stores the secrets that changed here since store and disk agreed.
    pub(crate) async fn share_news(&self, cluster: &Cluster) -> Result<(), StoreError> {
        let failed = |cause: String| StoreError::Failed { doing: "reading secrets", cause };
        let _alone = cluster.sealing.lock().await;
        let key = sealing_key(&self.layout)
            .ok_or_else(|| failed("the key of the cluster's secrets is not here".into()))?;
        // One that just took the office may not seal with what counts yet.
        let counts = self.state.lock().known.sealing.as_ref().map(|sealing| sealing.key.clone());
        if counts.is_some_and(|counts| counts != key.current()) {
            return Err(failed("the key of the cluster's secrets is being replaced".into()));
        }
        let names = shared(&self.layout).map_err(|error| failed(error.to_string()))?;
        for name in &names {
            let Ok(secret) = std::fs::read(file(&self.layout, name)) else { continue };
            let digest = fingerprint(&[&secret]);
            if cluster.agreed.lock().get(name) == Some(&digest) {
                continue;
            }
            let Some(place) = keys::secret(name) else { continue };
            self.commit(Transaction::new().put(place, key.seal(name, &secret))).await?;
            cluster.agreed.lock().insert(name.clone(), digest);
        }
        let gone: Vec<String> = {
            let agreed = cluster.agreed.lock();
            agreed.keys().filter(|name| !names.contains(name)).cloned().collect()
        };
        for name in gone {
            if let Some(place) = keys::secret(&name) {
                self.commit(Transaction::new().delete(place)).await?;
            }
            cluster.agreed.lock().remove(&name);
        }
        Ok(())
    }
}

/// The secrets of a machine that founds a cluster, sealed: what the store must have before another node joins.
pub fn sealed(layout: &Layout) -> std::io::Result<Vec<(pressroom_store::key::Key, Vec<u8>)>> {
    let missing = || std::io::Error::other("the key of the cluster's secrets is not here");
    let key = sealing_key(layout).ok_or_else(missing)?;
    let mut all = Vec::new();
    for name in shared(layout)? {
        let secret = std::fs::read(file(layout, &name))?;
        if let Some(place) = keys::secret(&name) {
            all.push((place, key.seal(&name, &secret)));
        }
    }
    Ok(all)
}
