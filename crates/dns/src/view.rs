//! The file that records come in. The agent replaces it by rename whenever one changed, and every few seconds for the rests of
//! leases. A process that starts while the agent is away begins with the last one.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pressroom_model::discovery::View;
use pressroom_runtime::clock;
use pressroom_runtime::tasks::Group;
use tokio::sync::watch;

use crate::names::Names;

/// Between two looks whether the file was replaced.
const LOOK: Duration = Duration::from_millis(100);

/// Why there is no view.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It makes no sense.
    #[error("{path}: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
}

/// The view in a file.
pub fn read(path: &Path) -> Result<View, ViewError> {
    let bytes =
        std::fs::read(path).map_err(|source| ViewError::Read { path: path.to_owned(), source })?;
    serde_json::from_slice(&bytes)
        .map_err(|source| ViewError::Parse { path: path.to_owned(), source })
}

/// The names of a view that is read at `now`, `wall_ms` by the wall clock. A clock that went back makes no lease longer than it was.
pub fn names(view: &View, now: Instant, wall_ms: u64) -> Names {
    let age = Duration::from_millis(wall_ms.saturating_sub(view.at_ms));
    let ends = |rest: u64| now + Duration::from_millis(rest).saturating_sub(age);
    let leases = view.leases.iter().map(|(lease, rest)| (*lease, ends(*rest))).collect();
    let records = view.records.iter().map(|(key, leased)| (key.as_str(), leased.clone()));
    Names::new(&view.domain, serial(view.revision), records, leases)
}

/// Serial numbers have 32 bits and go round (RFC 1982).
fn serial(revision: u64) -> u32 {
    u32::try_from(revision & u64::from(u32::MAX)).unwrap_or_default()
}

/// What questions are answered from.
#[derive(Debug, Clone)]
pub struct Current {
    /// The names; `None`: nobody said anything yet.
    pub names: Option<Arc<Names>>,
    /// Resolvers for all other names.
    pub forward: Arc<[SocketAddr]>,
}

impl Current {
    /// What a view says.
    pub fn of(view: &View) -> Self {
        let names = names(view, clock::now(), clock::wall_ms());
        Self { names: Some(Arc::new(names)), forward: view.forward.as_slice().into() }
    }
}

/// Follows the file.
pub fn follow(path: PathBuf, group: &Group) -> watch::Receiver<Current> {
    let (mut seen, first) = look(&path, None);
    let nothing = Current { names: None, forward: Arc::default() };
    let (sender, receiver) = watch::channel(first.unwrap_or(nothing));
    group.spawn("view", move |stop| async move {
        loop {
            tokio::select! {
                () = stop.requested() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let (now, current) = look(&path, seen);
            seen = now;
            if let Some(current) = current {
                sender.send_replace(current);
            }
        }
    });
    receiver
}

/// What tells one file from the next.
type Stamp = Option<(u64, std::time::SystemTime)>;

/// The file, where it is another one than before.
fn look(path: &Path, seen: Stamp) -> (Stamp, Option<Current>) {
    let stamp = std::fs::metadata(path)
        .ok()
        .and_then(|meta| Some((std::os::unix::fs::MetadataExt::ino(&meta), meta.modified().ok()?)));
    if stamp == seen {
        return (seen, None);
    }
    match read(path) {
        Ok(view) => (stamp, Some(Current::of(&view))),
        Err(error) => {
            tracing::warn!(%error, "the view stays as it was");
            (stamp, None)
        }
    }
}
