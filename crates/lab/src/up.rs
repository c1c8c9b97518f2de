//! From nothing to hosts that serve, by the same commands that everybody uses.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use pressroom_runtime::clock;
use serde::Deserialize;

use crate::host;
use crate::lab::{Lab, Node};
use crate::{LabError, io, run};

/// Longest time until every host serves.
const SERVES: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(200);

/// What is wished for.
#[derive(Debug, Clone)]
pub struct Wish {
    /// How many hosts.
    pub nodes: usize,
    /// Their zones, dealt in turn.
    pub zones: Vec<String>,
    /// The site's name.
    pub site: String,
    /// Each host a Pressroom of its own.
    pub is_standalone: bool,
    /// How many floating addresses.
    pub addresses: u8,
}

/// Makes a lab, or what is lacking of it. `tell` hears what is done. One that was ended on its way is finished by the next.
pub fn up(folder: &Path, wish: &Wish, tell: &mut dyn FnMut(&str)) -> Result<Lab, LabError> {
    std::fs::create_dir_all(folder).map_err(io(folder.display().to_string()))?;
    let folder = folder.canonicalize().map_err(io(folder.display().to_string()))?;
    tell("lay cables and begin hosts");
    note(&folder, wish)?;
    let lab = Lab::change(&folder, |lab| {
        make_password(&folder)?;
        host::lay_bridge(lab)?;
        host::lay_cable(lab, &lab.client.netns, 0, lab.client_address())?;
        for at in 0..lab.nodes.len() {
            host::lay_cable(lab, &lab.nodes[at].netns, at + 1, lab.nodes[at].address)?;
            host::begin(&mut lab.nodes[at])?;
        }
        Ok(lab.clone())
    })?;
    let all: Vec<&Node> = lab.nodes.iter().collect();
    match wish.is_standalone {
        true => {
            tell("start each host by itself");
            each(&all, |node| first(&lab, node))?;
        }
        false => form(&lab, tell)?,
    }
    tell("ask every host for a page");
    let late = clock::now() + SERVES;
    each(&all, |node| await_page(&lab, node.address, late))?;
    let standing = match wish.is_standalone {
        true => Vec::new(),
        false => await_leader(&lab, late)?,
    };
    each(&lab.addresses.iter().collect::<Vec<_>>(), |address| await_page(&lab, *address, late))?;
    Lab::change(&folder, |lab| {
        stand(lab, &standing);
        Ok(lab.clone())
    })
}

/// Writes down what is about to be made; a lab that is there must be the same, or a smaller one.
fn note(folder: &Path, wish: &Wish) -> Result<(), LabError> {
    let turn = Lab::turn(folder)?;
    match Lab::read(folder) {
        Ok(lab)
            if lab.is_as_wished(wish.nodes, &wish.zones, &wish.site, wish.is_standalone)
                && lab.addresses.len() == usize::from(wish.addresses) => {}
        Ok(mut lab) => {
            let there = lab.nodes.len();
            if lab.addresses.len() == usize::from(wish.addresses) && lab.grow(folder, wish)? {
                return lab.write(folder);
            }
            return Err(LabError::Another { folder: folder.display().to_string(), there });
        }
        Err(LabError::None(_)) => {
            let mut lab = Lab::new(folder, wish.nodes, &wish.zones, &wish.site)?;
            lab.is_standalone = wish.is_standalone;
            lab.float(wish.addresses)?;
            lab.write(folder)?;
        }
        Err(error) => return Err(error),
    }
    drop(turn);
    Ok(())
}

/// Starts the nodes that are there, all at once; else founds a cluster on the first host. Then has the others join, all at once.
fn form(lab: &Lab, tell: &mut dyn FnMut(&str)) -> Result<(), LabError> {
    let (members, others): (Vec<_>, Vec<_>) = lab.nodes.iter().partition(|node| is_node(node));
    let founder = lab.nodes.first().expect("a lab has a host");
    match members.is_empty() {
        true => found(lab, founder, tell)?,
        false => {
            tell("start the nodes that are there");
            each(&members, start)?;
        }
    }
    let inviter = members.first().copied().unwrap_or(founder);
    let mut joining = Vec::new();
    for node in others.into_iter().filter(|node| node.name != inviter.name) {
        joining.push((node, token(inviter)?));
    }
    if joining.is_empty() {
        return Ok(());
    }
    tell("have the others join");
    each(&joining.iter().collect::<Vec<_>>(), |(node, token)| {
        let address = node.address.to_string();
        let mut command = host::pressroom(node)?;
        command.args(["node", "join", token, "--yes", "--detach", "--address", &address]);
        command.args(["--name", &node.name, "--zone", &node.zone]);
        run(&mut command).map(drop)
    })
}

