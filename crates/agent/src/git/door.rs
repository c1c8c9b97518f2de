//! Git's smart HTTP for the edge, which passes it on to `run/git/http.sock`: stock `git http-backend`, opened by a site's token.
//!
//! In a cluster the leader answers, whichever node is asked: it alone writes histories, and a push is a deploy.
//!
//! Always: nothing is started before the token was found good; a site's repository is reachable by that site's own hosts only; and
//! what is asked is one of the three requests that git's protocol has.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use pressroom_model::id::{NodeName, SiteName};
use pressroom_model::snapshot::GIT_PATH;
use pressroom_runtime::door::Door;
use pressroom_runtime::shutdown::Shutdown;
use pressroom_runtime::tasks::Group;
use pressroom_wire::http::{AnyBody, any_body};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::OwnedSemaphorePermit;

use super::repository::GitError;
use super::{repository, token};
use crate::agent::Agent;
use crate::files;
use crate::layout::Layout;
use crate::users::Users;

/// Open connections; more wait to be accepted.
const CONNECTIONS: usize = 128;
/// Longest head of an answer of `git http-backend`.
const HEAD: usize = 16 << 10;
/// Longest wait for the history.
const CATCH_UP: Duration = Duration::from_secs(20);
/// Longest wait for the head of the leader's answer; shorter than the edge's patience.
const LEADER: Duration = Duration::from_secs(55);
/// Bytes that are passed on at a time.
const PIECE: usize = 64 << 10;
/// A request's head must be there in this time.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// The site that the edge found by the host.
const SITE: HeaderName = HeaderName::from_static("x-pressroom-site");

