//! Releases from other nodes: the manifest first, then the files that this node lacks, in batches, checked as they come.

use std::io::Read as _;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use pressroom_model::id::{NodeName, ReleaseId, SiteName};
use pressroom_release::releases::Releases;
use pressroom_wire::WireError;
use pressroom_wire::http::{AnyBody, any_body};

use super::Cluster;
use super::door::{short, whole};
use crate::agent::Agent;
use crate::apply::off_the_loop;
use crate::site;

/// So many files are asked for at a time.
const BATCH: usize = 256;
/// A peer that is silent for so long is given up for another one.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a file that are sent at a time.
const PIECE: usize = 256 << 10;
/// Before each file: its digest, a space, its length in hexadecimal, a line feed.
const HEAD: usize = 64 + 1 + 16 + 1;

/// Why a release could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No other node has it, or answers.
    #[error("no node gives release {id}: {last}")]
    Nobody {
        /// Which release.
        id: ReleaseId,
        /// What the last one said.
        last: String,
    },
    /// It is not what it should be, or cannot be written.
    #[error(transparent)]
    Release(#[from] pressroom_release::ReleaseError),
    /// A file.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Why one node could not give what was asked for.
#[derive(Debug, thiserror::Error)]
enum PeerError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("it answered {0}: {1}")]
    Status(StatusCode, String),
    #[error("it was silent for {PATIENCE:?}")]
    Silent,
    #[error("its answer broke off: {0}")]
    Broken(String),
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

impl Agent {
    /// Has everything here that a site's versions are made of, from whichever nodes give it, and links it into its folder.
    pub(crate) async fn fetch_releases(&self, name: &SiteName) -> Result<(), site::Error> {
        let Some(cluster) = &self.cluster else { return Ok(()) };
        let ids = self.state.lock().sites.get(name).map(|facts| facts.used()).unwrap_or_default();
        for id in ids {
            if !self.layout.site_root(name, &id).is_dir() {
                let _made = self.collection.read().await;
                self.fetch(cluster, &id).await?;
                self.link_release(name, &id).await?;
            }
        }
        self.changed.notify_one();
        Ok(())
    }

    /// Has a release here that another node made.
    pub async fn have_release(&self, id: &ReleaseId) -> Result<(), FetchError> {
        match &self.cluster {
            Some(cluster) => self.fetch(cluster, id).await,
            None => Ok(()),
        }
    }

    /// Has a release here, from whichever node gives it.
    pub(crate) async fn fetch(&self, cluster: &Cluster, id: &ReleaseId) -> Result<(), FetchError> {
        let releases = Releases::at(self.layout.releases());
        if releases.manifest(id).is_ok() && releases.tree(id).is_dir() {
            return Ok(());
        }
        let mut last = "no other node is up".to_owned();
        for peer in self.givers(cluster, id) {
            match self.fetch_from(cluster, &releases, &peer, id).await {
                Ok(()) => return Ok(()),
                Err(error) => last = format!("`{peer}`: {error}"),
            }
        }
        Err(FetchError::Nobody { id: id.clone(), last })
    }

    /// Nodes that may have it: those that say so first, then the leader, then all others.
    fn givers(&self, cluster: &Cluster, id: &ReleaseId) -> Vec<NodeName> {
        let own = cluster.node();
        let state = self.state.lock();
        let known = &state.known;
        let has = |name: &NodeName| {
            known.reports.get(name).is_some_and(|(report, _)| {
                report.sites.values().any(|site| site.release.as_ref() == Some(id))
            })
        };
        let mut peers: Vec<NodeName> =
            known.nodes.keys().filter(|name| **name != own).cloned().collect();
        peers.sort_by_key(|name| (!has(name), known.leader.as_ref() != Some(name)));
        peers
    }

    async fn fetch_from(
        &self,
        cluster: &Cluster,
        releases: &Releases,
        peer: &NodeName,
        id: &ReleaseId,
    ) -> Result<(), PeerError> {
        let request = Request::get(format!("/releases/{id}"));
        let request = request.body(any_body(Empty::new())).expect("a good path");
        let manifest = collected(call(cluster, peer, request).await?).await?;
        let text = String::from_utf8(manifest).map_err(|e| PeerError::Broken(e.to_string()))?;
        let (begun, own) = (releases.clone(), id.clone());
        let (incoming, lacking) = off_the_loop(move || {
            let incoming = begun.begin_receiving(&own, &text)?;
            let lacking = incoming.lacking();
            Ok::<_, FetchError>((incoming, lacking))
        })
        .await?;
        let incoming = std::sync::Arc::new(incoming);
        tracing::info!(%peer, release = %id, files = lacking.len(), "fetches a release");
        for batch in lacking.chunks(BATCH) {
            let request = Request::post(format!("/releases/{id}"))
                .body(any_body(Full::new(Bytes::from(batch.join("\n")))))
                .expect("a good path");
            let mut files = Files::new(call(cluster, peer, request).await?);
            let mut taken = 0;
            while let Some((digest, bytes)) = files.next().await? {
                let incoming = std::sync::Arc::clone(&incoming);
                off_the_loop(move || incoming.take(&digest, &bytes).map_err(FetchError::from))
                    .await?;
                taken += 1;
            }
            if taken < batch.len() {
                let lacks = batch.len() - taken;
                return Err(PeerError::Broken(format!("it lacks {lacks} files of it")));
            }
        }
        let incoming = std::sync::Arc::into_inner(incoming).expect("every batch has ended");
        off_the_loop(move || incoming.finish().map_err(FetchError::from))
            .await
            .map_err(PeerError::from)?;
        Ok(())
    }

