//! `pressroom node`: machines join, are shown, rest and leave.

use std::time::{Duration, Instant};

use pressroom_api::cluster::{ChangeOf, NodeChange, TokenWish};
use pressroom_api::failure::Failure;
use pressroom_model::cluster::{Role, Share, Standing};
use pressroom_model::id::NodeName;
use pressroom_model::status::State;

use super::{Context, Done};
use crate::args::{Join, Node};
use crate::machine::Joining;

/// Longest wait until a new node serves.
const SERVES: Duration = Duration::from_secs(180);
/// A node that is said to be removed for so long is none any more.
const REMOVED: Duration = Duration::from_secs(3);
/// Longest wait until another node leads.
const OFFICE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(100);

pub(super) fn run(context: &Context<'_>, verb: Node) -> Done {
    match verb {
        Node::Token { valid, json } => token(context, valid.get(), json),
        Node::Join(join) => self::join(context, join),
        Node::List(json) => list(context, json.json),
        Node::Show { name, json } => show(context, &name, json),
        Node::Drain { name } => change(context, &name, NodeChange::Drain, "rests from now on"),
        Node::Undrain { name } => change(context, &name, NodeChange::Undrain, "takes part again"),
        Node::Remove { name, yes } => remove(context, &name, yes),
        Node::Label { name, label } => {
            let (key, value) = match label.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (label, None),
            };
            change(context, &name, NodeChange::Label { key, value }, "has another label")
        }
    }
}

fn token(context: &Context<'_>, valid: Duration, json: bool) -> Done {
    let wish = TokenWish { life: valid.as_secs() };
    let made = context.ask(context.client.node_token(&wish))?;
    if json {
        context
            .talk
            .data(serde_json::to_string_pretty(&made).expect("our values have string keys"));
        return Ok(0);
    }
    context.talk.data(&made.token);
    context.talk.say(format!(
        "Good for one machine, for {} minutes. There: pressroom node join TOKEN",
        valid.as_secs() / 60
    ));
    Ok(0)
}

fn join(context: &Context<'_>, join: Join) -> Done {
    let token = match join.token.as_str() {
        super::STANDARD_INPUT => super::read_token()?.reveal().to_owned(),
        token => token.to_owned(),
    };
    if context.machine.keeper(&context.place).is_some()
        && context.machine.membership(&context.place)?.is_none()
    {
        return Err(Failure::yours("a Pressroom of its own runs on this machine")
            .state("nothing was changed")
            .hint("a node joins with an empty data directory: `pressroom down`, then give another one with `--data DIR`"));
    }
    let progress = context.talk.progress();
    context.install_for_cluster(false, join.yes)?;
    let step = progress.begin("join the cluster");
    let wanted = Joining {
        token,
        name: join.name,
        zone: join.zone,
        address: join.address,
        port: join.port,
        roles: join.role.iter().map(|role| role.0).collect(),
    };
    let joined = match context.machine.join(&context.place, &wanted) {
        Ok(joined) => joined,
        Err(failure) => {
            step.failed(&failure.what);
            return Err(failure);
        }
    };
    step.done(format!("as node `{}`", joined.node));
    if let Some(config) = &joined.config {
        context.install_missing(config, join.yes)?;
    }
    context.machine.start_keeper(&context.place)?;
    serve(context, &joined.node, joined.is_new)?;
    context.talk.data(format!("This machine is node `{}`, and serves.", joined.node));
    Ok(0)
}

