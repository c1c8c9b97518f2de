//! An etcd that operators keep: the state of a cluster below a prefix there.
//!
//! It is asked as the user or with the certificate that operators gave, the same one for all nodes, and which is kept in each node's
//! membership. Its members, users and roles are none of ours, and of its keys only those below the prefix (and the
//! records of names, where they are wanted). A mark says whose state is there: what has another mark, or none, is not taken for ours,
//! so an etcd that was emptied changes no node.

use std::collections::BTreeSet;
use std::time::Duration;

use pressroom_model::external;
use pressroom_model::status::State;
use pressroom_runtime::shutdown;
use pressroom_runtime::tasks::Group;
use pressroom_store::copy::{Entries, lasting, make_equal};
use pressroom_store::entry::Entry;
use pressroom_store::etcd::fitness::is_new_enough;
use pressroom_store::etcd::{EtcdStore, Identity, Options, Tls, User};
use pressroom_store::key::Key;
use pressroom_store::transaction::{Compare, Outcome, Transaction};
use pressroom_store::{Store, StoreError};

use super::founding::{self, FirstRecordsError};
use super::membership::{Membership, MembershipError};
use super::{Cluster, Known, keys};
use crate::agent::Agent;
use crate::files;
use crate::layout::Layout;
use crate::probe::futures;

/// The authorities that the system trusts: where Debian's `ca-certificates` has them.
const SYSTEM: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Longest wait until the connections of a check have ended.
const END: Duration = Duration::from_secs(5);

