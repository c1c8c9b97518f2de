//! The way to the database and to Redis from every node: PHP speaks to the same local sockets everywhere, and where the data is
//! on another node, bytes are carried there over mutual TLS.
//!
//! - [`view`] where the data is and who may ask for it
//! - [`forward`] the node that has no data: local sockets, connections to the data node
//! - [`accept`] the node that has it: connections of members, the engines' sockets
//! - [`pulse`] whether the data node answers
//! - [`silence`] whether the other nodes are heard there
//! - [`channel`] which socket stands for which engine
//!
//! Always: a client is never left waiting for a node that is gone. Within two seconds its connection is closed, and new ones are
//! refused at once, until the node answers again. Nor is a lock in the database held for longer than that for a node that is
//! gone. Nothing here reads what it carries; that is what the router will do in the same place.

pub mod accept;
pub mod channel;
pub mod forward;
pub mod pulse;
mod silence;
pub mod view;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pressroom_runtime::inherited::Inherited;
use pressroom_runtime::shutdown;
use pressroom_runtime::tasks::Group;
use pressroom_wire::members::Register;
use pressroom_wire::tls::Wire;

use channel::Channel;
use view::View;

/// How the process is started.
#[derive(Debug)]
pub struct Options {
    /// The view's file, replaced by rename.
    pub view: PathBuf,
    /// Listening sockets, named as in [`Channel::listener`] and [`MESH`].
    pub sockets: Vec<Inherited>,
}

/// Name of the socket that other nodes connect to.
pub const MESH: &str = "sql-mesh";

/// Why the process cannot run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The system.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The view.
    #[error(transparent)]
    View(#[from] view::ViewError),
    /// The identity.
    #[error(transparent)]
    Wire(#[from] pressroom_wire::WireError),
}

/// Runs until a signal says otherwise.
pub fn run(options: Options) -> Result<(), StartError> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serve(options))
}

async fn serve(options: Options) -> Result<(), StartError> {
    let (trigger, stop) = shutdown::pair();
    let group = Group::new("sql", stop.clone());
    let first = View::read(&options.view)?;
    let wire = Wire::new(first.identity()?, Register::new(first.members.clone()));
    let (shown, paths) = (wire.clone(), first.identity.clone());
    group.spawn("identity", move |stop| shown.follow_identity(paths, stop));
    let views = view::follow(options.view.clone(), first, wire.clone(), &group);
    let pulse = pulse::keep(wire.clone(), views.clone(), &group);
    for Inherited { name, fd } in options.sockets {
        if let Some(channel) = Channel::of_listener(&name) {
            let listener = unix(fd)?;
            let forwarder =
                forward::Forwarder::new(channel, wire.clone(), views.clone(), pulse.clone());
            let tasks = group.clone();
            group.spawn(name, move |stop| Arc::new(forwarder).serve(listener, tasks, stop));
        } else if name == MESH {
            let listener = tcp(fd)?;
            let (wire, views, tasks) = (wire.clone(), views.clone(), group.clone());
            let acceptor = accept::acceptor(&wire)?;
            group.spawn(name, move |stop| {
                accept::serve(wire, acceptor, views, listener, tasks, stop)
            });
        } else {
            tracing::warn!(name, "an inherited socket has a name that is not known");
        }
    }
    let signals = shutdown::on_signals(&trigger).await?;
    tracing::info!(signals, "ends");
    group.finish(Duration::from_secs(2)).await;
    Ok(())
}

fn unix(fd: OwnedFd) -> std::io::Result<tokio::net::UnixListener> {
    let listener = std::os::unix::net::UnixListener::from(fd);
    listener.set_nonblocking(true)?;
    tokio::net::UnixListener::from_std(listener)
}

fn tcp(fd: OwnedFd) -> std::io::Result<tokio::net::TcpListener> {
    let listener = std::net::TcpListener::from(fd);
    listener.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(listener)
}
