//! `pressroom cluster`: one machine becomes the first of many.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use pressroom_api::cluster::Founding;
use pressroom_api::failure::Failure;
use pressroom_model::cluster::Standing;

use super::{Context, Done};
use crate::args::Init;

/// Longest wait for the state to be in etcd.
const PATIENCE: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(100);

/// Makes this machine the first node. Where it is one already, says so.
pub(super) fn init(context: &Context<'_>, arguments: &Init) -> Done {
    if context.machine.membership(&context.place)?.is_none() {
        let address = match arguments.address {
            Some(address) => address,
            None => context.machine.own_address().ok_or_else(|| {
                Failure::yours("this machine has no address that others could reach")
                    .hint("name it: `--address IP`")
            })?,
        };
        check(address)?;
        context.install_for_cluster(true, arguments.yes)?;
        let founding = Founding { address, port: arguments.port };
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
    Ok(nodes.into_iter().find(|node| node.name == name && node.leader && node.voter))
}
