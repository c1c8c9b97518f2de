//! Names for what runs: this node's part of discovery.
//!
//! - [`seen`] the records of everybody, and what is left of their leases, as the store tells them
//! - [`view`] what the `dns` plane is given of that
//! - [`registrations`] what this node registers, under one lease
//! - [`registrar`] containers that Pressroom did not start; [`docker`] how Docker is asked
//!
//! Records are below `/skydns`, beside everything else of ours, so that others read and write there. On a single machine they are
//! in the store of the agent, where nobody else gets.

pub mod docker;
pub mod registrar;
pub mod registrations;
pub mod seen;
pub mod view;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pressroom_model::config::Dns;
use pressroom_model::discovery::Record;
use pressroom_runtime::shutdown::Shutdown;
use pressroom_runtime::tasks::Group;
use pressroom_store::Store;
use pressroom_store::key::Key;
use tokio::sync::watch;

use crate::agent::Agent;
use seen::Seen;

/// Between two looks whether names are wanted.
const LOOK: Duration = Duration::from_millis(500);

/// What the agent knows of names.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// What the store has.
    pub seen: watch::Sender<Seen>,
    /// What the registrar found on this machine.
    pub containers: Mutex<BTreeMap<Key, Record>>,
}

/// The addresses that are listened on: a wildcard stands for loopback and the machine's own address, since an answer from a
/// wildcard could come from another address than the one that was asked.
pub fn addresses(wanted: &[SocketAddr], own: IpAddr) -> Vec<SocketAddr> {
    let mut all = Vec::new();
    for address in wanted {
        let loopback: IpAddr = match address.ip() {
            ip if !ip.is_unspecified() => {
                all.push(*address);
                continue;
            }
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        all.push(SocketAddr::new(loopback, address.port()));
        if own.is_ipv4() == address.is_ipv4() {
            all.push(SocketAddr::new(own, address.port()));
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|address| seen.insert(*address));
    all
}

/// The address that this machine has towards others; loopback, if it has none. Nothing is sent.
fn outward() -> IpAddr {
    let towards = |own: &str, other: &str| {
        let socket = UdpSocket::bind(own).ok()?;
        socket.connect(other).ok()?;
        socket.local_addr().ok().map(|address| address.ip())
    };
    // Addresses that documents use and nobody has (RFC 5737, RFC 3849): the way there is the way to everywhere.
    towards("0.0.0.0:0", "192.0.2.1:9")
        .or_else(|| towards("[::]:0", "[2001:db8::1]:9"))
        .unwrap_or(Ipv4Addr::LOCALHOST.into())
}

impl Agent {
    /// The address by which others reach this machine.
    pub(crate) fn own_address(&self) -> IpAddr {
        match &self.cluster {
            Some(cluster) => cluster.membership().address,
            None => outward(),
        }
    }

    /// What operators want of names.
    pub(crate) fn names_wanted(&self) -> Dns {
        self.state.lock().config.as_ref().map(|config| config.dns.clone()).unwrap_or_default()
    }

    /// Whether what runs here is registered.
    pub(crate) fn registers(&self, wanted: &Dns) -> bool {
        wanted.register.unwrap_or(self.cluster.is_some() || !wanted.listen.is_empty())
    }

    /// Whether the records of everybody are of interest.
    fn follows_names(&self) -> bool {
        let wanted = self.names_wanted();
        !wanted.listen.is_empty() || self.registers(&wanted) || self.registrar_is_wanted(&wanted)
    }

    /// The store, without what is before our own keys.
    pub(crate) fn names_store(&self) -> Arc<dyn Store> {
        match &self.etcd {
            Some(etcd) => Arc::new(etcd.at("/")),
            None => Arc::clone(&self.store),
        }
    }

    /// Everything about names, for as long as the agent runs.
    pub(crate) fn spawn_names(self: &Arc<Self>, group: &Group) {
        let agent = Arc::clone(self);
        group.spawn("names", move |stop| agent.follow_names(stop));
        let agent = Arc::clone(self);
        group.spawn("leases of names", move |stop| async move {
            seen::look_at_leases(&*agent.names_store(), &agent.names.seen, stop).await;
        });
        let agent = Arc::clone(self);
        group.spawn("view of names", move |stop| agent.publish_names(stop));
        let agent = Arc::clone(self);
        group.spawn("registrations", move |stop| agent.register(stop));
        let agent = Arc::clone(self);
        group.spawn("registrar", move |stop| agent.register_containers(stop));
    }

    async fn follow_names(self: Arc<Self>, shutdown: Shutdown) {
        while !shutdown.is_requested() {
            if self.follows_names() {
                let store = self.names_store();
                let stop = shutdown.clone();
                tokio::select! {
                    () = seen::follow(&*store, &self.names.seen, stop) => {}
                    () = self.until_names_are_unwanted() => { self.names.seen.send_replace(Seen::default()); }
                }
            }
            tokio::select! { () = shutdown.requested() => {}, () = tokio::time::sleep(LOOK) => {} }
        }
    }

    async fn until_names_are_unwanted(&self) {
        while self.follows_names() {
            tokio::time::sleep(LOOK).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_loopback_and_the_own_address() {
        let check = |wanted: &[&str], own: &str, listened: &[&str]| {
            let parsed = |list: &[&str]| -> Vec<SocketAddr> {
                list.iter().map(|one| one.parse().expect("an address")).collect()
            };
            let own = own.parse().expect("an address");
            assert_eq!(addresses(&parsed(wanted), own), parsed(listened), "{wanted:?}");
        };
        check(&["127.0.0.1:53"], "10.0.0.1", &["127.0.0.1:53"]);
        check(&["0.0.0.0:53"], "10.0.0.1", &["127.0.0.1:53", "10.0.0.1:53"]);
        check(&["0.0.0.0:53", "127.0.0.1:53"], "127.0.0.1", &["127.0.0.1:53"]);
        check(&["[::]:53"], "10.0.0.1", &["[::1]:53"]);
    }
}
