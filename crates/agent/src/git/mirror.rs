//! The same histories on all nodes of a cluster: those that do not lead take over what the leader has, so that whoever leads next
//! goes on from there, and nobody's clone is cut off.
//!
//! The asker names the commits that it has; the answer is a line of JSON with all names of the other node, then what is lacking, as git
//! packs it. Objects are checked by git as they come. A leader asks the others in the same way for what it does not have (`regain`).
//!
//! Always: only the leader makes commits. What another node has under a name that the leader has not, or has otherwise, gives way.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use pressroom_model::id::{NodeName, SiteName};
use pressroom_wire::http::{AnyBody, any_body};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::OwnedMutexGuard;

use super::door::Output;
use super::repository::{GitError, Oid, Repository};
use crate::agent::Agent;
use crate::apply::off_the_loop;
use crate::cluster::door::{short, whole};

/// Longest wait for the head of an answer: a push may be under way.
const PATIENCE: Duration = Duration::from_secs(30);
/// A node that is silent for so long is asked again later.
const SILENT: Duration = Duration::from_secs(20);
/// Longest line with names.
const NAMES: usize = 16 << 20;

/// What names mean.
pub(super) type Names = BTreeMap<String, Oid>;

/// Why a history could not be taken over.
#[derive(Debug, thiserror::Error)]
pub(super) enum MirrorError {
    /// The node that was asked does not answer, or leads no more.
    #[error("the other node: {0}")]
    Away(String),
    /// Git or the disk failed here.
    #[error(transparent)]
    Git(#[from] GitError),
}

impl Agent {
    /// Has what the leader has.
    pub(super) async fn mirror(
        &self,
        name: &SiteName,
        leader: &NodeName,
        held: OwnedMutexGuard<()>,
    ) -> Result<(), MirrorError> {
        let (repository, hook) =
            (Repository::at(self.layout.history(name)), self.hook(name).map_err(GitError::from)?);
        self.histories.sought.lock().remove(name);
        let made = repository.clone();
        off_the_loop(move || made.make(&hook)).await?;
        let done = self.take_over(&repository, leader, format!("/histories/{name}")).await;
        drop(held);
        done
    }

    /// Has what a node answers with.
    pub(super) async fn take_over(
        &self,
        repository: &Repository,
        from: &NodeName,
        path: String,
    ) -> Result<(), MirrorError> {
        let Some(cluster) = &self.cluster else { return Ok(()) };
        let ours = {
            let repository = repository.clone();
            off_the_loop(move || repository.names()).await?
        };
        let had: Vec<&str> = ours.values().map(Oid::as_str).collect();
        let request = Request::post(path)
            .body(any_body(Full::new(Bytes::from(had.join("\n")))))
            .expect("a good path");
        let asked = tokio::time::timeout(PATIENCE, cluster.client.call(from, request)).await;
        let answer = match asked {
            Ok(Ok(answer)) if answer.status() == StatusCode::OK => answer,
            Ok(Ok(answer)) => return Err(MirrorError::Away(answer.status().to_string())),
            Ok(Err(error)) => return Err(MirrorError::Away(error.to_string())),
            Err(_) => return Err(silent(PATIENCE)),
        };
        let mut body = answer.into_body();
        let (theirs, rest) = names(&mut body).await?;
        if theirs == ours {
            return Ok(());
        }
        take(repository, rest, body).await?;
        let repository = repository.clone();
        off_the_loop(move || repository.rename(&ours, &theirs)).await.map_err(MirrorError::from)
    }

    /// Answers a node that takes over a history, as the leader.
    pub(crate) async fn answer_history(
        &self,
        site: &SiteName,
        request: Request<Incoming>,
    ) -> Response<AnyBody> {
        if !self.leads() || self.site(site).is_none() {
            return short(StatusCode::SERVICE_UNAVAILABLE, "this node does not lead");
        }
        let had = match had(request).await {
            Ok(had) => had,
            Err(error) => return short(StatusCode::BAD_REQUEST, error),
        };
        let answer = async {
            let history = self.history(site).await?;
            self.packed(&history.repository, had).await
        };
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                tracing::warn!(%site, %error, "the git history was not given away");
                short(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
            }
            Err(_) => short(StatusCode::SERVICE_UNAVAILABLE, "a push is under way"),
        }
    }

