//! Pages on disk: how one is written, how it is read back, and what the folder of a site says of all of them.
//!
//! A file holds one page in all its codings, with a checksum over all; one that does not fit is no page. It says up to
//! which purge position the page was known not to be purged; the folder's index says so again, later, for many, so that
//! the journal before it can go.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

use super::Millis;
use super::key::Key;
use super::page::Page;
use crate::compress::Encoding;

const MAGIC: &[u8; 4] = b"PRP1";
const SUM: usize = 32;

/// The name of a page's file: a digest of its key, the same in every process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct FileName([u8; 16]);

impl FileName {
    /// The name for a key.
    pub(super) fn of(key: &Key) -> Self {
        Self(
            *blake3::hash(key.text().as_bytes())
                .as_bytes()
                .first_chunk()
                .expect("a digest has 32 bytes"),
        )
    }

    /// Reads a name in a folder.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let hex = text.strip_suffix(".page").filter(|hex| hex.len() == 32)?;
        u128::from_str_radix(hex, 16).ok().map(|number| Self(number.to_be_bytes()))
    }

    /// Where the file is.
    pub(super) fn within(self, folder: &Path) -> PathBuf {
        folder.join(self.text())
    }

    /// The name as text.
    pub(super) fn text(self) -> String {
        format!("{:032x}.page", u128::from_be_bytes(self.0))
    }
}

/// What the folder of a site says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Index {
    /// The position at which it was written.
    pub position: u64,
    /// The pages of that moment: since when each was purged, 0 if it was not.
    pub pages: BTreeMap<String, Millis>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Head {
    key: String,
    status: u16,
    headers: Vec<(String, String)>,
    tags: Vec<u64>,
    rendered_at: Millis,
    ttl: Millis,
    position: u64,
    purged_at: Millis,
    release: String,
    hits: u32,
    bodies: [Option<usize>; 4],
}

/// A page read back.
#[derive(Debug)]
pub(super) struct Kept {
    pub key: Key,
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub tags: Box<[u64]>,
    pub rendered_at: Millis,
    pub ttl: Millis,
    /// It was not purged up to here, unless `purged_at` says so.
    pub position: u64,
    pub purged_at: Option<Millis>,
    pub release: String,
    pub hits: u32,
    pub bodies: [Option<Bytes>; 4],
}

/// The file of a page that was known not to be purged (or when it was) at a position.
pub(super) fn encode(
    page: &Page,
    release: &str,
    position: u64,
    purged_at: Option<Millis>,
) -> serde_json::Result<Vec<u8>> {
    let body = |encoding| page.representation(encoding).map(|representation| &representation.body);
    let bodies = Encoding::ALL.map(body);
    let head = serde_json::to_vec(&Head {
        key: page.key.text().to_owned(),
        status: page.status.as_u16(),
        headers: page
            .kept
            .iter()
            .map(|(name, value)| (name.to_string(), as_text(value.as_bytes())))
            .collect(),
        tags: page.tags.to_vec(),
        rendered_at: page.rendered_at,
        ttl: page.ttl,
        position,
        purged_at: purged_at.unwrap_or(0),
        release: release.to_owned(),
        hits: page.hits.load(std::sync::atomic::Ordering::Relaxed),
        bodies: bodies.map(|body| body.map(Bytes::len)),
    })?;
    let size: usize = bodies.iter().flatten().map(|body| body.len()).sum();
    let mut file = Vec::with_capacity(MAGIC.len() + 4 + head.len() + size + SUM);
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&(head.len() as u32).to_le_bytes());
    file.extend_from_slice(&head);
    for body in bodies.iter().flatten() {
        file.extend_from_slice(body);
    }
    let sum = blake3::hash(&file);
    file.extend_from_slice(sum.as_bytes());
    Ok(file)
}

/// Reads a file; `None` for whatever is not a whole page.
pub(super) fn decode(file: Vec<u8>) -> Option<Kept> {
    let file = Bytes::from(file);
    let end = file.len().checked_sub(SUM)?;
    if !file.starts_with(MAGIC) || blake3::hash(&file[..end]).as_bytes() != &file[end..] {
        return None;
    }
    let (length, _) = file[MAGIC.len()..end].split_first_chunk::<4>()?;
    let start = MAGIC.len() + 4;
    let mut at = start.checked_add(u32::from_le_bytes(*length) as usize).filter(|at| *at <= end)?;
    let head: Head = serde_json::from_slice(&file[start..at]).ok()?;
    let mut bodies = [const { None }; 4];
    for (body, length) in bodies.iter_mut().zip(head.bodies) {
        if let Some(length) = length {
            let next = at.checked_add(length).filter(|next| *next <= end)?;
            *body = Some(file.slice(at..next));
            at = next;
        }
    }
    let mut headers = HeaderMap::with_capacity(head.headers.len());
    for (name, value) in head.headers {
        headers.append(
            name.parse::<HeaderName>().ok()?,
            HeaderValue::from_bytes(&as_bytes(&value)?).ok()?,
        );
    }
    bodies[0].as_ref()?;
    Some(Kept {
        key: Key::from_text(&head.key)?,
        status: StatusCode::from_u16(head.status).ok()?,
        headers,
        tags: head.tags.into(),
        rendered_at: head.rendered_at,
        ttl: head.ttl,
        position: head.position,
        purged_at: Some(head.purged_at).filter(|at| *at > 0),
        release: head.release,
        hits: head.hits,
        bodies,
    })
}

/// Header values are bytes; each becomes the character of its number.
fn as_text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

fn as_bytes(text: &str) -> Option<Vec<u8>> {
    text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect()
}
