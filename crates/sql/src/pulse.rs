//! Whether the data node answers: one connection that a byte goes to and fro on. A node that is frozen or cut off does not
//! close its connections; its pulse is missed. The data node hears by the same connection whether the others are there.

use std::time::Duration;

use pressroom_model::id::NodeName;
use pressroom_runtime::tasks::Group;
use pressroom_wire::members::Service;
use pressroom_wire::tls::Wire;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;

use crate::view::View;

/// How the pulse is called in the handshake (ALPN).
pub(crate) const PROTOCOL: &[u8] = b"pressroom-pulse";
/// Between two beats.
const BEAT: Duration = Duration::from_millis(400);
/// A beat that took longer was missed.
const LONGEST: Duration = Duration::from_millis(1200);
/// The data node lets go of all that a node holds of which it heard nothing for so long: the longest time between two beats of
/// which that node itself misses none, where one was asked at once and the next one's question came late.
pub(crate) const SILENCE: Duration =
    Duration::from_millis((2 * LONGEST.as_millis() + BEAT.as_millis()) as u64);
/// Between two tries to find the pulse again.
const PAUSE: Duration = Duration::from_millis(150);
/// Longest wait for a connection, try by try: short, so that a node that comes back is soon found (one that was begun while it was
/// away goes on seconds later), and now and then long enough for one that is slow.
const CONNECT: [Duration; 3] =
    [Duration::from_millis(300), Duration::from_millis(300), Duration::from_millis(3000)];

/// The data node, while it answers.
pub type Pulse = watch::Receiver<Option<NodeName>>;

/// Feels the pulse of whichever node has the data, for as long as the process runs.
pub(crate) fn keep(wire: Wire, mut views: watch::Receiver<View>, group: &Group) -> Pulse {
    let (sender, receiver) = watch::channel(None);
    group.spawn("pulse", move |stop| async move {
        for turn in (0..CONNECT.len()).cycle() {
            let view = views.borrow_and_update().clone();
            let elsewhere = view.data.filter(|data| *data != view.node);
            let Some(data) = elsewhere else {
                sender.send_replace(None);
                tokio::select! {
                    () = stop.requested() => return,
                    changed = views.changed() => if changed.is_err() { return },
                }
                continue;
            };
            tokio::select! {
                () = stop.requested() => return,
                () = beat(&wire, &data, CONNECT[turn], &sender) => {}
                changed = moved(&mut views, &data) => if changed.is_err() { return },
            }
            if sender.send_replace(None).is_some() {
                tracing::warn!(node = %data, "the node that has the data does not answer");
            }
            tokio::select! { () = stop.requested() => return, () = tokio::time::sleep(PAUSE) => {} }
        }
    });
    receiver
}

/// Waits until the data is said to be somewhere else.
async fn moved(
    views: &mut watch::Receiver<View>,
    data: &NodeName,
) -> Result<(), watch::error::RecvError> {
    views.wait_for(|view| view.data.as_ref() != Some(data)).await.map(drop)
}

/// Feels the pulse until it is missed.
async fn beat(
    wire: &Wire,
    data: &NodeName,
    connect: Duration,
    sender: &watch::Sender<Option<NodeName>>,
) {
    let connected = wire.connect(data, Service::Sql, PROTOCOL);
    let Ok(Ok(mut stream)) = tokio::time::timeout(connect, connected).await else { return };
    loop {
        let asked = async {
            stream.write_all(&[1]).await?;
            stream.flush().await?;
            stream.read_u8().await
        };
        match tokio::time::timeout(LONGEST, asked).await {
            Ok(Ok(_)) => drop(sender.send_if_modified(|known| {
                let is_news = known.as_ref() != Some(data);
                *known = Some(data.clone());
                is_news
            })),
            _ => return,
        }
        tokio::time::sleep(BEAT).await;
    }
}
