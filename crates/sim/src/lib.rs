//! A cluster that is only thought: the decisions of `plan`, the same functions that agents call, over machines, a store and faults that
//! are a few numbers each. One seed is one history; thousands of them pass in seconds.
//!
//! - [`chance`] numbers from a seed
//! - [`schedule`] what operators and fate do, and when
//! - [`store`] what is stored, by whom it is reached, who votes and who leads
//! - [`machine`] one machine: it observes, decides by `plan`, and what it decides happens after a while
//! - [`world`] all of them, second by second
//! - [`claims`] what must hold in every history
//! - [`run`] a seed, and the shortest history of one that fails
//!
//! Always: a seed gives the same history on every machine. Missing on purpose: the edge's own choices, engines, media.

pub mod chance;
pub mod claims;
pub mod machine;
pub mod run;
pub mod schedule;
pub mod store;
pub mod world;
