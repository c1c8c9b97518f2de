//! What the object store has since now, told to the other nodes: each of them has the same files, and would have to ask the
//! store for each of them whether it is there.
//!
//! It is told once, and to whoever answers. A node that did not hear it asks the store a little later, and everything in it is
//! looked at now and again, so a lost or a wrong word costs requests, and no file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use parking_lot::Mutex;
use pressroom_media::exchange::Version;
use pressroom_media::ledger::Ledger;
use pressroom_media::object::is_behind;
use pressroom_media::stored::Stored;
use pressroom_media::waiting::Waiting;
use pressroom_model::id::SiteName;
use pressroom_runtime::shutdown::Shutdown;
use pressroom_wire::http::{AnyBody, any_body};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::Cluster;
use super::door::{short, whole};
use super::media::call;
use crate::agent::Agent;

/// Between two times that others are told: well before they would ask the store themselves.
const PAUSE: Duration = Duration::from_millis(500);
/// A node that does not answer within that is not told.
const PATIENCE: Duration = Duration::from_secs(2);
/// So many paths are told at a time.
const BATCH: usize = 2000;

/// Paths of which the store has something else since others were told last.
#[derive(Debug, Default)]
pub(crate) struct News(Mutex<BTreeMap<SiteName, BTreeSet<String>>>);

impl News {
    /// The store was told of this path.
    pub(super) fn note(&self, site: &SiteName, path: &str) {
        self.0.lock().entry(site.clone()).or_default().insert(path.to_owned());
    }

    /// All of them; from now on they are no news.
    pub(super) fn take(&self) -> BTreeMap<SiteName, BTreeSet<String>> {
        std::mem::take(&mut *self.0.lock())
    }
}

/// What a store has of some paths of a site.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Told {
    /// Which store.
    store: String,
    /// The newest version of each path; `None`: nothing.
    has: BTreeMap<String, Option<Version>>,
}

impl Told {
    /// Takes over what is not older than what is known, and drops what waits for nothing else.
    fn hear(
        self,
        site: &SiteName,
        ledger: &Ledger,
        stored: &mut Stored,
        waiting: &mut Waiting,
    ) {
        for (path, has) in self.has {
            let is_old = has
                .as_ref()
                .zip(stored.version(&path))
                .is_some_and(|(has, known)| has.born < known.born);
            if is_old {
                continue;
            }
            let is_behind = is_behind(ledger.entries().get(&path), has.as_ref());
            stored.set(&path, has);
            if !is_behind {
                waiting.told(&(site.clone(), path));
            }
        }
    }
}

impl Agent {
    /// Tells the other nodes what this one has brought to the store, until shutdown.
    pub(super) async fn tell_news(
        self: Arc<Self>,
        cluster: Arc<Cluster>,
        store: String,
        stop: Shutdown,
    ) {
        while !stop.is_requested() {
            for (site, paths) in self.media.store.news.take() {
                let stored = self.media.store.stored.lock().get(&site).cloned();
                let Some(stored) = stored else { continue };
                let paths: Vec<String> = paths.into_iter().collect();
                for batch in paths.chunks(BATCH) {
                    let has = {
                        let stored = stored.lock();
                        let entry = |path: &String| (path.clone(), stored.version(path).cloned());
                        batch.iter().map(entry).collect()
                    };
                    let told = Told { store: store.clone(), has };
                    tokio::select! {
                        () = stop.requested() => return,
                        () = tell_all(&cluster, &site, &told) => {}
                    }
                }
            }
            tokio::select! { () = stop.requested() => {}, () = tokio::time::sleep(PAUSE) => {} }
        }
    }

    /// Another node says what the store has.
    pub(super) async fn answer_stored(
        &self,
        site: &SiteName,
        request: Request<Incoming>,
    ) -> Response<AnyBody> {
        let told = match whole(request).await {
            Ok(bytes) => serde_json::from_slice::<Told>(&bytes).map_err(|e| e.to_string()),
            Err(error) => Err(error),
        };
        match told {
            Ok(told) => self.hear_told(site, told),
            Err(error) => return short(StatusCode::BAD_REQUEST, error),
        }
        short(StatusCode::OK, "")
    }

    fn hear_told(&self, site: &SiteName, told: Told) {
        let store = &self.media.store;
        if store.url.lock().as_ref() != Some(&told.store) {
            return;
        }
        let stored = store.stored.lock().get(site).cloned();
        let (Some(folder), Some(stored)) = (self.media_folder(site), stored) else { return };
        let (ledger, mut stored) = (folder.ledger.lock(), stored.lock());
        told.hear(site, &ledger, &mut stored, &mut store.waiting.lock());
    }
}

async fn tell_all(cluster: &Arc<Cluster>, site: &SiteName, told: &Told) {
    let text = Bytes::from(serde_json::to_vec(told).expect("plain data"));
    let own = cluster.node();
    let mut telling = JoinSet::new();
    for to in cluster.wire.members.now().keys().filter(|name| **name != own).cloned() {
        let request = Request::post(format!("/media/{site}/stored"))
            .body(any_body(Full::new(text.clone())))
            .expect("a good path");
        let cluster = Arc::clone(cluster);
        telling.spawn(async move {
            match tokio::time::timeout(PATIENCE, call(&cluster, &to, request)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::debug!(node = %to, error, "it asks the store itself"),
                Err(_) => tracing::debug!(node = %to, "it asks the store itself"),
            }
        });
    }
    telling.join_all().await;
}

#[cfg(test)]
mod tests {
    use pressroom_media::ledger::Entry;
    use pressroom_media::waiting::Kind;
    use pressroom_runtime::clock;

    use super::*;

    fn version(born: i64) -> Version {
        Version { size: 1, mtime: 2, born, past: Vec::new() }
    }

    #[test]
    fn what_the_store_is_said_to_have_waits_no_more_and_what_it_lacks_does() {
        let place = tempfile::tempdir().expect("a folder");
        let site: SiteName = "blog".parse().expect("a name");
        let mut stored = Stored::read(place.path().join("stored"), "s3://it").expect("read");
        let (mut ledger, mut waiting) = (Ledger::default(), Waiting::default());
        let now = clock::now();
        for path in ["same", "newer here", "unknown", "newer there"] {
            ledger.set(path, Some(Entry::File(version(5))));
            waiting.note((site.clone(), path.to_owned()), Kind::Heard, now, 1);
        }
        stored.set("newer there", Some(version(8)));
        let has = [
            ("same", Some(version(5))),
            ("newer here", Some(version(4))),
            ("newer there", Some(version(5))),
            ("never heard of", Some(version(6))),
            ("gone", None),
        ];
        let has = has.into_iter().map(|(path, has)| (path.to_owned(), has)).collect();
        let told = Told { store: "s3://it".into(), has };
        told.hear(&site, &ledger, &mut stored, &mut waiting);
        let mut left = BTreeSet::new();
        while let Some(((_, path), _)) = waiting.take(now) {
            left.insert(path);
        }
        let expected = ["newer here", "newer there", "unknown"].map(str::to_owned);
        assert_eq!(left, BTreeSet::from(expected));
        let born = |path: &str| stored.version(path).map(|version| version.born);
        assert_eq!(born("same"), Some(5));
        assert_eq!(born("newer here"), Some(4));
        assert_eq!(born("newer there"), Some(8), "an old word does not count");
        assert_eq!(born("never heard of"), Some(6));
        assert_eq!(born("gone"), None);
    }
}
