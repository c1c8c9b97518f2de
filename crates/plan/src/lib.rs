//! Thoughts: what should be done next, and why. Pure functions over intent and observation.
//!
//! - [`floating`] which node holds which floating address
//! - [`health`] from answers of a probe to a verdict
//! - [`wp`] what wp-cli can do here
//! - [`writes`] what of refused writes is told
//! - [`supervise`] one process: start it, wait, stop it, kill it
//! - [`machine`] one machine: engines, sites, instances, edge, and their order
//! - [`affirm`] which affirmation socket is whose
//! - [`backup`] when the cluster's state is copied, and which copies are kept
//! - [`capacity`] how much memory each engine gets
//! - [`change`] what an edited configuration would change, in words
//! - [`check`] whether a candidate may get visitors
//! - [`cron`] when a site's cron is run
//! - [`environment`] the sites that environments are, and what stands against one
//! - [`history`] which releases the git history lacks
//! - [`placement`] on which nodes how many instances of a site run
//! - [`recycle`] when a healthy instance is replaced
//! - [`rest`] which of those that were drained rest, and which have to work
//! - [`retention`] which former releases are kept
//! - [`rollout`] moving a site from one version to another
//! - [`sealing`] when the key of the cluster's secrets is replaced, step by step
//! - [`sessions`] who may still make sessions when memory for them is short
//! - [`template`] when an operator's template is rendered, and what is done then
//! - [`voters`] which nodes vote in the cluster's store, and the next safe step there
//!
//! Time comes in as an argument (milliseconds since 1970); nothing here waits, reads or writes.

pub mod affirm;
pub mod backup;
pub mod capacity;
pub mod change;
pub mod check;
pub mod cron;
pub mod environment;
pub mod floating;
pub mod health;
pub mod history;
pub mod machine;
pub mod placement;
pub mod recycle;
pub mod rest;
pub mod retention;
pub mod rollout;
pub mod sealing;
pub mod sessions;
pub mod supervise;
pub mod template;
pub mod voters;
pub mod wp;
pub mod writes;
