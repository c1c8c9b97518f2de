//! What a site's PHP writes beside its database: where it may, where it may not, and who it was.
//!
//! Code is read-only. Plugins have folders of their own for what they can make anew at any time; those are known by name here,
//! and the site can write them (*scratch*). Everything else that is no media and no code is refused by the system.

use serde::{Deserialize, Serialize};

/// A folder that plugins keep for what they can make anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scratch {
    /// Where WordPress has it.
    pub path: &'static str,
    /// Whose it is, if it is one plugin's.
    pub by: &'static str,
    /// What is in it.
    pub because: &'static str,
}

/// All of them. A folder of which a release has files is code there, whatever its name.
pub const SCRATCH: [Scratch; 9] = [
    Scratch {
        path: "wp-content/cache",
        by: "",
        because: "pages, style sheets and scripts of caching plugins",
    },
    Scratch {
        path: "wp-content/et-cache",
        by: "Divi",
        because: "style sheets that the theme makes of its options",
    },
    Scratch {
        path: "wp-content/litespeed",
        by: "LiteSpeed Cache",
        because: "style sheets and scripts that it puts together",
    },
    Scratch { path: "wp-content/wphb-cache", by: "Hummingbird", because: "pages that it keeps" },
    Scratch {
        path: "wp-content/w3tc-config",
        by: "W3 Total Cache",
        because: "its settings, which it takes from the database again",
    },
    Scratch {
        path: "wp-content/wp-rocket-config",
        by: "WP Rocket",
        because: "its settings, which it takes from the database again",
    },
    Scratch {
        path: "wp-content/breeze-config",
        by: "Breeze",
        because: "its settings, which it takes from the database again",
    },
    Scratch {
        path: "wp-content/wflogs",
        by: "Wordfence",
        because: "rules of its firewall, which it fetches again",
    },
    Scratch {
        path: "wp-content/jetpack-waf",
        by: "Jetpack",
        because: "rules of its firewall, which it fetches again",
    },
];

/// Folders in `wp-content/cache` and `wp-content/uploads` that do not bear their plugin's name.
const KNOWN: [(&str, &str); 21] = [
    ("cache/all", "WP Fastest Cache"),
    ("cache/autoptimize", "Autoptimize"),
    ("cache/background-css", "WP Rocket"),
    ("cache/breeze", "Breeze"),
    ("cache/breeze-minification", "Breeze"),
    ("cache/busting", "WP Rocket"),
    ("cache/cache-enabler", "Cache Enabler"),
    ("cache/config", "W3 Total Cache"),
    ("cache/critical-css", "WP Rocket"),
    ("cache/db", "W3 Total Cache"),
    ("cache/min", "WP Rocket"),
    ("cache/minify", "W3 Total Cache"),
    ("cache/object", "W3 Total Cache"),
    ("cache/page_enhanced", "W3 Total Cache"),
    ("cache/supercache", "WP Super Cache"),
    ("cache/wp-rocket", "WP Rocket"),
    ("cache/wpfc-minified", "WP Fastest Cache"),
    ("cache/wpo-cache", "WP-Optimize"),
    ("uploads/elementor", "Elementor"),
    ("uploads/wc-logs", "WooCommerce"),
    ("uploads/woocommerce_uploads", "WooCommerce"),
];

/// Whose folder it is, by its name alone.
pub fn known(path: &str) -> Option<&'static str> {
    if let Some(scratch) = SCRATCH.iter().find(|scratch| scratch.path == path) {
        return Some(scratch.by).filter(|by| !by.is_empty());
    }
    let path = path.strip_prefix("wp-content/")?;
    KNOWN.iter().find(|(known, _)| *known == path).map(|(_, by)| *by)
}

/// What becomes of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Below `uploads`: kept, copied into environments, served.
    Media,
    /// A plugin's cache, of this release on this machine: may go at any time.
    Scratch,
    /// Drop-ins and languages: part of the release.
    Code,
    /// The system refused it.
    Refused,
}

/// A line of the list of refused writes that the must-use plugin keeps. It is the site's own word, and the site may be hostile.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Refusal {
    /// When, seconds since 1970.
    #[serde(default)]
    pub at: u64,
    /// Where.
    pub path: String,
    /// By which function of PHP.
    #[serde(default)]
    pub tried: String,
    /// The first folder or file of a plugin or theme on the way there.
    #[serde(default)]
    pub by: String,
    /// The system's word.
    #[serde(default)]
    pub said: String,
}

/// Something that was written, or was to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// What became of it.
    pub class: Class,
    /// Where, from WordPress's folder on; what lies elsewhere begins with `/`.
    pub path: String,
    /// Who, as far as it can be known.
    pub by: Option<String>,
    /// How many files are there; refused: how often it was seen.
    pub files: u64,
    /// All their bytes.
    pub bytes: u64,
    /// When it was written last, milliseconds since 1970.
    pub at_ms: Option<u64>,
    /// What it is; refused: what was tried, and what to do.
    pub because: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_known_by_their_names() {
        for (path, expected) in [
            ("wp-content/et-cache", Some("Divi")),
            ("wp-content/cache", None),
            ("wp-content/cache/autoptimize", Some("Autoptimize")),
            ("wp-content/uploads/wc-logs", Some("WooCommerce")),
            ("wp-content/uploads/2026", None),
            ("elsewhere/cache/min", None),
        ] {
            assert_eq!(known(path), expected, "{path}");
        }
    }
}
