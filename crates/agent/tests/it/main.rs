//! The agent's rooms from outside, with real processes.

mod etcd;
mod keeper;
mod registrar;
mod sessions;
