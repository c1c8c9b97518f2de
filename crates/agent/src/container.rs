//! The second way to confine a site's PHP: a container of Docker's instead of what the keeper does itself.
//!
//! The keeper's child is Docker's client in the foreground: it passes signals on (SIGQUIT lets php-fpm finish its requests), and ends
//! when the container does. What must be seen in a container is what [`crate::confinement`] names; only the programs come from
//! an [`image`]. Limits and the refused system calls are the same.
//!
//! The container does not end when its client is killed. So each has a name, by which the next start takes the old one away
//! ([`Docker::make_room`]), and a label, by which containers without a client are found ([`watch`]). When the daemon is gone, its
//! containers and their sockets are not: the edge goes on using them, and nothing can be started until it is back.

pub mod entrance;
pub mod image;
mod watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use pressroom_model::config::Config;
use pressroom_model::confinement::{Access, Confinement, Place};
use pressroom_model::process::UserIds;

use crate::confinement::SYSTEM;
use crate::engine::{self, Error, docker as daemon};
use crate::files;
use crate::host;
use crate::keeper;
use crate::layout::Layout;

/// Where its client may be.
const CLIENTS: [&str; 2] = ["/usr/bin/docker", "/usr/local/bin/docker"];
/// Seconds for a question that the daemon answers at once.
const PATIENCE: &str = "30";
/// Our label on every container; its value is of the data directory.
const LABEL: &str = "pressroom";

/// A machine's Docker, as far as it is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Docker {
    socket: PathBuf,
    /// The client's own configuration: nobody's.
    folder: PathBuf,
    /// What our containers' names begin with.
    prefix: String,
}

/// What the agent knows of containers.
#[derive(Debug, Default)]
pub(crate) struct Containers {
    /// The daemon's socket.
    pub socket: PathBuf,
    /// Whether that daemon is ours to run.
    pub is_own: bool,
    /// The images that are there, by PHP version.
    pub images: BTreeMap<String, String>,
}

impl Containers {
    /// Finds out which daemon it is.
    pub(crate) fn choose(&mut self, layout: &Layout, config: &Config) {
        (self.socket, self.is_own) = daemon::choose(layout, config.node.docker.as_deref());
    }
}

/// A container that somebody may have left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its id.
    pub id: String,
    /// The process at the keeper that it belongs to.
    pub process: String,
}

/// What a container is made for.
#[derive(Debug)]
pub struct Inside<'a> {
    /// The keeper's name of it.
    pub process: &'a str,
    /// What programs there are.
    pub image: &'a str,
    /// Who it is.
    pub user: &'a UserIds,
    /// What it sees and takes.
    pub confinement: &'a Confinement,
    /// Its environment.
    pub env: &'a BTreeMap<String, String>,
    /// The program and its arguments.
    pub command: &'a [String],
    /// The mask for permissions of new files.
    pub umask: u32,
}