    pub(super) fn answer_manifest(&self, id: &str) -> Response<AnyBody> {
        let Ok(id) = id.parse::<ReleaseId>() else {
            return short(StatusCode::BAD_REQUEST, "no release id");
        };
        match Releases::at(self.layout.releases()).manifest_text(&id) {
            Ok(text) => short(StatusCode::OK, text),
            Err(error) => short(StatusCode::NOT_FOUND, error.to_string()),
        }
    }

    pub(super) async fn answer_files(
        &self,
        id: &str,
        request: Request<Incoming>,
    ) -> Response<AnyBody> {
        let Ok(id) = id.parse::<ReleaseId>() else {
            return short(StatusCode::BAD_REQUEST, "no release id");
        };
        let digests: Vec<String> = match whole(request).await {
            Ok(bytes) => String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect(),
            Err(error) => return short(StatusCode::BAD_REQUEST, error),
        };
        let releases = Releases::at(self.layout.releases());
        let found =
            off_the_loop(move || releases.find(&id, &digests).map_err(std::io::Error::other));
        let files = match found.await {
            Ok(files) => files,
            Err(error) => return short(StatusCode::NOT_FOUND, error.to_string()),
        };
        let (sender, pieces) = tokio::sync::mpsc::channel::<std::io::Result<Frame<Bytes>>>(4);
        tokio::task::spawn_blocking(move || {
            for (digest, path) in files {
                if let Err(error) = send(&sender, &digest, &path) {
                    // The asker has gone, or the file has: it asks another node.
                    let _ = sender.blocking_send(Err(error));
                    return;
                }
            }
        });
        Response::new(any_body(StreamBody::new(Pieces(pieces))))
    }
}

fn send(
    sender: &tokio::sync::mpsc::Sender<std::io::Result<Frame<Bytes>>>,
    digest: &str,
    path: &std::path::Path,
) -> std::io::Result<()> {
    let gone = |_| std::io::Error::other("the asker has gone");
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    let head = format!("{digest} {length:016x}\n");
    sender.blocking_send(Ok(Frame::data(Bytes::from(head)))).map_err(gone)?;
    let mut left = length;
    while left > 0 {
        let mut piece = vec![0; usize::try_from(left).unwrap_or(PIECE).min(PIECE)];
        file.read_exact(&mut piece)?;
        left -= piece.len() as u64;
        sender.blocking_send(Ok(Frame::data(Bytes::from(piece)))).map_err(gone)?;
    }
    Ok(())
}

/// A body of which the pieces come from elsewhere.
pub(super) struct Pieces(pub(super) tokio::sync::mpsc::Receiver<std::io::Result<Frame<Bytes>>>);

impl futures_core::Stream for Pieces {
    type Item = std::io::Result<Frame<Bytes>>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

async fn call(
    cluster: &Cluster,
    peer: &NodeName,
    request: Request<AnyBody>,
) -> Result<Response<Incoming>, PeerError> {
    let answer = tokio::time::timeout(PATIENCE, cluster.client.call(peer, request)).await;
    let answer = answer.map_err(|_| PeerError::Silent)??;
    match answer.status() {
        StatusCode::OK => Ok(answer),
        status => {
            let said = collected(answer).await.unwrap_or_default();
            Err(PeerError::Status(status, String::from_utf8_lossy(&said).into_owned()))
        }
    }
}

async fn collected(answer: Response<Incoming>) -> Result<Vec<u8>, PeerError> {
    let body = http_body_util::Limited::new(answer.into_body(), 64 << 20).collect();
    let body = tokio::time::timeout(PATIENCE, body).await.map_err(|_| PeerError::Silent)?;
    body.map(|body| body.to_bytes().to_vec()).map_err(|error| PeerError::Broken(error.to_string()))
}

/// Files as they arrive.
struct Files {
    body: Incoming,
    read: Vec<u8>,
    at: usize,
}

impl Files {
    fn new(answer: Response<Incoming>) -> Self {
        Self { body: answer.into_body(), read: Vec::new(), at: 0 }
    }

    /// The next one: its digest and its bytes.
    async fn next(&mut self) -> Result<Option<(String, Vec<u8>)>, PeerError> {
        let broken = |cause: &str| PeerError::Broken(cause.to_owned());
        if !self.fill(HEAD).await? {
            return match self.read.len() == self.at {
                true => Ok(None),
                false => Err(broken("in the middle of a head")),
            };
        }
        let head = String::from_utf8(self.cut(HEAD)).map_err(|_| broken("a strange head"))?;
        let (digest, length) =
            head.trim_end().split_once(' ').ok_or_else(|| broken("a strange head"))?;
        let length = usize::from_str_radix(length, 16).map_err(|_| broken("a strange length"))?;
        if !self.fill(length).await? {
            return Err(broken("in the middle of a file"));
        }
        Ok(Some((digest.to_owned(), self.cut(length))))
    }

    fn cut(&mut self, length: usize) -> Vec<u8> {
        let cut = self.read[self.at..self.at + length].to_vec();
        self.at += length;
        cut
    }

    /// Reads until so many bytes are there; whether they came.
    async fn fill(&mut self, length: usize) -> Result<bool, PeerError> {
        if self.at > 0 {
            self.read.drain(..self.at);
            self.at = 0;
        }
        while self.read.len() < length {
            let frame = tokio::time::timeout(PATIENCE, self.body.frame());
            match frame.await.map_err(|_| PeerError::Silent)? {
                None => return Ok(false),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.read.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(PeerError::Broken(error.to_string())),
            }
        }
        Ok(true)
    }
}