fn is_node(node: &Node) -> bool {
    node.data.join("cluster/membership.json").exists()
}

/// Makes a host the first node of a cluster, with the site.
fn found(lab: &Lab, founder: &Node, tell: &mut dyn FnMut(&str)) -> Result<(), LabError> {
    tell("start the first host");
    first(lab, founder)?;
    tell("make it the first node of a cluster");
    let address = founder.address.to_string();
    let init = ["cluster", "init", "--yes", "--address", &address];
    run(host::pressroom(founder)?.args(init)).map(drop)
}

fn token(founder: &Node) -> Result<String, LabError> {
    #[derive(Deserialize)]
    struct Token {
        token: String,
    }
    let said = run(host::pressroom(founder)?.args(["node", "token", "--json"]))?;
    let token: Token = serde_json::from_str(&said)
        .map_err(|error| LabError::Wish(format!("no token was printed: {error}")))?;
    Ok(token.token)
}

/// Starts a host whose Pressroom has its own configuration.
fn first(lab: &Lab, node: &Node) -> Result<(), LabError> {
    let file = node.data.join("pressroom.toml");
    if !file.exists() {
        let mut text = format!("[node]\nname = \"{}\"\nzone = \"{}\"\n", node.name, node.zone);
        if !lab.addresses.is_empty() {
            let list = lab.addresses.iter().map(|address| format!("\"{address}/24\""));
            let list = list.collect::<Vec<_>>().join(", ");
            text.push_str(&format!("\n[cluster]\naddresses = [{list}]\n"));
        }
        std::fs::write(&file, text).map_err(io(file.display().to_string()))?;
    }
    let password = node.data.parent().map(password_file).unwrap_or_default();
    let mut command = host::pressroom(node)?;
    command.args(["up", "--yes", "--detach", "--site", &lab.site.name, "--domain", &lab.site.host]);
    command.arg("--admin-password-file").arg(password);
    run(&mut command).map(drop)
}

/// Where the password of `admin` is: in a file beside the hosts' folders, because `up` would show it once.
fn password_file(folder: &Path) -> PathBuf {
    folder.join("admin-password")
}

/// Makes the password where it is missing.
fn make_password(folder: &Path) -> Result<(), LabError> {
    use std::io::{Read as _, Write as _};
    use std::os::unix::fs::OpenOptionsExt as _;
    let (path, fresh) = (password_file(folder), folder.join(".admin-password.new"));
    if path.exists() {
        return Ok(());
    }
    let mut bytes = [0; 12];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .map_err(io("/dev/urandom"))?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut open = std::fs::OpenOptions::new();
    open.write(true).create(true).truncate(true).mode(0o600);
    open.open(&fresh)
        .and_then(|mut file| writeln!(file, "{text}"))
        .and_then(|()| std::fs::rename(&fresh, &path))
        .map_err(io(path.display().to_string()))
}

/// Starts what a host had.
fn start(node: &Node) -> Result<(), LabError> {
    run(host::pressroom(node)?.args(["up", "--yes", "--detach"])).map(drop)
}

/// Starts hosts again, all at once.
pub(crate) fn start_all(nodes: &[&Node]) -> Result<(), LabError> {
    each(nodes, start)
}

/// Does something for all hosts at once; the first failure is told when all have ended.
pub(crate) fn each<T: Sync>(
    all: &[&T],
    work: impl Fn(&T) -> Result<(), LabError> + Sync,
) -> Result<(), LabError> {
    std::thread::scope(|scope| {
        let works: Vec<_> = all.iter().map(|it| scope.spawn(|| work(it))).collect();
        let ended = works.into_iter().map(|work| work.join().expect("no panic in it"));
        ended.collect::<Vec<_>>().into_iter().collect()
    })
}

