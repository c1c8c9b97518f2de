//! The agent's rooms from outside, with real processes.

mod keeper;
mod sessions;