impl Docker {
    /// The one behind this socket.
    pub fn new(layout: &Layout, socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
            folder: layout.engine("docker"),
            prefix: keeper::name_of(layout.data()),
        }
    }

    /// Its client.
    pub fn client() -> Result<PathBuf, Error> {
        engine::program(&CLIENTS)
    }

    /// What every call of the client has in its environment.
    pub fn variables(&self) -> [(String, String); 1] {
        [("DOCKER_CONFIG".to_owned(), self.folder.display().to_string())]
    }

    fn host(&self) -> [String; 2] {
        ["--host".to_owned(), format!("unix://{}", self.socket.display())]
    }

    fn name(&self, process: &str) -> String {
        format!("{}-{process}", self.prefix)
    }

    /// A call of the client that takes as long as it takes.
    fn command(&self) -> Result<Command, Error> {
        let mut command = Command::new(Self::client()?);
        command.env_clear().envs(self.variables()).env("PATH", "/usr/bin:/bin").args(self.host());
        Ok(command)
    }

    /// Asks something that is answered at once.
    fn ask(&self, arguments: &[&str]) -> Result<String, Error> {
        let mut command = Command::new("/usr/bin/timeout");
        command.arg(PATIENCE).arg(Self::client()?);
        command.env_clear().envs(self.variables()).env("PATH", "/usr/bin:/bin").args(self.host());
        engine::answer("docker", &format!("`{}`", arguments.join(" ")), command.args(arguments))
    }

    /// The daemon's version, if it answers.
    pub fn version(&self) -> Result<String, Error> {
        self.ask(&["version", "--format", "{{.Server.Version}}"])
    }

    fn has_image(&self, tag: &str) -> Result<bool, Error> {
        Ok(!self.ask(&["image", "ls", "--quiet", tag])?.is_empty())
    }

    /// Takes away what a former start of this name left.
    pub fn make_room(&self, process: &str) -> Result<(), Error> {
        self.remove(&self.name(process))
    }

    /// Ends a container at once; one that is not there is no error.
    pub fn remove(&self, container: &str) -> Result<(), Error> {
        match self.ask(&["rm", "--force", container]) {
            Err(Error::Refused { said, .. })
                if said.contains("No such container") || said.contains("already in progress") =>
            {
                Ok(())
            }
            other => other.map(drop),
        }
    }

    /// All our containers, running or not.
    pub fn containers(&self) -> Result<Vec<Found>, Error> {
        let filter = format!("label={LABEL}={}", self.prefix);
        let format = "{{.ID}} {{.Names}}";
        let list = self.ask(&["ps", "--all", "--filter", &filter, "--format", format])?;
        let found = |line: &str| {
            let (id, name) = line.split_once(' ')?;
            let process = name.strip_prefix(&self.prefix)?.strip_prefix('-')?.to_owned();
            Some(Found { id: id.to_owned(), process })
        };
        Ok(list.lines().filter_map(found).collect())
    }

    /// Writes what the client reads, and says how it is called to run the container in the foreground.
    pub fn run(&self, inside: &Inside<'_>) -> Result<Vec<String>, Error> {
        files::folder(&self.folder, 0o700, None)?;
        let filter = match keeper::docker_filter() {
            Some(filter) => {
                let path = self.folder.join("calls.json");
                files::write(&path, filter.to_string().as_bytes(), 0o600, None)?;
                Some(path)
            }
            None => None,
        };
        let most_files = keeper::most_open_files().min(OPEN_FILES);
        let own = host::own_program()?;
        Ok(self.arguments(inside, (&own, filter.as_deref()), most_files, Path::exists))
    }

    fn arguments(
        &self,
        inside: &Inside<'_>,
        (own, filter): (&Path, Option<&Path>),
        most_files: u64,
        exists: impl Fn(&Path) -> bool,
    ) -> Vec<String> {
        let mut all: Vec<String> = self.host().into();
        all.extend(FIXED.iter().map(|&word| word.to_owned()));
        let mut add = |name: &str, value: String| all.push(format!("--{name}={value}"));
        add("name", self.name(inside.process));
        add("label", format!("{LABEL}={}", self.prefix));
        add("user", format!("{}:{}", inside.user.uid, inside.user.gid));
        for group in &inside.user.groups {
            add("group-add", group.to_string());
        }
        add("ulimit", format!("nofile={most_files}:{most_files}"));
        if let Some(filter) = filter {
            add("security-opt", format!("seccomp={}", filter.display()));
        }
        let limits = inside.confinement.limits;
        if let Some(bytes) = limits.memory {
            add("memory", bytes.to_string());
            add("memory-swap", bytes.to_string());
        }
        if let Some(tasks) = limits.tasks {
            add("pids-limit", tasks.to_string());
        }
        if let Some(percent) = limits.cpu_percent {
            add("cpus", format!("{}.{:02}", percent / 100, percent % 100));
        }
        let places = inside.confinement.view.iter().flat_map(|view| &view.places);
        for place in places {
            if let Some((name, value)) = option(place, &exists) {
                add(name, value);
            }
        }
        let own = quoted(&format!("source={}", own.display()));
        add("mount", format!("type=bind,{own},target={},readonly", entrance::PROGRAM));
        for (name, value) in inside.env {
            add("env", format!("{name}={value}"));
        }
        all.push(inside.image.to_owned());
        all.push(entrance::PROGRAM.to_owned());
        all.extend(entrance::arguments(inside.confinement, inside.umask, inside.command));
        all
    }
}

/// As many as a process of ours has that is no container.
const OPEN_FILES: u64 = 16_384;

/// What is the same for every container. `/sys` is an empty folder that nobody enters.
const FIXED: [&str; 18] = [
    "run",
    "--rm",
    "--pull=never",
    "--init=false",
    "--interactive=false",
    "--sig-proxy=true",
    "--stop-signal=SIGQUIT",
    "--stop-timeout=12",
    "--log-driver=none",
    "--network=host",
    "--ipc=private",
    "--userns=host",
    "--read-only",
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
    "--tmpfs=/sys:ro,mode=0700,size=64k",
    "--workdir=/",
    "--restart=no",
];

