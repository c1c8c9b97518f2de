//! Who may ask etcd. Its users are the common names of certificates, without passwords; every one may do everything.
//!
//! A certificate of the authority alone opens nothing: a join token is one as well, and a node that was removed still has its own.

use std::collections::BTreeSet;

use super::connection::Again;
use super::proto::{Empty, NameRequest, UserAddOptions, UserAddRequest, UserGrantRoleRequest};
use super::{EtcdStore, StoreError, proto};

/// etcd's own name of the user that it wants to have, and of the role that may do everything.
const ROOT: &str = "root";

const DOING: &str = "changing who may ask etcd";

impl EtcdStore {
    /// Who may ask, `root` left out.
    pub async fn users(&self) -> Result<BTreeSet<String>, StoreError> {
        let path = "/etcdserverpb.Auth/UserList";
        let asked = self.ask_for("listing etcd's users", path, Empty {}, Again::Harmless).await;
        let answer: proto::UserListResponse = asked?;
        Ok(answer.users.into_iter().filter(|user| user != ROOT).collect())
    }

    /// Lets these ask and nobody else, from now on. Whoever calls this is one of them, or asks no more.
    pub async fn restrict(&self, users: &BTreeSet<String>) -> Result<(), StoreError> {
        let known = self.users().await?;
        self.change("/etcdserverpb.Auth/RoleAdd", NameRequest { name: ROOT.into() }).await?;
        self.allow(ROOT).await?;
        for user in users {
            self.allow(user).await?;
        }
        self.change("/etcdserverpb.Auth/AuthEnable", Empty {}).await?;
        for user in known.difference(users) {
            self.refuse(user).await?;
        }
        Ok(())
    }

    /// Lets somebody ask.
    pub async fn allow(&self, user: &str) -> Result<(), StoreError> {
        let options = Some(UserAddOptions { no_password: true });
        self.change("/etcdserverpb.Auth/UserAdd", UserAddRequest { name: user.into(), options })
            .await?;
        let grant = UserGrantRoleRequest { user: user.into(), role: ROOT.into() };
        self.change("/etcdserverpb.Auth/UserGrantRole", grant).await
    }

    /// Answers somebody nothing any more, on connections that are open as well.
    pub async fn refuse(&self, user: &str) -> Result<(), StoreError> {
        self.change("/etcdserverpb.Auth/UserDelete", NameRequest { name: user.into() }).await
    }

    /// Each may be asked for twice: what is so already is no error.
    async fn change<Q>(&self, path: &'static str, question: Q) -> Result<(), StoreError>
    where
        Q: prost::Message + Clone + 'static,
    {
        let asked = self.ask_for::<Q, Empty>(DOING, path, question, Again::Harmless).await;
        let is_so = |error: &StoreError| {
            let StoreError::Failed { cause, .. } = error else { return false };
            cause.contains("already exists") || cause.contains("user name not found")
        };
        match asked {
            Err(error) if !is_so(&error) => Err(error),
            _ => Ok(()),
        }
    }
}
