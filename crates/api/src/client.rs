//! Asks the agent, over its unix socket. Every question has a deadline; an operation may take as long as it likes while
//! the agent gives signs of life.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use pressroom_model::affirmation::{Purge, Receipt};
use pressroom_model::cluster::Standing;
use pressroom_model::config::Config;
use pressroom_model::external::Etcd;
use pressroom_model::id::{EnvironmentName, SiteName};
use pressroom_model::process::ProcessSpec;
use pressroom_model::rollout::Record;
use pressroom_model::status::Status;
use pressroom_model::writes::Written;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use crate::access::{Ticket, Visitor};
use crate::cluster::{self, ChangeOf, Founding};
use crate::environment::{self, Environment, Letter, NewEnvironment, Promotion, TableDiff};
use crate::failure::Failure;
use crate::git::{Access, Pushed, TokenWish};
use crate::operation::{Event, SIGN_OF_LIFE};
use crate::operator::{Check, InitialAdmin, Planned, Visit, Why, Wish};
use crate::progress::Progress;
use crate::release::{Code, Damage, Deployment, Details, Diff, Which};
use crate::server::Question;
use crate::wp;

/// Longest wait for an answer from memory.
const AT_ONCE: Duration = Duration::from_secs(3);
/// Longest wait for an answer that the agent has at hand.
const QUICK: Duration = Duration::from_secs(10);
/// Longest wait for the beginning of an answer that the cluster's leader gives, which may have to be found first.
const LED: Duration = Duration::from_secs(30);
/// Longest wait for an answer that takes work.
const WORK: Duration = Duration::from_secs(60);

/// Longest wait for an answer that reads or copies a whole tree.
const BUILD: Duration = Duration::from_secs(600);

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens on the socket.
    #[error("no agent answers on {}: {error}", socket.display())]
    Away {
        /// The socket.
        socket: PathBuf,
        /// What connecting said.
        error: io::Error,
    },
    /// The agent answered that it cannot be done, or stopped answering.
    #[error("{0}")]
    Failed(Failure),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Failed(failure) => failure,
            Error::Away { ref error, .. } if error.kind() == io::ErrorKind::PermissionDenied => {
                Failure::yours("this user may not speak to the agent")
                    .cause(error)
                    .hint("run the command as the user that ran `pressroom up`, or as root")
            }
            Error::Away { socket, .. } => Failure::yours("Pressroom is not running here")
                .cause(format!("no agent answers on `{}`", socket.display()))
                .hint("start it with `pressroom up`, or name its data directory with `--data DIR`"),
        }
    }
}

