//! A leader that does not have a site's history, and takes over the copy of a node that has one before it makes anything: a new history
//! would cut off everybody's clone. `plan::history` decides from where, and when there is none.
//!
//! What a history begins with is in the store ([`SiteFacts::history`](crate::facts::SiteFacts)), so it is known for certain whether there is one, and
//! which: what a removed site has left on a node that was away then begins otherwise, and must not become that of a later site of its name.
//!
//! Always: a copy is given as it is, by any node, and without waiting for its lock: its holder may be waiting for us.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use pressroom_model::id::{NodeName, SiteName};
use pressroom_plan::history::{Copy, Search, search};
use pressroom_runtime::clock;
use pressroom_store::StoreError;
use pressroom_wire::http::{AnyBody, any_body};

use super::mirror::{MirrorError, Names, had};
use super::repository::{GitError, Oid, Repository};
use crate::agent::Agent;
use crate::apply::off_the_loop;
use crate::cluster::Cluster;
use crate::cluster::door::short;
use crate::probe::futures;

/// A node that has not said within this time what it has does not answer.
const ASK: Duration = Duration::from_secs(5);
/// Longest answer to that.
const ANSWER: usize = 64;

impl Agent {
    /// Has the history that begins with `root`, from another node if it is not here; or nothing at all, if there is none.
    pub(super) async fn regain(&self, site: &SiteName, root: &Oid) -> Result<(), GitError> {
        let Some(cluster) = &self.cluster else { return Ok(()) };
        let repository = Repository::at(self.layout.history(site));
        let (hook, own, first) = (self.hook(site)?, repository.clone(), root.clone());
        if off_the_loop(move || is_here(&own, &hook, &first)).await? {
            self.histories.sought.lock().remove(site);
            return Ok(());
        }
        let now = clock::now();
        let since = *self.histories.sought.lock().entry(site.clone()).or_insert(now);
        let path = format!("/histories/{site}/{root}");
        let mut copies = self.copies(cluster, &path).await;
        loop {
            let node = match search(&copies, clock::now().duration_since(since)) {
                Search::Take(node) => node,
                Search::Wait(nodes) => return Err(GitError::Elsewhere { nodes: listed(&nodes) }),
                Search::Anew(silent) => {
                    self.begins_anew(site, &silent);
                    break;
                }
            };
            match self.take_over(&repository, &node, path.clone()).await {
                Ok(()) => {
                    tracing::info!(%site, %node, "the git history was taken over from there");
                    break;
                }
                Err(MirrorError::Away(error)) => {
                    tracing::debug!(%site, %node, %error, "it has the git history, and does not give it");
                    copies.insert(node, Copy::Silent);
                }
                Err(MirrorError::Git(error)) => {
                    return Err(GitError::Unfit { node, cause: Box::new(error) });
                }
            }
        }
        self.histories.sought.lock().remove(site);
        Ok(())
    }

    fn begins_anew(&self, site: &SiteName, silent: &[NodeName]) {
        let because = match silent {
            [] => "no node has the one that there was".to_owned(),
            _ => format!("{} did not answer, and no other node has it", listed(silent)),
        };
        let text = format!(
            "the git history of `{site}` begins anew: {because}; whoever has a clone makes another one"
        );
        tracing::warn!("{text}");
        self.notice(text);
    }

    /// What all other nodes say of theirs.
    async fn copies(&self, cluster: &Cluster, path: &str) -> BTreeMap<NodeName, Copy> {
        let own = cluster.node();
        let nodes: Vec<NodeName> = self.state.lock().known.nodes.keys().cloned().collect();
        let asked = nodes.into_iter().filter(|node| *node != own).map(|node| async move {
            let copy = tokio::time::timeout(ASK, copy_of(cluster, &node, path)).await;
            (node, copy.ok().flatten().unwrap_or(Copy::Silent))
        });
        futures(asked).await.into_iter().collect()
    }

    /// Says how many commits this node has of a history.
    pub(crate) async fn answer_copy(&self, site: &SiteName, root: &str) -> Response<AnyBody> {
        match self.own_copy(site, root).await {
            Ok(Some((_, commits))) => short(StatusCode::OK, commits.to_string()),
            Ok(None) => none(),
            Err(error) => short(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }

    /// Gives away what this node has of a history.
    pub(crate) async fn give_copy(
        &self,
        site: &SiteName,
        root: &str,
        request: Request<Incoming>,
    ) -> Response<AnyBody> {
        let had = match had(request).await {
            Ok(had) => had,
            Err(error) => return short(StatusCode::BAD_REQUEST, error),
        };
        let given = match self.own_copy(site, root).await {
            Ok(Some((repository, _))) => self.packed(&repository, had).await,
            Ok(None) => return none(),
            Err(error) => Err(error),
        };
        given.unwrap_or_else(|error| {
            tracing::warn!(%site, %error, "the copy of a git history was not given away");
            short(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
        })
    }

    async fn own_copy(
        &self,
        site: &SiteName,
        root: &str,
    ) -> Result<Option<(Repository, u64)>, GitError> {
        let Some(root) = Oid::parse(root) else { return Ok(None) };
        let repository = Repository::at(self.layout.history(site));
        let copy = off_the_loop(move || {
            let commits = repository.since(&root)?;
            Ok::<_, GitError>(commits.map(|commits| (repository, commits)))
        });
        copy.await
    }

    /// Remembers for all nodes what a site's history begins with.
    pub(super) async fn remember_root(&self, site: &SiteName, root: Oid) -> Result<(), StoreError> {
        let root = Some(root.as_str().to_owned());
        let before = match self.state.lock().sites.get_mut(site) {
            Some(facts) => std::mem::replace(&mut facts.history, root),
            None => return Ok(()),
        };
        let stored = self.remember(site).await;
        if stored.is_err()
            && let Some(facts) = self.state.lock().sites.get_mut(site)
        {
            facts.history = before;
        }
        stored
    }
}

/// Whether the history is here. What is here under its names and is of another one goes.
fn is_here(repository: &Repository, hook: &str, root: &Oid) -> Result<bool, GitError> {
    repository.make(hook)?;
    if repository.since(root)?.is_some() {
        return Ok(true);
    }
    let names = repository.names()?;
    if !names.is_empty() {
        repository.rename(&names, &Names::new())?;
    }
    Ok(false)
}

/// What a node has; `None`: it does not say.
async fn copy_of(cluster: &Cluster, node: &NodeName, path: &str) -> Option<Copy> {
    let request = Request::get(path).body(any_body(Empty::<Bytes>::new())).ok()?;
    let answer = cluster.client.call(node, request).await.ok()?;
    match answer.status() {
        StatusCode::OK => {
            let body = Limited::new(answer.into_body(), ANSWER).collect().await.ok()?.to_bytes();
            Some(Copy::Of(std::str::from_utf8(&body).ok()?.parse().ok()?))
        }
        StatusCode::NOT_FOUND => Some(Copy::None),
        _ => None,
    }
}

fn none() -> Response<AnyBody> {
    short(StatusCode::NOT_FOUND, "this node has no copy of it")
}

fn listed(nodes: &[NodeName]) -> String {
    nodes.iter().map(|node| format!("`{node}`")).collect::<Vec<_>>().join(", ")
}
