//! The operator's door: what may be asked of a running Pressroom, over HTTP on a unix socket, and the console page.
//!
//! The binary implements [`operator::Operator`]; [`server`] offers it on `run/agent.sock`; [`client`] is how the
//! commands ask. [`console`] offers a part of it to browsers, on loopback TCP.
//!
//! - [`operator`] the trait, and the values that it takes and gives
//! - [`cluster`] founding, tokens, nodes, copies of the state
//! - [`environment`] copies of a site for trying things
//! - [`wp`] how wp-cli is asked for
//! - [`release`] bringing code, looking at releases, going back
//! - [`git`] a site's repository: its address, its token, what is pushed
//! - [`access`] how a browser may change things on the console
//! - [`failure`] an error for people, which knows whose fault it is
//! - [`progress`] the steps of something long, as they happen
//! - [`operation`] long operations: one at a time, followed by anybody, going on when the asker has gone
//!
//! Always: whoever may connect to the agent's socket may do everything, so only root and the agent's own user may.
//! Without a session nothing secret and nothing that changes anything is reachable on the console.

pub mod access;
pub mod client;
pub mod cluster;
pub mod console;
pub mod environment;
pub mod failure;
pub mod git;
pub mod operation;
pub mod operator;
pub mod progress;
pub mod release;
pub mod server;
pub mod wp;