/// Asks at an address for the site's page over HTTPS from the client's namespace, until it is there.
fn await_page(lab: &Lab, address: Ipv4Addr, late: Instant) -> Result<(), LabError> {
    loop {
        let last = match page(lab, address) {
            Ok(status) if status.trim() == "200" => return Ok(()),
            Ok(status) => format!("it answered {status}"),
            Err(error) => error.to_string(),
        };
        if clock::now() > late {
            return Err(LabError::Late {
                what: format!("nobody serves at {address}"),
                seconds: SERVES.as_secs(),
                last,
            });
        }
        std::thread::sleep(LOOK);
    }
}

fn page(lab: &Lab, address: Ipv4Addr) -> Result<String, LabError> {
    let host = &lab.site.host;
    let resolve = format!("{host}:443:{address}");
    let url = format!("https://{host}/");
    run(host::inside(&lab.client.netns).args([
        "curl",
        "-sk",
        "-m",
        "5",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "--resolve",
        &resolve,
        &url,
    ]))
}

/// A node as the cluster sees it.
#[derive(Debug, Deserialize)]
struct Standing {
    name: String,
    leader: bool,
    database: bool,
}

/// Asks the first host that answers who leads and who has the database.
fn ask(lab: &Lab) -> Result<Vec<Standing>, LabError> {
    #[derive(Deserialize)]
    struct Nodes {
        nodes: Vec<Standing>,
    }
    let mut last = LabError::Wish("no host runs".into());
    for asked in lab.nodes.iter().filter(|node| host::is_running(node)) {
        match run(host::pressroom(asked)?.args(["node", "list", "--json"])) {
            Ok(said) => {
                let known: Nodes = serde_json::from_str(&said).map_err(|error| {
                    LabError::Wish(format!("`node list --json` is not understood: {error}"))
                })?;
                return Ok(known.nodes);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Asks until all nodes are known, one leads, and one has the database.
fn await_leader(lab: &Lab, late: Instant) -> Result<Vec<Standing>, LabError> {
    loop {
        let asked = ask(lab);
        match asked {
            Ok(standing) if is_whole(&standing, lab.nodes.len()) => return Ok(standing),
            asked if clock::now() > late => {
                return Err(LabError::Late {
                    what: "the cluster has no leader, or not all nodes".into(),
                    seconds: SERVES.as_secs(),
                    last: format!("{asked:?}"),
                });
            }
            _ => std::thread::sleep(LOOK),
        }
    }
}

fn is_whole(standing: &[Standing], nodes: usize) -> bool {
    let count = |is: fn(&Standing) -> bool| standing.iter().filter(|it| is(it)).count();
    standing.len() == nodes && count(|it| it.leader) == 1 && count(|it| it.database) == 1
}

/// Writes it into the lab. A host that stands alone leads itself, with a database of its own.
fn stand(lab: &mut Lab, standing: &[Standing]) {
    for node in &mut lab.nodes {
        let known = standing.iter().find(|standing| standing.name == node.name);
        node.leader = lab.is_standalone || known.is_some_and(|known| known.leader);
        node.database = lab.is_standalone || known.is_some_and(|known| known.database);
    }
}

/// How the hosts are. Nobody may know who leads at the moment: then nobody is said to.
pub fn status(folder: &Path) -> Result<Lab, LabError> {
    let mut lab = Lab::read(folder)?;
    let standing = match lab.is_standalone {
        true => Vec::new(),
        false => ask(&lab).unwrap_or_default(),
    };
    stand(&mut lab, &standing);
    Ok(lab)
}

/// A command of somebody's in a host, or in the visitors' network (`client`), for the caller to run.
pub fn exec(folder: &Path, whom: &str, words: &[String]) -> Result<Command, LabError> {
    let lab = Lab::read(folder)?;
    let mut command = match whom {
        "client" => host::inside(&lab.client.netns),
        _ => host::command(&lab.nodes[lab.meant(whom)?[0]])?,
    };
    command.args(words);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_whole_with_all_nodes_one_leader_and_one_database() {
        let check = |nodes: &[(bool, bool)], expected: bool| {
            let standing: Vec<Standing> = nodes
                .iter()
                .map(|(leader, database)| Standing {
                    name: String::new(),
                    leader: *leader,
                    database: *database,
                })
                .collect();
            assert_eq!(is_whole(&standing, 2), expected, "{nodes:?}");
        };
        check(&[(true, false), (false, true)], true);
        check(&[(true, true), (false, false)], true);
        check(&[(true, true)], false);
        check(&[(false, false), (false, true)], false);
        check(&[(true, false), (true, true)], false);
        check(&[(true, false), (false, false)], false);
    }
}
