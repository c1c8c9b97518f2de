//! Code bundles: a site's code as an immutable, content-addressed tree.
//!
//! A release is made from a [`pressroom_model::config::Source`] and the caller's overlay (our must-use plugin, drop-ins and the
//! loader of `wp-config.php`). Its name is the digest of its manifest, so the same code has the same name everywhere.
//!
//! - [`releases`] the folder of releases: build, verify, hard-link into a site
//! - [`manifest`] path → mode, size, BLAKE3; the canonical text and its digest
//! - [`receive`] releases from other machines
//! - [`overlay`] files that are ours
//! - [`source`] which files of a source belong to its code, and which never do
//! - [`archive`] `.tar.gz` and `.zip`, believed only by their digest and within limits
//! - [`worktree`] a writable copy of a release
//! - [`published`] archives of WordPress, against the digests that are published for them
//! - [`parts`] the plugins and themes of a release, with their versions
//! - [`wordpress`] whether a tree is a WordPress, and which
//!
//! Always: a release is whole and on disk, or it does not exist (`ID.manifest` is written last). It never contains
//! uploads, caches, `.git`, `.htaccess` or the source's own `wp-config.php`, nor a link. All functions block.

pub mod archive;
mod copy;
pub mod manifest;
pub mod overlay;
pub mod parts;
pub mod published;
pub mod receive;
pub mod releases;
pub mod source;
pub mod wordpress;
pub mod worktree;

use std::io;
use std::path::PathBuf;

/// Why a release was not made, or not used.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// The distribution's package is not installed.
    #[error("the package `wordpress` is not installed (`{}` is missing); install it with `apt-get install wordpress`", .missing.display())]
    PackageMissing {
        /// What it would have brought.
        missing: PathBuf,
    },
    /// The source is no WordPress.
    #[error("`{}` is not a WordPress tree: {why}", .source_path.display())]
    NotWordPress {
        /// The source.
        source_path: PathBuf,
        /// What is missing or wrong.
        why: String,
    },
    /// A repository is made into a folder by somebody else, before.
    #[error("the git repository `{url}` was not fetched")]
    NotFetched {
        /// Which.
        url: String,
    },
    /// A published version is made into an archive by somebody else, before.
    #[error("WordPress {version} was not downloaded")]
    NotDownloaded {
        /// Which.
        version: String,
    },
    /// An archive is not the one that is published.
    #[error("`{}` has the SHA-1 digest {found}, but {expected} is published for it", .path.display())]
    NotPublished {
        /// The archive.
        path: PathBuf,
        /// As published.
        expected: String,
        /// As computed.
        found: String,
    },
    /// A file of a published archive is not the one that is published.
    #[error("`{file}` in `{}` {why}", .path.display())]
    ForeignFile {
        /// The archive.
        path: PathBuf,
        /// The file in it.
        file: String,
        /// What is wrong.
        why: &'static str,
    },
    /// The archive is not the one that was meant.
    #[error("`{}` has the SHA-256 digest {found}, not {expected}", .path.display())]
    WrongDigest {
        /// The archive.
        path: PathBuf,
        /// As configured.
        expected: String,
        /// As computed.
        found: String,
    },
    /// The archive is broken, or does what an archive of code has no reason to do.
    #[error("the archive `{}` is refused: {why}", .path.display())]
    BadArchive {
        /// The archive.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A name that cannot be in a manifest.
    #[error("`{}` cannot be part of a release: {why}", .path.display())]
    BadPath {
        /// The file.
        path: PathBuf,
        /// The rule it breaks.
        why: &'static str,
    },
    /// A link that leads to something that not everybody may read.
    #[error("the link `{}` leads out of the source to `{}`, which not everybody may read", .link.display(), .target.display())]
    LinkLeaves {
        /// The link.
        link: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// A file changed while it was copied.
    #[error("`{}` changed while it was copied; try again when nobody writes to the source", .path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// There is no such release.
    #[error("there is no release `{0}`")]
    Unknown(pressroom_model::id::ReleaseId),
    /// A manifest that we did not write so.
    #[error("the manifest `{}` is damaged: {why}", .path.display())]
    BadManifest {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The file system refused.
    #[error("{doing} `{}`: {cause}", .path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Its words.
        cause: io::Error,
    },
}

/// Adds to an I/O error what was being done and to what.
fn failed(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> ReleaseError {
    let path = path.into();
    move |cause| ReleaseError::Io { doing, path, cause }
}
