//! From nothing to hosts that serve, by the same commands that everybody uses.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

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
}

/// Makes a lab, or what is lacking of it. `tell` hears what is done.
pub fn up(folder: &Path, wish: &Wish, tell: &mut dyn FnMut(&str)) -> Result<Lab, LabError> {
    std::fs::create_dir_all(folder).map_err(io(folder.display().to_string()))?;
    let folder = folder.canonicalize().map_err(io(folder.display().to_string()))?;
    let mut lab = match Lab::read(&folder) {
        Ok(lab) if lab.nodes.len() == wish.nodes => lab,
        Ok(lab) => {
            return Err(LabError::Another {
                folder: folder.display().to_string(),
                there: lab.nodes.len(),
            });
        }
        Err(LabError::None(_)) => Lab::new(&folder, wish.nodes, &wish.zones, &wish.site)?,
        Err(error) => return Err(error),
    };
    lab.is_standalone = wish.is_standalone;
    lab.write(&folder)?;
    tell("lay cables");
    host::lay_bridge(&lab)?;
    host::lay_cable(&lab, &lab.client.netns, 0, lab.client_address())?;
    for at in 0..lab.nodes.len() {
        host::lay_cable(&lab, &lab.nodes[at].netns, at + 1, lab.nodes[at].address)?;
        host::begin(&mut lab.nodes[at])?;
        lab.write(&folder)?;
    }
    match wish.is_standalone {
        true => {
            tell("start each host by itself");
            each(&lab.nodes.iter().collect::<Vec<_>>(), |node| first(&lab, node))?;
        }
        false => form(&lab, tell)?,
    }
    tell("ask every host for a page");
    let late = clock::now() + SERVES;
    for node in &lab.nodes {
        await_page(&lab, node, late)?;
    }
    if !wish.is_standalone {
        learn(&mut lab)?;
    }
    lab.write(&folder)?;
    Ok(lab)
}

/// Starts the first host, founds a cluster there, and has all others join at once.
fn form(lab: &Lab, tell: &mut dyn FnMut(&str)) -> Result<(), LabError> {
    let (founder, others) = lab.nodes.split_first().expect("a lab has a host");
    tell("start the first host");
    first(lab, founder)?;
    tell("make it the first node of a cluster");
    let address = founder.address.to_string();
    run(host::pressroom(founder)?.args(["cluster", "init", "--yes", "--address", &address]))?;
    let mut joining = Vec::new();
    for node in others {
        let is_node = node.data.join("cluster/membership.json").exists();
        let token = match is_node {
            true => None,
            false => Some(token(founder)?),
        };
        joining.push((node, token));
    }
    tell("have the others join");
    let nodes: Vec<_> = joining.iter().collect();
    each(&nodes, |(node, token)| match token {
        None => start(node),
        Some(token) => {
            let address = node.address.to_string();
            let words = ["node", "join", token, "--yes", "--detach", "--address", &address];
            let mut command = host::pressroom(node)?;
            command.args(words).args(["--name", &node.name, "--zone", &node.zone]);
            run(&mut command).map(drop)
        }
    })
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
    if node.data.join("cluster/membership.json").exists() {
        return start(node);
    }
    if !file.exists() {
        let text = format!("[node]\nname = \"{}\"\nzone = \"{}\"\n", node.name, node.zone);
        std::fs::write(&file, text).map_err(io(file.display().to_string()))?;
    }
    let password = password_file(&node.data)?;
    let mut command = host::pressroom(node)?;
    command.args(["up", "--yes", "--detach", "--site", &lab.site.name, "--domain", &lab.site.host]);
    command.arg("--admin-password-file").arg(password);
    run(&mut command).map(drop)
}

/// The password of `admin`, in a file beside the hosts' folders, made where it is missing: `up` would show it once.
fn password_file(data: &Path) -> Result<std::path::PathBuf, LabError> {
    use std::io::{Read as _, Write as _};
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = data.with_file_name("admin-password");
    let failed = || io(path.display().to_string());
    let mut open = std::fs::OpenOptions::new();
    match open.write(true).create_new(true).mode(0o600).open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        opened => {
            let mut bytes = [0; 12];
            let source = std::fs::File::open("/dev/urandom");
            source.and_then(|mut source| source.read_exact(&mut bytes)).map_err(failed())?;
            let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            opened.and_then(|mut file| writeln!(file, "{text}")).map_err(failed())?;
        }
    }
    Ok(path)
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
fn each<T: Sync>(
    all: &[&T],
    work: impl Fn(&T) -> Result<(), LabError> + Sync,
) -> Result<(), LabError> {
    std::thread::scope(|scope| {
        let works: Vec<_> = all.iter().map(|it| scope.spawn(|| work(it))).collect();
        let ended = works.into_iter().map(|work| work.join().expect("no panic in it"));
        ended.collect::<Vec<_>>().into_iter().collect()
    })
}

/// Asks a host for the site's page over HTTPS from the client's namespace, until it is there.
fn await_page(lab: &Lab, node: &Node, late: std::time::Instant) -> Result<(), LabError> {
    loop {
        let last = match page(lab, node) {
            Ok(status) if status.trim() == "200" => return Ok(()),
            Ok(status) => format!("it answered {status}"),
            Err(error) => error.to_string(),
        };
        if clock::now() > late {
            return Err(LabError::Late {
                what: format!("host `{}` does not serve", node.name),
                seconds: SERVES.as_secs(),
                last,
            });
        }
        std::thread::sleep(LOOK);
    }
}

fn page(lab: &Lab, node: &Node) -> Result<String, LabError> {
    let host = &lab.site.host;
    let resolve = format!("{host}:443:{}", node.address);
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

/// Learns who leads and who has the database.
fn learn(lab: &mut Lab) -> Result<(), LabError> {
    #[derive(Deserialize)]
    struct Standing {
        name: String,
        leader: bool,
        database: bool,
    }
    #[derive(Deserialize)]
    struct Nodes {
        nodes: Vec<Standing>,
    }
    let asked = lab.nodes.iter().find(|node| host::is_running(node));
    let Some(asked) = asked else { return Ok(()) };
    let said = run(host::pressroom(asked)?.args(["node", "list", "--json"]))?;
    let known: Nodes = serde_json::from_str(&said).map_err(|error| {
        LabError::Wish(format!("`node list --json` is not understood: {error}"))
    })?;
    for node in &mut lab.nodes {
        let standing = known.nodes.iter().find(|standing| standing.name == node.name);
        node.leader = standing.is_some_and(|standing| standing.leader);
        node.database = standing.is_some_and(|standing| standing.database);
    }
    Ok(())
}

/// How the hosts are: name, zone, address, whether it runs.
pub fn status(folder: &Path) -> Result<Lab, LabError> {
    let mut lab = Lab::read(folder)?;
    if !lab.is_standalone {
        // Nobody may lead at the moment.
        let _ = learn(&mut lab);
    }
    Ok(lab)
}

/// A command of somebody's in a host, for the caller to run.
pub fn exec(folder: &Path, whom: &str, words: &[String]) -> Result<Command, LabError> {
    let lab = Lab::read(folder)?;
    let mut command = host::command(&lab.nodes[lab.meant(whom)?[0]])?;
    command.args(words);
    Ok(command)
}
