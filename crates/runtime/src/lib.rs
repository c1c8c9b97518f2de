//! Process life: what every long-running process of Pressroom needs and none should invent.
//!
//! - [`clock`] the one home of wall and monotonic time
//! - [`shutdown`] a token that says "stop", and the signals that set it
//! - [`tasks`] groups of tasks that are waited for, with a deadline, by name
//! - [`backoff`] growing, jittered pauses between attempts
//! - [`logs`] JSON lines on stderr, or plain lines on a terminal
//! - [`door`] an HTTP server on a socket of this machine, with its limits
//! - [`handover`] an open connection, handed from one process to another
//! - [`tree`] deleting folders of somebody who may be hostile
//! - [`metrics`] counters and histograms in Prometheus' text form
//!
//! Nothing here knows what Pressroom is about; it imports no other room.

pub mod backoff;
pub mod clock;
pub mod door;
pub mod handover;
pub mod inherited;
pub mod logs;
pub mod metrics;
pub mod shutdown;
pub mod tasks;
pub mod tree;
