//! A Docker daemon of a test's own, in its folder.
//!
//! Always: it has ended, and nothing of it is mounted, when a `Daemon` is gone.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::house::{is_root, signal, wait_until};

const DAEMON: &str = "/usr/sbin/dockerd";

/// Whether claims about containers can be judged here; says so when they cannot.
pub(crate) fn can_be_judged() -> bool {
    let can = is_root() && Path::new(DAEMON).exists();
    if !can {
        println!("not judged: containers need root and Docker's daemon (package docker.io)");
    }
    can
}

/// A daemon.
pub(crate) struct Daemon {
    pub(crate) socket: PathBuf,
    folder: PathBuf,
    process: Child,
}

impl Daemon {
    /// Starts one that keeps everything in `folder`.
    pub(crate) fn start(folder: PathBuf) -> Self {
        fs::create_dir_all(&folder).expect("its folder");
        let socket = folder.join("docker.sock");
        let process = launch(&folder, &socket);
        let daemon = Self { socket, folder, process };
        daemon.wait();
        daemon
    }

    fn wait(&self) {
        wait_until("dockerd to answer", Duration::from_secs(60), || {
            self.client(&["version"]).status.success()
        });
    }

    /// Kills it as a crash would; its containers go on. Then starts another one in its place.
    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it ended");
        // Its containerd went with it; where nobody reaps orphans, that one's id seems to be in use for ever.
        for file in ["pid", "exec/containerd/containerd.pid"] {
            let _absent = fs::remove_file(self.folder.join(file));
        }
    }

    /// Starts it again.
    pub(crate) fn start_again(&mut self) {
        self.process = launch(&self.folder, &self.socket);
        self.wait();
    }

    /// Asks it something.
    pub(crate) fn client(&self, arguments: &[&str]) -> Output {
        let host = format!("unix://{}", self.socket.display());
        let client =
            if Path::new("/usr/bin/docker").exists() { "/usr/bin/docker" } else { "docker" };
        Command::new(client).args(["--host", &host]).args(arguments).output().expect("the client")
    }

    /// The names of its containers, running or not.
    pub(crate) fn containers(&self) -> Vec<String> {
        let output = self.client(&["ps", "--all", "--format", "{{.Names}}"]);
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }
}

impl Daemon {
    /// A daemon that found one running leaves it behind.
    fn end_containerd(&self) {
        let pid = fs::read_to_string(self.folder.join("exec/containerd/containerd.pid"));
        let Some(pid) = pid.ok().and_then(|pid| pid.trim().parse::<i32>().ok()) else { return };
        let words = || fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let is_ours =
            || String::from_utf8_lossy(&words()).contains(&*self.folder.to_string_lossy());
        if is_ours() {
            signal(pid, Signal::TERM);
            wait_until("containerd to end", Duration::from_secs(10), || !is_ours());
        }
    }
}

fn launch(folder: &Path, socket: &Path) -> Child {
    let config = folder.join("daemon.json");
    fs::write(&config, "{}").expect("its configuration");
    let log = File::options().create(true).append(true).open(folder.join("log")).expect("its log");
    Command::new(DAEMON)
        .arg("--config-file")
        .arg(config)
        .arg("--data-root")
        .arg(folder.join("root"))
        .arg("--exec-root")
        .arg(folder.join("exec"))
        .arg("--pidfile")
        .arg(folder.join("pid"))
        .arg("--host")
        .arg(format!("unix://{}", socket.display()))
        // Nothing of the machine's network is touched.
        .args(["--bridge=none", "--iptables=false", "--ip-masq=false"])
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("its log"))
        .stderr(log)
        .spawn()
        .expect("dockerd starts")
}

impl Drop for Daemon {
    fn drop(&mut self) {
        signal(self.process.id().cast_signed(), Signal::TERM);
        let _ended = self.process.wait();
        self.end_containerd();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let below: Vec<&str> = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(1))
            .filter(|path| Path::new(path).starts_with(&self.folder))
            .collect();
        for path in below.into_iter().rev() {
            let _unmounted = Command::new("umount").arg(path).status();
        }
    }
}