/// Asks the agent that listens on one socket.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the agent at `socket`; nothing is asked yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// Whether an agent answers.
    pub async fn answers(&self) -> bool {
        self.status().await.is_ok()
    }

    /// See [`crate::operator::Operator::status`].
    pub async fn status(&self) -> Result<Status, Error> {
        self.get("/v1/status", AT_ONCE).await
    }

    /// See [`crate::operator::Operator::applied`].
    pub async fn applied(&self) -> Result<Option<Config>, Error> {
        self.get("/v1/config", AT_ONCE).await
    }

    /// See [`crate::operator::Operator::doctor`].
    pub async fn doctor(&self) -> Result<Vec<Check>, Error> {
        self.get("/v1/doctor", WORK).await
    }

    /// See [`crate::operator::Operator::plan`].
    pub async fn plan(&self, wish: &Wish) -> Result<Vec<Planned>, Error> {
        self.post("/v1/plan", wish, WORK).await
    }

    /// See [`crate::operator::Operator::apply`].
    pub async fn apply(&self, wish: &Wish, progress: &Progress) -> Result<(), Error> {
        self.operate(Method::POST, "/v1/apply", wish, progress).await.map(drop)
    }

    /// See [`crate::operator::Operator::found_cluster`].
    pub async fn found_cluster(&self, founding: &Founding) -> Result<(), Error> {
        self.post("/v1/cluster/init", founding, WORK).await
    }

    /// See [`crate::operator::Operator::restore_cluster`].
    pub async fn restore_cluster(&self, wish: &cluster::Restoration) -> Result<(), Error> {
        self.post("/v1/cluster/restore", wish, WORK).await
    }

    /// See [`crate::operator::Operator::reach_cluster`].
    pub async fn reach_cluster(&self, etcd: &Etcd) -> Result<(), Error> {
        self.post("/v1/cluster/etcd", etcd, WORK).await
    }

    /// See [`crate::operator::Operator::back_up_cluster`].
    pub async fn back_up_cluster(&self) -> Result<cluster::Backup, Error> {
        self.post("/v1/cluster/backup", &(), WORK).await
    }

    /// See [`crate::operator::Operator::resume`].
    pub async fn resume(&self) -> Result<(), Error> {
        self.post("/v1/resume", &(), AT_ONCE).await
    }

    /// See [`crate::operator::Operator::nodes`].
    pub async fn nodes(&self) -> Result<Vec<Standing>, Error> {
        self.get("/v1/nodes", AT_ONCE).await
    }

    /// See [`crate::operator::Operator::node_token`].
    pub async fn node_token(&self, wish: &cluster::TokenWish) -> Result<cluster::Token, Error> {
        self.post("/v1/nodes/token", wish, QUICK).await
    }

    /// See [`crate::operator::Operator::change_node`].
    pub async fn change_node(&self, change: &ChangeOf) -> Result<(), Error> {
        self.post("/v1/nodes/change", change, WORK).await
    }

    /// See [`crate::operator::Operator::down`].
    pub async fn down(&self, progress: &Progress) -> Result<(), Error> {
        self.operate(Method::POST, "/v1/down", &(), progress).await.map(drop)
    }

    /// See [`crate::operator::Operator::remove_site`].
    pub async fn remove_site(
        &self,
        name: &SiteName,
        wish: &Wish,
        progress: &Progress,
    ) -> Result<PathBuf, Error> {
        let path = format!("/v1/sites/{name}/remove");
        Ok(self.operate(Method::POST, &path, wish, progress).await?.unwrap_or_default())
    }

    /// See [`crate::operator::Operator::deploy`].
    pub async fn deploy(
        &self,
        name: &SiteName,
        deployment: &Deployment,
        progress: &Progress,
    ) -> Result<(), Error> {
        let path = format!("/v1/sites/{name}/deploy");
        self.operate(Method::POST, &path, deployment, progress).await.map(drop)
    }

    /// See [`crate::operator::Operator::rollback`].
    pub async fn rollback(
        &self,
        name: &SiteName,
        which: &Which,
        progress: &Progress,
    ) -> Result<(), Error> {
        let path = format!("/v1/sites/{name}/rollback");
        self.operate(Method::POST, &path, which, progress).await.map(drop)
    }

    /// See [`crate::operator::Operator::push`].
    pub async fn push(
        &self,
        name: &SiteName,
        pushed: &Pushed,
        progress: &Progress,
    ) -> Result<(), Error> {
        let path = format!("/v1/sites/{name}/push");
        self.operate(Method::POST, &path, pushed, progress).await.map(drop)
    }

    /// A way into the console.
    pub async fn console(&self, visitor: &Visitor) -> Result<Ticket, Error> {
        self.post("/v1/console", visitor, QUICK).await
    }

    /// See [`crate::operator::Operator::git_access`].
    pub async fn git_access(&self, name: &SiteName, wish: TokenWish) -> Result<Access, Error> {
        self.post(&format!("/v1/sites/{name}/git"), &wish, LED).await
    }

    /// See [`crate::operator::Operator::compare`].
    pub async fn compare(&self, name: &SiteName, code: &Code) -> Result<Diff, Error> {
        self.post(&format!("/v1/sites/{name}/compare"), code, BUILD).await
    }

    /// See [`crate::operator::Operator::releases`].
    pub async fn releases(&self, name: &SiteName) -> Result<Vec<Record>, Error> {
        self.get(&format!("/v1/sites/{name}/releases"), LED).await
    }

    /// See [`crate::operator::Operator::wp_cli`].
    pub async fn wp_cli(&self, name: &SiteName, wish: &wp::Wish) -> Result<ProcessSpec, Error> {
        self.post(&format!("/v1/sites/{name}/wp-cli"), wish, QUICK).await
    }

    /// See [`crate::operator::Operator::writes`].
    pub async fn writes(&self, name: &SiteName) -> Result<Vec<Written>, Error> {
        self.get(&format!("/v1/sites/{name}/writes"), WORK).await
    }

    /// See [`crate::operator::Operator::show_release`].
    pub async fn show_release(&self, name: &SiteName, which: &Which) -> Result<Details, Error> {
        self.post(&format!("/v1/sites/{name}/release"), which, WORK).await
    }

    /// See [`crate::operator::Operator::diff`].
    pub async fn diff(&self, name: &SiteName, which: &Which) -> Result<Diff, Error> {
        self.post(&format!("/v1/sites/{name}/diff"), which, WORK).await
    }

    /// See [`crate::operator::Operator::verify`].
    pub async fn verify(&self, name: &SiteName, which: &Which) -> Result<Vec<Damage>, Error> {
        self.post(&format!("/v1/sites/{name}/verify"), which, BUILD).await
    }

    /// See [`crate::operator::Operator::environments`].
    pub async fn environments(&self) -> Result<Vec<Environment>, Error> {
        self.get("/v1/environments", LED).await
    }

    /// See [`crate::operator::Operator::create_environment`].
    pub async fn create_environment(
        &self,
        of: &SiteName,
        new: &NewEnvironment,
        progress: &Progress,
    ) -> Result<(), Error> {
        let path = format!("/v1/sites/{of}/create-environment");
        self.operate(Method::POST, &path, new, progress).await.map(drop)
    }

    /// See [`crate::operator::Operator::refresh_environment`].
    pub async fn refresh_environment(
        &self,
        of: &SiteName,
        name: &EnvironmentName,
        progress: &Progress,
    ) -> Result<(), Error> {
        let path = format!("/v1/sites/{of}/refresh-environment");
        let which = environment::Which { name: name.clone() };
        self.operate(Method::POST, &path, &which, progress).await.map(drop)
    }

    /// See [`crate::operator::Operator::remove_environment`].
    pub async fn remove_environment(
        &self,
        of: &SiteName,
        name: &EnvironmentName,
        progress: &Progress,
    ) -> Result<(), Error> {
        let path = format!("/v1/sites/{of}/remove-environment");
        let which = environment::Which { name: name.clone() };
        self.operate(Method::POST, &path, &which, progress).await.map(drop)
    }

    /// See [`crate::operator::Operator::letters`].
    pub async fn letters(
        &self,
        of: &SiteName,
        name: &EnvironmentName,
    ) -> Result<Vec<Letter>, Error> {
        let which = environment::Which { name: name.clone() };
        self.post(&format!("/v1/sites/{of}/letters"), &which, LED).await
    }

    /// See [`crate::operator::Operator::promotable`].
    pub async fn promotable(&self, of: &SiteName, name: &EnvironmentName) -> Result<Diff, Error> {
        let which = environment::Which { name: name.clone() };
        self.post(&format!("/v1/sites/{of}/promotable"), &which, WORK).await
    }

    /// See [`crate::operator::Operator::compare_tables`].
    pub async fn compare_tables(
        &self,
        of: &SiteName,
        promotion: &Promotion,
    ) -> Result<Vec<TableDiff>, Error> {
        self.post(&format!("/v1/sites/{of}/compare-tables"), promotion, BUILD).await
    }

    /// See [`crate::operator::Operator::promote`].
    pub async fn promote(
        &self,
        of: &SiteName,
        promotion: &Promotion,
        progress: &Progress,
    ) -> Result<(), Error> {
        let path = format!("/v1/sites/{of}/promote");
        self.operate(Method::POST, &path, promotion, progress).await.map(drop)
    }

    /// Follows an operation from its first step to its end.
    pub async fn follow(&self, id: &str, progress: &Progress) -> Result<Option<PathBuf>, Error> {
        self.operate(Method::GET, &format!("/v1/operations/{id}"), &(), progress).await
    }

    /// See [`crate::operator::Operator::visit`].
    pub async fn visit(&self, name: &SiteName) -> Result<Visit, Error> {
        self.get(&format!("/v1/sites/{name}/visit"), WORK).await
    }

    /// See [`crate::operator::Operator::take_initial_admin`].
    pub async fn take_initial_admin(&self, name: &SiteName) -> Result<Option<InitialAdmin>, Error> {
        self.post(&format!("/v1/sites/{name}/initial-admin"), &(), LED).await
    }

    /// See [`crate::operator::Operator::purge`].
    pub async fn purge(&self, name: &SiteName, purge: &Purge) -> Result<Receipt, Error> {
        self.post(&format!("/v1/sites/{name}/purge"), purge, WORK).await
    }

    /// See [`crate::operator::Operator::why`].
    pub async fn why(&self, url: &str) -> Result<Why, Error> {
        self.post("/v1/why", &Question { url: url.to_owned() }, WORK).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, most: Duration) -> Result<T, Error> {
        self.ask(Method::GET, path, Vec::new(), most).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        most: Duration,
    ) -> Result<T, Error> {
        self.ask(Method::POST, path, to_json(body), most).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        most: Duration,
    ) -> Result<T, Error> {
        let whole = async {
            let mut connection = Connection::open(&self.socket).await?;
            let answer = connection.send(method, path, body).await?;
            let bytes = answer.into_body().collect().await.map_err(broken)?.to_bytes();
            serde_json::from_slice(&bytes).map_err(broken)
        };
        tokio::time::timeout(most, whole).await.unwrap_or_else(|_| Err(Error::Failed(silent(most))))
    }

    /// Starts or follows an operation; what was kept, if it succeeded.
    async fn operate(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
        progress: &Progress,
    ) -> Result<Option<PathBuf>, Error> {
        let open = async {
            let mut connection = Connection::open(&self.socket).await?;
            let answer = connection.send(method, path, to_json(body)).await?;
            Ok((connection, answer))
        };
        // Code that is here becomes a release first, where another node leads.
        let most = if path.ends_with("/deploy") { BUILD } else { LED };
        let (_connection, answer) = tokio::time::timeout(most, open)
            .await
            .unwrap_or_else(|_| Err(Error::Failed(silent(most))))?;
        let mut lines = Lines { body: answer.into_body(), rest: Vec::new() };
        while let Some(line) = lines.next().await? {
            match serde_json::from_slice(&line).map_err(broken)? {
                Event::Operation { .. } => {}
                Event::Step(step) => progress.tell(step),
                Event::End { failure: None, kept } => return Ok(kept),
                Event::End { failure: Some(failure), .. } => return Err(Error::Failed(failure)),
            }
        }
        Err(Error::Failed(
            Failure::ours("the agent went away in the middle of the operation")
                .state("what was done so far stays; the agent is started again by the keeper")
                .hint("try again; `pressroom logs agent` shows what happened"),
        ))
    }
}

