//! The store of a cluster: etcd 3.4 or newer, over its gRPC API.
//!
//! Keys are below a prefix, so that one etcd may serve others as well; the prefix `/` shows everything that is there. A key
//! whose name is none of ours is passed over. What cannot be answered in a few seconds is an error that may pass: the caller
//! goes on with what it knows.
//!
//! - [`connection`](self) which endpoint is asked; another one within two seconds when it fails
//! - [`membership`] who votes
//! - [`access`] who may ask
//! - [`fitness`] whether an etcd that others keep will do
//! - `watching` changes without a gap, whichever endpoint tells them
//! - `proto` etcd's messages

use std::sync::Arc;
use std::time::Duration;

use pressroom_model::secret::Secret;
use pressroom_runtime::tasks::Group;
use tonic::{Code, Status};

use crate::entry::{Entry, Listing, Revision};
use crate::key::{Key, Prefix};
use crate::transaction::{Compare, Outcome, Transaction, Write};
use crate::watch::Watch;
use crate::{Later, Lease, LeaseId, Store, StoreError};

pub mod access;
mod connection;
pub mod fitness;
pub mod membership;
#[doc(hidden)]
pub mod proto;
mod watching;

use connection::{Again, CallError, Connection};
use proto::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, KeyValue, LeaseGrantRequest,
    LeaseGrantResponse, LeaseRequest, LeaseResponse, LeaseRevokeResponse, PutRequest, RangeRequest,
    RangeResponse, Request, RequestOp, Response, TargetUnion, TxnRequest, TxnResponse,
};

/// Most comparisons or writes in one transaction: etcd's own limit where nobody changed it (`--max-txn-ops`).
pub const MOST_OPERATIONS: usize = 128;
/// Most bytes in one transaction: etcd's own limit is 1.5 MiB (`--max-request-bytes`), names included.
pub const MOST_BYTES: usize = 1_400_000;
/// The shortest lease; etcd counts in seconds.
const LEAST_TTL: Duration = Duration::from_secs(1);

/// How etcd is reached.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it answers: `https://10.0.0.1:2379`. The first one that answers is used.
    pub endpoints: Vec<String>,
    /// What is before all keys; ends with `/`.
    pub prefix: String,
    /// TLS, for `https` endpoints.
    pub tls: Option<Tls>,
    /// Who we are there, where a certificate does not say it.
    pub user: Option<User>,
}

/// A user of etcd's.
#[derive(Debug, Clone)]
pub struct User {
    /// The name.
    pub name: String,
    /// What proves it.
    pub password: Secret,
}

/// Whom to believe, and who we are.
#[derive(Clone)]
pub struct Tls {
    /// Certificates of authorities, PEM.
    pub authority: String,
    /// Our own.
    pub identity: Option<Identity>,
}

/// A certificate with its key.
#[derive(Clone)]
pub struct Identity {
    /// The certificate, then its issuers, PEM.
    pub chain: String,
    /// The key, PEM.
    pub key: String,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("has_identity", &self.identity.is_some())
            .finish_non_exhaustive()
    }
}

/// A store in etcd. Clones are the same store.
#[derive(Clone)]
pub struct EtcdStore {
    connection: Arc<Connection>,
    prefix: Arc<str>,
    tasks: Group,
}

