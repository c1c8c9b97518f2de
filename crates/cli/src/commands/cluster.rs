//! `pressroom cluster`: one machine becomes the first of many; the state is copied, and gone back to.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pressroom_api::cluster::{Founding, Restoration};
use pressroom_api::failure::Failure;
use pressroom_model::cluster::Standing;
use pressroom_model::external::{self, Etcd};
use pressroom_model::secret::Secret;

use super::{Context, Done};
use crate::args::{Cluster, Init, OwnEtcd, Restore};

/// Longest wait for the state to be in etcd.
const PATIENCE: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(100);
/// Where keys are in an etcd of operators', if nothing is said.
const PREFIX: &str = "/pressroom/";

pub(super) fn run(context: &Context<'_>, verb: Cluster) -> Done {
    match verb {
        Cluster::Init(init) => self::init(context, &init),
        Cluster::Etcd(etcd) => self::etcd(context, &etcd),
        Cluster::Backup(json) => backup(context, json.json),
        Cluster::Restore(restore) => self::restore(context, restore),
    }
}

fn backup(context: &Context<'_>, json: bool) -> Done {
    let taken = context.ask(context.client.back_up_cluster())?;
    context.talk.data(match json {
        true => serde_json::to_string_pretty(&taken).expect("our values have string keys"),
        false => taken.path.display().to_string(),
    });
    Ok(0)
}

/// Has this node go back to a copy, and waits until it leads with it.
fn restore(context: &Context<'_>, wish: Restore) -> Done {
    let Some(own) = context.machine.membership(&context.place)? else {
        return Err(Failure::yours("this machine is in no cluster")
            .state("nothing was changed")
            .hint(
                "the state of one machine is the file `store/state.redb` in the data directory",
            ));
    };
    let from = match wish.file.map(|file| std::path::absolute(&file).map_err(|e| (file, e))) {
        None => None,
        Some(Ok(file)) => Some(file),
        Some(Err((file, error))) => {
            return Err(Failure::yours(format!("`{}` cannot be used", file.display())).cause(error));
        }
    };
    let question = "Go back to this state? All nodes give up the one that they have, and what was changed since is lost.";
    if !wish.yes && context.talk.ask(question, false) != Some(true) {
        return Err(Failure::yours("nothing was changed").hint("give `--yes` to restore it"));
    }
    let etcd = read(&wish.etcd, "")?;
    let restoration = Restoration { from, force: wish.force, etcd };
    let former = context.ask(context.client.status())?.agent.pid;
    context.ask(context.client.restore_cluster(&restoration))?;
    let step = context.talk.progress().begin("go back to that state");
    let late = Instant::now() + PATIENCE;
    // The agent that was asked still answers for a moment, and may lead as well.
    let is_next = || {
        let status = context.wait(context.client.status());
        status.is_ok_and(|status| status.agent.pid.is_some() && status.agent.pid != former)
    };
    // Where nobody votes, any node may lead then.
    let is_led = |nodes: &[Standing]| match nodes.iter().any(|node| node.voter) {
        true => nodes.iter().any(|node| node.name == own && node.leader && node.voter),
        false => nodes.iter().any(|node| node.leader),
    };
    let leads = || context.wait(context.client.nodes()).is_ok_and(|nodes| is_led(&nodes));
    while !(is_next() && leads()) {
        if let Some(because) = notice(context, "was not restored") {
            step.failed(&because);
            return Err(Failure::ours("the state was not restored")
                .cause(because)
                .state("this node goes on as before"));
        }
        if Instant::now() > late {
            step.failed("it did not come to its end");
            return Err(Failure::ours("the state was not restored in time")
                .state("sites are served as before")
                .hint(format!("read `{}`", context.command("logs agent"))));
        }
        context.rest(LOOK);
    }
    step.done("");
    context.talk.data("The cluster has that state now; the other nodes follow within seconds.");
    Ok(0)
}

/// What the agent says of something, if it does.
fn notice(context: &Context<'_>, of: &str) -> Option<String> {
    let status = context.wait(context.client.status()).ok()?;
    status.notices.into_iter().find(|notice| notice.contains(of))
}

/// Has all nodes ask elsewhere for the same state.
fn etcd(context: &Context<'_>, arguments: &OwnEtcd) -> Done {
    let Some(etcd) = read(arguments, "")? else {
        return Err(Failure::yours("no endpoint is named")
            .state("nothing was changed")
            .hint("name all endpoints, files and the user that count from now on: `pressroom cluster etcd --etcd URL …`"));
    };
    context.ask(context.client.reach_cluster(&etcd))?;
    context.talk.data("This node asks there from now on; the others follow within seconds.");
    Ok(0)
}