/// Opens the socket, for the edge alone.
pub fn bind(layout: &Layout, users: &Users) -> io::Result<UnixListener> {
    let path = layout.git_socket();
    let edge = users.edge().map_err(io::Error::other)?.map(|edge| (0, edge.gid));
    if let Some(folder) = path.parent() {
        files::folder(folder, 0o750, edge)?;
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    if let Some((uid, gid)) = edge {
        std::os::unix::fs::chown(&path, Some(uid), Some(gid))?;
    }
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Answers on `listener` until shutdown; connections are tasks of `group`.
pub async fn serve(agent: Arc<Agent>, listener: UnixListener, group: Group, stop: Shutdown) {
    let door = Door { name: "git", connections: CONNECTIONS, head_time: REQUEST_TIME };
    let answer = move |request: Request<Incoming>| {
        let agent = Arc::clone(&agent);
        async move {
            match agent.leader_elsewhere() {
                Some(leader) => agent.pass_git_on(&leader, request).await,
                None => agent.answer_git(request).await,
            }
        }
    };
    door.serve(listener, group, stop, |_| true, answer).await;
}

/// What is asked of which site.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    site: SiteName,
    /// Below the folder of repositories.
    path_info: String,
}

/// Reads the path; `None`: git does not ask so.
fn asked(method: &Method, path: &str, query: &str) -> Option<Asked> {
    let (name, rest) = path.strip_prefix(GIT_PATH)?.split_once(".git/")?;
    let site: SiteName = name.parse().ok()?;
    let is_known = match (method, rest) {
        (&Method::GET, "info/refs") => {
            matches!(query, "service=git-upload-pack" | "service=git-receive-pack")
        }
        (&Method::POST, "git-upload-pack" | "git-receive-pack") => true,
        _ => false,
    };
    is_known.then(|| Asked { path_info: format!("/{site}.git/{rest}"), site })
}

impl Agent {
    /// Has the leader answer. Who asks and what for is its to judge.
    async fn pass_git_on(
        &self,
        leader: &NodeName,
        request: Request<Incoming>,
    ) -> Response<AnyBody> {
        let Some(cluster) = &self.cluster else { return no_leader() };
        let (mut parts, body) = request.into_parts();
        for name in [header::HOST, header::CONNECTION, header::TRANSFER_ENCODING] {
            parts.headers.remove(name);
        }
        parts.version = http::Version::HTTP_2;
        let request = Request::from_parts(parts, any_body(body));
        match tokio::time::timeout(LEADER, cluster.client.call(leader, request)).await {
            Ok(Ok(answer)) => answer.map(any_body),
            Ok(Err(error)) => {
                tracing::warn!(%leader, %error, "git's request did not reach the leader");
                no_leader()
            }
            Err(_) => no_leader(),
        }
    }

    /// Answers git, as the one that has the histories.
    pub(crate) async fn answer_git(&self, request: Request<Incoming>) -> Response<AnyBody> {
        if !self.leads() {
            return no_leader();
        }
        let uri = request.uri();
        let Some(asked) = asked(request.method(), uri.path(), uri.query().unwrap_or_default())
        else {
            return text(StatusCode::NOT_FOUND, "Here is a git repository: use `git clone`.\n");
        };
        let host_of = request.headers().get(SITE).and_then(|site| site.to_str().ok());
        if host_of != Some(asked.site.as_str()) || self.site(&asked.site).is_none() {
            return text(StatusCode::NOT_FOUND, "This host has no such repository.\n");
        }
        let Some(user) = self.git_user(&asked.site, request.headers()) else { return who() };
        if !repository::is_installed() {
            let words = "git is not installed on this machine; `pressroom doctor` says more.\n";
            return text(StatusCode::SERVICE_UNAVAILABLE, words);
        }
        if request.method() == Method::GET
            && let Err(why) = self.await_history(&asked.site).await
        {
            return text(StatusCode::SERVICE_UNAVAILABLE, why);
        }
        if !self.layout.history(&asked.site).join("HEAD").is_file() {
            return text(StatusCode::SERVICE_UNAVAILABLE, "There is no history yet.\n");
        }
        let Ok(place) = Arc::clone(&self.histories.places).acquire_owned().await else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "The agent ends.\n");
        };
        match self.backend(&asked, &user, request, place).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(site = %asked.site, %error, "git http-backend did not answer");
                text(StatusCode::BAD_GATEWAY, "git did not answer; `pressroom logs agent`.\n")
            }
        }
    }

    /// What serves is what is asked for: whoever fetches right after a deploy finds its commit. While a push is under way its end
    /// is waited for, if it comes soon.
    /// What is here is shown even if it could not be brought up to date; an error says why nothing can be.
    async fn await_history(&self, site: &SiteName) -> Result<(), String> {
        match tokio::time::timeout(CATCH_UP, self.history(site)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::warn!(%site, %error, "the git history is not up to date");
                if matches!(error, GitError::Elsewhere { .. } | GitError::Unfit { .. }) {
                    return Err(format!("The history of this site is not here: {error}\n"));
                }
            }
            Err(_) => tracing::debug!(%site, "a push is under way; what was there is shown"),
        }
        Ok(())
    }

    /// Who asks, if the token is good. Any name will do.
    fn git_user(&self, site: &SiteName, headers: &HeaderMap) -> Option<String> {
        let given = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, coded) = given.split_once(' ')?;
        let decoded = base64::engine::general_purpose::STANDARD.decode(coded.trim()).ok()?;
        let pair = String::from_utf8(decoded).ok()?;
        let (user, password) = pair.split_once(':')?;
        let is_good =
            scheme.eq_ignore_ascii_case("basic") && token::opens(&self.layout, site, password);
        is_good.then(|| user.to_owned())
    }

    async fn backend(
        &self,
        asked: &Asked,
        user: &str,
        request: Request<Incoming>,
        place: OwnedSemaphorePermit,
    ) -> io::Result<Response<AnyBody>> {
        let (parts, body) = request.into_parts();
        let mut command = Command::new(repository::GIT);
        command
            .arg("http-backend")
            .env_clear()
            .envs(repository::environment())
            .env("GIT_PROJECT_ROOT", self.layout.histories())
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("PATH_INFO", &asked.path_info)
            .env("REQUEST_METHOD", parts.method.as_str())
            .env("QUERY_STRING", parts.uri.query().unwrap_or_default())
            .env("REMOTE_USER", if user.is_empty() { "git" } else { user })
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true);
        for (name, variable) in [
            (header::CONTENT_TYPE, "CONTENT_TYPE"),
            (header::CONTENT_LENGTH, "CONTENT_LENGTH"),
            (header::CONTENT_ENCODING, "HTTP_CONTENT_ENCODING"),
            (HeaderName::from_static("git-protocol"), "GIT_PROTOCOL"),
        ] {
            if let Some(value) = parts.headers.get(name).and_then(|value| value.to_str().ok()) {
                command.env(variable, value);
            }
        }
        let mut child = command.spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (Some(stdin), Some(mut stdout)) = (stdin, stdout) else {
            return Err(io::Error::other("no pipe"));
        };
        let mut feeding = Some(Box::pin(feed(stdin, body)) as Feeding);
        let (head, rest) = {
            let mut heading = std::pin::pin!(head(&mut stdout));
            std::future::poll_fn(|context| {
                drive(&mut feeding, context);
                heading.as_mut().poll(context)
            })
            .await?
        };
        let mut response = Response::new(());
        read_head(&head, &mut response)?;
        let output = Output { rest, stdout, feeding, _child: child, _place: place };
        Ok(response.map(|()| any_body(output)))
    }
}

/// Gives git the request's body as it comes. One that wants no more of it says why in its answer.
async fn feed(mut stdin: ChildStdin, mut body: Incoming) {
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(bytes) = frame.into_data()
            && stdin.write_all(&bytes).await.is_err()
        {
            return;
        }
    }
}

