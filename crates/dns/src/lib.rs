//! The name plane: answers questions for names out of records that everybody writes into the store, in SkyDNS's form.
//!
//! - [`answer`] what a question is answered with: pure
//! - [`names`] the records, as a tree that questions are asked of
//! - [`view`] the file that they come in, replaced by the agent
//! - [`reply`] a message that fits
//! - [`serve`] UDP and TCP
//! - [`forward`] questions for other names, where operators name resolvers for them
//!
//! Always: what is answered stands in the view, so names are answered while the agent and the store are away. A record goes when
//! the store says that it is gone; an answer may never be kept for longer than the rest of its record's lease, and while nobody
//! says what is left of that, it may not be kept at all. Deliberately missing: DNSSEC, zone transfers, a cache.

pub mod answer;
pub mod forward;
pub mod names;
pub mod reply;
pub mod serve;
pub mod view;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pressroom_runtime::inherited::Inherited;
use pressroom_runtime::shutdown;
use pressroom_runtime::tasks::Group;

/// Begins the names of sockets for datagrams.
pub const UDP: &str = "dns-udp";
/// Begins the names of sockets for connections.
pub const TCP: &str = "dns-tcp";

/// How the process is started.
#[derive(Debug)]
pub struct Options {
    /// The view's file, replaced by rename.
    pub view: PathBuf,
    /// Sockets whose names begin with [`UDP`] or [`TCP`].
    pub sockets: Vec<Inherited>,
}

/// Runs until a signal says otherwise.
pub fn run(options: Options) -> std::io::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(until_a_signal(options))
}

async fn until_a_signal(options: Options) -> std::io::Result<()> {
    let (trigger, stop) = shutdown::pair();
    let group = Group::new("dns", stop);
    let server = Arc::new(serve::Server::new(view::follow(options.view, &group), group.clone()));
    for Inherited { name, fd } in options.sockets {
        let server = Arc::clone(&server);
        if name.starts_with(UDP) {
            let socket = std::net::UdpSocket::from(fd);
            socket.set_nonblocking(true)?;
            let socket = tokio::net::UdpSocket::from_std(socket)?;
            group.spawn(name, move |stop| serve::datagrams(server, socket, stop));
        } else if name.starts_with(TCP) {
            let listener = std::net::TcpListener::from(fd);
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            group.spawn(name, move |stop| serve::connections(server, listener, stop));
        } else {
            tracing::warn!(name, "an inherited socket has a name that is not known");
        }
    }
    let signals = shutdown::on_signals(&trigger).await?;
    tracing::info!(signals, "ends");
    group.finish(Duration::from_secs(2)).await;
    Ok(())
}