/// Why an etcd that operators keep cannot have the state.
#[derive(Debug, thiserror::Error)]
pub enum ExternalError {
    /// What was said of it makes no sense.
    #[error("{0}")]
    Fault(String),
    /// Endpoints that do not answer, or not as they should.
    #[error("{0}")]
    Endpoints(String),
    /// It does not let us do what a store has to.
    #[error("it does not do what the state needs below `{prefix}`: {cause}")]
    Denied {
        /// Below which keys.
        prefix: String,
        /// What it said.
        cause: StoreError,
    },
    /// Somebody else has something there.
    #[error(
        "below `{0}` there is something already that is not this cluster's state; name another prefix, or empty it: `etcdctl del --prefix {0}`"
    )]
    Taken(String),
    /// The state is not there.
    #[error(
        "this cluster's state is not below `{0}` there; what leads elsewhere is `pressroom cluster restore COPY` with these endpoints"
    )]
    NotThere(String),
    /// The first records.
    #[error(transparent)]
    Records(#[from] FirstRecordsError),
    /// A file.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What there should be below the prefix. `&str`: the membership's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contents<'a> {
    /// Nothing, or this cluster's state; every endpoint answers.
    FreeFor(&'a str),
    /// This cluster's state; one endpoint that answers is enough.
    StateOf(&'a str),
}

/// How it is reached.
pub fn options(etcd: &external::Etcd) -> Result<Options, MembershipError> {
    let is_tls = etcd.endpoints.iter().any(|url| url.starts_with("https://"));
    let authority = match &etcd.authority {
        Some(authority) => authority.clone(),
        None if is_tls => {
            let path = std::path::Path::new(SYSTEM);
            std::fs::read_to_string(path).map_err(|error| files::naming(path, &error))?
        }
        None => String::new(),
    };
    let identity = etcd.certificate.clone().zip(etcd.key.as_ref());
    let identity = identity.map(|(chain, key)| Identity { chain, key: key.reveal().to_owned() });
    let user = etcd.user.clone().zip(etcd.password.clone());
    Ok(Options {
        endpoints: etcd.endpoints.clone(),
        prefix: etcd.prefix.clone(),
        tls: is_tls.then_some(Tls { authority, identity }),
        user: user.map(|(name, password)| User { name, password }),
    })
}

/// Whether it can have the state: every endpoint, its version, what may be done there, and what is there. Changes nothing.
pub async fn check(etcd: &external::Etcd, contents: Contents<'_>) -> Result<(), ExternalError> {
    let faults = etcd.faults();
    if !faults.is_empty() {
        return Err(ExternalError::Fault(faults.join("; ")));
    }
    let (trigger, stop) = shutdown::pair();
    let group = Group::new("etcd for a moment", stop);
    let checked = match EtcdStore::connect(&options(etcd)?, &group) {
        Ok(store) => check_store(etcd, contents, &store).await,
        Err(error) => Err(error.into()),
    };
    trigger.fire("it was looked at");
    group.finish(END).await;
    checked
}

async fn check_store(
    etcd: &external::Etcd,
    contents: Contents<'_>,
    store: &EtcdStore,
) -> Result<(), ExternalError> {
    check_endpoints(etcd, contents, store).await?;
    let denied = |cause: StoreError| ExternalError::Denied { prefix: etcd.prefix.clone(), cause };
    let is_empty = store.is_empty().await.map_err(denied)?;
    let found = store.get(&keys::mark()).await.map_err(denied)?;
    let is_of = |token: &str| found.as_ref().is_some_and(|it| it.value == token.as_bytes());
    match contents {
        Contents::FreeFor(token) if !is_empty && !is_of(token) => {
            return Err(ExternalError::Taken(etcd.prefix.clone()));
        }
        Contents::StateOf(token) if !is_of(token) => {
            return Err(ExternalError::NotThere(etcd.prefix.clone()));
        }
        _ => {}
    }
    store.try_out().await.map_err(denied)
}

async fn check_endpoints(
    etcd: &external::Etcd,
    contents: Contents<'_>,
    store: &EtcdStore,
) -> Result<(), ExternalError> {
    let said = futures(etcd.endpoints.iter().map(|url| store.status(url))).await;
    let (mut silent, mut faults, mut clusters) = (Vec::new(), Vec::new(), BTreeSet::new());
    for (url, said) in etcd.endpoints.iter().zip(said) {
        match said {
            Err(StoreError::Failed { cause, .. }) => silent.push(cause),
            Err(error) => silent.push(format!("{url}: {error}")),
            Ok(status) if !is_new_enough(&status.version) => {
                faults.push(format!("{url} runs etcd {}; 3.4 or newer is needed", status.version));
            }
            Ok(status) => {
                clusters.insert(status.cluster);
            }
        }
    }
    if clusters.len() > 1 {
        faults.push("the endpoints are of different etcds".into());
    }
    if matches!(contents, Contents::FreeFor(_)) || clusters.is_empty() {
        faults.append(&mut silent);
    }
    match faults.is_empty() {
        true => Ok(()),
        false => Err(ExternalError::Endpoints(faults.join("; "))),
    }
}

/// Moves the state of a machine that founds a cluster there, compares both, and adds what a cluster knows. Once more does the rest.
pub async fn move_in(
    layout: &Layout,
    own: &Membership,
    from: &dyn Store,
    to: &EtcdStore,
) -> Result<(), ExternalError> {
    claim(own, to).await?;
    let mut wanted = lasting(from).await?;
    wanted.insert(keys::mark(), own.token.clone().into_bytes());
    make_equal(to, &wanted).await?;
    Ok(founding::first_records(layout, own, to).await?)
}

/// Marks what is below the prefix as ours, where it is nobody else's.
pub async fn claim(own: &Membership, store: &EtcdStore) -> Result<(), ExternalError> {
    let (mark, token) = (keys::mark(), own.token.as_bytes());
    let claim = Transaction::new().when(Compare::Absent(mark.clone())).put(mark, token);
    match store.commit(claim).await? {
        Outcome::Committed(_) => Ok(()),
        Outcome::Refused { found: Some(found), .. } if found.value == token => Ok(()),
        Outcome::Refused { .. } => Err(ExternalError::Taken(prefix(own))),
    }
}

/// Whether the state there is ours.
pub async fn is_ours(own: &Membership, store: &EtcdStore) -> Result<bool, StoreError> {
    let found = store.get(&keys::mark()).await?;
    Ok(found.is_some_and(|found| found.value == own.token.as_bytes()))
}

/// Deletes what we have there; nothing, where it is not ours. What is under a lease goes with that.
pub async fn give_back(own: &Membership, store: &EtcdStore) -> Result<(), StoreError> {
    match is_ours(own, store).await? {
        true => make_equal(store, &Entries::new()).await.map(drop),
        false => Ok(()),
    }
}

fn prefix(own: &Membership) -> String {
    own.external.as_ref().map(|etcd| etcd.prefix.clone()).unwrap_or_default()
}

impl Cluster {
    /// Refuses what is not this cluster's state, where others keep etcd: it may have been emptied, or be another one.
    pub(crate) fn check_ours(&self, entries: &[Entry]) -> Result<(), StoreError> {
        let mark = entries.iter().find(|entry| entry.key == keys::mark());
        self.check_mark(mark.map(|entry| entry.value.as_slice()))
    }

    /// The same of what changes.
    pub(crate) fn check_still_ours(
        &self,
        changes: &[(Key, Option<Vec<u8>>)],
    ) -> Result<(), StoreError> {
        match changes.iter().find(|(key, _)| *key == keys::mark()) {
            None => Ok(()),
            Some((_, mark)) => self.check_mark(mark.as_deref()),
        }
    }

    fn check_mark(&self, mark: Option<&[u8]>) -> Result<(), StoreError> {
        let own = self.membership();
        let Some(etcd) = own.external else { return Ok(()) };
        match mark == Some(own.token.as_bytes()) {
            true => Ok(()),
            false => Err(StoreError::Failed {
                doing: "reading the cluster's state",
                cause: format!(
                    "it is not at {} any more; `pressroom cluster restore COPY` puts a copy of it there",
                    etcd.place()
                ),
            }),
        }
    }
}

impl Agent {
    /// etcd, where its members and users are ours to change.
    pub(crate) fn kept_etcd(&self) -> Option<EtcdStore> {
        let is_external =
            self.cluster.as_ref().is_some_and(|it| it.membership().external.is_some());
        self.etcd.clone().filter(|_| !is_external)
    }

    /// Who keeps the cluster's state, and where; `None`: this machine is no node.
    pub(crate) fn kept_where(&self, known: &Known) -> Option<State> {
        let own = self.cluster.as_ref()?.membership();
        let place = match &own.external {
            _ if own.removed_ms > 0 => return None,
            Some(etcd) => etcd.place(),
            None => {
                let voters: Vec<&str> = own.voters.keys().map(|name| name.as_str()).collect();
                voters.join(", ")
            }
        };
        let is_heard = known.is_heard && self.etcd.as_ref().is_none_or(EtcdStore::is_reached);
        Some(State { is_external: own.external.is_some(), place, is_heard })
    }
}
