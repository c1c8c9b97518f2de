//! Going back to a state of the cluster that was kept: between two agents, while everything that serves goes on.
//!
//! The wish is a file, which is there until this has ended, so an agent that dies here does it again. What fails is taken back:
//! etcd has what it had, and the node goes on as it was. Into an etcd that operators keep a copy is written by whoever leads: this
//! node takes the office for that, so that nobody else decides by half a state.

use std::time::Duration;

use pressroom_agent::cluster::membership::{self, Membership, Stage};
use pressroom_agent::cluster::restoring::{self, Wanted};
use pressroom_agent::cluster::{backups, external, keys};
use pressroom_agent::engine::etcd::Etcd;
use pressroom_agent::keeper;
use pressroom_agent::layout::Layout;
use pressroom_agent::users::Users;
use pressroom_api::failure::Failure;
use pressroom_model::process::{Reply, Request as Ask};
use pressroom_plan::machine::ETCD;
use pressroom_runtime::clock;
use pressroom_runtime::tasks::Group;
use pressroom_store::copy::{Entries, lasting, make_equal};
use pressroom_store::etcd::{EtcdStore, Identity, Tls};

use crate::node::{self, Cause, Opened};

/// Longest time until etcd has ended when it was asked to.
const ENDS: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(50);

/// Does what is wished for, and opens the store that counts then.
pub(crate) async fn restored(
    layout: &Layout,
    own: Membership,
    wanted: &Wanted,
    tasks: &Group,
) -> Result<Opened, Failure> {
    let is_external = wanted.external(&own).is_some();
    let done = match is_external {
        true => write_over(layout, &own, wanted, tasks).await,
        false => restore(layout, &own, wanted, tasks).await,
    };
    let (own, note) = match done {
        Ok(own) => (own, "the cluster's state was restored".to_owned()),
        Err(error) if is_external => {
            let note = format!("the cluster's state was not restored: {error}");
            tracing::error!("{note}");
            (own, note)
        }
        Err(error) => {
            let note =
                format!("the cluster's state was not restored: {error}; nothing was changed");
            tracing::error!("{note}");
            take_back(layout, &own, wanted).await;
            (own, note)
        }
    };
    restoring::end(layout).map_err(|error| {
        Failure::ours("the wish to restore the cluster's state cannot be forgotten").cause(error)
    })?;
    let opened = node::clustered(layout, own, tasks)?;
    Ok(Opened { note: Some(note), ..opened })
}

/// Writes a copy over what is in the etcd that operators keep. What fails on the way is written back.
async fn write_over(
    layout: &Layout,
    own: &Membership,
    wanted: &Wanted,
    tasks: &Group,
) -> Result<Membership, Cause> {
    let from = wanted.from.as_deref().ok_or("no copy is named")?;
    let entries = backups::read(from)?;
    let own = restoring::moved(own, wanted);
    let inner = Group::new("store for a moment", tasks.shutdown().clone());
    let store = node::connect(layout, &own, &inner)?;
    let written = write_as_leader(layout, &own, &store, entries).await;
    drop(store);
    inner.finish(Duration::from_secs(5)).await;
    written?;
    own.write(layout)?;
    Ok(own)
}

async fn write_as_leader(
    layout: &Layout,
    own: &Membership,
    store: &EtcdStore,
    mut entries: Entries,
) -> Result<(), Cause> {
    node::first_answer(store).await?;
    external::claim(own, store).await?;
    let before = lasting(store).await?;
    let office = tokio::time::timeout(ENDS, restoring::depose(own, store)).await;
    let mut office =
        office.map_err(|_| format!("another node leads, and did not give way in {ENDS:?}"))??;
    entries.insert(keys::mark(), own.token.clone().into_bytes());
    let write = async {
        make_equal(store, &entries).await?;
        restoring::mend(layout, own, store).await
    };
    let written = tokio::select! {
        written = write => written,
        lost = office.hold() => Err(lost),
    };
    if let Err(error) = &written {
        tracing::error!(%error, "what was there is written back");
        make_equal(store, &before).await.map_err(|later| {
            format!(
                "{error}; and what was there could not be written back ({later}): restore once more"
            )
        })?;
    }
    // Others may lead again; if that is not heard, when the lease has ended.
    let _ = office.resign().await;
    Ok(written?)
}

