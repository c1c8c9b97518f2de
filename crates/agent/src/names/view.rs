//! What the `dns` plane is given: the records that can be read, with what is left of their leases.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pressroom_model::config::Dns;
use pressroom_model::discovery::{Leased, ROOT, Record, View};
use pressroom_runtime::clock;
use pressroom_runtime::shutdown::Shutdown;
use pressroom_store::entry::Revision;

use super::seen::Seen;
use crate::agent::Agent;
use crate::files::{self, Owner};

/// A view in which only leases changed is not written more often.
const SELDOM: Duration = Duration::from_secs(1);
/// Between two looks whether something else than a record changed.
const LOOK: Duration = Duration::from_secs(1);

/// The view of what was seen, at `now`.
pub fn view(seen: &Seen, wanted: &Dns, now: Instant, wall_ms: u64) -> View {
    let mut records = BTreeMap::new();
    for (key, entry) in &seen.entries {
        let name = key.as_str().strip_prefix(ROOT).and_then(|rest| rest.strip_prefix('/'));
        let Some(name) = name else { continue };
        match Record::parse(&entry.value) {
            Ok(record) => {
                let lease = entry.lease.map(|lease| lease.0);
                records.insert(name.to_owned(), Leased { record, lease });
            }
            Err(error) => tracing::debug!(%key, %error, "a record is passed over"),
        }
    }
    let left =
        |rest: &super::seen::Rest| u64::try_from(rest.now(now).as_millis()).unwrap_or(u64::MAX);
    View {
        domain: wanted.domain.clone(),
        revision: seen.revision.0,
        at_ms: wall_ms,
        records,
        leases: seen.leases.iter().map(|(lease, rest)| (lease.0, left(rest))).collect(),
        forward: wanted.forward.clone(),
    }
}

/// Writes the view where the plane finds it.
pub fn write(path: &Path, view: &View, reader: Owner) -> std::io::Result<()> {
    let text = serde_json::to_vec(view).expect("plain data");
    files::write_passing(path, &text, 0o640, reader).map(drop)
}

impl Agent {
    /// Keeps the view for as long as the agent runs.
    pub(crate) async fn publish_names(self: Arc<Self>, shutdown: Shutdown) {
        let mut seen = self.names.seen.subscribe();
        let mut last: Option<(Revision, Dns, Instant)> = None;
        let mut is_news = true;
        while !shutdown.is_requested() {
            let wanted = self.names_wanted();
            let now = clock::now();
            let is_due = match &last {
                None => true,
                Some((revision, of, at)) => {
                    *revision != seen.borrow().revision
                        || *of != wanted
                        || is_news && now >= *at + SELDOM
                }
            };
            // Nothing heard yet is not nothing there: the last view stays.
            let is_heard = seen.borrow().is_heard;
            if is_due && is_heard && !wanted.listen.is_empty() {
                let current = seen.borrow_and_update().clone();
                match self.write_view(&current, &wanted, now) {
                    Ok(()) => {
                        is_news = false;
                        last = Some((current.revision, wanted, now));
                    }
                    Err(error) => tracing::warn!(%error, "the view of names cannot be written"),
                }
            }
            tokio::select! {
                () = shutdown.requested() => {}
                _ = seen.changed() => {
                    is_news = true;
                    // Several changes in a row are one.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    fn write_view(&self, seen: &Seen, wanted: &Dns, now: Instant) -> std::io::Result<()> {
        let user = self.users.namer().map_err(std::io::Error::other)?;
        let reader = crate::engine::owner(user.as_ref()).map(|(_, gid)| (0, gid));
        let path = self.layout.dns_view();
        if let Some(folder) = path.parent().filter(|folder| !folder.is_dir()) {
            std::fs::create_dir_all(folder)?;
        }
        write(&path, &view(seen, wanted, now, clock::wall_ms()), reader)
    }
}
