//! The two parts of a single flight that a request can play: [`Lead`] renders, [`Wait`] waits for the one who does.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use pressroom_model::affirmation::Affirmation;
use tokio::time::Instant;

use super::answer::{Borrowed, Hit};
use super::flight::{Ending, Flight, Landing};
use super::freshness::Freshness;
use super::key::Key;
use super::page::Page;
use super::site::Site;
use super::storable::{self, End, Refusal};
use super::{Millis, PageCache, book};

/// An answer of PHP to a canonical request, whole.
#[derive(Debug)]
pub struct Rendered<'a> {
    /// The status.
    pub status: StatusCode,
    /// PHP's headers.
    pub headers: HeaderMap,
    /// The body as it came.
    pub body: Bytes,
    /// END_REQUEST came, with the program's status 0.
    pub complete: bool,
    /// PHP's word that it may be stored.
    pub affirmation: Option<&'a Affirmation>,
    /// PHP's word why it may not.
    pub because: Option<&'a str>,
}

/// What a page is made of that may be stored.
#[derive(Debug)]
pub(super) struct Made {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub tags: Box<[u64]>,
    pub ttl: Millis,
}

/// The duty to render a page. Ends with [`Lead::store`] or [`Lead::refuse`]; dropped, the next who waits leads.
#[derive(Debug)]
pub struct Lead {
    pub(super) cache: Arc<PageCache>,
    pub(super) site: Arc<Site>,
    pub(super) key: Key,
    pub(super) flight: Option<Arc<Flight>>,
    pub(super) stale: Option<Arc<Page>>,
    pub(super) position: u64,
    pub(super) began: Millis,
}

impl Lead {
    /// The key: path, query and cookies of the canonical request.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Whether others may be waiting for this render.
    pub fn is_shared(&self) -> bool {
        self.flight.is_some()
    }

    /// To be called when the request is handed to PHP, if it had to wait for a worker: what was purged before counts
    /// as known to the render.
    pub fn begin(&mut self, now: Millis) {
        self.position = self.site.position();
        self.began = now;
    }

    /// Says whether another edge's flight is waited for, so that its own requests do not wait for this one.
    pub fn abroad(&self, is_abroad: bool) {
        if let Some(flight) = &self.flight {
            flight.abroad(is_abroad);
        }
    }

    /// The stale page that may be served when PHP fails or is overloaded.
    pub fn fallback(&self, now: Millis) -> Option<Hit> {
        fallback(self.stale.as_ref(), now)
    }

    /// Judges status and headers as soon as they are there: refuse at once what cannot be stored, so that nobody waits
    /// for its body.
    pub fn judge(&self, status: StatusCode, headers: &HeaderMap) -> Result<(), Refusal> {
        storable::head(status, headers, &self.site.rules())
    }

    /// Stores the answer if everything speaks for it; else says why not.
    pub fn store(self, answer: Rendered<'_>, now: Millis) -> Result<Hit, Refusal> {
        let judged = self.judge(answer.status, &answer.headers).and_then(|()| {
            let end = End {
                complete: answer.complete,
                size: answer.body.len(),
                limit: self.cache.page_limit(),
            };
            storable::end(
                &answer.headers,
                end,
                answer.affirmation,
                answer.because,
                &self.site.rules(),
            )
        });
        let ttl = match judged {
            Ok(ttl) => ttl,
            Err(refusal) => {
                self.refuse(&refusal, now);
                return Err(refusal);
            }
        };
        let tags = answer.affirmation.map_or(&[][..], |affirmation| &affirmation.tags);
        let made = Made {
            status: answer.status,
            headers: answer.headers,
            body: answer.body,
            tags: book::page_hashes(&self.key, tags),
            ttl,
        };
        Ok(self.put(made, false, now))
    }

    /// Stores a page of another edge, for which PHP affirmed it there.
    pub fn borrow(mut self, page: Borrowed, now: Millis) -> Result<Hit, Refusal> {
        if let Err(refusal) = self.judge(page.status, &page.headers) {
            self.refuse(&refusal, now);
            return Err(refusal);
        }
        self.began = now.saturating_sub(page.age);
        let mut tags = page.tags;
        tags.sort_unstable();
        let made = Made {
            status: page.status,
            headers: page.headers,
            body: page.body,
            tags: tags.into(),
            ttl: page.ttl.min(self.site.rules().ttl_max),
        };
        Ok(self.put(made, page.purged, now))
    }