async fn restore(
    layout: &Layout,
    own: &Membership,
    wanted: &Wanted,
    tasks: &Group,
) -> Result<Membership, Cause> {
    if wanted.from.is_none() {
        write_out(layout, own, wanted, tasks).await?;
    }
    stop(layout).await?;
    let own = restoring::sole(own, wanted);
    // It may begin from what is laid out for it.
    let etcd =
        Etcd::of(layout, &Users::new(), &Membership { stage: Stage::Forming, ..own.clone() })?;
    let (tool, from, at_ms) = (etcd.clone(), wanted.from.clone(), wanted.at_ms);
    tokio::task::spawn_blocking(move || tool.restore(from.as_deref(), at_ms)).await??;
    node::start(layout, &etcd).await?;
    let inner = Group::new("store for a moment", tasks.shutdown().clone());
    let mended = mend(layout, &own, &inner).await;
    inner.finish(Duration::from_secs(5)).await;
    mended?;
    own.write(layout)?;
    Ok(own)
}

/// Has etcd run for a moment, so that its file has what only its log had when it was killed.
async fn write_out(
    layout: &Layout,
    own: &Membership,
    wanted: &Wanted,
    tasks: &Group,
) -> Result<(), Cause> {
    let etcd = Etcd::of(layout, &Users::new(), own)?;
    if etcd.former(wanted.at_ms).exists() {
        // An agent before us had come further.
        return Ok(());
    }
    node::start(layout, &etcd).await?;
    let inner = Group::new("store for a moment", tasks.shutdown().clone());
    let store = node::connect(layout, own, &inner)?;
    let late = clock::now() + ENDS;
    // Without a quorum it answers this all the same.
    while store.status(&etcd.endpoint()).await.is_err() && clock::now() < late {
        tokio::time::sleep(LOOK).await;
    }
    drop(store);
    inner.finish(Duration::from_secs(5)).await;
    Ok(())
}

async fn mend(layout: &Layout, own: &Membership, tasks: &Group) -> Result<(), Cause> {
    let store = node::connect(layout, own, tasks)?;
    match node::first_answer(&store).await {
        Ok(()) => {}
        // In that state this node was none yet.
        Err(error) if error.to_string().contains("permission denied") => {
            be_administrator(layout, &store)?;
            node::first_answer(&store).await?;
        }
        Err(error) => return Err(error),
    }
    Ok(restoring::mend(layout, own, &store).await?)
}

fn be_administrator(layout: &Layout, store: &EtcdStore) -> Result<(), Cause> {
    let (chain, key) = restoring::administrator(layout, clock::wall_ms() / 1000)?;
    let authority = std::fs::read_to_string(membership::identity_paths(layout).authority)?;
    store.set_tls(Some(Tls { authority, identity: Some(Identity { chain, key }) }));
    Ok(())
}

/// What etcd had is its data again.
async fn take_back(layout: &Layout, own: &Membership, wanted: &Wanted) {
    let taken_back = async {
        stop(layout).await?;
        Etcd::of(layout, &Users::new(), own)?.unrestore(wanted.at_ms)?;
        Ok::<(), Cause>(())
    };
    if let Err(error) = taken_back.await {
        tracing::error!(%error, "what etcd had cannot be put back");
    }
}

/// Ends etcd, and waits for it.
async fn stop(layout: &Layout) -> Result<(), Cause> {
    let client = keeper::Client::new(&layout.keeper_socket());
    let late = clock::now() + ENDS;
    loop {
        let Reply::Listed { processes, .. } = client.call(&Ask::List).await? else {
            return Err("the keeper says nothing of its processes".into());
        };
        let runs = processes.iter().any(|it| it.spec.name == ETCD && it.pid.is_some());
        if !runs {
            break;
        }
        client.call(&Ask::Stop { name: ETCD.into(), kill: clock::now() > late }).await?;
        tokio::time::sleep(LOOK).await;
    }
    client.call(&Ask::Forget { name: ETCD.into() }).await?;
    Ok(())
}