/// A place as an option of the client; none where the image or Docker itself has it.
fn option(place: &Place, exists: impl Fn(&Path) -> bool) -> Option<(&'static str, String)> {
    match place {
        Place::Bind { to, .. } if SYSTEM.iter().any(|system| to == Path::new(system)) => None,
        Place::Bind { from, if_there: true, .. } if !exists(from) => None,
        Place::Bind { from, to, access, .. } => {
            let fields = [format!("source={}", from.display()), format!("target={}", to.display())];
            let fields = fields.map(|field| quoted(&field)).join(",");
            let readonly = if *access == Access::Write { "" } else { ",readonly" };
            Some(("mount", format!("type=bind,{fields}{readonly}")))
        }
        Place::Memory { to, bytes } if to == Path::new("/dev/shm") => {
            Some(("shm-size", bytes.to_string()))
        }
        Place::Memory { to, bytes } => Some(("tmpfs", format!("{}:size={bytes}", to.display()))),
        Place::Hidden { .. } | Place::Devices | Place::Processes => None,
    }
}

/// A field of a line of comma separated values.
fn quoted(field: &str) -> String {
    match field.contains([',', '"']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use pressroom_model::confinement::{Limits, View};

    use super::*;

    #[test]
    fn a_container_sees_the_same_places_but_for_the_system_which_is_its_image() {
        let bind = |from: &str, to: &str, access, if_there| Place::Bind {
            from: from.into(),
            to: to.into(),
            access,
            if_there,
        };
        let confinement = Confinement {
            view: Some(View {
                stage: "/d/stage".into(),
                places: vec![
                    bind("/usr", "/usr", Access::Run, true),
                    bind("/d/etc", "/etc", Access::Read, false),
                    bind("/d/mail", "/d/mail", Access::Write, true),
                    bind("/d/a,b", "/d/a,b", Access::Write, false),
                    Place::Devices,
                    Place::Processes,
                    Place::Memory { to: "/dev/shm".into(), bytes: 64 },
                ],
            }),
            own_processes: true,
            own_ipc: true,
            filters_calls: true,
            limits: Limits { memory: Some(7), tasks: Some(9), cpu_percent: Some(105) },
        };
        let docker = Docker::new(&Layout::new("/d"), Path::new("/run/docker.sock"));
        let inside = Inside {
            process: "php-blog-1",
            image: "pressroom/php:8.2-x",
            user: &UserIds { uid: 7, gid: 8, groups: vec![9] },
            confinement: &confinement,
            env: &BTreeMap::from([("LANG".to_owned(), "C.UTF-8".to_owned())]),
            command: &["/usr/sbin/php-fpm8.2".to_owned()],
            umask: 0o027,
        };
        let own = (Path::new("/bin/pressroom"), Some(Path::new("/d/calls.json")));
        let all = docker.arguments(&inside, own, 100, |path| path != Path::new("/d/mail"));
        let own: Vec<&str> = all.iter().skip(2 + FIXED.len()).map(String::as_str).collect();
        let prefix = &docker.prefix;
        assert_eq!(
            own,
            [
                &*format!("--name={prefix}-php-blog-1"),
                &*format!("--label=pressroom={prefix}"),
                "--user=7:8",
                "--group-add=9",
                "--ulimit=nofile=100:100",
                "--security-opt=seccomp=/d/calls.json",
                "--memory=7",
                "--memory-swap=7",
                "--pids-limit=9",
                "--cpus=1.05",
                "--mount=type=bind,source=/d/etc,target=/etc,readonly",
                "--mount=type=bind,\"source=/d/a,b\",\"target=/d/a,b\"",
                "--shm-size=64",
                "--mount=type=bind,source=/bin/pressroom,target=/run/pressroom-entrance,readonly",
                "--env=LANG=C.UTF-8",
                "pressroom/php:8.2-x",
                "/run/pressroom-entrance",
                "enclose",
                "27",
                "run=/usr",
                "run=/bin",
                "run=/sbin",
                "run=/lib",
                "run=/lib32",
                "run=/lib64",
                "run=/libx32",
                "write=/dev",
                "run=/usr",
                "write=/d/mail",
                "write=/d/a,b",
                "write=/dev/shm",
                "--",
                "/usr/sbin/php-fpm8.2",
            ]
        );
    }
}
