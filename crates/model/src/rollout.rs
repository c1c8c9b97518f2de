//! Releases of a site as operators see them, and how far a site is on its way from one version to another.

use serde::{Deserialize, Serialize};

use crate::id::ReleaseId;

/// How far a candidate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// One instance of it is started and checked.
    Canary,
    /// It passed; all others are started.
    Filling,
    /// All of its instances answer; the edges are told.
    Switching,
}

/// A release that served a site; in lists the last one comes first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its name.
    pub id: ReleaseId,
    /// How it stands.
    pub standing: Standing,
    /// WordPress's version in it.
    pub wordpress: String,
    /// How many files it has.
    #[serde(default)]
    pub files: usize,
    /// All their bytes.
    #[serde(default)]
    pub bytes: u64,
    /// When it began to serve last, milliseconds since 1970.
    pub served_ms: u64,
    /// Where it came from, in words.
    #[serde(default)]
    pub source: String,
    /// Who brought it.
    #[serde(default)]
    pub author: String,
    /// What was done.
    #[serde(default)]
    pub message: String,
}

/// How a release of a site stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Visitors get it.
    Serving,
    /// Its instances still run, so that going back is instant.
    Parked,
    /// It is on disk.
    Kept,
}

/// Code with a version of its own in a release.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Part {
    /// What it is to WordPress.
    pub kind: PartKind,
    /// The name of its folder or file; empty for WordPress itself.
    pub name: String,
    /// What it calls itself.
    pub title: String,
    /// The version that its header names; empty: none.
    pub version: String,
}

/// What a part of a release is to WordPress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PartKind {
    /// WordPress itself.
    Core,
    /// A plugin that can be switched off.
    Plugin,
    /// A plugin that cannot.
    MustUse,
    /// A theme.
    Theme,
}
