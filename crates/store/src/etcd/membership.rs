//! Who votes in etcd. One change at a time, and whether it is safe is decided elsewhere, by `plan::voters`.

use std::io::Write;
use std::time::Duration;

use tonic::Code;

use super::connection::{Again, CallError, server_stream, unary, words};
use super::proto::{
    Empty, MemberAddRequest, MemberAddResponse, MemberListResponse, MemberRequest,
    SnapshotResponse, StatusResponse,
};
use super::{EtcdStore, StoreError};

/// A member of etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// etcd's number of it.
    pub id: u64,
    /// Its name; empty until it has started.
    pub name: String,
    /// Where other members reach it.
    pub peer: String,
    /// It follows, and has no vote yet.
    pub is_learner: bool,
}

/// What one member says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// etcd's number of it.
    pub id: u64,
    /// etcd's number of all its members together.
    pub cluster: u64,
    /// Its etcd.
    pub version: String,
    /// Who leads, as far as it knows; 0: nobody.
    pub leader: u64,
    /// How far its log is.
    pub index: u64,
    /// Bytes of its database.
    pub bytes: u64,
    /// What is wrong.
    pub errors: Vec<String>,
}

const ALONE: Duration = Duration::from_secs(1);

impl EtcdStore {
    /// All members.
    pub async fn members(&self) -> Result<Vec<Member>, StoreError> {
        let doing = "listing etcd's members";
        let path = "/etcdserverpb.Cluster/MemberList";
        let asked = self.ask_for(doing, path, Empty {}, Again::Harmless).await;
        let answer: MemberListResponse = asked?;
        let members = answer.members.into_iter().map(|member| Member {
            id: member.id,
            name: member.name,
            peer: member.peer_urls.into_iter().next().unwrap_or_default(),
            is_learner: member.is_learner,
        });
        Ok(members.collect())
    }

    /// Lets a member in that has no vote until it is promoted. Its number.
    pub async fn add_learner(&self, peer: &str) -> Result<u64, StoreError> {
        let doing = "adding a member to etcd";
        let question = MemberAddRequest { peer_urls: vec![peer.to_owned()], is_learner: true };
        let path = "/etcdserverpb.Cluster/MemberAdd";
        let answer: MemberAddResponse = self.ask_for(doing, path, question, Again::Unheard).await?;
        Ok(answer.member.map_or(0, |member| member.id))
    }

    /// Gives a learner its vote; etcd refuses while it lags behind.
    pub async fn promote(&self, id: u64) -> Result<(), StoreError> {
        let path = "/etcdserverpb.Cluster/MemberPromote";
        let asked =
            self.ask_for("promoting a member of etcd", path, MemberRequest { id }, Again::Unheard);
        asked.await.map(|Empty {}| ())
    }

    /// Removes a member. One that is gone already is as good: the answer to a first attempt may have been lost.
    pub async fn remove(&self, id: u64) -> Result<(), StoreError> {
        let doing = "removing a member of etcd";
        let path = "/etcdserverpb.Cluster/MemberRemove";
        let asked = self.connection.ask(doing, path, MemberRequest { id }, Again::Unheard).await;
        match asked {
            Ok(Empty {}) => Ok(()),
            Err(CallError::Answered(status)) if status.code() == Code::NotFound => Ok(()),
            Err(error) => Err(error.of(doing)),
        }
    }

    /// What the member at one endpoint says of itself, within a second.
    pub async fn status(&self, url: &str) -> Result<Status, StoreError> {
        let doing = "asking a member of etcd";
        let failed = |cause: String| StoreError::Failed { doing, cause };
        let channel = self.connection.line(url).await?;
        let asked =
            unary::<_, StatusResponse>(channel, "/etcdserverpb.Maintenance/Status", Empty {});
        let answer = tokio::time::timeout(ALONE, asked).await;
        let answer = answer.map_err(|_| failed(format!("{url}: no answer within {ALONE:?}")))?;
        let answer = answer.map_err(|status| failed(format!("{url}: {}", words(&status))))?;
        Ok(Status {
            id: answer.header.as_ref().map_or(0, |header| header.member_id),
            cluster: answer.header.as_ref().map_or(0, |header| header.cluster_id),
            version: answer.version,
            leader: answer.leader,
            index: answer.raft_index,
            bytes: u64::try_from(answer.db_size).unwrap_or_default(),
            errors: answer.errors,
        })
    }

    /// Writes a snapshot of everything, which `etcdctl snapshot restore` understands.
    pub async fn snapshot(&self, to: &mut (dyn Write + Send)) -> Result<u64, StoreError> {
        let doing = "taking a snapshot of etcd";
        let failed = |cause: String| StoreError::Failed { doing, cause };
        let in_use = self.connection.follow().borrow().clone();
        let in_use = in_use.ok_or_else(|| failed(self.connection.nobody()))?;
        let path = "/etcdserverpb.Maintenance/Snapshot";
        let mut pieces = server_stream::<_, SnapshotResponse>(in_use.channel, path, Empty {})
            .await
            .map_err(|status| failed(words(&status)))?;
        let mut bytes = 0;
        loop {
            let piece = tokio::time::timeout(ALONE * 10, pieces.message()).await;
            let piece = piece.map_err(|_| failed("it was silent for 10 s".into()))?;
            match piece.map_err(|status| failed(words(&status)))? {
                None => return Ok(bytes),
                Some(piece) => {
                    bytes += piece.blob.len() as u64;
                    to.write_all(&piece.blob).map_err(|error| failed(error.to_string()))?;
                }
            }
        }
    }

    pub(super) async fn ask_for<Q, A>(
        &self,
        doing: &'static str,
        path: &'static str,
        question: Q,
        again: Again,
    ) -> Result<A, StoreError>
    where
        Q: prost::Message + Clone + 'static,
        A: prost::Message + Default + 'static,
    {
        let asked = self.connection.ask(doing, path, question, again).await;
        asked.map_err(|error: CallError| error.of(doing))
    }
}
