//! Pressroom as its users meet it: the real binary, real engines, real clients.
//!
//! Every test starts a whole Pressroom in a temporary data directory, with ports from the system, and takes it down
//! again; one runs at a time, because each is many processes. Tests that need another user than root's, or root, or a
//! browser say so and pass without a claim where that is missing.

mod author;
mod browser;
mod cluster;
mod containers;
mod contract;
mod docker;
mod environments;
mod external;
mod faults;
mod floating;
#[path = "../../../media/tests/it/garage.rs"]
mod garage;
mod git;
mod hooks;
mod house;
mod integrity;
mod isolation;
mod lab;
mod leaks;
mod load;
mod media;
mod names;
mod network;
mod order;
mod releases;
mod runtimes;
mod sites;
mod sources;
mod state;
mod stored;
mod visitor;
mod walls;
mod wp;
