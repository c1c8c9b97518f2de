//! A stored page: what it answers, in every coding, ready to send.
//!
//! All that an answer needs is built once, when the page is stored: the header list of each coding (with room for the
//! few values that change) and the body. Only the coded variants come later, from a background thread, and are set once.
//! What changes on a page in memory are a few numbers: whether it was used, how often, and since when it is stale.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::header::{
    AGE, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, DATE,
    ETAG, HeaderMap, HeaderName, HeaderValue, LAST_MODIFIED, SERVER, SET_COOKIE, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE, VARY,
};
use http::{StatusCode, header};

use super::Millis;
use super::freshness::{Freshness, Life, freshness};
use super::key::Key;
use super::site::Site;
use crate::compress::{self, Encoding};

/// `x-cache`.
pub const X_CACHE: HeaderName = HeaderName::from_static("x-cache");
/// `cache-status` (RFC 9211).
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Bodies below this size gain nothing from coding.
const WORTH_CODING: usize = 512;

/// One page.
#[derive(Debug)]
pub struct Page {
    // What a hit writes comes first, next to the reference count that it writes as well.
    pub(super) used: AtomicBool,
    pub(super) hits: AtomicU32,
    purged_at: AtomicU64,
    pub(super) key: Key,
    pub(super) site: Arc<Site>,
    pub(super) rendered_at: Millis,
    pub(super) ttl: Millis,
    /// The site's purge position when the render began.
    pub(super) position: u64,
    /// Tells this page from others of the same key.
    pub(super) id: u64,
    pub(super) status: StatusCode,
    /// Hashes of its tags and of its addresses, sorted.
    pub(super) tags: Box<[u64]>,
    /// What is kept of PHP's headers, for the disk and for variants to come.
    pub(super) kept: HeaderMap,
    representations: [OnceLock<Representation>; 4],
    coding: AtomicU8,
    pub(super) size: AtomicUsize,
    pub(super) last_modified: Option<HeaderValue>,
    digest: [u8; 8],
}

/// A page in one coding.
#[derive(Debug)]
pub struct Representation {
    pub(super) encoding: Encoding,
    /// All headers, with places for `x-cache`, `cache-status` and `age`.
    pub(super) headers: HeaderMap,
    /// The headers of a 304.
    pub(super) unchanged: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// What a page is made of.
#[derive(Debug)]
pub(super) struct Parts {
    pub key: Key,
    pub site: Arc<Site>,
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub tags: Box<[u64]>,
    pub rendered_at: Millis,
    pub ttl: Millis,
    pub position: u64,
    pub id: u64,
}

/// The page's variants are not wanted, wanted, on their way.
const CODING_NONE: u8 = 0;
const CODING_WANTED: u8 = 1;
const CODING_ASKED: u8 = 2;

impl Page {
    /// Makes a page of an answer.
    pub(super) fn new(parts: Parts) -> Self {
        let body = if parts.status.is_redirection() { Bytes::new() } else { parts.body };
        let mut kept = parts.headers;
        strip(&mut kept);
        let kind = kept.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let coding = body.len() >= WORTH_CODING && compress::is_compressible(kind);
        let mut digest = [0; 8];
        digest.copy_from_slice(&blake3::hash(&body).as_bytes()[..8]);
        let page = Self {
            used: AtomicBool::new(false),
            hits: AtomicU32::new(0),
            purged_at: AtomicU64::new(0),
            last_modified: kept.get(LAST_MODIFIED).cloned(),
            key: parts.key,
            site: parts.site,
            rendered_at: parts.rendered_at,
            ttl: parts.ttl,
            position: parts.position,
            id: parts.id,
            status: parts.status,
            tags: parts.tags,
            kept,
            representations: [const { OnceLock::new() }; 4],
            coding: AtomicU8::new(if coding { CODING_WANTED } else { CODING_NONE }),
            size: AtomicUsize::new(0),
            digest,
        };
        page.size.store(page.weight_without_bodies(), Ordering::Relaxed);
        page.set(Encoding::Identity, body);
        page
    }

    fn weight_without_bodies(&self) -> usize {
        let headers: usize =
            self.kept.iter().map(|(name, value)| name.as_str().len() + value.len() + 96).sum();
        1024 + 2 * self.key.text().len() + 40 * self.tags.len() + headers
    }

    /// Sets a variant, once; the bytes that it takes.
    pub(super) fn set(&self, encoding: Encoding, body: Bytes) -> usize {
        let weight = body.len() + 1024;
        let headers = self.headers_of(encoding, body.len());
        let unchanged = unchanged(&headers);
        let new = Representation { encoding, headers, unchanged, body };
        if self.representations[encoding as usize].set(new).is_err() {
            return 0;
        }
        self.size.fetch_add(weight, Ordering::Relaxed);
        weight
    }

