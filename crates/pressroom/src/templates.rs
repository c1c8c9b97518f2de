//! `pressroom config render` and `watch`: the agent's hands for templates, without an agent.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pressroom_agent::cluster::membership::{Membership, Stage};
use pressroom_agent::layout::Layout;
use pressroom_agent::template::Board;
use pressroom_agent::template::around::Machine;
use pressroom_agent::template::hand::Options as HandOptions;
use pressroom_agent::template::source::Source;
use pressroom_agent::template::watching::Watching;
use pressroom_api::failure::Failure;
use pressroom_cli::machine::{Backend, Templates};
use pressroom_cli::place::Place;
use pressroom_model::template::State;
use pressroom_runtime::logs;
use pressroom_runtime::shutdown::{self, Shutdown};
use pressroom_runtime::tasks::Group;
use pressroom_store::etcd::{EtcdStore, Identity, Options, Tls};

use crate::node;

/// How long the last commands may take to end.
const GRACE: Duration = Duration::from_secs(65);

/// Once; how each file stands then.
pub(crate) fn render(place: &Place, wish: &Templates) -> Result<Vec<State>, Failure> {
    run(async {
        let (trigger, stop) = shutdown::pair();
        let group = Group::new("templates", stop);
        let watching = watching(place, wish, Duration::from_secs(600), &group)?;
        let done = watching.once().await.map_err(|error| no_folder(&wish.folder, &error));
        trigger.fire("done");
        group.finish(Duration::from_secs(1)).await;
        done.map(|_| watching.board.all())
    })
}

/// Until a signal comes.
pub(crate) fn watch(place: &Place, wish: &Templates, interval: Duration) -> Result<(), Failure> {
    logs::init("templates");
    run(async {
        let (trigger, stop) = shutdown::pair();
        let group = Group::new("templates", stop);
        let watching = watching(place, wish, interval, &group)?;
        pressroom_agent::template::confdir::load(&wish.folder, None)
            .map_err(|error| no_folder(&wish.folder, &error))?;
        group.spawn("templates", move |stop: Shutdown| watching.keep(stop));
        shutdown::on_signals(&trigger)
            .await
            .map_err(|error| Failure::ours("signals cannot be waited for").cause(error))?;
        group.finish(GRACE).await;
        Ok(())
    })
}

fn run<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::ours("templates cannot be rendered").cause(error))?;
    runtime.block_on(work)
}

fn no_folder(folder: &Path, error: &std::io::Error) -> Failure {
    Failure::yours(format!("there are no templates in `{}`", folder.display()))
        .cause(error)
        .hint("`--confdir DIR` names a folder with `conf.d` and `templates` in it; `pressroom config examples` has some")
}

fn watching(
    place: &Place,
    wish: &Templates,
    interval: Duration,
    group: &Group,
) -> Result<Watching, Failure> {
    Ok(Watching {
        folder: wish.folder.clone(),
        prefix: wish.prefix.clone(),
        source: source(place, &wish.backend, group)?,
        options: HandOptions {
            noop: wish.noop,
            sync_only: wish.sync_only,
            keep_stage: wish.keep_stage,
        },
        interval,
        around: Arc::new(Machine),
        board: Board::default(),
    })
}

fn source(place: &Place, backend: &Backend, group: &Group) -> Result<Source, Failure> {
    match backend {
        Backend::Environment => {
            // A variable that is no text is none of a template's.
            let all = std::env::vars_os().filter_map(|(name, value)| {
                Some((name.into_string().ok()?, value.into_string().ok()?))
            });
            Ok(Source::Environment(Arc::new(all.collect())))
        }
        Backend::Files(paths) => Ok(Source::Files(paths.clone())),
        Backend::Etcd { endpoints, authority, identity } => {
            let tls = authority.as_deref().map(|authority| tls(authority, identity.as_ref()));
            let options = Options {
                endpoints: endpoints.clone(),
                prefix: "/".into(),
                tls: tls.transpose()?,
                user: None,
            };
            let store = EtcdStore::connect(&options, group).map_err(|error| {
                Failure::yours(format!("etcd cannot be asked at {}", endpoints.join(", ")))
                    .cause(error)
            })?;
            Ok(Source::Store(Arc::new(store)))
        }
        Backend::Pressroom => pressroom(place, group),
    }
}

/// This cluster's etcd, as this node.
fn pressroom(place: &Place, group: &Group) -> Result<Source, Failure> {
    let layout = Layout::new(&place.data);
    let membership = Membership::read(&layout).map_err(|error| {
        Failure::ours("it cannot be read whether this machine is a node of a cluster").cause(error)
    })?;
    let Some(membership) = membership.filter(|it| it.stage == Stage::Formed) else {
        return Err(Failure::yours("this machine is in no cluster, and only its agent can read its store")
            .hint("put `[templates]` with `confdir` into pressroom.toml, and the agent renders; or name another source: `--backend etcd|env|file`"));
    };
    let store = node::connect(&layout, &membership, group).map_err(|error| {
        Failure::ours("this cluster's etcd cannot be asked as this node").cause(error)
    })?;
    Ok(Source::Store(Arc::new(store.at("/"))))
}

fn tls(
    authority: &Path,
    identity: Option<&(std::path::PathBuf, std::path::PathBuf)>,
) -> Result<Tls, Failure> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|error| {
            Failure::yours(format!("`{}` cannot be read", path.display())).cause(error)
        })
    };
    let identity = match identity {
        Some((chain, key)) => Some(Identity { chain: read(chain)?, key: read(key)? }),
        None => None,
    };
    Ok(Tls { authority: read(authority)?, identity })
}
