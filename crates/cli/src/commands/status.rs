//! `pressroom status`: how things are. Without an agent it says what can be known without one.

use std::collections::BTreeMap;
use std::time::Duration;

use pressroom_api::client::Error;
use pressroom_api::failure::Failure;
use pressroom_model::id::NodeName;
use pressroom_model::status::{Address, MediaStore, Pid, Process, Site, Status, Traffic};
use pressroom_model::unit::ByteSize;
use pressroom_model::verdict::Health;

use super::{Context, Done};
use crate::args;
use crate::talk::{Ink, Talk};

pub(super) fn run(context: &Context<'_>, arguments: &args::Status) -> Done {
    loop {
        let (status, missing) = look(context)?;
        let text = if arguments.json {
            let text = if arguments.watch {
                serde_json::to_string(&status)
            } else {
                serde_json::to_string_pretty(&status)
            };
            text.expect("our values have string keys")
        } else {
            page(&context.talk, &status)
        };
        let clear = if arguments.watch && !arguments.json && context.talk.is_screen {
            "\x1b[H\x1b[2J\x1b[3J"
        } else {
            ""
        };
        match (&missing, arguments.json) {
            (Some(failure), false) if !arguments.watch => return Err(failure.clone()),
            _ => context.talk.data(format!("{clear}{text}")),
        }
        if !arguments.watch || !context.talk.is_read() {
            return missing.map_or(Ok(0), |failure| Ok(failure.exit_status()));
        }
        context.rest(Duration::from_secs(1));
    }
}

/// The status, and why it is not the agent's, if it is not.
fn look(context: &Context<'_>) -> Result<(Status, Option<Failure>), Failure> {
    let error = match context.wait(context.client.status()) {
        Ok(status) => return Ok((status, None)),
        Err(Error::Away { error, socket })
            if error.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            return Err(Error::Away { error, socket }.into());
        }
        Err(error) => error,
    };
    let (keeper, failure) = (context.machine.keeper(&context.place), context.failure(error));
    Ok((without_agent(keeper, &failure), Some(failure)))
}

fn without_agent(keeper: Option<i32>, failure: &Failure) -> Status {
    let verdict = if keeper.is_some() { Health::Unknown } else { Health::Stopped };
    let because = failure.what.clone();
    Status {
        version: 1,
        keeper: Pid { pid: keeper },
        agent: Pid { pid: None },
        edge: Process {
            name: "edge".to_owned(),
            pid: None,
            verdict,
            because: because.clone(),
            starts: 0,
        },
        engines: Vec::new(),
        sites: Vec::new(),
        notices: vec![because],
        templates: Vec::new(),
        addresses: Vec::new(),
        media_store: None,
        state: None,
        traffic: None,
    }
}

fn pid(pid: Option<i32>) -> String {
    pid.map_or_else(|| "–".to_owned(), |pid| pid.to_string())
}

fn page(talk: &Talk, status: &Status) -> String {
    let mut lines = Vec::new();
    for site in &status.sites {
        lines.extend(site_lines(talk, site));
    }
    if status.sites.is_empty() {
        lines.push("No sites.".to_owned());
    }
    lines.push(String::new());
    for process in status.engines.iter().chain([&status.edge]) {
        lines.push(process_line(talk, process));
    }
    lines.push(format!("  {:<16} process {}", "agent", pid(status.agent.pid)));
    lines.push(format!("  {:<16} process {}", "keeper", pid(status.keeper.pid)));
    lines.extend(status.state.iter().map(|state| format!("  {:<16} {state}", "state")));
    lines.extend(status.addresses.iter().map(address_line));
    lines.extend(status.templates.iter().map(super::config::template_line));
    lines.extend(status.media_store.iter().map(media_store_line));
    if let Some(traffic) = &status.traffic {
        lines.extend([String::new(), traffic_line(traffic)]);
        lines.extend(peer_lines(traffic));
    }
    if !status.notices.is_empty() {
        lines.push(String::new());
        lines.extend(status.notices.iter().take(8).map(|notice| format!("! {notice}")));
    }
    lines.join("\n")
}

fn media_store_line(store: &MediaStore) -> String {
    let waiting = match store.waiting {
        0 => "has all uploads".to_owned(),
        1 => "1 upload waits".to_owned(),
        count => format!("{count} uploads wait"),
    };
    let because = store.because.as_ref().map(|because| format!(": {because}"));
    format!("  {:<16} {}, {waiting}{}", "object store", store.url, because.unwrap_or_default())
}

/// One site, with its instances. Also what `site show` shows.
pub(super) fn site_lines(talk: &Talk, site: &Site) -> Vec<String> {
    let name = talk.strong(&format!("{:<16}", site.name));
    let mut lines = vec![format!("{name}   {} {}", talk.verdict(site.verdict, 11), site.url)];
    if !site.because.is_empty() && site.verdict != Health::Healthy {
        lines.push(format!("  {:<16} {}", "", site.because));
    }
    for instance in &site.instances {
        let because =
            if instance.verdict == Health::Healthy { "" } else { instance.because.as_str() };
        let busy = format!("{} of {} workers busy", instance.busy, instance.workers);
        let line = format!(
            "  {:<16} {} process {}, {busy}  {because}",
            instance.id,
            talk.verdict(instance.verdict, 11),
            pid(instance.pid)
        );
        lines.push(line.trim_end().to_owned());
    }
    lines
}

