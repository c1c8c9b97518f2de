//! Where the data is: a file that the agent replaces by rename. A process that starts while the agent is away begins with the
//! last one.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pressroom_model::id::NodeName;
use pressroom_runtime::tasks::Group;
use pressroom_wire::WireError;
use pressroom_wire::identity::{Identity, Paths};
use pressroom_wire::members::Members;
use pressroom_wire::tls::Wire;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::channel::Channel;

/// Between two looks whether the file was replaced.
const LOOK: Duration = Duration::from_millis(200);

/// What the process works by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// This node.
    pub node: NodeName,
    /// The node that has the data; `None`: nobody knows.
    pub data: Option<NodeName>,
    /// The nodes that are let in.
    pub members: Members,
    /// Our identity.
    pub identity: Paths,
    /// The engines' own sockets, where the data is here.
    #[serde(default)]
    pub engines: BTreeMap<Channel, PathBuf>,
}

/// Why there is no view.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
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

impl View {
    /// The one in a file.
    pub fn read(path: &Path) -> Result<Self, ViewError> {
        let bytes = std::fs::read(path)
            .map_err(|source| ViewError::Read { path: path.to_owned(), source })?;
        serde_json::from_slice(&bytes)
            .map_err(|source| ViewError::Parse { path: path.to_owned(), source })
    }

    /// Our identity as it is on disk now.
    pub(crate) fn identity(&self) -> Result<Identity, WireError> {
        Identity::read(&self.identity)
    }
}

/// Follows the file; the members of `wire` follow it.
pub(crate) fn follow(
    path: PathBuf,
    first: View,
    wire: Wire,
    group: &Group,
) -> watch::Receiver<View> {
    let (sender, receiver) = watch::channel(first);
    group.spawn("view", move |stop| async move {
        let stamp = |path: &Path| {
            let meta = std::fs::metadata(path).ok()?;
            Some((std::os::unix::fs::MetadataExt::ino(&meta), meta.modified().ok()?))
        };
        // What was replaced before the first look is read once more.
        let mut seen = None;
        loop {
            tokio::select! {
                () = stop.requested() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let now = stamp(&path);
            if now == seen {
                continue;
            }
            match View::read(&path) {
                Ok(view) => {
                    seen = now;
                    wire.members.set(view.members.clone());
                    sender.send_if_modified(|old| {
                        let is_news = *old != view;
                        *old = view;
                        is_news
                    });
                }
                Err(error) => tracing::warn!(%error, "the view stays as it was"),
            }
        }
    });
    receiver
}
