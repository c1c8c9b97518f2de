//! What the object store has since now, told to the other nodes: each of them has the same files, and would have to ask the
//! store for each of them whether it is there.
//!
//! It is told once, and to whoever answers. A node that did not hear it asks the store a little later, and everything in it is
//! looked at now and again, so a lost or a wrong word costs requests, and no file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use parking_lot::Mutex;
use pressroom_media::exchange::Version;
use pressroom_media::ledger::Ledger;
use pressroom_media::object::{is_behind, is_wanted};
use pressroom_media::stored::Stored;
use pressroom_media::waiting::{Kind, Waiting};
use pressroom_model::config::MediaStore;
use pressroom_model::id::{NodeName, SiteName};
use pressroom_runtime::clock;
use pressroom_runtime::shutdown::Shutdown;
use pressroom_wire::http::{AnyBody, any_body};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::Cluster;
use super::door::{short, whole};
use super::media::call;
use super::media_store::GRACE;
use crate::agent::Agent;
use crate::apply::off_the_loop;

/// Between two times that others are told: well before they would ask the store themselves.
const PAUSE: Duration = Duration::from_millis(500);
/// A node that does not answer within that is not told.
const PATIENCE: Duration = Duration::from_secs(1);
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
    /// Which store, and where.
    store: (String, Option<String>),
    /// The newest version of each path; `None`: nothing.
    has: BTreeMap<String, Option<Version>>,
}

impl Told {
    /// Takes it over, but for versions that are older than what is known. What the store is still to hear of is looked at when it is
    /// `due`, at the latest; what it has is not, unless that is to be fetched.
    fn hear(
        self,
        site: &SiteName,
        ledger: &Ledger,
        stored: &mut Stored,
        waiting: &mut Waiting,
        due: Instant,
    ) {
        for (path, has) in self.has {
            let is_old = has
                .as_ref()
                .zip(stored.version(&path))
                .is_some_and(|(has, known)| has.born < known.born);
            if is_old {
                continue;
            }
            let own = ledger.entries().get(&path);
            let is_behind = is_behind(own, has.as_ref());
            let is_wanted = has.as_ref().is_some_and(|has| is_wanted(own, has));
            stored.set(&path, has);
            let place = (site.clone(), path);
            if is_behind {
                waiting.note(place, Kind::Heard, due, clock::wall_ms());
            } else if !is_wanted {
                waiting.brought(&place);
            }
        }
    }
}

impl Agent {
    /// Tells the other nodes what this one has brought to the store, until shutdown.
    pub(super) async fn tell_news(
        self: Arc<Self>,
        cluster: Arc<Cluster>,
        place: MediaStore,
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
                    let told = Told { store: named(&place), has };
                    let others = self.others_up(&cluster);
                    tokio::select! {
                        () = stop.requested() => return,
                        () = tell_all(&cluster, others, &site, &told) => {}
                    }
                }
            }
            tokio::select! { () = stop.requested() => {}, () = tokio::time::sleep(PAUSE) => {} }
        }
    }

    /// Another node says what the store has.
    pub(super) async fn answer_stored(
        self: &Arc<Self>,
        site: &SiteName,
        request: Request<Incoming>,
    ) -> Response<AnyBody> {
        let told = match whole(request).await {
            Ok(bytes) => serde_json::from_slice::<Told>(&bytes).map_err(|e| e.to_string()),
            Err(error) => Err(error),
        };
        match told {
            Ok(told) => {
                let (agent, site) = (Arc::clone(self), site.clone());
                let heard = off_the_loop(move || {
                    agent.hear_told(&site, told);
                    Ok::<_, std::io::Error>(())
                });
                match heard.await {
                    Ok(()) => short(StatusCode::OK, ""),
                    Err(error) => short(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
                }
            }
            Err(error) => short(StatusCode::BAD_REQUEST, error),
        }
    }

    /// What is said of another store than ours counts for nothing.
    fn hear_told(&self, site: &SiteName, told: Told) {
        let store = &self.media.store;
        if self.media_store().is_none_or(|place| named(&place) != told.store) {
            return;
        }
        let stored = store.stored.lock().get(site).cloned();
        let (Some(folder), Some(stored)) = (self.media_folder(site), stored) else { return };
        let (ledger, mut stored) = (folder.ledger.lock(), stored.lock());
        told.hear(site, &ledger, &mut stored, &mut store.waiting.lock(), clock::now() + GRACE);
    }
}

fn named(place: &MediaStore) -> (String, Option<String>) {
    (place.url(), place.endpoint.clone())
}

async fn tell_all(cluster: &Arc<Cluster>, others: Vec<NodeName>, site: &SiteName, told: &Told) {
    let text = Bytes::from(serde_json::to_vec(told).expect("plain data"));
    let mut telling = JoinSet::new();
    for to in others {
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
    use pressroom_media::exchange::Gone;
    use pressroom_media::ledger::Entry;

    use super::*;

    fn version(born: i64) -> Version {
        Version { size: 1, mtime: born, born, past: Vec::new() }
    }

    #[test]
    fn what_the_store_is_said_to_have_waits_no_more_and_what_it_lacks_does() {
        let place = tempfile::tempdir().expect("a folder");
        let site: SiteName = "blog".parse().expect("a name");
        let mut stored = Stored::read(place.path().join("stored"), "s3://it").expect("read");
        let (mut ledger, mut waiting) = (Ledger::default(), Waiting::default());
        let now = clock::now();
        let file = |born| Some(Entry::File(version(born)));
        let gone = |at| Some(Entry::Gone(Gone { at, past: Vec::new() }, 0));
        let cases = [
            // Path, what is here, what the store was known to have, and what it is said to have.
            ("same", file(5), None, Some(version(5))),
            ("gone in both", gone(4), Some(version(3)), None),
            ("newer here", file(5), None, Some(version(4))),
            ("newer there", file(5), None, Some(version(8))),
            ("an old word", file(5), Some(version(8)), Some(version(5))),
            ("not said", file(5), None, None),
        ];
        let mut has = BTreeMap::new();
        for (path, own, known, said) in cases {
            ledger.set(path, own);
            stored.set(path, known);
            waiting.note((site.clone(), path.to_owned()), Kind::Heard, now, 1);
            if path != "not said" {
                has.insert(path.to_owned(), said);
            }
        }
        // These wait for nothing: what was done already, and is undone by a word that was late.
        ledger.set("late", gone(7));
        has.insert("late".to_owned(), Some(version(5)));
        has.insert("never heard of".to_owned(), Some(version(6)));
        let told = Told { store: ("s3://it".into(), None), has };
        told.hear(&site, &ledger, &mut stored, &mut waiting, now);
        let mut left = BTreeSet::new();
        while let Some(((_, path), _)) = waiting.take(now) {
            left.insert(path);
        }
        let expected = ["an old word", "late", "newer here", "newer there", "not said"];
        assert_eq!(left, BTreeSet::from(expected.map(str::to_owned)));
        let born = |path: &str| stored.version(path).map(|version| version.born);
        let paths = ["same", "gone in both", "newer here", "an old word", "never heard of"];
        assert_eq!(paths.map(born), [Some(5), None, Some(4), Some(8), Some(6)]);
    }
}
