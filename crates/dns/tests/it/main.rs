//! The name plane from outside: `dig` asks, over real sockets.

// Tests may panic: that is how they fail.
#![allow(clippy::unwrap_used)]

mod dig;
mod etcd;
mod leases;
mod serving;
mod table;
