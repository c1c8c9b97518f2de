//! The configuration as written: `pressroom.toml`.
//!
//! Pure: what the machine is like comes in as [`Facts`], what is wrong goes out as faults, all at once.

use std::path::PathBuf;

/// What defaults depend on. Whoever may touch the machine finds it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The machine's host name: the default name of the node.
    pub hostname: String,
    /// Whether Pressroom runs as root: decides the default ports.
    pub is_root: bool,
    /// Processors: two PHP workers an instance for each, by default.
    pub cores: u16,
    /// The PHP version of the distribution (`8.2`).
    pub php_version: String,
    /// Where Pressroom's data is, unless the file says otherwise.
    pub data: PathBuf,
    /// The folder of the file, which relative paths in it start from.
    pub folder: PathBuf,
}