/// The head of a CGI answer, and what came with it.
async fn head(stdout: &mut ChildStdout) -> io::Result<(Vec<u8>, Bytes)> {
    let mut read = BytesMut::with_capacity(HEAD);
    loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = read.split_to(end + 4);
            return Ok((head.to_vec(), read.freeze()));
        }
        if read.len() >= HEAD || stdout.read_buf(&mut read).await? == 0 {
            return Err(io::Error::other("its answer has no head"));
        }
    }
}

fn read_head(head: &[u8], response: &mut Response<()>) -> io::Result<()> {
    let odd = || io::Error::other("its answer's head makes no sense");
    for line in String::from_utf8_lossy(head).lines().filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').ok_or_else(odd)?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("status") {
            let code = value.split(' ').next().unwrap_or_default();
            *response.status_mut() = code.parse().map_err(|_| odd())?;
            continue;
        }
        let name = HeaderName::try_from(name).map_err(|_| odd())?;
        response.headers_mut().append(name, HeaderValue::from_str(value).map_err(|_| odd())?);
    }
    Ok(())
}

/// What a git is given, until it has all of it or wants no more.
type Feeding = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Feeds on; whether it has come to its end is its own affair.
fn drive(feeding: &mut Option<Feeding>, context: &mut Context<'_>) {
    if feeding.as_mut().is_some_and(|it| it.as_mut().poll(context).is_ready()) {
        *feeding = None;
    }
}

/// What a git says, as it comes, while it is fed; dropped, git ends.
pub(super) struct Output {
    /// What comes before.
    pub(super) rest: Bytes,
    /// Where it speaks.
    pub(super) stdout: ChildStdout,
    /// What it is given meanwhile.
    pub(super) feeding: Option<Feeding>,
    /// Itself.
    pub(super) _child: Child,
    /// Its place among those that run at a time.
    pub(super) _place: OwnedSemaphorePermit,
}

impl Body for Output {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        drive(&mut this.feeding, context);
        if !this.rest.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.rest)))));
        }
        let mut piece = BytesMut::with_capacity(PIECE);
        let read = {
            let reading = this.stdout.read_buf(&mut piece);
            std::task::ready!(std::pin::pin!(reading).poll(context))
        };
        Poll::Ready(match read {
            Ok(0) => None,
            Ok(_) => Some(Ok(Frame::data(piece.freeze()))),
            Err(error) => Some(Err(error)),
        })
    }
}

fn text(status: StatusCode, words: impl Into<Bytes>) -> Response<AnyBody> {
    let mut response = Response::new(any_body(Full::new(words.into())));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn no_leader() -> Response<AnyBody> {
    let words = "No node leads at this moment, and the leader has the histories; try again soon.\n";
    text(StatusCode::SERVICE_UNAVAILABLE, words)
}

fn who() -> Response<AnyBody> {
    let words = "Give the site's token as the password: `pressroom git token SITE` makes one.\n";
    let mut response = text(StatusCode::UNAUTHORIZED, words);
    let challenge = HeaderValue::from_static("Basic realm=\"Pressroom\", charset=\"UTF-8\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

/// Where a site's repository is for git, below its home URL.
pub fn url(home: &str, site: &SiteName) -> String {
    format!("{home}{GIT_PATH}{site}.git")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_git_asks_is_passed_on() {
        let check = |method: Method, path: &str, query: &str| {
            let asked = asked(&method, &format!("{GIT_PATH}{path}"), query);
            asked.map(|asked| asked.path_info)
        };
        let upload = "service=git-upload-pack";
        let found = check(Method::GET, "blog.git/info/refs", upload).expect("it is git's");
        assert_eq!(found, "/blog.git/info/refs");
        assert!(check(Method::POST, "blog.git/git-receive-pack", "").is_some());
        for (method, path, query) in [
            (Method::GET, "blog.git/info/refs", ""),
            (Method::GET, "blog.git/HEAD", ""),
            (Method::GET, "blog.git/objects/info/packs", ""),
            (Method::GET, "blog.git/../shop.git/info/refs", upload),
            (Method::GET, "../secrets.git/info/refs", upload),
            (Method::POST, "blog.git/info/refs", upload),
            (Method::GET, "blog/info/refs", upload),
        ] {
            assert_eq!(check(method, path, query), None, "{path}");
        }
    }

    #[test]
    fn the_head_of_an_answer_is_read_as_cgi_has_it() {
        let mut response = Response::new(());
        let head = b"Status: 403 Forbidden\r\nContent-Type: text/plain\r\n\r\n";
        read_head(head, &mut response).expect("it is a head");
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/plain");
        assert!(read_head(b"nonsense\r\n\r\n", &mut response).is_err());
    }
}
