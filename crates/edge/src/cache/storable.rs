//! Whether an answer may be stored, and for how long: PHP's word for it, and nothing against it.

use std::fmt;

use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, HeaderName, PRAGMA, SET_COOKIE,
    VARY,
};
use http::{HeaderMap, StatusCode};
use pressroom_model::affirmation::Affirmation;

use super::Millis;
use super::rules::Rules;

/// Why an answer was not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A status that is not for everybody, or not for long.
    Status(u16),
    /// It sets a cookie.
    SetCookie,
    /// `Cache-Control` (or `Pragma`) forbids it.
    CacheControl(Box<str>),
    /// It varies by more than was declared.
    Vary(Box<str>),
    /// It is already coded, so it is no answer for everybody.
    ContentEncoding,
    /// It was cut off: no end of the request, a status of the program, or fewer bytes than promised.
    Incomplete,
    /// It is larger than a page may be.
    TooLarge(usize),
    /// PHP said that it may not be stored, and why.
    Denied(Box<str>),
    /// PHP said nothing.
    Silence,
    /// PHP could not be asked: no worker, a lost connection.
    NoAnswer,
}

impl Refusal {
    /// Whether it says more of the moment than of the page: what is stored may then be served on.
    pub fn is_failure(&self) -> bool {
        matches!(
            self,
            Self::Status(500..)
                | Self::Status(429)
                | Self::Incomplete
                | Self::Silence
                | Self::NoAnswer
        )
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "status {status}"),
            Self::SetCookie => f.write_str("it sets a cookie"),
            Self::CacheControl(word) => write!(f, "cache-control: {word}"),
            Self::Vary(name) => write!(f, "it varies by {name}"),
            Self::ContentEncoding => f.write_str("it came with a content coding"),
            Self::Incomplete => f.write_str("it was cut off"),
            Self::TooLarge(size) => write!(f, "{size} bytes are too many"),
            Self::Denied(because) => write!(f, "PHP: {because}"),
            Self::Silence => f.write_str("no affirmation from PHP"),
            Self::NoAnswer => f.write_str("no answer from PHP"),
        }
    }
}

/// Judges status and headers, before the body is there.
pub(super) fn head(status: StatusCode, headers: &HeaderMap, rules: &Rules) -> Result<(), Refusal> {
    if !matches!(status.as_u16(), 200 | 301 | 308 | 404 | 410)
        || headers.contains_key(CONTENT_RANGE)
    {
        return Err(Refusal::Status(status.as_u16()));
    }
    if headers.contains_key(SET_COOKIE) {
        return Err(Refusal::SetCookie);
    }
    if headers
        .get(CONTENT_ENCODING)
        .is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        return Err(Refusal::ContentEncoding);
    }
    for word in words(headers, &CACHE_CONTROL) {
        let directive = word.split('=').next().unwrap_or_default().trim();
        let forbidding =
            ["private", "no-store", "no-cache"].iter().any(|no| directive.eq_ignore_ascii_case(no));
        if forbidding {
            return Err(Refusal::CacheControl(word.into()));
        }
    }
    if allowed_age(headers) == Some(0) {
        return Err(Refusal::CacheControl("s-maxage=0".into()));
    }
    if !headers.contains_key(CACHE_CONTROL)
        && words(headers, &PRAGMA).any(|word| word == "no-cache")
    {
        return Err(Refusal::CacheControl("no-cache".into()));
    }
    match words(headers, &VARY).find(|name| !is_declared(name, rules)) {
        Some(name) => Err(Refusal::Vary(super::bypass::shown(&name))),
        None => Ok(()),
    }
}

/// Requests with `Origin` bypass, so every stored answer is the one without.
fn is_declared(name: &str, rules: &Rules) -> bool {
    name.eq_ignore_ascii_case("accept-encoding")
        || name.eq_ignore_ascii_case("origin")
        || (name.eq_ignore_ascii_case("cookie") && !rules.vary_cookies.is_empty())
}

/// The end of an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    /// END_REQUEST came, with the program's status 0.
    pub complete: bool,
    /// Bytes of body that came.
    pub size: usize,
    /// Most bytes that a page may have.
    pub limit: usize,
}

/// Judges the end of an answer; the TTL if it may be stored.
pub(super) fn end(
    headers: &HeaderMap,
    end: End,
    affirmation: Option<&Affirmation>,
    because: Option<&str>,
    rules: &Rules,
) -> Result<Millis, Refusal> {
    let promised =
        headers.get(CONTENT_LENGTH).map(|value| value.to_str().ok()?.parse::<usize>().ok());
    if !end.complete || promised.is_some_and(|promised| promised != Some(end.size)) {
        return Err(Refusal::Incomplete);
    }
    if end.size > end.limit {
        return Err(Refusal::TooLarge(end.size));
    }
    let Some(affirmation) = affirmation else {
        return Err(because.map_or(Refusal::Silence, |because| Refusal::Denied(short(because))));
    };
    let affirmed = affirmation.ttl.saturating_mul(1000).min(rules.ttl_max);
    let ttl =
        allowed_age(headers).map_or(affirmed, |seconds| affirmed.min(seconds.saturating_mul(1000)));
    if ttl == 0 { Err(Refusal::Denied("a TTL of 0".into())) } else { Ok(ttl) }
}

fn short(text: &str) -> Box<str> {
    text.chars().filter(|c| !c.is_control()).take(200).collect::<String>().into()
}