fn process_line(talk: &Talk, process: &Process) -> String {
    let because = if process.verdict == Health::Healthy { "" } else { process.because.as_str() };
    let restarts = match process.starts {
        0 | 1 => String::new(),
        starts => talk.ink(Ink::Faint, format!(", started {starts} times")),
    };
    let line = format!(
        "  {:<16} {} process {}{restarts}  {because}",
        process.name,
        talk.verdict(process.verdict, 11),
        pid(process.pid)
    );
    line.trim_end().to_owned()
}

fn address_line(address: &Address) -> String {
    let nodes: Vec<String> = address.nodes.iter().map(|node| format!("on {node}")).collect();
    let words = [nodes.join(" and "), address.because.clone()];
    let words: Vec<String> = words.into_iter().filter(|it| !it.is_empty()).collect();
    format!("  {:<16} {}", address.address, words.join(": "))
}

fn traffic_line(traffic: &Traffic) -> String {
    let pages = traffic.hits + traffic.stale + traffic.misses + traffic.bypasses;
    let ratio =
        if pages == 0 { 0.0 } else { (traffic.hits + traffic.stale) as f64 * 100.0 / pages as f64 };
    format!(
        "{} requests, {ratio:.1} % of {pages} pages from the cache, {} errors, {} waiting; {} pages stored in {}",
        traffic.requests,
        traffic.errors,
        traffic.queued,
        traffic.cache_pages,
        rounded(traffic.cache_bytes)
    )
}

/// What is wrong with the edges of other nodes; those with the same trouble share a line.
fn peer_lines(traffic: &Traffic) -> Vec<String> {
    let mut not_asked = BTreeMap::<&str, Vec<&NodeName>>::new();
    let mut deaf = Vec::new();
    for (node, peer) in &traffic.peers {
        if let Some(because) = &peer.because {
            not_asked.entry(because).or_default().push(node);
        }
        if peer.heard && !peer.hears_us {
            deaf.push(node);
        }
    }
    let mut lines = Vec::new();
    for (because, nodes) in not_asked {
        let are = match nodes.len() {
            1 => "is not asked until it answers",
            _ => "are not asked until they answer",
        };
        lines.push(format!("! {} {are} probes: {because}", edges_of(&nodes)));
    }
    if !deaf.is_empty() {
        let do_not = if deaf.len() == 1 { "does not" } else { "do not" };
        lines.push(format!(
            "! {} {do_not} hear this one: look at the way from there to port 7401 here",
            edges_of(&deaf)
        ));
    }
    if traffic.partitioned {
        lines.push(
            "! this edge is cut off from more than half of the others: pages may be shown that were purged there"
                .into(),
        );
    }
    lines
}

fn edges_of(nodes: &[&NodeName]) -> String {
    let names: Vec<&str> = nodes.iter().map(|node| node.as_str()).collect();
    match names.as_slice() {
        [one] => format!("the edge of {one}"),
        [first @ .., last] => format!("the edges of {} and {last}", first.join(", ")),
        [] => String::new(),
    }
}

fn rounded(bytes: u64) -> String {
    match bytes >> 20 {
        0 => ByteSize::bytes(bytes >> 10 << 10).to_string(),
        mib => ByteSize::mib(mib).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use pressroom_model::status::Peer;

    use super::*;

    fn peer(because: Option<&str>, heard: bool, hears_us: bool) -> Peer {
        let because = because.map(str::to_owned);
        Peer { up: because.is_none(), because, heard, hears_us, asked: 0 }
    }

    fn lines(peers: &[(&str, Peer)], partitioned: bool) -> Vec<String> {
        let named = |(node, peer): &(&str, Peer)| (node.parse().expect("a name"), peer.clone());
        peer_lines(&Traffic {
            generation: 1,
            requests: 0,
            hits: 0,
            stale: 0,
            misses: 0,
            bypasses: 0,
            errors: 0,
            queued: 0,
            cache_bytes: 0,
            cache_pages: 0,
            busy: BTreeMap::new(),
            peers: peers.iter().map(named).collect(),
            partitioned,
        })
    }

    #[test]
    fn edges_that_hear_each_other_are_not_spoken_of() {
        let well = [("n2", peer(None, true, true)), ("n3", peer(None, true, true))];
        assert_eq!(lines(&well, false), Vec::<String>::new());
    }

    #[test]
    fn an_edge_that_hears_nothing_from_here_is_told_from_one_that_is_away() {
        let away = || peer(Some("probes went unanswered"), false, false);
        assert_eq!(
            lines(&[("n2", peer(None, true, false)), ("n3", away())], false),
            [
                "! the edge of n3 is not asked until it answers probes: probes went unanswered",
                "! the edge of n2 does not hear this one: look at the way from there to port 7401 here",
            ]
        );
        let refused = peer(Some("no connection"), false, false);
        let many = [("n2", away()), ("n3", refused), ("n4", away()), ("n5", away())];
        assert_eq!(
            lines(&many, true),
            [
                "! the edge of n3 is not asked until it answers probes: no connection",
                "! the edges of n2, n4 and n5 are not asked until they answer probes: probes went unanswered",
                "! this edge is cut off from more than half of the others: pages may be shown that were purged there",
            ]
        );
    }

    #[test]
    fn edges_that_do_not_hear_this_one_share_a_line() {
        let deaf = || peer(None, true, false);
        assert_eq!(
            lines(&[("n2", deaf()), ("n3", deaf()), ("n4", peer(None, true, true))], false),
            [
                "! the edges of n2 and n3 do not hear this one: look at the way from there to port 7401 here"
            ]
        );
    }
}