/// One connection, and the task that drives it.
struct Connection {
    sender: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
    _driver: JoinSet<()>,
}

impl Connection {
    async fn open(socket: &Path) -> Result<Self, Error> {
        let away = |error| Error::Away { socket: socket.to_owned(), error };
        let stream = UnixStream::connect(socket).await.map_err(away)?;
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to the agent broke");
            }
        });
        Ok(Self { sender, _driver: driver })
    }

    /// The answer, if it is a good one.
    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>, Error> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "agent")
            .body(Full::new(Bytes::from(body)))
            .map_err(broken)?;
        let answer = self.sender.send_request(request).await.map_err(broken)?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let bytes = answer.into_body().collect().await.map_err(broken)?.to_bytes();
        let failure = serde_json::from_slice(&bytes);
        Err(Error::Failed(
            failure.unwrap_or_else(|_| Failure::ours(format!("the agent answered {status}"))),
        ))
    }
}

/// The lines of a body.
struct Lines {
    body: Incoming,
    rest: Vec<u8>,
}

impl Lines {
    /// The next line that is not empty; `None` at the end.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                if line.len() > 1 {
                    return Ok(Some(line));
                }
                continue;
            }
            let most = SIGN_OF_LIFE * 10;
            let frame = tokio::time::timeout(most, self.body.frame());
            match frame.await.map_err(|_| Error::Failed(silent(most)))? {
                None => return Ok(None),
                Some(Err(_)) => return Ok(None),
                Some(Ok(frame)) => self.rest.extend(frame.into_data().unwrap_or_default()),
            }
        }
    }
}

fn to_json(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("our values have string keys")
}

fn broken(error: impl std::fmt::Display) -> Error {
    Error::Failed(Failure::ours("the agent's answer was cut off or not understood").cause(error))
}

fn silent(most: Duration) -> Failure {
    Failure::ours(format!("the agent did not answer in {} s", most.as_secs()))
        .state("sites are served without it")
        .hint("read `pressroom logs agent`; the keeper starts a stuck agent again by itself")
}
