//! From node to node: who is who, and mutual TLS for everything that leaves a machine.
//!
//! - [`authority`] the cluster's own authority, which signs certificates of nodes and of guests
//! - [`identity`] a node's key and certificate
//! - [`validity`] from when until when that certificate is good
//! - [`members`] the nodes that are let in, as of now
//! - [`token`] what a new machine is given to join
//! - [`tls`] accepting and connecting: both sides know each other when it is done
//! - [`http`] calls over that: HTTP/2, one connection to a node
//!
//! Always: nobody is answered a byte before it has shown a certificate of this cluster. A certificate alone is not enough:
//! its node must be a member and have that key, so that a removed one is refused by all nodes at once, and its open
//! connections are closed. Names are `NODE.node.pressroom.internal`; whoever connects checks that it is this node.

pub mod authority;
pub mod http;
pub mod identity;
pub mod members;
pub mod tls;
pub mod token;
pub mod validity;

use pressroom_runtime::clock;

/// Why something between nodes did not work.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// A key or certificate makes no sense.
    #[error("{what}: {cause}")]
    Bad {
        /// What was looked at.
        what: &'static str,
        /// What is wrong with it.
        cause: String,
    },
    /// Nobody is a member under this name.
    #[error("there is no node `{0}` in this cluster")]
    Unknown(pressroom_model::id::NodeName),
    /// Our own certificate has ended: nobody would let us in.
    #[error(
        "this node's certificate ended on {}: no other node lets it in. `pressroom node token` on another node, then `pressroom node join TOKEN` on this one gives it a new one; name and data stay",
        clock::rfc3339(.until * 1000)
    )]
    Over {
        /// When, seconds since 1970.
        until: u64,
    },
    /// The node does not answer.
    #[error("node `{node}` at {address}: {cause}")]
    Away {
        /// Which node.
        node: String,
        /// Where it should be.
        address: std::net::SocketAddr,
        /// What happened.
        cause: String,
    },
    /// No node answers where a join token says that one is.
    #[error("no node of the cluster answers at {address}: {cause}")]
    Unreached {
        /// Where one should be.
        address: std::net::SocketAddr,
        /// What happened.
        cause: String,
    },
}

impl WireError {
    pub(crate) fn bad(what: &'static str, cause: impl std::fmt::Display) -> Self {
        Self::Bad { what, cause: cause.to_string() }
    }
}
