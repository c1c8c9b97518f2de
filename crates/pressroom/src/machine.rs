//! What commands need of this machine, done with the agent's hands.

use std::net::{IpAddr, UdpSocket};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use pressroom_agent::cluster::founding::FoundingError;
use pressroom_agent::cluster::joining::{self, Joiner, JoiningError};
use pressroom_agent::cluster::membership::Membership;
use pressroom_agent::cluster::removed::Removal;
use pressroom_agent::doctor::{self, Grade};
use pressroom_agent::keeper;
use pressroom_agent::layout::{self, Layout};
use pressroom_agent::{files, host, packages};
use pressroom_api::failure::Failure;
use pressroom_api::operator::{Check, CheckState};
use pressroom_api::progress::Progress;
use pressroom_cli::machine::{
    Joined, Joining, Lab, LabSaid, Machine, Package, Role, Stopped, Templates,
};
use pressroom_cli::place::Place;
use pressroom_model::cluster::{PORT, Role as NodeRole};
use pressroom_model::config::Config;
use pressroom_model::file::Facts;
use pressroom_model::id::NodeName;
use pressroom_model::process::{ProcessSpec, Reply, Request};
use pressroom_model::template::State;
use pressroom_wire::WireError;

use crate::roles;

/// This machine.
#[derive(Debug, Default)]
pub(crate) struct ThisMachine;

/// A condition is looked at so often.
const LOOK: Duration = Duration::from_millis(10);

/// Waits until `condition` holds; whether it did in time.
fn wait_for(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + limit;
    while Instant::now() < until {
        if condition() {
            return true;
        }
        std::thread::sleep(LOOK);
    }
    condition()
}

fn membership(place: &Place) -> Result<Option<Membership>, Failure> {
    Membership::read(&Layout::new(&place.data)).map_err(|error| {
        Failure::ours("it cannot be read whether this machine is a node of a cluster").cause(error)
    })
}

/// Whether this machine has the address.
fn is_here(address: &IpAddr) -> bool {
    UdpSocket::bind((*address, 0)).is_ok()
}

/// Who joins: a machine that was a node before is what it was then, unless something else is wished for.
fn joiner(joining: &Joining, former: Option<&Membership>) -> Result<Joiner, Failure> {
    let before = former.and_then(|former| former.own.clone());
    let (roles, labels) = before.map(|node| (node.roles, node.labels)).unwrap_or_default();
    let roles = match (joining.roles.is_empty(), roles.is_empty()) {
        (false, _) => joining.roles.clone(),
        (true, false) => roles.into_iter().collect(),
        (true, true) => NodeRole::ALL.into(),
    };
    let name = joining.name.clone().or_else(|| former.map(|former| former.node.clone()));
    let node = match name {
        Some(name) => name,
        None => host::name().parse().map_err(|bad| {
            Failure::yours("this host's name is no node name")
                .cause(bad)
                .hint("give one: `--name NAME`")
        })?,
    };
    let zone = former.map_or_else(|| "a".to_owned(), |former| former.zone.clone());
    let port = former.map_or(PORT, |former| former.port);
    Ok(Joiner {
        node,
        zone: joining.zone.clone().unwrap_or(zone),
        address: joining.address.or_else(|| former.map(|it| it.address).filter(is_here)),
        port: joining.port.unwrap_or(port),
        roles,
        labels,
    })
}

/// The newest PHP that is installed, else the distribution's.
fn php_version() -> String {
    let mut versions: Vec<String> = std::fs::read_dir("/etc/php")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|version| Path::new(&format!("/usr/sbin/php-fpm{version}")).exists())
        .collect();
    versions.sort();
    versions.pop().unwrap_or_else(|| "8.2".into())
}

impl Machine for ThisMachine {
    fn is_root(&self) -> bool {
        rustix::process::geteuid().is_root()
    }

    fn facts(&self, place: &Place) -> Facts {
        Facts {
            hostname: host::name(),
            is_root: self.is_root(),
            cores: host::cores(),
            php_version: php_version(),
            data: place.data.clone(),
            folder: place.folder().to_owned(),
        }
    }

    fn missing(&self, config: &Config) -> Result<Vec<Package>, Failure> {
        let missing = packages::missing(config);
        Ok(missing.into_iter().map(|p| Package { name: p.name, because: p.because }).collect())
    }

    fn missing_in_cluster(&self, is_voter: bool) -> Result<Vec<Package>, Failure> {
        let missing = packages::missing_in_cluster(is_voter);
        Ok(missing.into_iter().map(|p| Package { name: p.name, because: p.because }).collect())
    }

    fn missing_in_lab(&self) -> Result<Vec<Package>, Failure> {
        let missing = packages::missing_in_lab();
        Ok(missing.into_iter().map(|p| Package { name: p.name, because: p.because }).collect())
    }

    fn own_address(&self) -> Option<IpAddr> {
        host::own_address()
    }

    fn membership(&self, place: &Place) -> Result<Option<NodeName>, Failure> {
        Ok(membership(place)?.map(|membership| membership.node))
    }

