//! A site's rules, made ready for use on every request.

use pressroom_model::snapshot::CacheRules;

use super::Millis;
use super::names::Names;

/// The rules of one site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Off: every request bypasses.
    pub enabled: bool,
    /// Upper bound of any TTL.
    pub ttl_max: Millis,
    /// How long a page may be served stale while it is refreshed.
    pub stale_while_revalidate: Millis,
    /// How long a page may be served when PHP cannot.
    pub stale_if_error: Millis,
    /// Parameters that are no part of the key.
    pub ignored_parameters: Names,
    /// Cookies that make a request bypass.
    pub bypass_cookies: Names,
    /// Cookies that are part of the key.
    pub vary_cookies: Names,
}

impl Rules {
    /// Makes rules ready.
    pub fn new(rules: &CacheRules) -> Self {
        let millis = |span: pressroom_model::unit::Span| span.get().as_millis() as Millis;
        Self {
            enabled: rules.enabled,
            ttl_max: millis(rules.ttl_max),
            stale_while_revalidate: millis(rules.stale_while_revalidate),
            stale_if_error: millis(rules.stale_if_error),
            ignored_parameters: Names::new(rules.ignored_parameters.iter().map(String::as_str)),
            bypass_cookies: Names::new(rules.bypass_cookies.iter().map(String::as_str)),
            vary_cookies: Names::new(rules.vary_cookies.iter().map(String::as_str)),
        }
    }
}
