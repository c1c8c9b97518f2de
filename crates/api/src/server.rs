//! The operator API on the agent's unix socket: HTTP/1.1 and JSON over an [`Operator`].
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /v1/status` | | `model::status::Status` |
//! | `GET /v1/config` | | the `model::config::Config` that is applied, or `null` |
//! | `GET /v1/doctor` | | list of [`crate::operator::Check`] |
//! | `POST /v1/plan` | [`Wish`] | list of [`crate::operator::Planned`] |
//! | `POST /v1/apply` | [`Wish`] | [`crate::operation::Event`] lines |
//! | `POST /v1/down` | | [`crate::operation::Event`] lines |
//! | `GET /v1/operations/ID` | | [`crate::operation::Event`] lines, from the first |
//! | `POST /v1/console` | [`Visitor`] | [`crate::access::Ticket`] |
//! | `GET /v1/nodes` | | list of `model::cluster::Standing` |
//! | `POST /v1/nodes/token` | [`crate::cluster::TokenWish`] | [`crate::cluster::Token`] |
//! | `POST /v1/nodes/change` | [`crate::cluster::ChangeOf`] | `null` |
//! | `POST /v1/cluster/init` | [`crate::cluster::Founding`] | `null`; the agent starts again then |
//! | `POST /v1/cluster/etcd` | `model::external::Etcd` | `null`; the agent starts again then |
//! | `POST /v1/why` | `{"url"}` | [`crate::operator::Why`] |
//! | `GET /v1/sites/NAME/visit` | | [`crate::operator::Visit`] |
//! | `POST /v1/sites/NAME/initial-admin` | | [`crate::operator::InitialAdmin`] or `null`, once |
//! | `POST /v1/sites/NAME/purge` | `model::affirmation::Purge` | `model::affirmation::Receipt` |
//! | `GET /v1/sites/NAME/releases` | | list of `model::rollout::Record` |
//! | `GET /v1/sites/NAME/writes` | | list of `model::writes::Written` |
//! | `POST /v1/sites/NAME/wp-cli` | [`crate::wp::Wish`] | `model::process::ProcessSpec` |
//! | `POST /v1/sites/NAME/release` | [`Which`] | [`crate::release::Details`] |
//! | `POST /v1/sites/NAME/compare` | [`crate::release::Code`] | [`crate::release::Diff`] |
//! | `POST /v1/sites/NAME/diff` | [`Which`] | [`crate::release::Diff`] |
//! | `POST /v1/sites/NAME/verify` | [`Which`] | list of [`crate::release::Damage`] |
//! | `POST /v1/sites/NAME/deploy` | [`Deployment`] | [`crate::operation::Event`] lines |
//! | `POST /v1/sites/NAME/push` | [`Pushed`] | [`crate::operation::Event`] lines |
//! | `POST /v1/sites/NAME/git` | [`crate::git::TokenWish`] | [`crate::git::Access`] |
//! | `POST /v1/sites/NAME/rollback` | [`Which`] | [`crate::operation::Event`] lines |
//! | `GET /v1/environments` | | list of [`crate::environment::Environment`] |
//! | `POST /v1/sites/NAME/letters` | [`environment::Which`] | list of [`crate::environment::Letter`] |
//! | `POST /v1/sites/NAME/letter` | [`environment::WhichLetter`] | [`crate::environment::LetterText`] |
//! | `POST /v1/sites/NAME/promotable` | [`environment::Which`] | [`crate::release::Diff`] |
//! | `POST /v1/sites/NAME/compare-tables` | [`Promotion`] | list of [`environment::TableDiff`] |
//! | `POST /v1/sites/NAME/create-environment` | [`NewEnvironment`] | [`crate::operation::Event`] lines |
//! | `POST /v1/sites/NAME/refresh-environment` | [`environment::Which`] | [`crate::operation::Event`] lines |
//! | `POST /v1/sites/NAME/remove-environment` | [`environment::Which`] | [`crate::operation::Event`] lines |
//! | `POST /v1/sites/NAME/promote` | [`Promotion`] | [`crate::operation::Event`] lines |
//! | `POST /v1/sites/NAME/remove` | [`Wish`] | [`crate::operation::Event`] lines |
//!
//! Where another node decides for all, what changes something (and what only that node knows) is passed on to it.
//!
//! What cannot be done is answered with a [`Failure`], and 422 where the operator can mend it, 500 where not.
//! Always: only root and the socket's owner are answered; the kernel says who they are.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::{Body, Frame, Incoming};
use pressroom_model::id::SiteName;
use pressroom_runtime::door::Door;
use pressroom_runtime::shutdown::Shutdown;
use pressroom_runtime::tasks::Group;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use crate::access::{Passes, Visitor};
use crate::environment::{self, NewEnvironment, Promotion};
use crate::failure::{Blame, Failure};
use crate::git::Pushed;
use crate::operation::{Event, Kind, Log, Operations};
use crate::operator::{Operator, Wish};
use crate::release::{Deployment, Which};

/// Largest request body: a configuration of thousands of sites fits.
const BODY_LIMIT: usize = 16 << 20;
/// Longest time to send a whole request.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// Marks a request that another agent has passed on: it is not passed on again.
pub const PASSED: &str = "x-pressroom-passed";
/// Open connections; more wait to be accepted.
const CONNECTIONS: usize = 128;

/// The body of `POST /v1/why`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Question {
    pub(crate) url: String,
}

/// Binds the agent's socket at `path`, for its owner alone. A socket that nobody listens on is replaced; one that
/// somebody listens on, or a file that is no socket, is an error.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "the path is taken by something else",
            ));
        }
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another agent answers there"));
        }
        Ok(_) => std::fs::remove_file(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// The API over an operator. Clones are the same.
#[derive(Clone)]
pub struct Server {
    pub(crate) operator: Arc<dyn Operator>,
    operations: Operations,
    pub(crate) passes: Passes,
    group: Group,
}

impl Server {
    /// Offers `operator`; connections and operations are tasks of `group`.
    pub fn new(operator: Arc<dyn Operator>, group: Group) -> Self {
        Self {
            operator,
            operations: Operations::new(group.clone()),
            passes: Passes::default(),
            group,
        }
    }

    /// Answers on `listener` until shutdown. Requests under way are finished by the group.
    pub async fn serve(self, listener: UnixListener, shutdown: Shutdown) -> io::Result<()> {
        let address = listener.local_addr()?;
        let path =
            address.as_pathname().ok_or_else(|| io::Error::other("the socket has no path"))?;
        let owner = std::fs::metadata(path)?.uid();
        let door = Door { name: "api", connections: CONNECTIONS, head_time: REQUEST_TIME };
        let group = self.group.clone();
        let answer = move |request| {
            let server = self.clone();
            async move { server.answer(request).await }
        };
        let may_enter = move |stream: &UnixStream| may_ask(stream, owner);
        door.serve(listener, group, shutdown, may_enter, answer).await;
        Ok(())
    }

    /// Answers one request, or has it answered by the node that decides.
    pub async fn answer(&self, request: Request<Incoming>) -> Response<Answer> {
        let is_passed = request.headers().contains_key(PASSED);
        let is_led_elsewhere = match is_for_leader(request.uri().path()) {
            true => self.operator.is_led_elsewhere().await,
            false => Ok(false),
        };
        let answer = match is_led_elsewhere {
            Ok(true) if is_passed => Ok(json(StatusCode::MISDIRECTED_REQUEST, &leaderless())),
            Ok(true) => self.pass_on(request).await,
            Ok(false) => self.route(request).await,
            Err(failure) => Err(failure),
        };
        answer.unwrap_or_else(|failure| {
            let status = match failure.blame {
                Blame::Yours => StatusCode::UNPROCESSABLE_ENTITY,
                Blame::Ours => StatusCode::INTERNAL_SERVER_ERROR,
            };
            json(status, &failure)
        })
    }

    async fn pass_on(&self, request: Request<Incoming>) -> Result<Response<Answer>, Failure> {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let body = self.made_here(uri.path(), request).await?;
        let passed = Request::builder().method(method).uri(uri).header(PASSED, "1");
        let passed = passed.body(body).map_err(|error| {
            Failure::ours("the question cannot be passed on to the leader").cause(error)
        })?;
        let answer = self.operator.pass_on(passed).await?;
        let (parts, body) = answer.into_parts();
        let mut response = Response::new(Either::Right(Lines::Passed(body)));
        *response.status_mut() = parts.status;
        if let Some(kind) = parts.headers.get(http::header::CONTENT_TYPE) {
            response.headers_mut().insert(http::header::CONTENT_TYPE, kind.clone());
        }
        Ok(response)
    }

    /// A request's body as another node understands it: code that is on this machine's disk becomes a release here first.
    async fn made_here(&self, path: &str, request: Request<Incoming>) -> Result<Bytes, Failure> {
        let parts: Vec<_> = path.split('/').skip(1).collect();
        let ["v1", "sites", name, what @ ("deploy" | "compare")] = parts.as_slice() else {
            return whole(request).await;
        };
        let name: SiteName = name.parse().map_err(|error| {
            Failure::yours(format!("`{name}` is no name of a site")).cause(error)
        })?;
        let text = if *what == "deploy" {
            let deployment: Deployment = body(request).await?;
            let code = self.operator.make_here(name, deployment.code).await?;
            serde_json::to_vec(&Deployment { code, ..deployment })
        } else {
            serde_json::to_vec(&self.operator.make_here(name, body(request).await?).await?)
        };
        Ok(text.expect("plain data").into())
    }

    async fn route(&self, request: Request<Incoming>) -> Result<Response<Answer>, Failure> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let parts: Vec<_> = path.split('/').skip(1).collect();
        let operator = Arc::clone(&self.operator);
        match (&method, parts.as_slice()) {
            (&Method::GET, ["v1", "status"]) => Ok(good(&operator.status().await?)),
            (&Method::GET, ["v1", "config"]) => Ok(good(&operator.applied().await?)),
            (&Method::GET, ["v1", "doctor"]) => Ok(good(&operator.doctor().await?)),
            (&Method::GET, ["v1", "environments"]) => Ok(good(&operator.environments().await?)),
            (&Method::GET, ["v1", "nodes"]) => Ok(good(&operator.nodes().await?)),
            (&Method::POST, ["v1", "nodes", "token"]) => {
                Ok(good(&operator.node_token(body(request).await?).await?))
            }
            (&Method::POST, ["v1", "nodes", "change"]) => {
                Ok(good(&operator.change_node(body(request).await?).await?))
            }
            (&Method::POST, ["v1", "cluster", "init"]) => {
                Ok(good(&operator.found_cluster(body(request).await?).await?))
            }
            (&Method::POST, ["v1", "cluster", "restore"]) => {
                Ok(good(&operator.restore_cluster(body(request).await?).await?))
            }
            (&Method::POST, ["v1", "cluster", "etcd"]) => {
                Ok(good(&operator.reach_cluster(body(request).await?).await?))
            }
            (&Method::POST, ["v1", "cluster", "backup"]) => {
                Ok(good(&operator.back_up_cluster().await?))
            }
            (&Method::POST, ["v1", "resume"]) => Ok(good(&operator.resume().await?)),
            (&Method::POST, ["v1", "plan"]) => {
                Ok(good(&operator.plan(body(request).await?).await?))
            }
            (&Method::POST, ["v1", "why"]) => {
                let question: Question = body(request).await?;
                Ok(good(&operator.why(question.url).await?))
            }
            (&Method::POST, ["v1", "console"]) => {
                let visitor: Visitor = body(request).await?;
                let closed = || {
                    Failure::ours("the console is not open")
                        .hint("`pressroom status` says why; `listen` of `[console]` says where")
                };
                Ok(good(&self.passes.ticket(visitor, Instant::now()).ok_or_else(closed)?))
            }
            (&Method::POST, ["v1", "apply"]) => {
                let wish: Wish = body(request).await?;
                let work =
                    |progress| async move { operator.apply(wish, progress).await.map(|()| None) };
                Ok(self.follow(self.operations.begin(Kind::Apply, work)?))
            }
            (&Method::POST, ["v1", "down"]) => {
                let work = |progress| async move { operator.down(progress).await.map(|()| None) };
                Ok(self.follow(self.operations.begin(Kind::Down, work)?))
            }
            (&Method::GET, ["v1", "operations", id]) => match self.operations.find(id) {
                Some(log) => Ok(self.follow(log)),
                None => Err(Failure::yours(format!("there is no operation `{id}`")).hint(
                    "only the last few are remembered, and none over a restart of the agent",
                )),
            },
            (_, ["v1", "sites", name, verb]) => {
                let name =
                    name.parse::<SiteName>().map_err(|bad| Failure::yours(bad.to_string()))?;
                self.route_site(&method, name, verb, request).await
            }
            _ => Err(unknown(&method, &path)),
        }
    }

    async fn route_site(
        &self,
        method: &Method,
        name: SiteName,
        verb: &str,
        request: Request<Incoming>,
    ) -> Result<Response<Answer>, Failure> {
        let operator = Arc::clone(&self.operator);
        match (method, verb) {
            (&Method::GET, "visit") => Ok(good(&operator.visit(name).await?)),
            (&Method::POST, "initial-admin") => Ok(good(&operator.take_initial_admin(name).await?)),
            (&Method::POST, "purge") => {
                Ok(good(&operator.purge(name, body(request).await?).await?))
            }
            (&Method::GET, "releases") => Ok(good(&operator.releases(name).await?)),
            (&Method::POST, "wp-cli") => {
                Ok(good(&operator.wp_cli(name, body(request).await?).await?))
            }
            (&Method::GET, "writes") => Ok(good(&operator.writes(name).await?)),
            (&Method::POST, "release") => {
                Ok(good(&operator.show_release(name, body(request).await?).await?))
            }
            (&Method::POST, "compare") => {
                Ok(good(&operator.compare(name, body(request).await?).await?))
            }
            (&Method::POST, "diff") => Ok(good(&operator.diff(name, body(request).await?).await?)),
            (&Method::POST, "verify") => {
                Ok(good(&operator.verify(name, body(request).await?).await?))
            }
            (&Method::POST, "deploy") => {
                let deployment: Deployment = body(request).await?;
                let work = |progress| async move {
                    operator.deploy(name, deployment, progress).await.map(|()| None)
                };
                Ok(self.follow(self.operations.begin(Kind::Deploy, work)?))
            }
            (&Method::POST, "git") => {
                Ok(good(&operator.git_access(name, body(request).await?).await?))
            }
            (&Method::POST, "push") => {
                let pushed: Pushed = body(request).await?;
                let work = |progress| async move {
                    operator.push(name, pushed, progress).await.map(|()| None)
                };
                Ok(self.follow(self.operations.begin(Kind::Deploy, work)?))
            }
            (&Method::POST, "rollback") => {
                let which: Which = body(request).await?;
                let work = |progress| async move {
                    operator.rollback(name, which, progress).await.map(|()| None)
                };
                Ok(self.follow(self.operations.begin(Kind::Deploy, work)?))
            }
            (&Method::POST, "remove") => {
                let wish: Wish = body(request).await?;
                let work = |progress| async move {
                    operator.remove_site(name, wish, progress).await.map(Some)
                };
                Ok(self.follow(self.operations.begin(Kind::RemoveSite, work)?))
            }
            _ => self.route_environment(method, name, verb, request).await,
        }
    }

    async fn route_environment(
        &self,
        method: &Method,
        of: SiteName,
        verb: &str,
        request: Request<Incoming>,
    ) -> Result<Response<Answer>, Failure> {
        let operator = Arc::clone(&self.operator);
        match (method, verb) {
            (&Method::POST, "letters") => {
                let which: environment::Which = body(request).await?;
                Ok(good(&operator.letters(of, which.name).await?))
            }
            (&Method::POST, "letter") => {
                let which: environment::WhichLetter = body(request).await?;
                Ok(good(&operator.letter(of, which.name, which.id).await?))
            }
            (&Method::POST, "promotable") => {
                let which: environment::Which = body(request).await?;
                Ok(good(&operator.promotable(of, which.name).await?))
            }
            (&Method::POST, "compare-tables") => {
                Ok(good(&operator.compare_tables(of, body(request).await?).await?))
            }
            (&Method::POST, "create-environment") => {
                let new: NewEnvironment = body(request).await?;
                let work = |progress| async move {
                    operator.create_environment(of, new, progress).await.map(|()| None)
                };
                Ok(self.follow(self.operations.begin(Kind::Apply, work)?))
            }
            (&Method::POST, "refresh-environment") => {
                let which: environment::Which = body(request).await?;
                let work = |progress| async move {
                    operator.refresh_environment(of, which.name, progress).await.map(|()| None)
                };
                Ok(self.follow(self.operations.begin(Kind::Environment, work)?))
            }
            (&Method::POST, "remove-environment") => {
                let which: environment::Which = body(request).await?;
                let work = |progress| async move {
                    operator.remove_environment(of, which.name, progress).await.map(|()| None)
                };
                Ok(self.follow(self.operations.begin(Kind::Environment, work)?))
            }
            (&Method::POST, "promote") => {
                let promotion: Promotion = body(request).await?;
                let kind = match promotion.tables.is_empty() {
                    true => Kind::Deploy,
                    false => Kind::Environment,
                };
                let work = |progress| async move {
                    operator.promote(of, promotion, progress).await.map(|()| None)
                };
                Ok(self.follow(self.operations.begin(kind, work)?))
            }
            _ => Err(unknown(method, request.uri().path())),
        }
    }

    /// An operation as lines, from its first, until its end or until nobody reads any more.
    fn follow(&self, log: Arc<Log>) -> Response<Answer> {
        let (sender, lines) = mpsc::channel(64);
        self.group.spawn("follower", move |_| async move {
            let mut seen = 0;
            loop {
                let events = log.after(seen).await;
                seen += events.len();
                let is_ended = matches!(events.last(), Some(Event::End { .. }));
                let text: String = events.iter().map(|event| to_json(event) + "\n").collect();
                let text = if text.is_empty() { "\n".to_owned() } else { text };
                if sender.send(Bytes::from(text)).await.is_err() || is_ended {
                    return;
                }
            }
        });
        let mut response = Response::new(Either::Right(Lines::Told(lines)));
        response.headers_mut().insert(
            http::header::CONTENT_TYPE,
            http::HeaderValue::from_static("application/x-ndjson"),
        );
        response
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Server")
    }
}

fn may_ask(stream: &UnixStream, owner: u32) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == owner)
}

fn unknown(method: &Method, path: &str) -> Failure {
    Failure::yours(format!("the running agent does not know `{method} {path}`"))
        .hint("it may be of another version: `pressroom down`, then `pressroom up`, runs this one")
}

/// Whether only the node that decides can answer this.
fn is_for_leader(path: &str) -> bool {
    let parts: Vec<_> = path.split('/').skip(1).collect();
    match parts.as_slice() {
        ["v1", "nodes", "change"] | ["v1", "apply" | "plan" | "environments"] => true,
        ["v1", "sites", _, "visit" | "purge" | "wp-cli" | "writes"] => false,
        ["v1", "sites", ..] => true,
        _ => false,
    }
}

/// What only the leader does was asked for, and no node that leads is found. Nothing has begun.
pub fn leaderless() -> Failure {
    Failure::ours("the cluster has no leader that answers at the moment")
        .state("what runs goes on, and sites are served; nothing was changed")
        .hint("try again in a few seconds; `pressroom node list` shows who is heard")
}

pub(crate) async fn body<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Failure> {
    let path = request.uri().path().to_owned();
    let bytes = whole(request).await?;
    serde_json::from_slice(&bytes).map_err(|error| {
        Failure::yours(format!("the request to `{path}` is not understood")).cause(error)
    })
}

async fn whole(request: Request<Incoming>) -> Result<Bytes, Failure> {
    let path = request.uri().path().to_owned();
    let whole = Limited::new(request.into_body(), BODY_LIMIT).collect();
    let body = tokio::time::timeout(REQUEST_TIME, whole)
        .await
        .map_err(|_| {
            Failure::yours(format!("the request to `{path}` did not arrive in {REQUEST_TIME:?}"))
        })?
        .map_err(|error| {
            Failure::yours(format!("the request to `{path}` cannot be read")).cause(error)
        })?;
    Ok(body.to_bytes())
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("our values have string keys")
}

pub(crate) fn good(value: &impl Serialize) -> Response<Answer> {
    json(StatusCode::OK, value)
}

pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response<Answer> {
    let mut response = Response::new(Either::Left(Full::new(Bytes::from(to_json(value) + "\n"))));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

/// The body of an answer.
pub type Answer = Either<Full<Bytes>, Lines>;

/// A body that is sent as it comes.
pub enum Lines {
    /// Steps of an operation.
    Told(mpsc::Receiver<Bytes>),
    /// Another agent's answer.
    Passed(Incoming),
}

impl Body for Lines {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut *self {
            Self::Told(lines) => {
                lines.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
            }
            // One that breaks off ends without its last line, which the asker misses.
            Self::Passed(body) => {
                Pin::new(body).poll_frame(context).map(|frame| frame?.ok().map(Ok))
            }
        }
    }
}