    fn join(&self, place: &Place, joining: &Joining) -> Result<Joined, Failure> {
        furnish(&place.data)?;
        let former = membership(place)?;
        let is_new = former.as_ref().is_none_or(|former| Removal::of(former).is_some());
        let joiner = joiner(joining, former.as_ref())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Failure::ours("the command cannot start").cause(e))?;
        let joined =
            runtime.block_on(joining::join(&Layout::new(&place.data), &joining.token, &joiner));
        let (membership, config) = joined.map_err(not_joined)?;
        Ok(Joined { node: membership.node, is_new, config })
    }

    fn lab(&self, place: &Place, verb: &Lab, progress: &Progress) -> Result<LabSaid, Failure> {
        crate::lab::run(&place.data, verb, progress)
    }

    fn render(&self, place: &Place, wish: &Templates) -> Result<Vec<State>, Failure> {
        crate::templates::render(place, wish)
    }

    fn watch_templates(
        &self,
        place: &Place,
        wish: &Templates,
        interval: Duration,
    ) -> Result<(), Failure> {
        crate::templates::watch(place, wish, interval)
    }

    fn example_templates(&self) -> Vec<(PathBuf, &'static [u8])> {
        pressroom_agent::template::examples::all()
    }

    fn install_command(&self, packages: &[Package]) -> String {
        packages::command(&names(packages))
    }

    fn install(&self, packages: &[Package], progress: &Progress) -> Result<(), Failure> {
        let step = progress.begin(format!("install {} packages", packages.len()));
        match packages::install(&names(packages)) {
            Ok(()) => {
                step.done(names(packages).join(" "));
                Ok(())
            }
            Err(error) => {
                step.failed(error.to_string());
                Err(Failure::ours("the packages could not be installed")
                    .cause(error)
                    .state("nothing of Pressroom was started")
                    .hint(format!("try it by hand: {}", self.install_command(packages))))
            }
        }
    }

    fn keeper(&self, place: &Place) -> Option<i32> {
        match keeper::call(&place.keeper_socket(), &Request::List) {
            Ok(Reply::Listed { keeper, .. }) => Some(keeper),
            _ => None,
        }
    }

    fn start_keeper(&self, place: &Place) -> Result<i32, Failure> {
        if let Some(pid) = self.keeper(place) {
            return Ok(pid);
        }
        furnish(&place.data)?;
        let program = host::own_program()
            .map_err(|e| Failure::ours("cannot find my own program").cause(e))?;
        let arguments: Vec<String> = ["keep", "--data"]
            .map(str::to_owned)
            .into_iter()
            .chain([
                place.data.display().to_string(),
                "--config".into(),
                place.config.display().to_string(),
            ])
            .collect();
        let layout = Layout::new(&place.data);
        let log = layout.output("keeper");
        keeper::spawn_detached(&program, &arguments, &log)
            .map_err(|error| Failure::ours("cannot start the keeper").cause(error))?;
        let mut pid = None;
        wait_for(Duration::from_secs(10), || {
            pid = self.keeper(place);
            pid.is_some()
        });
        pid.ok_or_else(|| {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let last = text
                .lines()
                .rev()
                .take(5)
                .collect::<Vec<_>>()
                .into_iter()
                .rev()
                .collect::<Vec<_>>();
            Failure::ours("the keeper did not answer within 10 s")
                .cause(last.join("\n"))
                .hint(format!("read {}", log.display()))
        })
    }

    fn stop_keeper(&self, place: &Place, progress: &Progress) -> Result<Stopped, Failure> {
        if self.keeper(place).is_none() {
            let Some(pid) = keeper::running(&place.data) else {
                return stop_orphans(self, place, progress);
            };
            return Err(Failure::ours(format!("the keeper (process {pid}) does not answer")).hint(
                format!("kill -9 {pid}, then `pressroom down` again: a new one adopts what runs"),
            ));
        }
        let step = progress.begin("stop the keeper");
        match keeper::call(&place.keeper_socket(), &Request::Shutdown) {
            Ok(_) | Err(_)
                if wait_for(Duration::from_secs(90), || keeper::running(&place.data).is_none()) =>
            {
                step.done("");
                Ok(Stopped::Now)
            }
            _ => {
                step.failed("it still runs");
                Err(Failure::ours("the keeper did not end within 90 s").hint(format!(
                    "look at {}",
                    Layout::new(&place.data).output("keeper").display()
                )))
            }
        }
    }

    fn examine(&self, place: &Place, config: Option<&Config>) -> Vec<Check> {
        doctor::examine(&Layout::new(&place.data), config).into_iter().map(check).collect()
    }

    fn local_authority(&self, place: &Place) -> Option<PathBuf> {
        Some(Layout::new(&place.data).authority()).filter(|path| path.is_file())
    }

    fn install_unit(&self, path: &Path, text: &str) -> Result<(), Failure> {
        let failed = |error: std::io::Error| {
            Failure::yours(format!("cannot install {}", path.display())).cause(error)
        };
        files::write(path, text.as_bytes(), 0o644, None).map_err(failed)?;
        let unit =
            path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        for arguments in [vec!["daemon-reload"], vec!["enable", unit.as_str()]] {
            let output = Command::new("systemctl").args(&arguments).output().map_err(|error| {
                failed(error)
                    .state("the unit file is written")
                    .hint("is this machine run by systemd?")
            })?;
            if !output.status.success() {
                return Err(Failure::ours(format!("systemctl {} failed", arguments.join(" ")))
                    .cause(String::from_utf8_lossy(&output.stderr).trim())
                    .state("the unit file is written"));
            }
        }
        Ok(())
    }

    fn enter(&self, place: &Place, spec: &ProcessSpec) -> Result<u8, Failure> {
        let value = |name: &str| Some((name.to_owned(), std::env::var(name).ok()?));
        let terminal = ["TERM", "COLUMNS", "LINES", "NO_COLOR"].into_iter().filter_map(value);
        let status = pressroom_agent::site::enter(&place.data, spec, terminal);
        let status = status.map_err(|error| {
            Failure::ours(format!("`{}` cannot be started", spec.program.display())).cause(error)
        })?;
        // As shells have it.
        let signal = status.signal().map(|signal| signal.saturating_add(128));
        Ok(status.code().or(signal).and_then(|code| u8::try_from(code).ok()).unwrap_or(2))
    }

    fn program(&self) -> PathBuf {
        host::own_program().unwrap_or_else(|_| "pressroom".into())
    }

    fn run(&self, role: Role, place: &Place) -> Result<(), Failure> {
        match role {
            Role::Keeper => {
                furnish(&place.data)?;
                roles::keeper(place)
            }
            Role::Agent => roles::agent(place, self.facts(place)),
            Role::Edge => roles::edge(place),
            Role::Sql => roles::sql(place),
            Role::Dns => roles::dns(place),
        }
    }
}

