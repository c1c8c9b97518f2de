//! Whether a candidate may get visitors: what it answered, beside what the serving version answers to the same.
//!
//! A check finds what breaks a site for everybody: a fatal error, an error status, a white page, slowness by an order of
//! magnitude. It is no test of the site's meaning.

use std::time::Duration;

/// Slower than this is worth a comparison.
pub const SLOW: Duration = Duration::from_secs(1);
/// So many times slower than before is a fault.
const TIMES: u32 = 10;

/// One answer of PHP.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reply {
    /// HTTP status; 0: no answer.
    pub status: u16,
    /// Bytes of the body that are no white space.
    pub bytes: usize,
    /// What PHP wrote to its error stream.
    pub errors: String,
    /// How long it took.
    pub took: Duration,
    /// Why there was no answer.
    pub because: String,
}

/// Whether an answer can be judged only beside that of the serving version: most are good by themselves, and need not be
/// asked for twice.
pub fn is_doubtful(now: &Reply) -> bool {
    let is_white = now.status == 200 && now.bytes == 0;
    now.status == 0 || now.status >= 400 || is_white || now.took > SLOW
}

/// Why a candidate is refused: the fault of one page. `before` is what the serving version answered, if it was asked.
pub fn fault(path: &str, before: Option<&Reply>, now: &Reply) -> Option<String> {
    if let Some(fatal) = fatal(&now.errors) {
        return Some(format!("`{path}`: {fatal}"));
    }
    let before = before.filter(|reply| reply.status != 0);
    if now.status == 0 {
        return Some(format!("`{path}` was not answered: {}", now.because));
    }
    let was_bad = before.is_some_and(|reply| reply.status >= 500);
    if now.status >= 500 && !was_bad {
        return Some(format!("`{path}` was answered with the status {}", now.status));
    }
    if let Some(before) = before {
        if now.status >= 400 && before.status < 400 {
            return Some(format!(
                "`{path}` was answered with the status {}, by the serving version with {}",
                now.status, before.status
            ));
        }
        if now.took > SLOW && now.took > before.took * TIMES {
            return Some(format!(
                "`{path}` took {} ms, {} times as long as with the serving version ({} ms)",
                now.took.as_millis(),
                now.took.as_millis() / before.took.as_millis().max(1),
                before.took.as_millis()
            ));
        }
    }
    let was_white = before.is_some_and(|reply| reply.status == 200 && reply.bytes == 0);
    if now.status == 200 && now.bytes == 0 && !was_white {
        return Some(format!("`{path}` is a white page: nothing was printed"));
    }
    None
}

/// PHP's own message of a fatal error, with file and line, on one line.
pub fn fatal(errors: &str) -> Option<String> {
    const MARKS: [&str; 4] =
        ["PHP Fatal error:", "PHP Parse error:", "PHP Compile error:", "PHP Core error:"];
    let at = MARKS.iter().filter_map(|mark| errors.find(mark)).min()?;
    // php-fpm writes `PHP message: ` before each line of it.
    let line = errors[at..].lines().next().unwrap_or_default();
    let line = line.split("; PHP message:").next().unwrap_or(line);
    Some(line.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, bytes: usize, ms: u64, errors: &str) -> Reply {
        let because = if status == 0 { "no answer within 5 s" } else { "" };
        let (errors, because) = (errors.into(), because.into());
        Reply { status, bytes, errors, took: Duration::from_millis(ms), because }
    }

    fn check(before: Option<&Reply>, now: &Reply, expected: Option<&str>) {
        let found = fault("/", before, now);
        let is_alike = found == fault("/", None, now);
        assert!(is_alike || is_doubtful(now), "who is not asked about cannot differ: {now:?}");
        match expected {
            None => assert_eq!(found, None, "{before:?} {now:?}"),
            Some(part) => {
                assert!(found.as_ref().is_some_and(|text| text.contains(part)), "{found:?}");
            }
        }
    }

    #[test]
    fn what_breaks_a_site_for_everybody_is_a_fault() {
        let good = &reply(200, 9000, 30, "");
        check(Some(good), &reply(200, 8000, 40, ""), None);
        check(Some(good), &reply(301, 0, 4, ""), None);
        check(Some(good), &reply(500, 100, 40, ""), Some("status 500"));
        check(None, &reply(503, 100, 40, ""), Some("status 503"));
        check(
            Some(good),
            &reply(404, 100, 40, ""),
            Some("status 404, by the serving version with 200"),
        );
        check(Some(good), &reply(200, 0, 40, ""), Some("white page"));
        check(Some(good), &reply(0, 0, 5000, ""), Some("no answer within 5 s"));
        check(Some(good), &reply(200, 9000, 1200, ""), Some("40 times as long"));
        check(Some(good), &reply(200, 9000, 900, ""), None);
        check(Some(&reply(200, 9000, 200, "")), &reply(200, 9000, 1200, ""), None);
        // What was broken before is no fault of the candidate.
        check(Some(&reply(500, 10, 30, "")), &reply(500, 10, 30, ""), None);
        check(Some(&reply(404, 10, 30, "")), &reply(404, 10, 30, ""), None);
        check(Some(&reply(200, 0, 30, "")), &reply(200, 0, 30, ""), None);
    }

    #[test]
    fn a_fatal_error_is_told_in_phps_own_words() {
        let errors = "PHP message: PHP Warning:  old in /a.php on line 1; PHP message: PHP Parse error:  syntax error, \
                      unexpected token \"}\" in /srv/x.php on line 7; PHP message: more";
        assert_eq!(
            fatal(errors).as_deref(),
            Some("PHP Parse error: syntax error, unexpected token \"}\" in /srv/x.php on line 7")
        );
        assert_eq!(fatal("PHP message: PHP Warning:  Fatal error"), None);
        check(None, &reply(200, 100, 10, errors), Some("on line 7"));
    }
}
