//! The key that secrets in the store are sealed with is replaced when a node is removed: it knows the former one. What is done when
//! is decided by [`pressroom_plan::sealing`]; the key itself goes from node to node over mutual TLS, and is never stored.
//!
//! Former keys stay on the nodes' disks: copies of the state from before are opened with them, and who was removed has them anyway.
//!
//! A node that was away gets the key from others when it is back. It is handed to those alone who are nodes by the store's own word at
//! that moment, so that one that was just removed gets it from nobody, not even from a node that has not heard of that.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use pressroom_model::cluster::Sealing;
use pressroom_model::id::NodeName;
use pressroom_plan::sealing::{Seen, Step, step};
use pressroom_runtime::shutdown::Shutdown;
use pressroom_store::StoreError;
use pressroom_store::transaction::{Compare, Transaction};
use pressroom_wire::http::{AnyBody, any_body};

use super::door::{short, whole};
use super::membership::keep;
use super::sealing::{self, SealingKey};
use super::secrets::{self, sealing_key};
use super::{Cluster, keys};
use crate::agent::Agent;
use crate::probe::futures;

/// Between two looks; tests wait for many of them.
const LOOK: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 1000 });
/// Longest wait for another node.
const PATIENCE: Duration = Duration::from_secs(3);
/// So often the others are asked for a key, before the leader makes another one.
const ASKED_IN_VAIN: u32 = if cfg!(test) { 4 } else { 20 };
/// Longest text of keys.
const LONGEST: usize = 1 << 20;

impl Agent {
    /// Keeps the sealing key what the store says, for as long as the agent runs; the leader replaces it where that is wanted.
    pub(crate) async fn keep_sealing(self: Arc<Self>, cluster: Arc<Cluster>, shutdown: Shutdown) {
        let (mut asked, mut told) = (0, String::new());
        while !shutdown.is_requested() {
            let is_heard = self.state.lock().known.is_heard;
            let next = if is_heard { self.next_for_sealing(asked) } else { None };
            asked = if next == Some(Step::Ask) { asked + 1 } else { 0 };
            let done = match next {
                Some(next) => self.take_step_of_sealing(&cluster, next).await,
                None => Ok(()),
            };
            let error = done.err().map(|error| error.to_string()).unwrap_or_default();
            let pause = if error.is_empty() { LOOK } else { LOOK * 3 };
            if !error.is_empty() && error != told {
                tracing::warn!(
                    ?next,
                    error,
                    "the key of the cluster's secrets stays as it is for now"
                );
            }
            told = error;
            tokio::select! { () = shutdown.requested() => {}, () = tokio::time::sleep(pause) => {} }
        }
    }

    fn next_for_sealing(&self, asked: u32) -> Option<Step> {
        let stored = self.state.lock().known.sealing.clone();
        let own = sealing_key(&self.layout);
        let has = |name: &str| own.as_ref().is_some_and(|own| own.has(name));
        step(&Seen {
            leads: self.leads(),
            stored: stored.as_ref(),
            current: own.as_ref().map(SealingKey::current),
            has_stored: stored.as_ref().is_some_and(|stored| has(&stored.key)),
            in_vain: asked >= ASKED_IN_VAIN,
        })
    }

    async fn take_step_of_sealing(&self, cluster: &Cluster, step: Step) -> Result<(), StoreError> {
        // Nobody seals meanwhile: it would be with a key that counts no more.
        let _alone = cluster.sealing.lock().await;
        let (stored, guard) = self.stored_sealing().await?;
        let own = sealing_key(&self.layout);
        match (step, own, stored) {
            (Step::Name, Some(own), None) => self.name_key(own.current(), guard).await,
            (Step::Make, own, stored) => {
                // It was done already, and is only not heard yet.
                let is_wanted = stored.as_ref().is_none_or(|stored| {
                    stored.wants_another || own.as_ref().is_none_or(|own| !own.has(&stored.key))
                });
                if is_wanted { self.replace_key(cluster, own, guard).await } else { Ok(()) }
            }
            (Step::Ask, own, Some(stored)) => self.ask_for_key(cluster, own, &stored.key).await,
            (Step::Use, Some(own), Some(stored)) => {
                own.using(&stored.key).map_or(Ok(()), |own| self.keep_key(&own))?;
                // It may have been brought here after something that it sealed was heard.
                self.take_secrets(cluster).await
            }
            (Step::SealAnew, Some(own), Some(stored)) if own.current() == stored.key => {
                self.seal_anew(&own).await?;
                let done = Sealing { is_done: true, ..stored };
                self.commit(guard.put(keys::sealing(), text(&done))).await
            }
            // What was decided on is not so any more.
            _ => Ok(()),
        }
    }