impl std::fmt::Debug for EtcdStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdStore").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl EtcdStore {
    /// A store with these endpoints; nothing is asked yet. Its connections are looked after by a task of `tasks`.
    pub fn connect(options: &Options, tasks: &Group) -> Result<Self, StoreError> {
        let connection = Connection::open(options, tasks)?;
        Ok(Self { connection, prefix: options.prefix.as_str().into(), tasks: tasks.clone() })
    }

    /// The same etcd with another prefix.
    pub fn at(&self, prefix: &str) -> Self {
        Self { prefix: prefix.into(), ..self.clone() }
    }

    /// Whether an endpoint answered when it was looked at last, a second or two ago. A watch goes on by itself when one answers again, so
    /// that it says nothing does not say this.
    pub fn is_reached(&self) -> bool {
        self.connection.follow().borrow().is_some()
    }

    /// Replaces the endpoints.
    pub fn set_endpoints(&self, endpoints: &[String]) {
        self.connection.set_endpoints(endpoints);
    }

    /// Replaces the certificates: they were renewed.
    pub fn set_tls(&self, tls: Option<Tls>) {
        self.connection.set_tls(tls);
    }

    /// Forgets the history before `revision`.
    pub async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        let question = CompactionRequest { revision: number(revision), physical: true };
        let path = "/etcdserverpb.KV/Compact";
        let asked = self.connection.ask("compacting", path, question, Again::Harmless).await;
        match asked {
            Ok(CompactionResponse {}) => Ok(()),
            Err(CallError::Answered(status)) if status.code() == Code::OutOfRange => Ok(()),
            Err(error) => Err(error.of("compacting")),
        }
    }

    fn name(&self, key: &Key) -> Vec<u8> {
        format!("{}{key}", self.prefix).into_bytes()
    }

    /// First key and end of everything that may be under a prefix.
    fn range(&self, prefix: &Prefix) -> (Vec<u8>, Vec<u8>) {
        if prefix.as_str().is_empty() {
            return (self.prefix.as_bytes().to_vec(), after(self.prefix.as_bytes()));
        }
        let key = format!("{}{prefix}", self.prefix);
        // `site`, `site/…` and what sorts between them.
        let end = after(format!("{key}/").as_bytes());
        (key.into_bytes(), end)
    }

    fn entry(&self, found: KeyValue) -> Option<Entry> {
        let name = String::from_utf8(found.key).ok()?;
        let key = name.strip_prefix(&*self.prefix)?.parse().ok()?;
        Some(Entry {
            key,
            value: found.value,
            created: revision(found.create_revision),
            modified: revision(found.mod_revision),
            lease: u64::try_from(found.lease).ok().filter(|id| *id != 0).map(LeaseId),
        })
    }

    async fn read(
        &self,
        doing: &'static str,
        question: RangeRequest,
    ) -> Result<RangeResponse, StoreError> {
        let path = "/etcdserverpb.KV/Range";
        let asked = self.connection.ask(doing, path, question, Again::Harmless);
        asked.await.map_err(|error| error.of(doing))
    }

    async fn commit_now(&self, transaction: Transaction) -> Result<Outcome, StoreError> {
        transaction.check()?;
        let doing = "committing a transaction";
        let question = self.question(&transaction)?;
        let again = match transaction.compares.is_empty() {
            // What is put twice without a condition is as if put once.
            true => Again::Harmless,
            false => Again::Unheard,
        };
        let asked = self.connection.ask(doing, "/etcdserverpb.KV/Txn", question, again).await;
        let answer: TxnResponse = match asked {
            Ok(answer) => answer,
            Err(CallError::Answered(status)) if is_lease_gone(&status) => {
                return Err(self.gone_lease(&transaction).await?);
            }
            Err(error) => return Err(error.of(doing)),
        };
        let at = revision(answer.header.map_or(0, |header| header.revision));
        if answer.succeeded {
            return Ok(Outcome::Committed(at));
        }
        let mut found = answer.responses.into_iter().map(|op| match op.response {
            Some(Response::Range(range)) => {
                range.kvs.into_iter().next().and_then(|found| self.entry(found))
            }
            _ => None,
        });
        let seen =
            transaction.compares.into_iter().map(|compare| (compare, found.next().flatten()));
        let refused = seen.into_iter().find(|(compare, found)| !compare.holds(found.as_ref()));
        let (compare, found) = refused.ok_or(StoreError::Failed {
            doing,
            cause: "etcd refused it although every condition holds".into(),
        })?;
        Ok(Outcome::Refused { compare, found, revision: at })
    }

    /// A transaction in etcd's words.
    fn question(&self, transaction: &Transaction) -> Result<TxnRequest, StoreError> {
        let compare = transaction.compares.iter().map(|compare| self.compare(compare)).collect();
        let success = transaction.writes.iter().map(|write| self.write(write)).collect();
        let look = |compare: &Compare| {
            op(Request::Range(RangeRequest { key: self.name(compare.key()), ..Default::default() }))
        };
        let failure = transaction.compares.iter().map(look).collect();
        let question = TxnRequest { compare, success, failure };
        let most = transaction.compares.len().max(transaction.writes.len());
        let bytes = prost::Message::encoded_len(&question);
        match most > MOST_OPERATIONS || bytes > MOST_BYTES {
            true => Err(StoreError::TooLarge { operations: most, bytes }),
            false => Ok(question),
        }
    }

    fn compare(&self, compare: &Compare) -> proto::Compare {
        let (result, target_union) = match compare {
            Compare::Absent(_) => (proto::EQUAL, TargetUnion::CreateRevision(0)),
            Compare::Present(_) => (proto::GREATER, TargetUnion::CreateRevision(0)),
            Compare::Modified(_, at) => (proto::EQUAL, TargetUnion::ModRevision(number(*at))),
            Compare::Created(_, at) => (proto::EQUAL, TargetUnion::CreateRevision(number(*at))),
        };
        let target = match target_union {
            TargetUnion::CreateRevision(_) => proto::CREATE,
            TargetUnion::ModRevision(_) => proto::MOD,
        };
        let key = self.name(compare.key());
        proto::Compare { result, target, key, target_union: Some(target_union) }
    }

    fn write(&self, write: &Write) -> RequestOp {
        match write {
            Write::Put { key, value, lease } => op(Request::Put(PutRequest {
                key: self.name(key),
                value: value.clone(),
                lease: lease.map_or(0, lease_number),
            })),
            Write::Delete(key) => {
                op(Request::DeleteRange(DeleteRangeRequest { key: self.name(key) }))
            }
        }
    }

    /// Which of a transaction's leases is gone.
    async fn gone_lease(&self, transaction: &Transaction) -> Result<StoreError, StoreError> {
        let leases = transaction.writes.iter().filter_map(|write| match write {
            Write::Put { lease, .. } => *lease,
            Write::Delete(_) => None,
        });
        let mut last = LeaseId(0);
        for lease in leases {
            last = lease;
            if self.rest_of(lease).await?.is_none() {
                break;
            }
        }
        Ok(StoreError::LeaseGone(last))
    }

    async fn rest_of(&self, lease: LeaseId) -> Result<Option<Duration>, StoreError> {
        let doing = "looking at a lease";
        let question = LeaseRequest { id: lease_number(lease) };
        let path = "/etcdserverpb.Lease/LeaseTimeToLive";
        let asked = self.connection.ask(doing, path, question, Again::Harmless).await;
        match asked {
            Ok(LeaseResponse { ttl }) => {
                // Whole seconds, rounded down; negative: gone.
                Ok(u64::try_from(ttl).ok().map(Duration::from_secs))
            }
            Err(CallError::Answered(status)) if is_lease_gone(&status) => Ok(None),
            Err(error) => Err(error.of(doing)),
        }
    }

    async fn renew(&self, lease: LeaseId) -> Result<(), StoreError> {
        let question = LeaseRequest { id: lease_number(lease) };
        let answer: LeaseResponse =
            self.connection.ask_stream("renewing a lease", question).await?;
        match answer.ttl > 0 {
            true => Ok(()),
            false => Err(StoreError::LeaseGone(lease)),
        }
    }
}