/// Why a machine did not join, and what to do where the cause does not say it.
fn not_joined(error: JoiningError) -> Failure {
    let hint = match &error {
        JoiningError::Wire(WireError::Unreached { .. }) => Some(
            "nodes must reach each other on all their ports, 7400 to 7407 where nobody said otherwise: look at firewalls and routes",
        ),
        JoiningError::Founding(FoundingError::Address { .. }) => Some(crate::nodes::ADDRESS_HINT),
        _ => None,
    };
    let failure =
        Failure::yours("this machine could not join").cause(error).state("nothing was started");
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn names(packages: &[Package]) -> Vec<&str> {
    packages.iter().map(|package| package.name.as_str()).collect()
}

/// A finding as the API has it.
pub(crate) fn check(finding: doctor::Finding) -> Check {
    let state = match finding.grade {
        Grade::Good => CheckState::Good,
        Grade::Warning => CheckState::Warning,
        Grade::Bad => CheckState::Bad,
    };
    Check { check: finding.check.into(), state, detail: finding.detail, hint: finding.hint }
}

/// The keeper died and left children: a new one adopts them and stops them.
fn stop_orphans(
    machine: &ThisMachine,
    place: &Place,
    progress: &Progress,
) -> Result<Stopped, Failure> {
    let state = place.data.join("run/keeper.json");
    if !state.exists() {
        return Ok(Stopped::Already);
    }
    progress.note("the keeper is gone; a new one takes over what it left");
    machine.start_keeper(place)?;
    machine.stop_keeper(place, progress)
}

/// Makes the folders of a data directory, and refuses one of a newer layout.
fn furnish(data: &Path) -> Result<(), Failure> {
    let layout = Layout::new(data);
    let failed = |error: std::io::Error| {
        Failure::yours(format!("cannot use the data directory {}", data.display()))
            .cause(error)
            .hint("choose another with --data, or mend its permissions")
    };
    files::folder(data, 0o755, None).map_err(failed)?;
    if let Ok(text) = std::fs::read(layout.version()) {
        let found = serde_json::from_slice::<serde_json::Value>(&text)
            .ok()
            .and_then(|value| value.get("version")?.as_u64());
        if found != Some(layout::VERSION.into()) {
            let found =
                found.map_or("an unknown layout".into(), |version| format!("layout {version}"));
            return Err(Failure::yours(format!("{} has {found}", data.display()))
                .cause(format!("this Pressroom knows layout {}", layout::VERSION))
                .state("nothing was changed")
                .hint("use the newer Pressroom that made it"));
        }
    }
    for (folder, mode) in [
        (layout.run(), 0o755),
        (layout.secrets(), 0o700),
        (layout.releases(), 0o700),
        (layout.sites(), 0o711),
        (data.join("engines"), 0o755),
        (data.join("store"), 0o700),
        (data.join("tls"), 0o755),
        (data.join("snapshot"), 0o755),
        (layout.logs(), 0o711),
        (layout.run().join("php"), 0o755),
        (layout.run().join("affirm"), 0o755),
    ] {
        files::folder(&folder, mode, None).map_err(failed)?;
    }
    let version = format!("{{\"version\":{}}}\n", layout::VERSION);
    files::write(&layout.version(), version.as_bytes(), 0o644, None).map_err(failed)?;
    Ok(())
}
