//! The words of Pressroom: ids, configuration, intent, observation, snapshots and the stored formats.
//!
//! Everything here is a value. Nothing reads a clock, a file or a socket; validation is the only logic.
//!
//! - [`id`] names of things, as newtypes that cannot hold a bad name
//! - [`mod@unit`] byte sizes and durations as people write them
//! - [`rollout`] releases of a site, and how far it is on its way to another
//! - [`secret`] strings that never show themselves
//! - [`config`] the configuration as meant; [`mod@file`] as written, with every fault of a file at once
//! - [`cluster`] the machines of a cluster; [`floating`] addresses that are on one of them at a time
//! - [`placement`] on which nodes a site runs
//! - [`discovery`] who offers what, and where
//! - [`environment`] a copy of a site with its own address
//! - [`external`] engines that operators keep themselves
//! - [`process`] what the keeper is asked to run and what it says of it; [`confinement`] what such a process may see and take
//! - [`verdict`] healthy or not, and why
//! - [`snapshot`] the immutable view that the edge serves from
//! - [`affirmation`] what PHP says to its local edge
//! - [`writes`] what PHP writes beside its database
//! - [`template`] somebody else's configuration file, kept as a template says
//! - [`text`] words of others, fit to be shown
//! - [`status`] the report of `pressroom status --json`

pub mod affirmation;
pub mod cluster;
pub mod config;
pub mod confinement;
pub mod discovery;
pub mod environment;
pub mod external;
pub mod file;
pub mod floating;
pub mod id;
pub mod placement;
pub mod process;
pub mod rollout;
pub mod secret;
pub mod snapshot;
pub mod status;
pub mod template;
pub mod text;
pub mod unit;
pub mod verdict;
pub mod writes;
