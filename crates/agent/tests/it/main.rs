//! The agent's rooms from outside, with real processes.

mod etcd;
mod external;
mod keeper;
mod registrar;
mod sessions;
