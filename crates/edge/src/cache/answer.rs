//! The answer that a stored page gives to one request, and what the headers say about the cache.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::header::{AGE, IF_MODIFIED_SINCE, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

use super::Millis;
use super::bypass::Bypass;
use super::freshness::Freshness;
use super::moment;
use super::page::{CACHE_STATUS, Page, Representation, X_CACHE};
use super::storable::Refusal;
use crate::compress::Encoding;

/// A page of another edge's cache.
#[derive(Debug, Clone)]
pub struct Borrowed {
    /// The status.
    pub status: StatusCode,
    /// PHP's headers, as far as they are kept.
    pub headers: HeaderMap,
    /// The plain body.
    pub body: Bytes,
    /// How long ago its render began.
    pub age: Millis,
    /// How long it is fresh since then.
    pub ttl: Millis,
    /// Hashes of its tags and addresses.
    pub tags: Vec<u64>,
    /// It was purged since its render began.
    pub purged: bool,
}

/// A page and how it was judged for one request.
#[derive(Debug, Clone)]
pub struct Hit {
    pub(super) page: Arc<Page>,
    pub(super) freshness: Freshness,
    pub(super) now: Millis,
    pub(super) waited: bool,
}

impl Hit {
    pub(super) fn new(page: Arc<Page>, freshness: Freshness, now: Millis) -> Self {
        Self { page, freshness, now, waited: false }
    }

    /// The page.
    pub fn page(&self) -> &Page {
        &self.page
    }

    /// Whether it may be called fresh.
    pub fn is_fresh(&self) -> bool {
        matches!(self.freshness, Freshness::Fresh(_))
    }

    /// Whole seconds since its render began, by the second hand of the clock.
    pub fn age(&self) -> u64 {
        (self.now / 1000).saturating_sub(self.page.rendered_at / 1000)
    }

    /// What `x-cache` says.
    pub fn word(&self) -> &'static str {
        match (self.waited, self.is_fresh()) {
            (true, _) => "miss",
            (false, true) => "hit",
            (false, false) => "stale",
        }
    }

    /// The whole answer, in the best coding, or a 304 when the client has the page.
    pub fn answer(&self, method: &Method, request: &HeaderMap) -> Response<Bytes> {
        let representation = self.page.best(request);
        let unchanged = self.page.status == StatusCode::OK && self.is_held_by(request);
        let (status, headers, body) = if unchanged {
            (StatusCode::NOT_MODIFIED, self.placed(&representation.unchanged), Bytes::new())
        } else if *method == Method::HEAD {
            (self.page.status, self.headers(representation), Bytes::new())
        } else {
            (self.page.status, self.headers(representation), representation.body.clone())
        };
        let mut answer = Response::new(body);
        *answer.status_mut() = status;
        *answer.headers_mut() = headers;
        answer
    }

    /// The headers of the page itself. Those of a hit are the same for a whole second.
    fn headers(&self, representation: &Representation) -> HeaderMap {
        let make = || self.placed(&representation.headers);
        if self.word() == "hit" {
            let page = self.page.id * Encoding::ALL.len() as u64 + representation.encoding as u64;
            moment::headers(page, self.now / 1000, make)
        } else {
            make()
        }
    }

    /// Headers with the values of this moment in their places.
    fn placed(&self, headers: &HeaderMap) -> HeaderMap {
        let mut headers = headers.clone();
        let mut place = |name, value| {
            if let Some(place) = headers.get_mut(name) {
                *place = value;
            }
        };
        place(AGE, HeaderValue::from(self.age()));
        place(X_CACHE, HeaderValue::from_static(self.word()));
        place(CACHE_STATUS, self.cache_status());
        headers
    }

    /// What `Cache-Status` says.
    pub fn cache_status(&self) -> HeaderValue {
        let mut text = String::with_capacity(48);
        text.push_str(if self.waited {
            "pressroom; fwd=miss; collapsed"
        } else {
            "pressroom; hit"
        });
        let now = self.now / 1000;
        // A structured integer has at most 15 digits; writing to a String cannot fail.
        let _ = match self.freshness {
            Freshness::Fresh(left) => {
                let ends = self.now.saturating_add(left) / 1000;
                write!(text, "; ttl={}", (ends - now).min(999_999_999_999_999))
            }
            Freshness::StaleWhileRevalidate(since) | Freshness::StaleIfError(since) => {
                write!(text, "; ttl={}", -i64::try_from(since / 1000).unwrap_or(0))
            }
            Freshness::Expired => Ok(()),
        };
        if self.page.site.is_cut_off() {
            text.push_str("; detail=partitioned");
        }
        HeaderValue::try_from(text).expect("made of plain characters")
    }

    /// The page as another edge may have it.
    pub fn lent(&self, now: Millis) -> Borrowed {
        Borrowed {
            status: self.page.status,
            headers: self.page.kept.clone(),
            body: self.page.plain().body.clone(),
            age: now.saturating_sub(self.page.rendered_at),
            ttl: self.page.ttl,
            tags: self.page.tags.to_vec(),
            purged: false,
        }
    }

    fn is_held_by(&self, request: &HeaderMap) -> bool {
        if request.contains_key(IF_NONE_MATCH) {
            let mut tags = request
                .get_all(IF_NONE_MATCH)
                .iter()
                .flat_map(|list| list.as_bytes().split(|b| *b == b','));
            return tags
                .any(|tag| tag.trim_ascii() == b"*" || self.page.has_etag(tag.trim_ascii()));
        }
        let since = request.get(IF_MODIFIED_SINCE).and_then(date);
        let modified = self.page.last_modified.as_ref().and_then(date);
        since.zip(modified).is_some_and(|(since, modified)| modified <= since)
    }

    pub(super) fn count(&self) {
        if !self.page.used.load(Ordering::Relaxed) {
            self.page.used.store(true, Ordering::Relaxed);
        }
        // Two cores may lose a count to each other; that is cheaper than being exact.
        let hits = self.page.hits.load(Ordering::Relaxed);
        self.page.hits.store(hits.wrapping_add(1), Ordering::Relaxed);
    }
}

