//! Releases over the operator API: bringing code, looking at what there is, going back.

use std::path::PathBuf;

use pressroom_model::config::Source;
use pressroom_model::id::ReleaseId;
use serde::{Deserialize, Serialize};

/// Code that an operator brings to a site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// What.
    pub code: Code,
    /// Who brings it, for the list of releases.
    pub author: String,
    /// What is done, for the list of releases; empty: made from the source.
    #[serde(default)]
    pub message: String,
}

/// What is brought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The source of the site's configuration, as it is now.
    Configured,
    /// Another source with a whole WordPress.
    Source(Source),
    /// A folder on the agent's machine: a whole WordPress, or a `wp-content` alone.
    Folder(PathBuf),
    /// A `.tar.gz` or `.zip` on the agent's machine with a whole WordPress, and its SHA-256 if it is known.
    Archive {
        /// The file.
        path: PathBuf,
        /// What it must be, 64 hexadecimal digits.
        sha256: Option<String>,
    },
}

/// What a deployment or a return has done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// The release that every new request runs.
    pub release: ReleaseId,
    /// The one before.
    pub from: Option<ReleaseId>,
}

/// What tells one release from another: paths, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diff {
    /// The earlier one.
    pub from: Option<ReleaseId>,
    /// The later one.
    pub to: Option<ReleaseId>,
    /// Only in the later one.
    pub added: Vec<String>,
    /// In both, but different.
    pub changed: Vec<String>,
    /// Only in the earlier one.
    pub removed: Vec<String>,
}

/// A file that is not what its release says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// Its path in the release.
    pub path: String,
    /// What is wrong.
    pub what: String,
}

/// Which release is meant, in a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Which {
    /// The release, or the beginning of its id; `None`: the one before the serving one, or the serving one.
    #[serde(default)]
    pub release: Option<String>,
    /// The release to compare with, likewise.
    #[serde(default)]
    pub with: Option<String>,
    /// Who asks, where something changes by it.
    #[serde(default)]
    pub author: String,
}