/// Waits until every site answers on this node. One that was removed may hear a little later that it is a node again, above all when it
/// `has_joined` just now.
pub(super) fn serve(
    context: &Context<'_>,
    node: &NodeName,
    has_joined: bool,
) -> Result<(), Failure> {
    let patience = if has_joined { SERVES } else { REMOVED };
    let mut removed: Option<Instant> = None;
    let step = context.talk.progress().begin("have the sites' code and serve");
    let late = Instant::now() + SERVES;
    let mut because = "its agent does not answer yet".to_owned();
    while Instant::now() < late {
        if let Ok(nodes) = context.wait(context.client.nodes())
            && let Some(own) = nodes.into_iter().find(|known| known.name == *node)
        {
            if own.serves {
                step.done("");
                return Ok(());
            }
            removed = own.is_removed.then(|| removed.unwrap_or_else(Instant::now));
            if removed.is_some_and(|since| since.elapsed() >= patience) {
                step.failed("it was removed");
                return Err(Failure::yours(format!("`{node}` is no node any more"))
                    .cause(own.because)
                    .state(format!("it runs; `{}` stops it", context.command("down"))));
            }
            because = own.because;
        }
        context.rest(LOOK);
    }
    step.failed(&because);
    Err(Failure::ours(format!("node `{node}` does not serve after {} s", SERVES.as_secs()))
        .cause(because)
        .state("it goes on trying; the other nodes serve")
        .hint(format!("`{}` shows how things are", context.command("status"))))
}

fn nodes(context: &Context<'_>) -> Result<Vec<Standing>, Failure> {
    let nodes = context.ask(context.client.nodes())?;
    match nodes.is_empty() {
        true => Err(Failure::yours("this machine is in no cluster")
            .hint("`pressroom cluster init` makes it the first node of one")),
        false => Ok(nodes),
    }
}

fn list(context: &Context<'_>, json: bool) -> Done {
    let nodes = nodes(context)?;
    if json {
        let nodes = serde_json::json!({ "nodes": nodes });
        context
            .talk
            .data(serde_json::to_string_pretty(&nodes).expect("our values have string keys"));
        return Ok(0);
    }
    let width = |of: fn(&Standing) -> String| nodes.iter().map(of).map(|it| it.len()).max();
    let name = width(|node| node.name.to_string()).unwrap_or_default().max(4);
    let zone = width(|node| node.zone.clone()).unwrap_or_default().max(4);
    let address = width(|node| node.address.to_string()).unwrap_or_default().max(7);
    let mut lines =
        vec![format!("{:name$}  {:zone$}  {:address$}  state", "node", "zone", "address")];
    for node in &nodes {
        lines.push(format!(
            "{:name$}  {:zone$}  {:address$}  {}",
            node.name.as_str(),
            node.zone,
            node.address.to_string(),
            words(node)
        ));
    }
    context.talk.data(lines.join("\n"));
    if let Some(state) = external_state(context, &nodes) {
        context.talk.say(format!("nobody votes: the state is {state}"));
    }
    Ok(0)
}

/// Where the state is, if operators keep it themselves.
fn external_state(context: &Context<'_>, nodes: &[Standing]) -> Option<State> {
    if nodes.iter().any(|node| node.voter) {
        return None;
    }
    let status = context.wait(context.client.status()).ok()?;
    status.state.filter(|state| state.is_external)
}

/// How a node is, in a few words.
fn words(node: &Standing) -> String {
    let mut words = vec![match (node.is_up, node.serves) {
        _ if node.is_removed => "removed",
        (false, _) => "away",
        (true, false) => "up",
        (true, true) => "serves",
    }];
    let besides = [
        (node.leader, "leads"),
        (node.voter, "votes"),
        (node.database, "has the database"),
        (node.is_drained, "drained"),
    ];
    words.extend(besides.into_iter().filter_map(|(is, word)| is.then_some(word)));
    let addresses = node.addresses.iter().map(|address| format!("has {address}"));
    let words: Vec<String> = words.into_iter().map(str::to_owned).chain(addresses).collect();
    match node.because.is_empty() {
        true => words.join(", "),
        false => format!("{} ({})", words.join(", "), node.because),
    }
}

