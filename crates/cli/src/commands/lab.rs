//! `pressroom lab`: a cluster on one machine.

use pressroom_api::failure::Failure;
use pressroom_model::config::Config;

use super::{Context, Done};
use crate::args;
use crate::load;
use crate::machine::Lab;

pub(super) fn run(context: &Context<'_>, verb: args::Lab) -> Done {
    if !context.machine.is_root() {
        return Err(Failure::yours("a lab needs network namespaces, which only root makes")
            .hint("run it as root, or in a container that may make them"));
    }
    if let args::Lab::Up { yes, standalone, addresses, .. } = &verb {
        install(context, !standalone, *addresses > 0, *yes)?;
    }
    let (is_shown, is_json) = match &verb {
        args::Lab::Up { json, .. } => (true, *json),
        args::Lab::Status(json) => (true, json.json),
        _ => (false, false),
    };
    let said = context.machine.lab(&context.place, &meant(verb), &context.talk.progress())?;
    if let Some(lab) = said.lab.filter(|_| is_shown) {
        let text = serde_json::to_string_pretty(&lab).expect("our values have string keys");
        context.talk.data(if is_json { text } else { words(&lab) });
        let password = context.place.data.join("admin-password");
        if password.exists() {
            context.talk.say(format!("`admin` has the password in {}", password.display()));
        }
    }
    Ok(said.status)
}

/// Everything that a node needs: hosts share the machine's programs.
fn install(
    context: &Context<'_>,
    is_cluster: bool,
    has_addresses: bool,
    is_agreed: bool,
) -> Result<(), Failure> {
    let addresses = if has_addresses { "[cluster]\naddresses = [\"192.0.2.1\"]\n" } else { "" };
    let text = format!("{addresses}[[site]]\nname = \"blog\"\n");
    let config: Config = load::meaning(context, &text)?;
    context.install_missing(&config, is_agreed)?;
    context.install_for_lab(is_agreed)?;
    match is_cluster {
        true => context.install_for_cluster(true, is_agreed),
        false => Ok(()),
    }
}

fn meant(verb: args::Lab) -> Lab {
    match verb {
        args::Lab::Up { nodes, zones, site, standalone, addresses, .. } => {
            Lab::Up { nodes, zones, site: site.to_string(), is_standalone: standalone, addresses }
        }
        args::Lab::Cut { whom } => Lab::Cut(whom),
        args::Lab::Heal { whom } => Lab::Heal(whom),
        args::Lab::Slow { whom, rate } => Lab::Slow(whom, rate),
        args::Lab::Kill { whom } => Lab::Kill(whom),
        args::Lab::Start { whom } => Lab::Start(whom),
        args::Lab::Freeze { whom, process } => Lab::Freeze(whom, process),
        args::Lab::Thaw { whom } => Lab::Thaw(whom),
        args::Lab::Exec { whom, command } => Lab::Exec(whom, command),
        args::Lab::Status(_) => Lab::Status,
        args::Lab::Down => Lab::Down,
        args::Lab::Host { name } => Lab::Host(name),
    }
}

/// A lab for people.
fn words(lab: &serde_json::Value) -> String {
    let text = |value: &serde_json::Value, key: &str| {
        value.get(key).and_then(|it| it.as_str()).unwrap_or_default().to_owned()
    };
    let empty = serde_json::Value::Null;
    let (site, client) = (lab.get("site").unwrap_or(&empty), lab.get("client").unwrap_or(&empty));
    let mut lines = vec![format!(
        "site `{}` at https://{}/, for visitors in the network namespace `{}`",
        text(site, "name"),
        text(site, "host"),
        text(client, "netns")
    )];
    for node in lab.get("nodes").and_then(|nodes| nodes.as_array()).into_iter().flatten() {
        let is = |key: &str| node.get(key).and_then(serde_json::Value::as_bool) == Some(true);
        let besides = [("leader", ", leads"), ("database", ", has the database")];
        let mut besides: String =
            besides.into_iter().filter(|(key, _)| is(key)).map(|(_, word)| word).collect();
        if node.get("runs").and_then(serde_json::Value::as_bool) == Some(false) {
            besides.push_str(", does not run");
        }
        lines.push(format!(
            "{:<6} zone {:<4} {}{besides}",
            text(node, "name"),
            text(node, "zone"),
            text(node, "address")
        ));
    }
    for address in lab.get("addresses").and_then(|it| it.as_array()).into_iter().flatten() {
        lines.push(format!("floating address {}", address.as_str().unwrap_or_default()));
    }
    lines.join("\n")
}
