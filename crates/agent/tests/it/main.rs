//! The agent's rooms from outside, with real processes.

mod keeper;
mod registrar;
mod sessions;
