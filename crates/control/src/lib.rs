//! The leader's loops: what must happen once in a cluster, however many machines there are.
//!
//! On one machine the agent leads. Each loop is dull: look, ask `plan`, act through a trait that the binary implements.
//!
//! - [`cron`] WordPress's scheduled events, on time without visitors

pub mod cron;