/// An etcd of operators' with what is in the files, if one is named. `usual`: the prefix where none is named.
fn read(arguments: &OwnEtcd, usual: &str) -> Result<Option<Etcd>, Failure> {
    if arguments.endpoints.is_empty() {
        return Ok(None);
    }
    let prefix = match &arguments.prefix {
        Some(text) => external::prefix(text)
            .map_err(|fault| Failure::yours(fault).state("nothing was changed"))?,
        None => usual.to_owned(),
    };
    let text = |path: &Option<PathBuf>| path.as_deref().map(read_text).transpose();
    let password = arguments.password_file.as_deref().map(super::read_password).transpose()?;
    Ok(Some(Etcd {
        endpoints: arguments.endpoints.clone(),
        prefix,
        authority: text(&arguments.authority)?,
        certificate: text(&arguments.certificate)?,
        key: text(&arguments.key)?.map(Secret::new),
        user: arguments.user.clone(),
        password,
    }))
}

fn read_text(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| {
        Failure::yours(format!("`{}` cannot be read", path.display()))
            .cause(error)
            .state("nothing was changed")
    })
}

/// Makes this machine the first node. Where it is one already, says so.
fn init(context: &Context<'_>, arguments: &Init) -> Done {
    if context.machine.membership(&context.place)?.is_none() {
        let address = match arguments.address {
            Some(address) => address,
            None => context.machine.own_address().ok_or_else(|| {
                Failure::yours("this machine has no address that others could reach")
                    .hint("name it: `--address IP`")
            })?,
        };
        check(address)?;
        let etcd = read(&arguments.etcd, PREFIX)?;
        if etcd.is_none() {
            context.install_for_cluster(true, arguments.yes)?;
        }
        let founding = Founding { address, port: arguments.port, etcd };
        context.ask(context.client.found_cluster(&founding))?;
    }
    let progress = context.talk.progress();
    let step = progress.begin("move the state into etcd");
    let late = Instant::now() + PATIENCE;
    let node = loop {
        match founded(context)? {
            Some(node) => break node,
            None if Instant::now() > late => {
                step.failed("it did not come to its end");
                return Err(Failure::ours("the cluster was not founded in time")
                    .state("sites are served as before")
                    .hint(format!("read `{}`", context.command("logs agent"))));
            }
            None => context.rest(LOOK),
        }
    };
    step.done(format!("node `{}` leads", node.name));
    if arguments.json {
        let text = serde_json::to_string_pretty(&node).expect("our values have string keys");
        context.talk.data(text);
        return Ok(0);
    }
    context.talk.data(format!("This machine is node `{}` of a new cluster.", node.name));
    if !arguments.etcd.endpoints.is_empty() {
        context.talk.say("names of what runs are written below `/skydns` there: let the user write them too, or say `register = false` in `[dns]`");
    }
    context.talk.say(format!(
        "next: `{}` prints a token; on another machine `pressroom node join TOKEN` joins",
        context.command("node token")
    ));
    Ok(0)
}

fn check(address: IpAddr) -> Result<(), Failure> {
    if address.is_loopback() || address.is_unspecified() || address.is_multicast() {
        return Err(Failure::yours(format!("`{address}` is no address that other machines reach"))
            .state("nothing was changed")
            .hint("give this machine's address in the network that the nodes share"));
    }
    Ok(())
}

/// The node that this machine is, once it leads; a failure when the founding was undone.
fn founded(context: &Context<'_>) -> Result<Option<Standing>, Failure> {
    let Some(name) = context.machine.membership(&context.place)? else {
        let status = context.wait(context.client.status());
        let notices = status.map(|status| status.notices).unwrap_or_default();
        let because = notices.into_iter().find(|notice| notice.contains("cluster"));
        return Err(Failure::ours("no cluster was founded")
            .cause(because.unwrap_or_else(|| "the founding was undone".into()))
            .state("this machine goes on alone; nothing was changed"));
    };
    let Ok(nodes) = context.wait(context.client.nodes()) else { return Ok(None) };
    // Where nobody votes the state is in an etcd of operators.
    let is_voted = nodes.iter().any(|node| node.voter);
    let leads = |node: &Standing| node.name == name && node.leader && (node.voter || !is_voted);
    Ok(nodes.into_iter().find(leads))
}
