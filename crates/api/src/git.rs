//! A site's git repository over the operator API: its address, its token, and what git asks when something is pushed.

use pressroom_model::secret::Secret;
use serde::{Deserialize, Serialize};

/// Somebody pushed: a branch shall mean another commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pushed {
    /// The branch's whole name: `refs/heads/main`.
    pub name: String,
    /// The commit that it meant; zeros: it is new.
    pub old: String,
    /// The commit that it shall mean; zeros: it shall go.
    pub new: String,
}

/// What is wanted of a site's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenWish {
    /// Nothing: only say how things are.
    Look,
    /// A new one; the old one opens nothing any more.
    Make,
    /// None.
    Revoke,
}

/// How a site's repository is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// For `git clone`.
    pub url: String,
    /// Whether there is a token, so that anybody can.
    pub has_token: bool,
    /// The token, when it was made just now; it is never told again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
}
