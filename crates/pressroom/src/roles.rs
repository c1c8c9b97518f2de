//! Our own long-running processes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pressroom_agent::agent::Agent;
use pressroom_agent::git::door;
use pressroom_agent::host;
use pressroom_agent::keeper;
use pressroom_agent::layout::Layout;
use pressroom_api::failure::Failure;
use pressroom_api::server;
use pressroom_cli::place::Place;
use pressroom_model::config::Config;
use pressroom_model::file::{self, Facts};
use pressroom_model::process::{ProcessSpec, Request, Restart, Stop};
use pressroom_runtime::tasks::Group;
use pressroom_runtime::{logs, shutdown};

use crate::cron::Sites;
use crate::node::{self, Opened};
use crate::operator::ThisOperator;

/// The keeper, which starts the agent.
pub(crate) fn keeper(place: &Place) -> Result<(), Failure> {
    let layout = Layout::new(&place.data);
    let program = host::own_program()
        .map_err(|error| Failure::ours("cannot find my own program").cause(error))?;
    let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    let mut env =
        BTreeMap::from([("PATH".to_owned(), path), ("LANG".to_owned(), "C.UTF-8".to_owned())]);
    if let Ok(level) = std::env::var(logs::VARIABLE) {
        env.insert(logs::VARIABLE.to_owned(), level);
    }
    let agent = ProcessSpec {
        name: "agent".into(),
        program,
        args: vec![
            "agent".into(),
            "--data".into(),
            place.data.display().to_string(),
            "--config".into(),
            place.config.display().to_string(),
        ],
        env,
        cwd: Some("/".into()),
        user: None,
        confinement: None,
        listeners: vec![],
        umask: 0o022,
        open_files: Some(16_384),
        output: layout.output("agent"),
        output_limit: 16 << 20,
        stop: Stop { signal: 15, grace_ms: 15_000 },
        restart: Restart::Always,
    };
    // A frozen agent is a gap in which nothing else is healed; one that is only slow loses nothing by a restart.
    let options = keeper::Options {
        silence: Duration::from_secs(8),
        ..keeper::Options::new(&place.data, agent)
    };
    keeper::run(options).map_err(|error| Failure::ours("the keeper cannot run").cause(error))
}

/// The agent: observes, decides, applies; the operator's door; the cron loop.
pub(crate) fn agent(place: &Place, facts: Facts) -> Result<(), Failure> {
    logs::init("agent");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::ours("cannot start the agent").cause(error))?;
    runtime.block_on(run_agent(place, facts))
}

async fn run_agent(place: &Place, facts: Facts) -> Result<(), Failure> {
    let (trigger, stop) = shutdown::pair();
    let layout = Layout::new(&place.data);
    let store_tasks = Group::new("store", stop.clone());
    let Opened { store, replaced, cluster, note } = node::open(&layout, &store_tasks).await?;
    // Without a stored intent somebody is about to say what is wanted. Only a store that was lost is made up for.
    let fallback = replaced.as_ref().and_then(|_| configuration(place, &facts));
    let agent = Agent::open(layout.clone(), &place.config, store, fallback, cluster)
        .await
        .map_err(|error| Failure::ours("cannot read the store").cause(error))?;
    if let Some(replaced) = replaced {
        let text = format!(
            "the store was damaged ({}); it is kept as {}, and the configuration file counts",
            replaced.found,
            replaced.kept.display()
        );
        tracing::error!("{text}");
        agent.note(text);
    }
    if let Some(note) = note {
        agent.note(note);
    }
    let group = Group::new("doors", stop.clone());
    group.spawn("alive", {
        let socket = layout.keeper_socket();
        move |stop| async move {
            let client = keeper::Client::new(&socket);
            while !stop.is_requested() {
                // The watcher of processes deals with a keeper that is gone.
                let _ = client.call(&Request::Alive).await;
                tokio::select! { () = stop.requested() => {}, () = tokio::time::sleep(Duration::from_secs(2)) => {} }
            }
        }
    });
    let operator = Arc::new(ThisOperator::new(Arc::clone(&agent), trigger.clone()));
    let listener = server::bind(&layout.agent_socket())
        .map_err(|error| Failure::ours("cannot open the operator's door").cause(error))?;
    let server = server::Server::new(operator, group.clone());
    let shown = server.clone();
    if let Some(cluster) = agent.cluster.clone() {
        let (agent, server, tasks) = (Arc::clone(&agent), server.clone(), group.clone());
        group.spawn("nodes", move |stop| node::keep_door(agent, cluster, server, tasks, stop));
    }
    group.spawn("api", move |stop| async move {
        if let Err(error) = server.serve(listener, stop).await {
            tracing::error!(%error, "the operator's door is closed");
        }
    });
    match door::bind(&layout, &agent.users) {
        Ok(listener) => group.spawn("git", {
            let (agent, connections) = (Arc::clone(&agent), group.clone());
            move |stop| door::serve(agent, listener, connections, stop)
        }),
        Err(error) => agent.note(format!("git's door is closed: {error}")),
    }
    group.spawn("console", {
        let agent = Arc::clone(&agent);
        move |stop| crate::operator::keep_console(agent, shown, stop)
    });
    group.spawn("cron", {
        let sites = Arc::new(Sites(Arc::clone(&agent)));
        move |stop| pressroom_control::cron::run(sites, stop)
    });
    let signals = async {
        tokio::select! {
            () = stop.requested() => {}
            () = agent.should_end() => trigger.fire("it goes on differently"),
            caught = shutdown::on_signals(&trigger) => if let Err(error) = caught {
                tracing::error!(%error, "cannot listen for signals");
            }
        }
    };
    tokio::join!(signals, Arc::clone(&agent).run(stop.clone()));
    group.finish(Duration::from_secs(5)).await;
    store_tasks.finish(Duration::from_secs(5)).await;
    Ok(())
}

/// The configuration as the file has it, where it is good.
fn configuration(place: &Place, facts: &Facts) -> Option<Config> {
    let text = std::fs::read_to_string(&place.config).ok()?;
    match file::parse(&text, facts) {
        Ok(config) => Some(config),
        Err(faults) => {
            tracing::warn!(
                faults = faults.len(),
                "the configuration file has faults; the stored intent counts"
            );
            None
        }
    }
}

/// The edge.
pub(crate) fn edge(place: &Place) -> Result<(), Failure> {
    let sockets = pressroom_runtime::inherited::inherited();
    logs::init("edge");
    let layout = Layout::new(&place.data);
    let options = pressroom_edge::Options {
        snapshot: layout.snapshot(),
        control: layout.edge_socket(),
        state: layout.edge(),
        sockets,
        cores: None,
    };
    pressroom_edge::run(options).map_err(|error| Failure::ours("the edge cannot run").cause(error))
}

/// What carries the database's and Redis's bytes between nodes.
pub(crate) fn sql(place: &Place) -> Result<(), Failure> {
    let sockets = pressroom_runtime::inherited::inherited();
    logs::init("sql");
    let options = pressroom_sql::Options { view: Layout::new(&place.data).sql_view(), sockets };
    pressroom_sql::run(options)
        .map_err(|error| Failure::ours("the way to the database cannot be opened").cause(error))
}

/// What answers questions for names.
pub(crate) fn dns(place: &Place) -> Result<(), Failure> {
    let sockets = pressroom_runtime::inherited::inherited();
    logs::init("dns");
    let options = pressroom_dns::Options { view: Layout::new(&place.data).dns_view(), sockets };
    pressroom_dns::run(options)
        .map_err(|error| Failure::ours("names cannot be answered").cause(error))
}