    /// What the store says, and a transaction that changes it only where nobody else has.
    async fn stored_sealing(&self) -> Result<(Option<Sealing>, Transaction), StoreError> {
        let entry = self.store.get(&keys::sealing()).await?;
        let stored = entry.as_ref().and_then(|entry| serde_json::from_slice(&entry.value).ok());
        let compare = match entry {
            Some(entry) => Compare::Modified(keys::sealing(), entry.modified),
            None => Compare::Absent(keys::sealing()),
        };
        Ok((stored, Transaction::new().when(compare)))
    }

    /// The same transaction, which has the key replaced as well.
    pub(super) async fn with_another_sealing_key_wanted(
        &self,
        transaction: Transaction,
    ) -> Result<Transaction, StoreError> {
        let (stored, guard) = self.stored_sealing().await?;
        let own = sealing_key(&self.layout);
        let named = own.map(|own| Sealing {
            key: own.current().into(),
            wants_another: true,
            is_done: false,
        });
        let wanted = stored.map(|stored| Sealing { wants_another: true, ..stored }).or(named);
        let Some(wanted) = wanted else { return Ok(transaction) };
        let compare = guard.compares.into_iter().fold(transaction, Transaction::when);
        Ok(compare.put(keys::sealing(), text(&wanted)))
    }

    async fn name_key(&self, key: &str, guard: Transaction) -> Result<(), StoreError> {
        let named = Sealing { key: key.to_owned(), wants_another: false, is_done: false };
        self.commit(guard.put(keys::sealing(), text(&named))).await
    }

    fn keep_key(&self, key: &SealingKey) -> Result<(), StoreError> {
        keep(&self.layout, sealing::FILE, key.text().as_bytes()).map_err(|error| {
            StoreError::Failed {
                doing: "keeping the key of the cluster's secrets",
                cause: error.to_string(),
            }
        })
    }

    /// Makes a key: on our disk first, then on those of the others, then in the store by its name.
    async fn replace_key(
        &self,
        cluster: &Cluster,
        own: Option<SealingKey>,
        guard: Transaction,
    ) -> Result<(), StoreError> {
        let (own, name) = match own {
            Some(own) => own.and_another(),
            None => {
                let made = SealingKey::make();
                let name = made.current().to_owned();
                (made, name)
            }
        };
        self.keep_key(&own)?;
        self.hand_out(cluster, &own).await?;
        self.name_key(&name, guard).await?;
        tracing::info!(name, "secrets in the store are sealed with another key from now on");
        self.notice("the key of the cluster's secrets was replaced");
        own.using(&name).map_or(Ok(()), |own| self.keep_key(&own))
    }

    /// The other nodes, by the store's own word.
    async fn others(&self, cluster: &Cluster) -> Result<Vec<NodeName>, StoreError> {
        let nodes = keys::nodes();
        let listing = self.store.list(&nodes).await?;
        let own = cluster.node();
        let names = listing.entries.iter().filter_map(|entry| {
            entry.key.as_str().rsplit('/').next().and_then(|name| name.parse().ok())
        });
        Ok(names.filter(|name| *name != own).collect())
    }

    async fn hand_out(&self, cluster: &Cluster, key: &SealingKey) -> Result<(), StoreError> {
        let others = self.others(cluster).await?;
        let told = others.iter().map(|name| async move {
            if let Err(error) = ask(cluster, name, Method::POST, key.text()).await {
                tracing::info!(%name, error, "it gets the key of the cluster's secrets when it is back");
            }
        });
        futures(told).await;
        Ok(())
    }

    /// Asks the others for a key, who leads before all.
    async fn ask_for_key(
        &self,
        cluster: &Cluster,
        own: Option<SealingKey>,
        wanted: &str,
    ) -> Result<(), StoreError> {
        let leader = self.leader();
        let mut others = self.others(cluster).await?;
        others.sort_by_key(|name| Some(name) != leader.as_ref());
        for name in others {
            let said = ask(cluster, &name, Method::GET, String::new()).await;
            let theirs = said.ok().and_then(|text| SealingKey::parse(&text));
            if let Some(theirs) = theirs.filter(|theirs| theirs.has(wanted)) {
                let all = own.map_or_else(|| theirs.clone(), |own| own.and(&theirs));
                self.keep_key(&all)?;
                tracing::info!(from = %name, "the key of the cluster's secrets is here");
                return self.take_secrets(cluster).await;
            }
        }
        Err(StoreError::Failed {
            doing: "asking for the key of the cluster's secrets",
            cause: format!("no node that answers has `{wanted}`"),
        })
    }

