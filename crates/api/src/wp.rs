//! wp-cli over the operator API: the agent says how it is run, whoever asks runs it, because the terminal is theirs.

use std::path::PathBuf;

use pressroom_model::id::EnvironmentName;
use serde::{Deserialize, Serialize};

/// What wp-cli is to do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// In an environment of the site.
    #[serde(default)]
    pub environment: Option<EnvironmentName>,
    /// The phar, if somebody named it.
    #[serde(default)]
    pub phar: Option<PathBuf>,
    /// A `wp` in the asker's `PATH`: it counts where nobody named one.
    #[serde(default)]
    pub found: Option<PathBuf>,
    /// wp-cli's own arguments.
    pub arguments: Vec<String>,
}