fn date(value: &HeaderValue) -> Option<std::time::SystemTime> {
    httpdate::parse_http_date(value.to_str().ok()?).ok()
}

/// `Cache-Status` of an answer that went past the cache.
pub fn bypassed(bypass: &Bypass) -> HeaderValue {
    fits(&format!("pressroom; fwd=bypass; detail=\"{bypass}\""))
}

/// `Cache-Status` of an answer that was made and stored; an edge that is cut off from most others says so.
pub fn stored(is_cut_off: bool) -> HeaderValue {
    HeaderValue::from_static(match is_cut_off {
        false => "pressroom; fwd=miss; stored",
        true => "pressroom; fwd=miss; stored; detail=partitioned",
    })
}

/// `Cache-Status` of an answer that was rendered and is not stored, or nobody knows yet.
pub fn rendered(refusal: Option<&Refusal>) -> HeaderValue {
    match refusal {
        None => HeaderValue::from_static("pressroom; fwd=miss"),
        Some(refusal) => {
            fits(&format!("pressroom; fwd=miss; stored=?0; detail=\"{}\"", for_strangers(refusal)))
        }
    }
}

/// What outsiders may read of a refusal: PHP's own words may hold paths and values; they are for the log and for `why`.
fn for_strangers(refusal: &Refusal) -> String {
    let text = match refusal {
        Refusal::Denied(words) => {
            format!("PHP: {}", words.split(':').next().unwrap_or_default().trim())
        }
        other => other.to_string(),
    };
    text.replace(['"', '\\'], "'")
}

fn fits(text: &str) -> HeaderValue {
    let plain = text
        .chars()
        .map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' })
        .collect::<String>();
    HeaderValue::try_from(plain).unwrap_or(HeaderValue::from_static("pressroom"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_read_the_kind_of_a_refusal_and_no_paths() {
        let denied =
            Refusal::Denied("fatal error: Uncaught \"Error\" in /srv/site/plugin.php:3".into());
        let text = rendered(Some(&denied));
        assert_eq!(text, "pressroom; fwd=miss; stored=?0; detail=\"PHP: fatal error\"");
    }
}