    fn put(self, made: Made, is_purged: bool, now: Millis) -> Hit {
        let page = self.cache.put(&self, made, now);
        if is_purged {
            page.purge(now);
        }
        let freshness = page.freshness(now);
        self.ends(Ending::Stored(Arc::clone(&page)), now);
        Hit::new(page, freshness, now)
    }

    /// Says that there is nothing to store. Those who wait then render by themselves, or are served the stale page.
    pub fn refuse(self, refusal: &Refusal, now: Millis) {
        self.cache.note_refusal(&self.key, refusal, now);
        let ending = if !refusal.is_failure() {
            self.cache.forget(&self.key);
            Ending::Refused
        } else if self.fallback(now).is_some() {
            Ending::FailedWithFallback
        } else if *refusal == Refusal::Silence {
            Ending::Refused
        } else {
            Ending::Failed
        };
        self.ends(ending, now);
    }

    fn ends(mut self, ending: Ending, now: Millis) {
        let hash = self.key.hash();
        match (self.flight.take(), &ending) {
            (Some(flight), _) => self.cache.flights.end(hash, &flight, ending, now),
            (None, Ending::Stored(_)) => self.cache.flights.clear_pass(hash),
            (None, _) => {}
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        if let Some(flight) = self.flight.take() {
            self.cache.flights.end(self.key.hash(), &flight, Ending::Vanished, self.began);
        }
    }
}

fn fallback(stale: Option<&Arc<Page>>, now: Millis) -> Option<Hit> {
    let page = stale?;
    match page.freshness(now) {
        Freshness::Expired => None,
        freshness => Some(Hit::new(Arc::clone(page), freshness, now)),
    }
}

/// A place among those who wait for a render.
#[derive(Debug)]
pub struct Wait {
    pub(super) cache: Arc<PageCache>,
    pub(super) site: Arc<Site>,
    pub(super) key: Key,
    pub(super) flight: Arc<Flight>,
    pub(super) stale: Option<Arc<Page>>,
}

/// How a wait ended.
#[derive(Debug)]
pub enum Waited {
    /// With a page: the one just stored, or, when the render failed, the stale one.
    Page(Hit),
    /// The leader is gone; you render.
    Lead(Lead),
    /// The answer was not for everybody; render by yourself.
    Pass(Lead),
    /// The deadline came first; perhaps there is a stale page.
    Late(Option<Hit>),
}

impl Wait {
    /// Whether the leader waits for another edge's flight.
    pub fn is_abroad(&self) -> bool {
        self.flight.is_abroad()
    }

    /// Renders apart instead.
    pub fn alone(self, now: Millis) -> Lead {
        self.lead(None, now)
    }

    /// Waits, at most until the deadline. `now` is asked for the time after the wait.
    pub async fn until(self, deadline: Instant, now: impl Fn() -> Millis) -> Waited {
        let waited = tokio::time::timeout_at(deadline, self.cache.flights.wait(&self.flight)).await;
        let now = now();
        match waited {
            Err(_) => Waited::Late(fallback(self.stale.as_ref(), now)),
            Ok(Some(Landing::Stored(page))) => {
                let freshness = page.freshness(now);
                // Purged during its render, perhaps before this wait began: then it is stale, and says so.
                let waited = matches!(freshness, Freshness::Fresh(_));
                Waited::Page(Hit { page, freshness, now, waited })
            }
            Ok(Some(Landing::Failed)) => match fallback(self.stale.as_ref(), now) {
                Some(hit) => Waited::Page(hit),
                None => Waited::Pass(self.lead(None, now)),
            },
            Ok(Some(Landing::Pass)) => Waited::Pass(self.lead(None, now)),
            Ok(None) => Waited::Lead(self.lead(Some(Arc::clone(&self.flight)), now)),
        }
    }

    fn lead(&self, flight: Option<Arc<Flight>>, now: Millis) -> Lead {
        Lead {
            cache: Arc::clone(&self.cache),
            site: Arc::clone(&self.site),
            key: self.key.clone(),
            flight,
            stale: self.stale.clone(),
            position: self.site.position(),
            began: now,
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.cache.flights.leave(self.key.hash(), &self.flight);
    }
}
