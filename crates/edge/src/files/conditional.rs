//! Conditional and partial requests for a file. Pure.
//!
//! One range is honoured; several are answered with the whole file, which every client must accept.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, header};

/// What to send of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// 200 with everything.
    Whole,
    /// 304.
    NotModified,
    /// 412.
    Failed,
    /// 206 with the bytes from `start` to `end`, both included.
    Part {
        /// First byte.
        start: u64,
        /// Last byte.
        end: u64,
    },
    /// 416.
    Unsatisfiable,
}

/// Decides by a request's headers; `etag` with its quotes, `modified` in whole seconds.
pub fn judge(headers: &HeaderMap, etag: &str, modified: u64, length: u64) -> Verdict {
    if let Some(wanted) = text(headers, header::IF_MATCH)
        && !matches(wanted, etag, Comparison::Strong)
    {
        return Verdict::Failed;
    }
    match text(headers, header::IF_NONE_MATCH) {
        Some(known) if matches(known, etag, Comparison::Weak) => return Verdict::NotModified,
        Some(_) => {}
        None => {
            if date(headers, header::IF_MODIFIED_SINCE).is_some_and(|since| modified <= since) {
                return Verdict::NotModified;
            }
        }
    }
    let Some(range) = text(headers, header::RANGE) else { return Verdict::Whole };
    if let Some(condition) = text(headers, header::IF_RANGE) {
        let still = if condition.contains('"') {
            condition == etag
        } else {
            date(headers, header::IF_RANGE) == Some(modified)
        };
        if !still {
            return Verdict::Whole;
        }
    }
    part(range, length)
}

fn part(range: &str, length: u64) -> Verdict {
    let Some(spec) = range.trim().strip_prefix("bytes=") else { return Verdict::Whole };
    if spec.contains(',') {
        return Verdict::Whole;
    }
    let Some((first, last)) = spec.trim().split_once('-') else { return Verdict::Whole };
    let number = |t: &str| {
        (!t.is_empty() && t.bytes().all(|b| b.is_ascii_digit()))
            .then(|| t.parse::<u64>().unwrap_or(u64::MAX))
    };
    let (start, end) = match (number(first), number(last)) {
        (Some(start), Some(end)) if start <= end => (start, end),
        (Some(start), None) if last.is_empty() => (start, u64::MAX),
        (None, Some(suffix)) if first.is_empty() => {
            if suffix == 0 {
                return Verdict::Unsatisfiable;
            }
            (length.saturating_sub(suffix), u64::MAX)
        }
        _ => return Verdict::Whole,
    };
    if start >= length {
        return Verdict::Unsatisfiable;
    }
    Verdict::Part { start, end: end.min(length - 1) }
}

#[derive(Clone, Copy)]
enum Comparison {
    Strong,
    Weak,
}

fn matches(list: &str, etag: &str, comparison: Comparison) -> bool {
    if list.trim() == "*" {
        return true;
    }
    list.split(',').any(|item| {
        let item = item.trim();
        match comparison {
            Comparison::Strong => item == etag,
            Comparison::Weak => {
                item.strip_prefix("W/").unwrap_or(item) == etag.strip_prefix("W/").unwrap_or(etag)
            }
        }
    })
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn date(headers: &HeaderMap, name: header::HeaderName) -> Option<u64> {
    let time = httpdate::parse_http_date(text(headers, name)?).ok()?;
    time.duration_since(SystemTime::UNIX_EPOCH).ok().as_ref().map(Duration::as_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETAG: &str = "\"a-b\"";
    const MODIFIED: u64 = 784_111_777; // Sun, 06 Nov 1994 08:49:37 GMT

    fn check(headers: &[(&str, &str)], wanted: Verdict) {
        let headers: HeaderMap =
            headers.iter().map(|(n, v)| (n.parse().expect(n), v.parse().expect(v))).collect();
        assert_eq!(judge(&headers, ETAG, MODIFIED, 1000), wanted, "{headers:?}");
    }

    fn part(start: u64, end: u64) -> Verdict {
        Verdict::Part { start, end }
    }

    #[test]
    fn what_the_client_has_is_not_sent_again() {
        check(&[], Verdict::Whole);
        check(&[("if-none-match", ETAG)], Verdict::NotModified);
        check(&[("if-none-match", "\"x\", W/\"a-b\"")], Verdict::NotModified);
        check(&[("if-none-match", "*")], Verdict::NotModified);
        check(&[("if-none-match", "\"x\"")], Verdict::Whole);
        check(&[("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT")], Verdict::NotModified);
        check(&[("if-modified-since", "Sun, 06 Nov 1994 08:49:36 GMT")], Verdict::Whole);
        check(&[("if-modified-since", "yesterday")], Verdict::Whole);
        check(
            &[("if-none-match", "\"x\""), ("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT")],
            Verdict::Whole,
        );
        check(&[("if-match", "\"x\"")], Verdict::Failed);
        check(&[("if-match", ETAG)], Verdict::Whole);
    }

    #[test]
    fn one_range_is_honoured() {
        check(&[("range", "bytes=0-0")], part(0, 0));
        check(&[("range", "bytes=0-99")], part(0, 99));
        check(&[("range", "bytes=900-")], part(900, 999));
        check(&[("range", "bytes=900-5000")], part(900, 999));
        check(&[("range", "bytes=-100")], part(900, 999));
        check(&[("range", "bytes=-5000")], part(0, 999));
        check(&[("range", "bytes=1000-")], Verdict::Unsatisfiable);
        check(&[("range", "bytes=99999999999999999999999-")], Verdict::Unsatisfiable);
        check(&[("range", "bytes=-0")], Verdict::Unsatisfiable);
        for whole in ["bytes=5-1", "bytes=a-b", "bytes=-", "lines=1-2", "bytes=0-1,3-4", "bytes"] {
            check(&[("range", whole)], Verdict::Whole);
        }
    }

    #[test]
    fn a_range_of_an_older_file_is_the_whole_new_one() {
        check(&[("range", "bytes=0-9"), ("if-range", ETAG)], part(0, 9));
        check(&[("range", "bytes=0-9"), ("if-range", "\"old\"")], Verdict::Whole);
        check(&[("range", "bytes=0-9"), ("if-range", "W/\"a-b\"")], Verdict::Whole);
        check(&[("range", "bytes=0-9"), ("if-range", "Sun, 06 Nov 1994 08:49:37 GMT")], part(0, 9));
        check(
            &[("range", "bytes=0-9"), ("if-range", "Sun, 06 Nov 1994 08:49:38 GMT")],
            Verdict::Whole,
        );
    }
}
