//! What PHP says about its requests, out of band: affirmations, purges, and the silence that counts as a purge.
//!
//! # Use
//! ```text
//! let affirmations = Affirmations::new(cache);                          // one per process
//! spawn(affirmations.clone().serve(site, uid, listener));               // one per site, on any runtime; drop it to stop
//!
//! let pending = affirmations.open(&site, method.is_safe());             // before the request goes to PHP
//! // PRESSROOM_TOKEN = pending.token()
//! let closing = pending.finished(end_request_seen).await;               // after the last byte; at most a second
//! pending.abandoned().await                                             // instead, when PHP may still be at work
//! // closing.affirmation, closing.because → cache::Rendered
//! ```
//!
//! # What always holds
//! - A site speaks for itself only: its socket accepts one user id (and root), and a token means nothing on another
//!   site's socket.
//! - A request that could write (its method is unsafe, or it said so) and ends without `done` purges its site, softly:
//!   in [`Pending::finished`], when the [`Pending`] is dropped, or when the connection on which it spoke ends, also when
//!   its token is long forgotten.
//! - A peer can hurt its own site only: lines, connections, buffers and waits are bounded.

mod listen;
mod speech;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use pressroom_model::affirmation::Affirmation;
use tokio::sync::Notify;

use crate::cache::{self, PageCache, Site};

pub use self::listen::Counts;

/// How long `done` is waited for after the end of a request.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long it is waited for when the edge left before the end: PHP may still be at work.
const PATIENCE_WHEN_LEFT: Duration = Duration::from_secs(60);

const SHARDS: usize = 16;

/// A token: 32 hexadecimal digits on the wire.
type Number = u128;

type Requests = HashMap<Number, Arc<Request>>;

/// All requests that PHP may still speak about.
#[derive(Debug)]
pub struct Affirmations {
    cache: Arc<PageCache>,
    pending: Box<[Mutex<Requests>]>,
    listening: listen::Counters,
    silences: AtomicU64,
}

/// One request.
#[derive(Debug)]
struct Request {
    site: Arc<Site>,
    said: Mutex<Said>,
    changed: Notify,
}

/// What PHP said about a request.
#[derive(Debug, Default)]
struct Said {
    writing: bool,
    /// It spoke on a connection that has ended.
    hung_up: bool,
    done: Option<Closing>,
    /// The site was purged for its silence.
    purged: bool,
}

/// The last word about a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Closing {
    /// PHP said `done`.
    pub done: bool,
    /// The finished page may be stored.
    pub affirmation: Option<Affirmation>,
    /// Why it may not.
    pub because: Option<String>,
}

impl Affirmations {
    /// For a cache, which is told of the purges.
    pub fn new(cache: Arc<PageCache>) -> Arc<Self> {
        Arc::new(Self {
            cache,
            pending: (0..SHARDS).map(|_| Mutex::default()).collect(),
            listening: listen::Counters::default(),
            silences: AtomicU64::new(0),
        })
    }

    /// Expects words about a request that is about to go to PHP. `safe`: its method is.
    pub fn open(self: &Arc<Self>, site: &Arc<Site>, safe: bool) -> Pending {
        let number: Number = rand::random();
        let request = Arc::new(Request {
            site: Arc::clone(site),
            said: Mutex::default(),
            changed: Notify::new(),
        });
        self.shard(number).lock().insert(number, Arc::clone(&request));
        Pending { all: Arc::clone(self), number, request, safe }
    }

    fn shard(&self, number: Number) -> &Mutex<Requests> {
        &self.pending[number as usize % SHARDS]
    }

    /// The request of a token, if the site may speak about it.
    fn request(&self, site: &Site, token: &str) -> Option<Arc<Request>> {
        let number = number(token)?;
        let request = self.shard(number).lock().get(&number).cloned()?;
        (request.site.name() == site.name()).then_some(request)
    }

    /// Purges a site because something may have been written and nobody said what.
    fn purge_for_silence(&self, site: &Arc<Site>, because: &str) {
        self.silences.fetch_add(1, Ordering::Relaxed);
        tracing::info!(site = %site.name(), because, "all pages of the site are made stale");
        let _ = self.cache.purge(site, &cache::all(), because, cache::now());
    }

    /// How many requests are pending.
    pub fn pending(&self) -> usize {
        self.pending.iter().map(|shard| shard.lock().len()).sum()
    }

    /// How many sites were purged for a silence.
    pub fn silences(&self) -> u64 {
        self.silences.load(Ordering::Relaxed)
    }
}

fn number(token: &str) -> Option<Number> {
    let well_formed = token.len() == 32 && token.bytes().all(|byte| byte.is_ascii_hexdigit());
    if well_formed { Number::from_str_radix(token, 16).ok() } else { None }
}

impl Request {
    fn write(&self) {
        self.said.lock().writing = true;
    }

    fn done(&self, affirmation: Option<Affirmation>, because: Option<String>) {
        self.said.lock().done = Some(Closing { done: true, affirmation, because });
        self.changed.notify_one();
    }

    fn hang_up(&self) {
        self.said.lock().hung_up = true;
        self.changed.notify_one();
    }

    /// Whether its silence is to be answered by a purge; true once.
    fn claim_purge(&self, safe: bool) -> bool {
        let mut said = self.said.lock();
        let wanted = said.done.is_none() && (said.writing || !safe) && !said.purged;
        said.purged |= wanted;
        wanted
    }
}

/// A request that PHP may still speak about.
#[derive(Debug)]
pub struct Pending {
    all: Arc<Affirmations>,
    number: Number,
    request: Arc<Request>,
    safe: bool,
}

impl Pending {
    /// The token for `PRESSROOM_TOKEN`.
    pub fn token(&self) -> String {
        format!("{:032x}", self.number)
    }

    /// The request has ended: waits for the last word, at most a second. `end_request_seen`: FastCGI's end came, rather
    /// than the end of the connection (after which nobody is left to speak).
    pub async fn finished(self, end_request_seen: bool) -> Closing {
        self.closing(if end_request_seen { PATIENCE } else { Duration::ZERO }).await
    }

    /// The answer was given up before its end (the client left, or time was up), while PHP may go on: waits until it
    /// says its last word or hangs up. What it changes meanwhile it purges itself; a worker that dies hangs up.
    pub async fn abandoned(self) -> Closing {
        self.closing(PATIENCE_WHEN_LEFT).await
    }

    async fn closing(self, patience: Duration) -> Closing {
        // A deadline that passes is no fault: silence is an answer.
        let _ = tokio::time::timeout(patience, self.last_word()).await;
        let closing = self.request.said.lock().done.clone().unwrap_or_default();
        drop(self);
        closing
    }

    async fn last_word(&self) {
        loop {
            let changed = self.request.changed.notified();
            {
                let said = self.request.said.lock();
                if said.done.is_some() || said.hung_up {
                    return;
                }
            }
            changed.await;
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.all.shard(self.number).lock().remove(&self.number);
        if self.request.claim_purge(self.safe) {
            let because = if self.safe {
                "a request wrote and ended in silence"
            } else {
                "an unsafe request ended in silence"
            };
            self.all.purge_for_silence(&self.request.site, because);
        }
    }
}

#[cfg(test)]
mod tests;
