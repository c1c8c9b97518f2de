//! Where the edge asks whether an upload is on another node as well, before its sender hears that it was taken.
//!
//! One line in, the site's name; one line out: `1` once another node has it, `0` when none did in time. The agent being away is no
//! reason to refuse an upload: it is on disk here, and told to the others when the agent is back.

use std::sync::Arc;
use std::time::Duration;

use pressroom_model::id::SiteName;
use pressroom_runtime::shutdown::Shutdown;
use pressroom_runtime::tasks::Group;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::agent::Agent;
use crate::engine::owner;
use crate::files;

/// Longest wait for another node.
const PATIENCE: Duration = Duration::from_millis(2500);
/// Longest name of a site, with room.
const LINE: u64 = 64;

impl Agent {
    fn bind_commits(&self) -> std::io::Result<UnixListener> {
        let path = self.layout.media_socket();
        let edge = self.users.edge().map_err(std::io::Error::other)?;
        let reader = owner(edge.as_ref()).map(|(_, gid)| (0, gid));
        if let Some(folder) = path.parent() {
            files::folder(folder, 0o750, reader)?;
        }
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        // The folder is the wall.
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
        Ok(listener)
    }

    /// Answers the edge for as long as the agent runs.
    pub(crate) async fn answer_commits(self: Arc<Self>, shutdown: Shutdown) {
        let listener = match self.bind_commits() {
            Ok(listener) => listener,
            Err(error) => {
                return self.notice(format!(
                    "uploads are answered before another node has them: {error}; they are sent all the same"
                ));
            }
        };
        let group = Group::new("commits", shutdown.clone());
        loop {
            let accepted = tokio::select! {
                () = shutdown.requested() => break,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let agent = Arc::clone(&self);
            group.spawn("commit", move |_| async move {
                // The edge may have gone; the upload is told to others all the same.
                let _ = agent.answer_commit(stream).await;
            });
        }
        group.finish(PATIENCE).await;
    }

    async fn answer_commit(&self, stream: UnixStream) -> std::io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut line = String::new();
        let mut read = BufReader::new(tokio::io::AsyncReadExt::take(read, LINE));
        let asked = tokio::time::timeout(PATIENCE, read.read_line(&mut line)).await;
        asked.map_err(std::io::Error::other)??;
        let is_there = match line.trim().parse::<SiteName>() {
            Ok(site) => self.commit_media(&site, PATIENCE).await,
            Err(_) => false,
        };
        write.write_all(if is_there { b"1\n" } else { b"0\n" }).await
    }
}
