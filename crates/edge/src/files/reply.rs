//! The answer for a file.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, Response, StatusCode};

use super::conditional::{Verdict, judge};
use super::library::{Known, Library, SMALL};
use super::stream::FileBody;
use crate::body::Body;
use crate::compress::{Accepted, Encoding};
use crate::route::Tree;

/// A request for a file.
pub struct Asked<'a> {
    /// Method: GET or HEAD.
    pub method: &'a Method,
    /// Headers.
    pub headers: &'a HeaderMap,
    /// Query.
    pub query: &'a str,
    /// Which folder.
    pub tree: Tree,
}

/// Answers from memory; `None`: the file has to be read first.
pub fn from_memory(
    library: &Arc<Library>,
    known: &Arc<Known>,
    asked: &Asked<'_>,
) -> Option<Response<Body>> {
    let plain = known.variant(Encoding::Identity)?;
    if library.should_code(known) {
        let (library, known) = (library.clone(), known.clone());
        tokio::task::spawn_blocking(move || library.code(&known));
    }
    let encoding = choose(known, asked);
    let variant = known.variant(encoding).unwrap_or(plain);
    let length = variant.bytes.len() as u64;
    let verdict = verdict(asked, &variant.etag, known, length);
    let mut answer = start(known, asked, verdict, &variant.etag, length);
    let headers = answer.headers_mut();
    if let Some(token) = encoding.token()
        && verdict != Verdict::NotModified
    {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(token));
    }
    let bytes = match verdict {
        Verdict::Whole => {
            headers.insert(header::CONTENT_LENGTH, variant.length.clone());
            variant.bytes.clone()
        }
        Verdict::Part { start, end } => variant.bytes.slice(start as usize..=end as usize),
        _ => Bytes::new(),
    };
    if *asked.method != Method::HEAD && !bytes.is_empty() {
        *answer.body_mut() = Body::Whole(bytes);
    }
    Some(answer)
}

/// Answers a file that is not in memory: small ones are read into it, big ones are sent as they are read.
pub async fn from_disk(
    library: Arc<Library>,
    known: Arc<Known>,
    asked: Asked<'_>,
    path: String,
) -> Option<Response<Body>> {
    let tree = asked.tree;
    if known.mark.length <= SMALL {
        let (l, k) = (library.clone(), known.clone());
        let loaded = tokio::task::spawn_blocking(move || l.load(tree, &path, &k)).await;
        return match loaded {
            Ok(Ok(())) => from_memory(&library, &known, &asked),
            _ => None,
        };
    }
    let opened = tokio::task::spawn_blocking(move || library.open_file(tree, &path)).await;
    let Ok(Ok((file, mark))) = opened else { return None };
    let length = mark.length.min(known.mark.length);
    let verdict = verdict(&asked, &known.etag, &known, length);
    let mut answer = start(&known, &asked, verdict, &known.etag, length);
    let (at, send) = match verdict {
        Verdict::Whole => (0, length),
        Verdict::Part { start, end } => (start, end - start + 1),
        _ => (0, 0),
    };
    if *asked.method == Method::HEAD {
        if send > 0 {
            answer.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(send));
        }
    } else if send > 0 {
        *answer.body_mut() = Body::File(Box::new(FileBody::new(file, at, send)));
    }
    Some(answer)
}

fn verdict(asked: &Asked<'_>, etag: &HeaderValue, known: &Known, length: u64) -> Verdict {
    let modified = u64::try_from(known.mark.seconds).unwrap_or(0);
    judge(asked.headers, etag.to_str().unwrap_or(""), modified, length)
}

fn choose(known: &Known, asked: &Asked<'_>) -> Encoding {
    if !known.is_text || asked.headers.contains_key(header::RANGE) {
        return Encoding::Identity;
    }
    let there =
        Encoding::ALL.into_iter().filter_map(|e| known.variant(e).map(|v| (e, v.bytes.len())));
    Accepted::of(asked.headers).choose(there)
}

fn start(
    known: &Known,
    asked: &Asked<'_>,
    verdict: Verdict,
    etag: &HeaderValue,
    length: u64,
) -> Response<Body> {
    let mut answer = Response::new(Body::Empty);
    let headers = answer.headers_mut();
    headers.reserve(10);
    headers.insert(header::ETAG, etag.clone());
    headers.insert(header::LAST_MODIFIED, known.modified.clone());
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(lifetime(asked)));
    if known.is_text {
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
    let status = match verdict {
        Verdict::Whole => StatusCode::OK,
        Verdict::Part { start, end } => {
            headers.insert(
                header::CONTENT_RANGE,
                content_range(&format!("bytes {start}-{end}/{length}")),
            );
            StatusCode::PARTIAL_CONTENT
        }
        Verdict::NotModified => StatusCode::NOT_MODIFIED,
        Verdict::Failed => StatusCode::PRECONDITION_FAILED,
        Verdict::Unsatisfiable => {
            headers.insert(header::CONTENT_RANGE, content_range(&format!("bytes */{length}")));
            StatusCode::RANGE_NOT_SATISFIABLE
        }
    };
    if matches!(verdict, Verdict::Whole | Verdict::Part { .. }) {
        headers.insert(header::CONTENT_TYPE, known.content_type.clone());
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
    *answer.status_mut() = status;
    answer
}

fn content_range(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("made of digits")
}

/// A file named with its version never changes under that name; media seldom do; code changes with releases.
fn lifetime(asked: &Asked<'_>) -> &'static str {
    let is_versioned = asked.query.split('&').any(|p| p.starts_with("ver=") || p.starts_with("v="));
    match (is_versioned, asked.tree) {
        (true, _) => "public, max-age=31536000, immutable",
        (false, Tree::Uploads) => "public, max-age=86400",
        (false, Tree::Root) => "public, max-age=3600",
    }
}