    fn headers_of(&self, encoding: Encoding, length: usize) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(self.kept.len() + 12);
        headers.extend(self.kept.iter().map(|(name, value)| (name.clone(), value.clone())));
        if self.varies() {
            headers.append(VARY, HeaderValue::from_static("accept-encoding"));
        }
        if let Some(token) = encoding.token() {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(token));
        }
        headers
            .entry(CACHE_CONTROL)
            .or_insert(HeaderValue::from_static("public, max-age=0, must-revalidate"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        if !self.status.is_redirection() {
            headers.insert(ETAG, self.etag(encoding));
        }
        headers.insert(AGE, HeaderValue::from_static("0"));
        headers.insert(X_CACHE, HeaderValue::from_static("hit"));
        headers.insert(CACHE_STATUS, HeaderValue::from_static("pressroom; hit"));
        headers
    }

    /// Whether the page has, or will have, more than one coding.
    pub(super) fn varies(&self) -> bool {
        self.coding.load(Ordering::Relaxed) != CODING_NONE
    }

    /// The digest in the entity tag, and the tag of a coding: strong, since coded bytes differ.
    fn etag(&self, encoding: Encoding) -> HeaderValue {
        let mut tag = String::with_capacity(24);
        tag.push('"');
        tag.push_str(&self.digest_text());
        if let Some(token) = encoding.token() {
            tag.push('-');
            tag.push_str(token);
        }
        tag.push('"');
        HeaderValue::try_from(tag).expect("digits and letters are a header value")
    }

    /// The digest in the entity tags.
    pub(super) fn digest_text(&self) -> String {
        format!("{:016x}", u64::from_be_bytes(self.digest))
    }

    /// Whether a client that holds `tag` (as in `If-None-Match`, in any coding) has this page.
    pub(super) fn has_etag(&self, tag: &[u8]) -> bool {
        let tag = tag.strip_prefix(b"W/").unwrap_or(tag);
        let Some(tag) = tag.strip_prefix(b"\"").and_then(|tag| tag.strip_suffix(b"\"")) else {
            return false;
        };
        let digest = u64::from_be_bytes(self.digest);
        let same = tag.len() >= 16
            && std::str::from_utf8(&tag[..16])
                .is_ok_and(|hex| u64::from_str_radix(hex, 16) == Ok(digest));
        same && matches!(&tag[16..], b"" | b"-gzip" | b"-zstd" | b"-br")
    }

    /// A variant, if it is there.
    pub fn representation(&self, encoding: Encoding) -> Option<&Representation> {
        self.representations[encoding as usize].get()
    }

    /// The plain variant.
    pub fn plain(&self) -> &Representation {
        self.representation(Encoding::Identity).expect("set when the page was made")
    }

    /// The best variant for a client.
    pub fn best(&self, request: &HeaderMap) -> &Representation {
        if !self.varies() {
            return self.plain();
        }
        let there = Encoding::ALL.into_iter().filter_map(|encoding| {
            self.representation(encoding)
                .map(|representation| (encoding, representation.body.len()))
        });
        let encoding = compress::Accepted::of(request).choose(there);
        self.representation(encoding).unwrap_or_else(|| self.plain())
    }

    /// Whether its variants are wanted; true only for the first to ask.
    pub(super) fn claim_coding(&self) -> bool {
        self.coding.load(Ordering::Relaxed) == CODING_WANTED
            && self
                .coding
                .compare_exchange(CODING_WANTED, CODING_ASKED, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// Notes that the variants are there already.
    pub(super) fn is_coded(&self) {
        if self.varies() {
            self.coding.store(CODING_ASKED, Ordering::Relaxed);
        }
    }

    /// Gives a claim back: the thread that codes had no room.
    pub(super) fn unclaim_coding(&self) {
        self.coding.store(CODING_WANTED, Ordering::Relaxed);
    }

    /// Marks it stale from a moment on; whether it was not before.
    pub(super) fn purge(&self, now: Millis) -> bool {
        self.purged_at.compare_exchange(0, now.max(1), Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// When it was purged, alone or with its whole site.
    pub(super) fn purged_at(&self) -> Option<Millis> {
        match self.purged_at.load(Ordering::Acquire) {
            0 => self.site.floor(self.position),
            at => Some(at),
        }
    }

    /// How it may be used.
    pub(super) fn freshness(&self, now: Millis) -> Freshness {
        let life =
            Life { rendered_at: self.rendered_at, ttl: self.ttl, purged_at: self.purged_at() };
        let rules = self.site.rules();
        freshness(life, rules.stale_while_revalidate, rules.stale_if_error, now)
    }
}

/// The headers of a 304.
fn unchanged(headers: &HeaderMap) -> HeaderMap {
    let mut few = HeaderMap::with_capacity(12);
    for name in
        [CACHE_CONTROL, ETAG, VARY, LAST_MODIFIED, header::EXPIRES, AGE, X_CACHE, CACHE_STATUS]
    {
        for value in headers.get_all(&name) {
            few.append(name.clone(), value.clone());
        }
    }
    few
}

/// Takes off what belongs to one connection or one answer, or is ours to say.
fn strip(headers: &mut HeaderMap) {
    let mut named: Vec<HeaderName> = Vec::new();
    for value in headers.get_all(CONNECTION) {
        named.extend(
            value
                .as_bytes()
                .split(|b| *b == b',')
                .filter_map(|name| name.trim_ascii().try_into().ok()),
        );
    }
    const OURS: [HeaderName; 15] = [
        CONNECTION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        SET_COOKIE,
        COOKIE,
        CONTENT_LENGTH,
        CONTENT_ENCODING,
        ETAG,
        DATE,
        SERVER,
        AGE,
    ];
    const ONCE: [HeaderName; 5] = [
        X_CACHE,
        CACHE_STATUS,
        HeaderName::from_static("x-request-id"),
        HeaderName::from_static("server-timing"),
        HeaderName::from_static("status"),
    ];
    for name in OURS.iter().chain(&ONCE).chain(&named) {
        headers.remove(name);
    }
    let others: Vec<HeaderValue> = headers
        .get_all(VARY)
        .iter()
        .filter(|value| !value.as_bytes().eq_ignore_ascii_case(b"accept-encoding"))
        .cloned()
        .collect();
    headers.remove(VARY);
    for value in others {
        headers.append(VARY, value);
    }
}
