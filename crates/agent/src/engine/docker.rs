//! Docker's daemon, where sites are to run in containers and the machine runs none.
//!
//! It is private: its own folders and socket, no bridge and no rules of the machine's network, since containers use the machine's network as
//! all our processes do. It answers root alone.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Error, fingerprint, program, spec};
use crate::apply::off_the_loop;
use crate::container::Docker;
use crate::files;
use crate::layout::Layout;
use pressroom_model::process::{ProcessSpec, Stop};
use pressroom_plan::health::Answer;
use pressroom_plan::machine::DOCKER;
use rustix::mount::UnmountFlags;

/// Where the daemon's program may be.
pub const DAEMONS: [&str; 3] = ["/usr/sbin/dockerd", "/usr/bin/dockerd", "/usr/local/bin/dockerd"];
/// The socket of a daemon that the machine runs.
pub const MACHINES: &str = "/run/docker.sock";
/// Raised when it is started otherwise.
const RECIPE: &str = "1";

/// The socket of the daemon that sites' containers run under, and whether that daemon is ours to run: the one that the configuration
/// names, else the machine's, else our own. Who began with his own stays with it, since his containers are there.
pub fn choose(layout: &Layout, given: Option<&Path>) -> (PathBuf, bool) {
    let own = layout.docker();
    match given {
        Some(given) => (given.to_owned(), false),
        None if folder(layout).join("root").is_dir() => (own, true),
        None if Path::new(MACHINES).exists() => (MACHINES.into(), false),
        None => (own, true),
    }
}

fn folder(layout: &Layout) -> PathBuf {
    layout.engine(DOCKER)
}

/// Unmounts what our daemon leaves behind when it ends, so that its folders can be deleted.
pub fn unmount(layout: &Layout) {
    let run = layout.docker();
    let own = [folder(layout), run.parent().unwrap_or(&run).to_owned()];
    // The newest last: what lies upon another one goes first.
    for path in fs::read_to_string("/proc/self/mounts").unwrap_or_default().lines().rev() {
        let Some(path) = path.split(' ').nth(1).map(|path| path.replace("\\040", " ")) else {
            continue;
        };
        if own.iter().any(|own| Path::new(&path).starts_with(own))
            && let Err(error) = rustix::mount::unmount(&path, UnmountFlags::DETACH)
        {
            tracing::warn!(path, %error, "cannot unmount what Docker left");
        }
    }
}

/// The daemon that is ours.
#[derive(Debug, Clone)]
pub struct Daemon {
    layout: Layout,
}

impl Daemon {
    /// The daemon of this data directory.
    pub fn new(layout: &Layout) -> Self {
        Self { layout: layout.clone() }
    }

    /// What must be equal for the running daemon to be the wanted one.
    pub fn fingerprint(&self) -> String {
        fingerprint(&[RECIPE.as_bytes()])
    }

    /// Writes its files, and says how to start it.
    pub fn prepare(&self) -> Result<ProcessSpec, Error> {
        let daemon = program(&DAEMONS)?;
        let (folder, socket) = (folder(&self.layout), self.layout.docker());
        let run = socket.parent().unwrap_or(&folder).to_owned();
        let exec = run.join("exec");
        for path in [&folder, &folder.join("root"), &run] {
            files::folder(path, 0o700, None)?;
        }
        let config = folder.join("daemon.json");
        files::write(&config, b"{}\n", 0o600, None)?;
        // A killed daemon leaves them, and the next one takes whoever has that number now for itself.
        let pid = run.join("pid");
        for file in [&pid, &exec.join("containerd/containerd.pid")] {
            if !runs_for(file, &run) {
                let _absent = fs::remove_file(file);
            }
        }
        let named = |name: &str, path: &Path| format!("--{name}={}", path.display());
        let arguments = vec![
            named("config-file", &config),
            named("data-root", &folder.join("root")),
            named("exec-root", &exec),
            named("pidfile", &pid),
            format!("--host=unix://{}", socket.display()),
            // Containers go on without it, as with a machine's daemon that is set up well.
            "--live-restore".into(),
            "--bridge=none".into(),
            "--iptables=false".into(),
            "--ip-masq=false".into(),
        ];
        let output = self.layout.output(DOCKER);
        let mut spec = spec(DOCKER, daemon, arguments, &self.fingerprint(), output);
        spec.open_files = Some(1 << 20);
        spec.stop = Stop { signal: 15, grace_ms: 30_000 };
        Ok(spec)
    }

    /// Whether it answers.
    pub async fn probe(&self) -> Answer {
        let docker = Docker::new(&self.layout, &self.layout.docker());
        match off_the_loop(move || docker.version()).await {
            Ok(_) => Answer::Well,
            Err(error) => Answer::Badly(error.to_string()),
        }
    }
}

/// Whether the process that a file names runs, with this folder among its arguments.
fn runs_for(file: &Path, folder: &Path) -> bool {
    let pid = fs::read_to_string(file).ok().and_then(|text| text.trim().parse::<i32>().ok());
    let words = pid.and_then(|pid| fs::read(format!("/proc/{pid}/cmdline")).ok());
    words.is_some_and(|words| String::from_utf8_lossy(&words).contains(&*folder.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_daemon_is_taken_and_who_began_with_his_own_stays_with_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let layout = Layout::new(folder.path());
        let named = Path::new("/run/other.sock");
        assert_eq!(choose(&layout, Some(named)), (named.to_owned(), false));
        fs::create_dir_all(layout.engine(DOCKER).join("root")).expect("a folder");
        assert_eq!(choose(&layout, None), (layout.docker(), true));
        assert_eq!(choose(&layout, Some(named)), (named.to_owned(), false));
    }
}
