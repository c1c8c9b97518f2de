//! One running Pressroom with its data directory, and what a test does to it from outside.
//!
//! Always: `down` was called and no process of the data directory is left when a `House` is gone, also after a panic.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::docker::Daemon;
use crate::visitor::Visitor;

/// The administrator's password in every test.
pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// Whether this process is root: some claims can only be made then.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A port of loopback that nobody listens on.
pub(crate) fn free_port() -> u16 {
    let probe = TcpListener::bind("127.0.0.1:0").expect("a port of loopback");
    probe.local_addr().expect("its address").port()
}

/// Asks until `condition` holds, and says how long that took; panics at the deadline.
pub(crate) fn wait_until(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> bool,
) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < deadline, "waited {deadline:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    start.elapsed()
}

/// A running Pressroom.
pub(crate) struct House {
    pub(crate) data: PathBuf,
    pub(crate) http: u16,
    pub(crate) https: u16,
    pub(crate) console: u16,
    /// The Docker daemon that its sites may use. Before the folder, in which it is.
    pub(crate) docker: Option<Daemon>,
    is_mounted: bool,
    folder: tempfile::TempDir,
    _alone: File,
}

impl House {
    /// A data directory with nothing in it yet.
    pub(crate) fn empty() -> Self {
        let lock = Path::new(env!("CARGO_TARGET_TMPDIR")).join("house.lock");
        let alone = File::create(&lock).expect("the lock file");
        alone.lock().expect("to be the only test with a house");
        let folder =
            tempfile::Builder::new().prefix("pressroom-it-").tempdir_in("/tmp").expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))
            .expect("an open folder");
        let data = folder.path().join("data");
        fs::create_dir(&data).expect("the data directory");
        fs::write(folder.path().join("password"), PASSWORD).expect("the password file");
        Self {
            data,
            http: free_port(),
            https: free_port(),
            console: free_port(),
            docker: None,
            is_mounted: false,
            folder,
            _alone: alone,
        }
    }

    /// With a data directory that has so many MiB and no more. Root only.
    pub(crate) fn on_a_small_disk(mib: u32) -> Self {
        let mut house = Self::empty();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m,mode=755"), "tmpfs"])
            .arg(&house.data)
            .status();
        assert!(mounted.expect("mount runs").success(), "a small disk can be mounted");
        house.is_mounted = true;
        house
    }

    /// With a Docker daemon of its own.
    pub(crate) fn with_docker() -> Self {
        let mut house = Self::empty();
        house.docker = Some(Daemon::start(house.folder().join("docker")));
        house
    }

    /// A folder of the test's own, beside the data directory.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes `pressroom.toml`: these sites, on this house's ports.
    pub(crate) fn configure(&self, sites: &str) {
        let node = self
            .docker
            .iter()
            .map(|docker| format!("[node]\ndocker = \"{}\"\n\n", docker.socket.display()));
        let node: String = node.collect();
        let text = format!(
            "{node}[edge]\nhttp = [\"127.0.0.1:{}\"]\nhttps = [\"127.0.0.1:{}\"]\n\n[console]\nlisten = \"127.0.0.1:{}\"\n\n{sites}\n",
            self.http, self.https, self.console
        );
        fs::write(self.data.join("pressroom.toml"), text).expect("pressroom.toml");
    }

    /// Whether all of the bytecode of what a site serves is kept.
    pub(crate) fn is_compiled(&self, site: &str) -> bool {
        let serving = self.tree(site);
        let id = serving.file_name().expect("a release");
        let builds = fs::read_dir(self.data.join("bytecode")).into_iter().flatten().flatten();
        builds.into_iter().any(|build| build.path().join(id).join("whole").exists())
    }

    /// Runs a command of `pressroom` for this data directory.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_pressroom"))
            .arg("--data")
            .arg(&self.data)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("the binary runs")
    }

    /// Runs a command that must succeed; answers its standard output.
    pub(crate) fn must(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "`pressroom {}`: {}\n{}{}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// `up` in the background with what is configured.
    pub(crate) fn up(&self) {
        let password = self.folder().join("password");
        self.must(&[
            "up",
            "--yes",
            "--detach",
            "--admin-password-file",
            &password.to_string_lossy(),
        ]);
    }

    /// `status --json`.
    pub(crate) fn status(&self) -> Value {
        serde_json::from_str(&self.must(&["status", "--json"])).expect("JSON")
    }

    /// A process id in the status, by JSON pointer.
    pub(crate) fn pid(&self, pointer: &str) -> i32 {
        let status = self.status();
        let pid = status.pointer(pointer).and_then(Value::as_i64);
        pid.unwrap_or_else(|| panic!("no process id at {pointer} of {status}")) as i32
    }

    /// The process id of an engine.
    pub(crate) fn engine(&self, name: &str) -> i32 {
        let status = self.status();
        let engine = status["engines"]
            .as_array()
            .expect("engines")
            .iter()
            .find(|engine| engine["name"] == name);
        engine
            .and_then(|engine| engine["pid"].as_i64())
            .unwrap_or_else(|| panic!("no {name} in {status}")) as i32
    }

    /// Name and process id of everything that the status names.
    pub(crate) fn pids(&self) -> Vec<(String, i64)> {
        pids_in(&self.status())
    }

    /// Whether everything in the status is healthy (or busy, which is no fault).
    pub(crate) fn is_healthy(&self) -> bool {
        self.healthy_status().is_some()
    }

    /// Whether everything is healthy without this process. One status says both: right after a death it may say that
    /// all is well with what is dead, and while the agent is away there is none.
    pub(crate) fn is_healthy_without(&self, killed: i32) -> bool {
        let status = self.healthy_status();
        status
            .is_some_and(|status| pids_in(&status).iter().all(|(_, pid)| *pid != i64::from(killed)))
    }

    /// The status, if everything in it is healthy.
    fn healthy_status(&self) -> Option<Value> {
        let output = self.run(&["status", "--json"]);
        let status: Value = serde_json::from_slice(&output.stdout).ok()?;
        let fine = |value: &Value| {
            matches!(value["verdict"].as_str(), Some("healthy" | "busy")) && value["pid"].is_i64()
        };
        let all = |value: &Value| value.as_array().is_some_and(|list| list.iter().all(fine));
        let sites = status["sites"].as_array();
        let is_healthy = status["agent"]["pid"].is_i64()
            && status["keeper"]["pid"].is_i64()
            && fine(&status["edge"])
            && all(&status["engines"])
            && sites.is_some_and(|sites| sites.iter().all(|site| all(&site["instances"])));
        is_healthy.then_some(status)
    }

    /// The home URL of a site without the slash at its end.
    pub(crate) fn home(&self, site: &str) -> String {
        let status = self.status();
        let found =
            status["sites"].as_array().expect("sites").iter().find(|entry| entry["name"] == site);
        let url = found
            .and_then(|entry| entry["url"].as_str())
            .unwrap_or_else(|| panic!("no {site} in {status}"));
        url.trim_end_matches('/').to_owned()
    }

    /// Somebody new in front of a site.
    pub(crate) fn visitor(&self, site: &str) -> Visitor {
        Visitor::new(&self.home(site), &self.data.join("tls/ca.pem"))
    }

    /// The site's code as its PHP sees it.
    pub(crate) fn tree(&self, site: &str) -> PathBuf {
        let status = self.status();
        let found =
            status["sites"].as_array().expect("sites").iter().find(|entry| entry["name"] == site);
        let release =
            found.and_then(|entry| entry["release"].as_str()).expect("a release").to_owned();
        self.data.join("sites").join(site).join("releases").join(release)
    }

    /// Runs PHP of the command line as the site's user in the site's WordPress, with the names of `$arguments` set.
    pub(crate) fn php(&self, site: &str, code: &str) -> String {
        let folder = self.data.join("sites").join(site);
        let owner = fs::metadata(folder.join("uploads")).expect("the uploads folder");
        let host = self.home(site).split("//").nth(1).expect("a host").to_owned();
        let script = format!(
            "$_SERVER['HTTP_HOST'] = '{host}'; $_SERVER['HTTPS'] = 'on'; $_SERVER['REQUEST_URI'] = '/'; \
             require '{}/wp-load.php'; {code}",
            self.tree(site).display()
        );
        let mut command = Command::new("php");
        command.args(["-d", "display_errors=stderr", "-r", &script]).current_dir("/").env_clear();
        command.env("PATH", "/usr/bin:/bin").env("PRESSROOM_SITE", site);
        command.env("PRESSROOM_CONFIG", folder.join("config/site.php"));
        command.env("PRESSROOM_AFFIRM", self.data.join("run/affirm").join(site).join("edge.sock"));
        if is_root() {
            command.uid(owner.uid()).gid(owner.gid());
        }
        let output = command.output().expect("PHP runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{code}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }

    /// Processes that belong to this data directory: it is in their command line, or they have a file of it open.
    pub(crate) fn processes(&self) -> Vec<(i32, String)> {
        let data = self.data.to_string_lossy();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").expect("/proc").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let opened = fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten();
            let mut opened = opened.filter_map(|file| fs::read_link(file.path()).ok());
            if line.contains(&*data) || opened.any(|path| path.starts_with(&self.data)) {
                found.push((pid, line));
            }
        }
        found
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let output = self.run(&["down"]);
        if !output.status.success() {
            eprintln!("down: {}", String::from_utf8_lossy(&output.stderr));
        }
        for (pid, line) in self.processes() {
            eprintln!("left behind: {pid} {line}");
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        if self.is_mounted {
            let keeps =
                std::thread::panicking() && std::env::var_os("PRESSROOM_TEST_KEEP").is_some();
            let copied = self.folder.path().join("logs");
            if keeps {
                let _copied =
                    Command::new("cp").arg("-r").arg(self.data.join("logs")).arg(copied).status();
            }
            let _unmounted = Command::new("umount").args(["-l"]).arg(&self.data).status();
        }
        if std::thread::panicking() && std::env::var_os("PRESSROOM_TEST_KEEP").is_some() {
            self.folder.disable_cleanup(true);
            eprintln!("kept {}", self.folder.path().display());
        }
    }
}

/// Sends a signal to a process that this test's Pressroom runs.
pub(crate) fn signal(pid: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a process id");
    // It may be gone already: then there is nothing to do.
    let _gone = rustix::process::kill_process(pid, signal);
}

/// A copy of Debian's WordPress with files of the test's own in it, for `wordpress = { path = … }`.
pub(crate) fn tree_with(folder: &Path, files: &[(&str, &str)]) -> PathBuf {
    let tree = folder.join("tree");
    let copied = Command::new("cp")
        .args(["-rL", "/usr/share/wordpress"])
        .arg(&tree)
        .stderr(Stdio::null())
        .status();
    // Dangling links of the package are not copied, and `cp` says so by its status.
    copied.expect("cp runs");
    assert!(tree.join("wp-load.php").exists(), "the `wordpress` package is installed");
    for unwanted in ["wp-config.php", ".htaccess"] {
        let _absent = fs::remove_file(tree.join(unwanted));
    }
    for (name, text) in files {
        let path = tree.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("the file's folder");
        fs::write(path, text).expect("the file");
    }
    tree
}

fn pids_in(status: &Value) -> Vec<(String, i64)> {
    let mut pids = Vec::new();
    for name in ["keeper", "agent", "edge"] {
        pids.push((name.to_owned(), status[name]["pid"].as_i64().unwrap_or(0)));
    }
    let instances = status["sites"].as_array().expect("sites").iter();
    let instances =
        instances.flat_map(|site| site["instances"].as_array().expect("instances").iter());
    for process in status["engines"].as_array().expect("engines").iter().chain(instances) {
        let name = process["name"].as_str().or(process["id"].as_str()).expect("a name").to_owned();
        pids.push((name, process["pid"].as_i64().unwrap_or(0)));
    }
    pids
}