/// Seconds for which a shared cache may call the answer fresh, if it says: `s-maxage` goes before `max-age`. A
/// `max-age=0` is for browsers, which are to ask each time; whether we may store the page PHP says by its affirmation.
fn allowed_age(headers: &HeaderMap) -> Option<u64> {
    let age = |wanted: &str| {
        let seconds = |word: String| {
            let (name, value) = word.split_once('=')?;
            if name.trim() == wanted { value.trim().trim_matches('"').parse().ok() } else { None }
        };
        words(headers, &CACHE_CONTROL).filter_map(seconds).min()
    };
    age("s-maxage").or_else(|| age("max-age").filter(|seconds| *seconds > 0))
}

/// The comma-separated words of a header, in lower case.
fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = String> + 'a {
    let values = headers.get_all(name).into_iter();
    values.flat_map(|value| {
        let text = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
        text.split(',')
            .map(|word| word.trim().to_owned())
            .filter(|word| !word.is_empty())
            .collect::<Vec<_>>()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::names::Names;

    fn rules() -> Rules {
        Rules {
            enabled: true,
            ttl_max: 3_600_000,
            stale_while_revalidate: 0,
            stale_if_error: 0,
            ignored_parameters: Names::default(),
            bypass_cookies: Names::default(),
            vary_cookies: Names::default(),
        }
    }

    fn map(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        headers
            .iter()
            .map(|(name, value)| {
                (HeaderName::from_static(name), http::HeaderValue::from_static(value))
            })
            .collect()
    }

    fn judged(status: u16, headers: &[(&'static str, &'static str)]) -> Result<(), Refusal> {
        head(StatusCode::from_u16(status).expect("a status"), &map(headers), &rules())
    }

    #[test]
    fn only_lasting_answers_for_everybody_pass() {
        for status in [200, 301, 308, 404, 410] {
            assert_eq!(judged(status, &[]), Ok(()), "{status}");
        }
        for status in [201, 204, 206, 302, 303, 304, 307, 401, 403, 429, 500, 503] {
            assert_eq!(judged(status, &[]), Err(Refusal::Status(status)), "{status}");
        }
    }

    #[test]
    fn headers_against_sharing_are_heeded() {
        for (name, value) in [
            ("set-cookie", "a=1"),
            ("cache-control", "private"),
            ("cache-control", "max-age=60, NO-STORE"),
            ("cache-control", "no-cache=\"set-cookie\""),
            ("cache-control", "s-maxage=0"),
            ("pragma", "no-cache"),
            ("vary", "User-Agent"),
            ("vary", "Accept-Encoding, Cookie"),
            ("vary", "*"),
            ("content-encoding", "gzip"),
            ("content-range", "bytes 0-1/2"),
        ] {
            assert!(judged(200, &[(name, value)]).is_err(), "{name}: {value}");
        }
        for (name, value) in [
            ("cache-control", "public, max-age=60"),
            ("cache-control", "max-age=0, s-maxage=60"),
            ("cache-control", "max-age=0, must-revalidate"),
            ("vary", "accept-encoding"),
            ("vary", "Origin"),
            ("content-encoding", "identity"),
        ] {
            assert_eq!(judged(200, &[(name, value)]), Ok(()), "{name}: {value}");
        }
    }

    #[test]
    fn varying_by_cookie_is_fine_where_variants_are_declared() {
        let declared = Rules { vary_cookies: Names::new(["lang"]), ..rules() };
        assert_eq!(head(StatusCode::OK, &map(&[("vary", "Cookie")]), &declared), Ok(()));
    }

    fn ended(
        headers: &[(&'static str, &'static str)],
        complete: bool,
        affirmation: Option<u64>,
        because: Option<&str>,
    ) -> Result<Millis, Refusal> {
        let affirmation = affirmation.map(|ttl| Affirmation { ttl, tags: Vec::new() });
        end(
            &map(headers),
            End { complete, size: 10, limit: 10 },
            affirmation.as_ref(),
            because,
            &rules(),
        )
    }

    #[test]
    fn storing_needs_a_complete_answer_and_an_affirmation() {
        assert_eq!(ended(&[], true, Some(60), None), Ok(60_000));
        assert_eq!(ended(&[], true, Some(999_999_999), None), Ok(3_600_000));
        assert_eq!(ended(&[], true, Some(0), None), Err(Refusal::Denied("a TTL of 0".into())));
        assert_eq!(ended(&[], false, Some(60), None), Err(Refusal::Incomplete));
        assert_eq!(
            ended(&[("content-length", "11")], true, Some(60), None),
            Err(Refusal::Incomplete)
        );
        assert_eq!(ended(&[("content-length", "10")], true, Some(60), None), Ok(60_000));
        assert_eq!(ended(&[], true, None, None), Err(Refusal::Silence));
        assert_eq!(ended(&[], true, None, Some("cart")), Err(Refusal::Denied("cart".into())));
        assert_eq!(
            ended(&[("cache-control", "max-age=5, s-maxage=30")], true, Some(60), None),
            Ok(30_000)
        );
        assert_eq!(ended(&[("cache-control", "max-age=5")], true, Some(60), None), Ok(5_000));
        assert_eq!(ended(&[("cache-control", "max-age=0")], true, Some(60), None), Ok(60_000));
        let large = End { complete: true, size: 11, limit: 10 };
        assert_eq!(end(&HeaderMap::new(), large, None, None, &rules()), Err(Refusal::TooLarge(11)));
    }

    #[test]
    fn a_failure_says_nothing_about_the_page() {
        for failure in
            [Refusal::Status(500), Refusal::Status(503), Refusal::Incomplete, Refusal::Silence]
        {
            assert!(failure.is_failure(), "{failure}");
        }
        for verdict in [
            Refusal::SetCookie,
            Refusal::Status(302),
            Refusal::Status(403),
            Refusal::Denied("x".into()),
        ] {
            assert!(!verdict.is_failure(), "{verdict}");
        }
    }
}
