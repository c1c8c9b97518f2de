//! What templates may ask of this machine: its environment, clock, files, and the names that it can resolve.

mod srv;

use std::net::ToSocketAddrs as _;

use pressroom_render::confd::{Service, Surroundings};
use pressroom_runtime::clock;

/// This machine. Its answers may take as long as the resolver does, so nobody asks from within a runtime's own threads.
#[derive(Debug, Clone, Copy, Default)]
pub struct Machine;

impl Surroundings for Machine {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn now_ms(&self) -> u64 {
        clock::wall_ms()
    }

    fn has_file(&self, path: &str) -> bool {
        std::path::Path::new(path).exists()
    }

    fn addresses(&self, host: &str) -> Vec<String> {
        let found = (host, 0).to_socket_addrs();
        found.map(|all| all.map(|one| one.ip().to_string()).collect()).unwrap_or_default()
    }

    fn services(&self, service: &str, proto: &str, name: &str) -> Vec<Service> {
        let name = match (service, proto) {
            ("", "") => name.to_owned(),
            _ => format!("_{service}._{proto}.{name}"),
        };
        srv::look_up(&name)
    }
}