fn show(context: &Context<'_>, name: &NodeName, json: bool) -> Done {
    let nodes = nodes(context)?;
    let node = find(&nodes, name)?;
    if json {
        context.talk.data(serde_json::to_string_pretty(node).expect("our values have string keys"));
        return Ok(0);
    }
    let roles = serde_json::to_value(&node.roles).unwrap_or_default();
    let roles = roles.as_array().into_iter().flatten().filter_map(|role| role.as_str());
    let labels = node.labels.iter().map(|(key, value)| format!("{key}={value}"));
    let shares = node.sites.iter().map(|(site, share)| {
        let Share { placed, answering, because } = share;
        format!("\n  php      {site}: {answering} of {placed} ({because})")
    });
    context.talk.data(format!(
        "{}\n  zone     {}\n  address  {}\n  roles    {}\n  labels   {}\n  program  {}\n  clock    {:+} ms\n  state    {}{}",
        node.name,
        node.zone,
        node.address,
        roles.collect::<Vec<_>>().join(", "),
        labels.collect::<Vec<_>>().join(", "),
        node.program,
        node.clock_ms,
        words(node),
        shares.collect::<String>()
    ));
    Ok(0)
}

fn find<'a>(nodes: &'a [Standing], name: &NodeName) -> Result<&'a Standing, Failure> {
    nodes.iter().find(|node| node.name == *name).ok_or_else(|| {
        let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        Failure::yours(format!("there is no node `{name}`"))
            .state(format!("nodes: {}", names.join(", ")))
    })
}

fn change(context: &Context<'_>, node: &NodeName, change: NodeChange, words: &str) -> Done {
    find(&nodes(context)?, node)?;
    context.ask(context.client.change_node(&ChangeOf { node: node.clone(), change }))?;
    context.talk.say(format!("`{node}` {words}."));
    Ok(0)
}

fn remove(context: &Context<'_>, name: &NodeName, yes: bool) -> Done {
    let nodes = nodes(context)?;
    let node = find(&nodes, name)?;
    if node.database {
        return Err(Failure::yours(format!("the database is on `{name}`: it cannot be removed"))
            .state("nothing was changed")
            .hint("remove the other nodes until this one is left"));
    }
    let question = format!(
        "Remove node `{name}`? It is refused everywhere at once and must join anew to come back."
    );
    if !yes && context.talk.ask(&question, false) != Some(true) {
        return Err(Failure::yours("nothing was changed").hint("give `--yes` to remove it"));
    }
    have_another_lead(context, name)?;
    change(context, name, NodeChange::Remove, "is no node any more")?;
    if external_state(context, &nodes).is_some() {
        context.talk.say("if somebody else has that machine now: it knew the password or key of your etcd, so make another one there, and say it by `pressroom cluster etcd`");
    }
    Ok(0)
}

/// The node that leads cannot end its own membership: it rests first, until another one leads.
fn have_another_lead(context: &Context<'_>, name: &NodeName) -> Result<(), Failure> {
    let leads = |node: &Standing| node.name == *name && node.leader;
    let known = nodes(context)?;
    if !known.iter().any(leads) {
        return Ok(());
    }
    let may = |node: &&Standing| node.is_up && node.roles.contains(&Role::Manager);
    let mut others = known.iter().filter(may).filter(|node| node.name != *name);
    if others.all(|node| node.is_drained) {
        return Err(Failure::yours(format!("node `{name}` was not removed"))
            .cause("it leads, and no other node that could is up and does not rest")
            .state("nothing was changed")
            .hint(format!("`{}` wakes one that rests", context.command("node undrain NODE"))));
    }
    let change = ChangeOf { node: name.clone(), change: NodeChange::Drain };
    context.ask(context.client.change_node(&change))?;
    let late = Instant::now() + OFFICE;
    while !nodes(context)?.iter().any(|node| node.leader && !leads(node)) {
        if Instant::now() >= late {
            return Err(Failure::ours(format!("node `{name}` was not removed"))
                .cause("it leads, and no other node takes its place")
                .state(format!("`{name}` rests now"))
                .hint(format!("`{}` shows who is heard", context.command("node list"))));
        }
        context.rest(LOOK);
    }
    Ok(())
}