impl Store for EtcdStore {
    fn get<'a>(&'a self, key: &'a Key) -> Later<'a, Option<Entry>> {
        Box::pin(async move {
            let question = RangeRequest { key: self.name(key), ..Default::default() };
            let found = self.read("reading a key", question).await?.kvs.into_iter().next();
            Ok(found.and_then(|found| self.entry(found)))
        })
    }

    fn list<'a>(&'a self, prefix: &'a Prefix) -> Later<'a, Listing> {
        Box::pin(async move {
            let (key, range_end) = self.range(prefix);
            let question = RangeRequest { key, range_end, ..Default::default() };
            let found = self.read("listing keys", question).await?;
            let revision = revision(found.header.map_or(0, |header| header.revision));
            let entries = found.kvs.into_iter().filter_map(|found| self.entry(found));
            let mut entries: Vec<Entry> =
                entries.filter(|entry| entry.key.is_under(prefix)).collect();
            entries.sort_by(|a, b| a.key.cmp(&b.key));
            Ok(Listing { revision, entries })
        })
    }

    fn commit(&self, transaction: Transaction) -> Later<'_, Outcome> {
        Box::pin(self.commit_now(transaction))
    }

    fn watch<'a>(&'a self, prefix: &'a Prefix, after: Revision) -> Later<'a, Watch> {
        Box::pin(watching::begin(self, prefix.clone(), after))
    }

    fn grant(&self, ttl: Duration) -> Later<'_, Lease> {
        Box::pin(async move {
            let doing = "granting a lease";
            let seconds = ttl.max(LEAST_TTL).as_millis().div_ceil(1000);
            let question = LeaseGrantRequest { ttl: i64::try_from(seconds).unwrap_or(i64::MAX) };
            let path = "/etcdserverpb.Lease/LeaseGrant";
            // A second lease that nobody knows of ends by itself.
            let asked = self.connection.ask(doing, path, question, Again::Harmless).await;
            let answer: LeaseGrantResponse = asked.map_err(|error| error.of(doing))?;
            let ttl = Duration::from_secs(u64::try_from(answer.ttl).unwrap_or(1));
            Ok(Lease { id: LeaseId(u64::try_from(answer.id).unwrap_or_default()), ttl })
        })
    }

    fn keep_alive(&self, lease: LeaseId) -> Later<'_, ()> {
        Box::pin(self.renew(lease))
    }

    fn revoke(&self, lease: LeaseId) -> Later<'_, ()> {
        Box::pin(async move {
            let doing = "ending a lease";
            let question = LeaseRequest { id: lease_number(lease) };
            let path = "/etcdserverpb.Lease/LeaseRevoke";
            let asked = self.connection.ask(doing, path, question, Again::Harmless).await;
            match asked {
                Ok(LeaseRevokeResponse {}) => Ok(()),
                Err(CallError::Answered(status)) if is_lease_gone(&status) => Ok(()),
                Err(error) => Err(error.of(doing)),
            }
        })
    }

    fn rest(&self, lease: LeaseId) -> Later<'_, Option<Duration>> {
        Box::pin(self.rest_of(lease))
    }
}

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn revision(number: i64) -> Revision {
    Revision(u64::try_from(number).unwrap_or_default())
}

fn number(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

fn lease_number(lease: LeaseId) -> i64 {
    i64::try_from(lease.0).unwrap_or(i64::MAX)
}

fn is_lease_gone(status: &Status) -> bool {
    status.code() == Code::NotFound
}

/// The first key behind all that begin with these bytes; empty ones mean everything.
fn after(front: &[u8]) -> Vec<u8> {
    let mut end = front.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}
