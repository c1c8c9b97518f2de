//! The node that has no data: each connection of a client on a local socket becomes one to the data node.
//!
//! A few connections are made before anybody needs them, because a handshake takes longer than most questions. One that waits
//! is nobody's yet: the other side connects to its engine when the first byte, [`GO`], says that a client is there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pressroom_model::id::NodeName;
use pressroom_runtime::clock;
use pressroom_runtime::shutdown::Shutdown;
use pressroom_runtime::tasks::Group;
use pressroom_wire::members::Service;
use pressroom_wire::tls::{ClientStream, Wire};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, Semaphore, watch};

use crate::channel::Channel;
use crate::pulse::Pulse;
use crate::view::View;

/// Says that a client is there.
pub(crate) const GO: u8 = 1;
/// So many connections of clients at a time; others wait to be accepted.
const CLIENTS: usize = 4096;
/// So many connections wait for clients.
const WAITING: usize = 4;
/// One that has waited longer is made anew: the other side closes those that nobody wants.
const OLD: Duration = Duration::from_secs(20);

/// One local socket.
pub(crate) struct Forwarder {
    channel: Channel,
    wire: Wire,
    views: watch::Receiver<View>,
    pulse: Pulse,
    waiting: Mutex<VecDeque<Waiting>>,
    taken: Notify,
    places: Arc<Semaphore>,
}

struct Waiting {
    to: NodeName,
    since: Instant,
    stream: ClientStream,
}

impl Waiting {
    /// Whether the other side holds it still, as far as is known: it says nothing before [`GO`].
    fn is_open(&self) -> bool {
        let read = self.stream.get_ref().0.try_read(&mut [0]);
        read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }
}

impl Forwarder {
    pub(crate) fn new(
        channel: Channel,
        wire: Wire,
        views: watch::Receiver<View>,
        pulse: Pulse,
    ) -> Self {
        let places = Arc::new(Semaphore::new(CLIENTS));
        let (waiting, taken) = (Mutex::default(), Notify::new());
        Self { channel, wire, views, pulse, waiting, taken, places }
    }

    pub(crate) async fn serve(
        self: Arc<Self>,
        listener: UnixListener,
        tasks: Group,
        shutdown: Shutdown,
    ) {
        let preparing = Arc::clone(&self);
        tasks.spawn("connections ahead", move |stop| preparing.prepare(stop));
        loop {
            let place = Arc::clone(&self.places).acquire_owned();
            let accepted = async { (place.await, listener.accept().await) };
            let (place, accepted) = tokio::select! {
                () = shutdown.requested() => return,
                accepted = accepted => accepted,
            };
            let Ok((client, _)) = accepted else {
                // The reason may last.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let own = Arc::clone(&self);
            tasks.spawn("client", move |stop| async move {
                let _place = place;
                tokio::select! { () = stop.requested() => {}, () = own.carry(client) => {} }
            });
        }
    }

    /// Makes connections before they are needed.
    async fn prepare(self: Arc<Self>, stop: Shutdown) {
        let mut pulse = self.pulse.clone();
        loop {
            let data = pulse.borrow_and_update().clone();
            let lacks = {
                let mut waiting = self.waiting.lock();
                let now = clock::now();
                waiting.retain(|it| Some(&it.to) == data.as_ref() && now < it.since + OLD);
                waiting.len() < WAITING
            };
            if let Some(to) = data.filter(|_| lacks) {
                let connected = tokio::select! {
                    connected = self.connect(&to) => connected,
                    // What was made before a missed beat is of no use.
                    changed = pulse.changed() => match changed {
                        Ok(()) => continue,
                        Err(_) => return,
                    },
                };
                if let Ok(stream) = connected {
                    self.waiting.lock().push_back(Waiting { to, since: clock::now(), stream });
                    continue;
                }
            }
            tokio::select! {
                () = stop.requested() => return,
                () = self.taken.notified() => {}
                () = tokio::time::sleep(OLD / 4) => {}
                changed = pulse.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn connect(&self, to: &NodeName) -> Result<ClientStream, pressroom_wire::WireError> {
        self.wire.connect(to, Service::Sql, self.channel.protocol()).await
    }

    /// Carries one client's bytes to the data node and back, until either ends or the node does.
    async fn carry(&self, mut client: UnixStream) {
        let mut pulse = self.pulse.clone();
        let Some(to) = self.data(&mut pulse).await else {
            return self.apologise(client).await;
        };
        let Some(mut stream) = self.begin(&to).await else {
            return self.apologise(client).await;
        };
        tokio::select! {
            // Who ended, and how, is the engine's and the client's affair.
            _ = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut stream, 32 << 10, 32 << 10) => {}
            _ = pulse.wait_for(|data| data.as_ref() != Some(&to)) => {}
        }
    }

    /// The data node, if it answers. One that nobody has heard of yet is waited for a moment.
    async fn data(&self, pulse: &mut Pulse) -> Option<NodeName> {
        let is_known = self.views.borrow().data.is_some();
        let patience = Duration::from_millis(if is_known { 500 } else { 0 });
        let known = tokio::time::timeout(patience, pulse.wait_for(Option::is_some)).await;
        known.ok()?.ok()?.clone()
    }

    /// A connection on which the engine answers from now on.
    async fn begin(&self, to: &NodeName) -> Option<ClientStream> {
        let ready = {
            let mut waiting = self.waiting.lock();
            let now = clock::now();
            std::iter::from_fn(|| waiting.pop_front())
                .find(|it| it.to == *to && now < it.since + OLD && it.is_open())
        };
        self.taken.notify_one();
        if let Some(mut ready) = ready
            && go(&mut ready.stream).await.is_ok()
        {
            return Some(ready.stream);
        }
        let mut stream = self.connect(to).await.ok()?;
        go(&mut stream).await.ok()?;
        Some(stream)
    }

    async fn apologise(&self, mut client: UnixStream) {
        // It may have gone already.
        let _ = client.write_all(&self.channel.apology()).await;
    }
}

async fn go(stream: &mut ClientStream) -> std::io::Result<()> {
    stream.write_all(&[GO]).await?;
    stream.flush().await
}