    /// Takes over what could not be opened before.
    async fn take_secrets(&self, cluster: &Cluster) -> Result<(), StoreError> {
        let listing = self.store.list(&keys::secrets()).await?;
        for entry in &listing.entries {
            if let Some(name) = entry.key.as_str().strip_prefix("secrets/") {
                self.take_secret(cluster, name, Some(&entry.value));
            }
        }
        Ok(())
    }

    /// Seals every secret with the key that seals now, if another one did. One that nobody can open is stored as it is here.
    async fn seal_anew(&self, key: &SealingKey) -> Result<(), StoreError> {
        let listing = self.store.list(&keys::secrets()).await?;
        let mut closed = Vec::new();
        for entry in listing.entries.iter().filter(|entry| !key.is_current(&entry.value)) {
            let Some(name) = entry.key.as_str().strip_prefix("secrets/") else { continue };
            let opened = key.open(name, &entry.value).ok();
            let Some(secret) = opened.or_else(|| secrets::own(&self.layout, name)) else {
                closed.push(name.to_owned());
                continue;
            };
            let unchanged = Compare::Modified(entry.key.clone(), entry.modified);
            let sealed = key.seal(name, &secret);
            self.commit(Transaction::new().when(unchanged).put(entry.key.clone(), sealed)).await?;
        }
        match closed.is_empty() {
            true => Ok(()),
            false => Err(StoreError::Failed {
                doing: "sealing the cluster's secrets anew",
                cause: format!("no key opens {}, and they are not here", closed.join(", ")),
            }),
        }
    }

    /// Hands the keys to a node, or takes over those that it brings.
    pub(super) async fn answer_sealing(
        &self,
        node: &NodeName,
        request: Request<Incoming>,
    ) -> Response<AnyBody> {
        let Some(cluster) = &self.cluster else {
            return short(StatusCode::NOT_FOUND, "this machine is in no cluster");
        };
        let is_asking = request.method() == Method::GET;
        let brought = match whole(request).await {
            Ok(text) => SealingKey::parse(&String::from_utf8_lossy(&text)),
            Err(error) => return short(StatusCode::BAD_REQUEST, error),
        };
        // Members are what we heard last; whether it is one now the store knows.
        match self.others(cluster).await {
            Ok(others) if others.contains(node) => {}
            Ok(_) => return short(StatusCode::FORBIDDEN, format!("`{node}` is no node any more")),
            Err(error) => return short(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        }
        // Whoever asks need not wait: this node may be asking, too.
        let _alone = match is_asking {
            true => None,
            false => Some(cluster.sealing.lock().await),
        };
        let own = sealing_key(&self.layout);
        match (is_asking, own, brought) {
            (true, Some(own), _) => short(StatusCode::OK, own.text()),
            (true, None, _) => short(StatusCode::NOT_FOUND, "it is not here either"),
            (false, own, Some(brought)) => {
                let all = own.map_or_else(|| brought.clone(), |own| own.and(&brought));
                match self.keep_key(&all) {
                    Ok(()) => short(StatusCode::NO_CONTENT, Bytes::new()),
                    Err(error) => short(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
                }
            }
            (false, _, None) => short(StatusCode::BAD_REQUEST, "that is no key"),
        }
    }
}

fn text(sealing: &Sealing) -> Vec<u8> {
    serde_json::to_vec(sealing).expect("plain data")
}

async fn ask(
    cluster: &Cluster,
    node: &NodeName,
    method: Method,
    text: String,
) -> Result<String, String> {
    let body = any_body(Full::new(Bytes::from(text)));
    let request = Request::builder().method(method).uri("/sealing").body(body);
    let asked = async {
        let answer = cluster.client.call(node, request.expect("a good path")).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let is_good = answer.status().is_success();
        let body = Limited::new(answer.into_body(), LONGEST).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        let said = String::from_utf8_lossy(&body).into_owned();
        if is_good { Ok(said) } else { Err(said) }
    };
    let late = |_| Err(format!("no answer within {PATIENCE:?}"));
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(late)
}
