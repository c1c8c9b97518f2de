//! What PHP says to its local edge, on its site's own unix socket: one JSON object per line, UTF-8.
//!
//! The socket belongs to the site (its user alone may connect, and the edge checks the peer's credentials), so a
//! site can speak for itself only. `request` is the token that the edge gave in the FastCGI parameter
//! `PRESSROOM_TOKEN`; cron, wp-cli and the installer have none. Unknown fields are ignored, so both sides can grow.
//!
//! Always: a [`Message::Purge`] is answered by one [`Receipt`] line; the other messages are not answered.

use serde::{Deserialize, Serialize};

use crate::id::NodeName;

/// One line from PHP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "say")]
pub enum Message {
    /// This request is about to write to the database for the first time. A request that said so, or whose method is
    /// unsafe, and that ends without [`Message::Done`] purges its site softly.
    Writing {
        /// The request's token.
        request: String,
    },
    /// Something visitors may see has changed. Sent once the database has it, and again, summed up, in `Done`.
    Purge {
        /// The request's token, if it has one.
        #[serde(default)]
        request: Option<String>,
        /// What to purge.
        #[serde(flatten)]
        purge: Purge,
    },
    /// The last word of a request, after its last byte of output.
    Done {
        /// The request's token.
        request: String,
        /// PHP's word that the finished page may be stored; absent: it may not.
        #[serde(default)]
        affirmation: Option<Affirmation>,
        /// Why it may not, for `pressroom why` and for reports ("cookie set: woocommerce_cart_hash").
        #[serde(default)]
        because: Option<String>,
        /// All that the request purged, once more.
        #[serde(default)]
        purge: Option<Purge>,
    },
}

/// PHP's word that a finished page may be stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Affirmation {
    /// Seconds for which it may be called fresh; already capped below the youngest nonce in the page.
    pub ttl: u64,
    /// Surrogate keys: whatever the page shows.
    pub tags: Vec<String>,
}

/// What to purge: pages whose tags meet `tags`, pages of these paths, or the whole site.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Purge {
    /// Surrogate keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Absolute paths with query (`/2026/hello/`), or whole URLs of the site.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Everything of this site.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
}

/// An edge's confirmation of a purge: every later answer of this edge honours it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Whether it was applied and journalled.
    pub ok: bool,
    /// The purge's number in this edge's stream of the site.
    pub position: u64,
    /// How many stored pages it made stale.
    pub pages: u64,
    /// The same of other nodes' edges. One that did not confirm in time is `ok: false`, and gets it later.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeReceipt>,
}

/// Another edge's confirmation of a purge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReceipt {
    /// The node.
    pub node: NodeName,
    /// Whether it was applied and journalled there.
    pub ok: bool,
    /// Milliseconds until it was confirmed.
    pub ms: u64,
    /// How many stored pages it made stale there.
    pub pages: u64,
}