    /// All names of a repository, and what an asker lacks of what is behind them.
    pub(super) async fn packed(
        &self,
        repository: &Repository,
        had: Vec<Oid>,
    ) -> Result<Response<AnyBody>, GitError> {
        let asked = repository.clone();
        let (names, wish) = off_the_loop(move || {
            let names = asked.names()?;
            let had = asked.present(&had)?;
            let wanted = names.values().map(|id| format!("{id}\n"));
            let wish: String = wanted.chain(had.iter().map(|id| format!("^{id}\n"))).collect();
            Ok::<_, GitError>((names, wish))
        })
        .await?;
        let place = Arc::clone(&self.histories.places).acquire_owned().await;
        let place = place.map_err(std::io::Error::other)?;
        let arguments =
            ["pack-objects", "--revs", "--thin", "--stdout", "--delta-base-offset", "-q"];
        let mut command = tokio::process::Command::from(repository.command(&arguments));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(std::io::Error::other("no pipe").into());
        };
        let mut line = serde_json::to_vec(&names).expect("names are text");
        line.push(b'\n');
        let feeding = Box::pin(async move {
            // One that does not read ends, and the asker sees that the pack is no whole one.
            let _ = stdin.write_all(wish.as_bytes()).await;
        });
        let output = Output {
            rest: line.into(),
            stdout,
            feeding: Some(feeding),
            _child: child,
            _place: place,
        };
        Ok(Response::new(any_body(output)))
    }
}

/// The commits that an asker has.
pub(super) async fn had(request: Request<Incoming>) -> Result<Vec<Oid>, String> {
    let bytes = whole(request).await?;
    Ok(String::from_utf8_lossy(&bytes).lines().filter_map(Oid::parse).collect())
}

fn silent(for_so_long: Duration) -> MirrorError {
    MirrorError::Away(format!("it was silent for {for_so_long:?}"))
}

async fn piece(body: &mut Incoming) -> Result<Option<Bytes>, MirrorError> {
    loop {
        let frame = tokio::time::timeout(SILENT, body.frame()).await;
        match frame.map_err(|_| silent(SILENT))? {
            None => return Ok(None),
            Some(Err(error)) => return Err(MirrorError::Away(error.to_string())),
            Some(Ok(frame)) => {
                if let Ok(bytes) = frame.into_data() {
                    return Ok(Some(bytes));
                }
            }
        }
    }
}

/// The other node's names, and what came with them of what follows.
async fn names(body: &mut Incoming) -> Result<(Names, Bytes), MirrorError> {
    let mut read = BytesMut::new();
    while let Some(bytes) = piece(body).await? {
        read.extend_from_slice(&bytes);
        if let Some(end) = read.iter().position(|byte| *byte == b'\n') {
            let line = read.split_to(end + 1);
            let names: BTreeMap<String, String> = serde_json::from_slice(&line)
                .map_err(|error| MirrorError::Away(error.to_string()))?;
            let known = names.into_iter().filter_map(|(name, id)| Some((name, Oid::parse(&id)?)));
            return Ok((known.filter(|(name, _)| is_name(name)).collect(), read.freeze()));
        }
        if read.len() > NAMES {
            break;
        }
    }
    Err(MirrorError::Away("its answer has no names".into()))
}

/// Whether it is one that we keep; git itself checks that it is well-formed.
fn is_name(name: &str) -> bool {
    let is_ours = ["refs/heads/", "refs/pressroom/releases/"].iter().any(|it| name.starts_with(it));
    is_ours && !name.contains(|c: char| c.is_whitespace() || c.is_control())
}

/// Has git take what comes, and check it.
async fn take(repository: &Repository, rest: Bytes, mut body: Incoming) -> Result<(), MirrorError> {
    let io = |error: std::io::Error| MirrorError::Git(error.into());
    let arguments = ["index-pack", "--stdin", "--fix-thin"];
    let mut command = tokio::process::Command::from(repository.command(&arguments));
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(io)?;
    let mut stdin = child.stdin.take().ok_or_else(|| io(std::io::Error::other("no pipe")))?;
    let mut next = Some(rest);
    while let Some(bytes) = next {
        if stdin.write_all(&bytes).await.is_err() {
            // It says why by its status.
            break;
        }
        next = piece(&mut body).await?;
    }
    drop(stdin);
    let output = child.wait_with_output().await.map_err(io)?;
    match output.status.success() {
        true => Ok(()),
        false => Err(super::repository::failed("index-pack", &output).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_we_keep_are_taken_over() {
        for name in ["refs/heads/main", "refs/heads/a/b", "refs/pressroom/releases/0a"] {
            assert!(is_name(name), "{name}");
        }
        for name in
            ["HEAD", "refs/pressroom/next", "refs/heads/a\ndelete refs/heads/b", "refs/tags/x"]
        {
            assert!(!is_name(name), "{name}");
        }
    }
}
