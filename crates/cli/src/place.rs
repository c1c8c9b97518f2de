//! Where the data directory, the configuration and the sockets of one Pressroom are.

use std::path::{Path, PathBuf};

/// One Pressroom on this machine: everything else follows from its data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The data directory: absolute, and short enough for the sockets in it.
    pub data: PathBuf,
    /// The configuration file: absolute; by default `pressroom.toml` in the data directory.
    pub config: PathBuf,
}

impl Place {
    /// The socket of the operator API.
    pub fn agent_socket(&self) -> PathBuf {
        self.data.join("run/agent.sock")
    }

    /// The socket of the keeper.
    pub fn keeper_socket(&self) -> PathBuf {
        self.data.join("run/keeper.sock")
    }

    /// The folder with the output of every process: `NAME.log`, and `NAME.log.1` before it.
    pub fn logs(&self) -> PathBuf {
        self.data.join("logs")
    }

    /// The logs of a site's PHP.
    pub fn site_logs(&self, site: &str) -> PathBuf {
        self.data.join("sites").join(site).join("logs")
    }

    /// The folder that relative paths in the configuration start from.
    pub fn folder(&self) -> &Path {
        self.config.parent().unwrap_or(Path::new("/"))
    }
}
