//! Why a request neither reads nor fills the cache.
//!
//! These rules keep personal requests away from shared pages; they do not protect the pages. A personal request that
//! slips through is given the anonymous page, since nothing personal of it reaches PHP.

use std::fmt;

use super::learned::Learned;
use super::rules::Rules;

/// The reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bypass {
    /// The cache is off for the site.
    Off,
    /// Not GET or HEAD.
    Method,
    /// The request has `Authorization`.
    Authorization,
    /// The request comes from a script of another origin, and answers may name that origin.
    Origin,
    /// A path that is never for everybody.
    Path(&'static str),
    /// A preview or nonce parameter.
    Parameter(Box<str>),
    /// A cookie that is configured, or that the site once set.
    Cookie(Box<str>),
    /// The site set so many cookies that any unknown one may matter.
    UnknownCookie(Box<str>),
    /// A declared variant with a value that cannot be part of a key.
    Variant(Box<str>),
}

impl fmt::Display for Bypass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("cache off"),
            Self::Method => f.write_str("method"),
            Self::Authorization => f.write_str("authorization"),
            Self::Origin => f.write_str("origin"),
            Self::Path(path) => write!(f, "path {path}"),
            Self::Parameter(name) => write!(f, "parameter {name}"),
            Self::Cookie(name) => write!(f, "cookie {name}"),
            Self::UnknownCookie(name) => write!(f, "unknown cookie {name}"),
            Self::Variant(name) => write!(f, "variant {name}"),
        }
    }
}

/// Folders and scripts that are never for everybody, at any depth (subsites have them below their own path).
const PATHS: [&str; 9] = [
    "wp-admin",
    "wp-login.php",
    "wp-cron.php",
    "xmlrpc.php",
    "wp-signup.php",
    "wp-activate.php",
    "wp-comments-post.php",
    "wp-trackback.php",
    "wp-mail.php",
];

const PARAMETERS: [&str; 16] = [
    "add-to-cart",
    "customized",
    "doing_wp_cron",
    "download_file",
    "elementor-preview",
    "et_fb",
    "fl_builder",
    "moderation-hash",
    "preview",
    "preview_id",
    "remove_item",
    "unapproved",
    "vc_editable",
    "wc-ajax",
    "wc-api",
    "wp_customize",
];

/// Judges a normalised path.
pub(super) fn path(path: &str) -> Result<(), Bypass> {
    for segment in path.as_bytes().split(|byte| *byte == b'/') {
        // Most segments are told apart by their first letter.
        if segment.len() < 8 || !matches!(segment[0], b'w' | b'W' | b'x' | b'X') {
            continue;
        }
        if let Some(known) =
            PATHS.iter().find(|known| segment.eq_ignore_ascii_case(known.as_bytes()))
        {
            return Err(Bypass::Path(known));
        }
    }
    Ok(())
}

/// Judges a normalised parameter name.
pub(super) fn parameter(name: &str) -> Result<(), Bypass> {
    let name = as_php_reads_it(name);
    let personal = name.ends_with("nonce") && name.len() >= 5 && is_word_end(&name)
        || name.starts_with("customize_")
        || PARAMETERS.binary_search(&&*name).is_ok();
    if personal { Err(Bypass::Parameter(shown(&name))) } else { Ok(()) }
}

/// `_wpnonce` and `my-nonce` end in the word, `announce` does not.
fn is_word_end(name: &str) -> bool {
    let before = &name[..name.len() - 5];
    before.is_empty() || before.ends_with(['_', '-']) || before.ends_with("wp")
}

/// PHP cuts array brackets off, and makes underscores of dots and spaces.
fn as_php_reads_it(name: &str) -> std::borrow::Cow<'_, str> {
    let start = name.trim_start_matches("%20").trim_start_matches('+');
    let end =
        start.find("%5b").or_else(|| start.find('[')).filter(|at| *at > 0).unwrap_or(start.len());
    let name = &start[..end];
    if name.contains(['.', '+', '%']) {
        name.replace("%2e", "_").replace("%20", "_").replace(['.', '+'], "_").into()
    } else {
        name.into()
    }
}

/// Judges a cookie that is no declared variant.
pub(super) fn cookie(name: &str, rules: &Rules, learned: &Learned) -> Result<(), Bypass> {
    if rules.bypass_cookies.contains(name) || learned.contains(name) {
        return Err(Bypass::Cookie(shown(name)));
    }
    if learned.is_full() {
        return Err(Bypass::UnknownCookie(shown(name)));
    }
    Ok(())
}

/// A name from a request, fit for a header and a log line.
pub(super) fn shown(name: &str) -> Box<str> {
    let plain = |c: char| if c.is_ascii_graphic() && c != '"' && c != '\\' { c } else { '?' };
    name.chars().take(64).map(plain).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_parameters_is_sorted() {
        assert!(PARAMETERS.is_sorted());
    }

    #[test]
    fn every_name_of_a_door_is_long_enough_to_be_looked_at() {
        assert!(PATHS.iter().all(|path| path.len() >= 8 && path.starts_with(['w', 'x'])));
    }

    #[test]
    fn what_is_shown_of_a_name_fits_a_header() {
        assert_eq!(&*shown("a\"b\\c\u{7f}\u{e9}"), "a?b?c??");
        assert_eq!(shown(&"x".repeat(500)).len(), 64);
    }
}
