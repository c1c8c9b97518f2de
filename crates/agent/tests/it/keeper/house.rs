//! A data directory with a keeper, and the questions that the tests ask of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use pressroom_agent::keeper;
use pressroom_model::process::{
    ListenAddress, ListenerSpec, ProcessSpec, ProcessState, Reply, Request, Restart, Stop,
};
use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use super::{AGENT, DATA, ROLE, SILENCE, TAKEOVER, role_arguments};

const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for a condition that must come true.
pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "in {PATIENCE:?} it did not come true that {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A shell script as a child.
pub(crate) fn shell(data: &Path, name: &str, script: &str) -> ProcessSpec {
    ProcessSpec {
        name: name.to_owned(),
        program: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        env: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
        cwd: None,
        user: None,
        confinement: None,
        listeners: Vec::new(),
        umask: 0o022,
        open_files: None,
        output: data.join(format!("logs/{name}.log")),
        output_limit: 1 << 20,
        stop: Stop::default(),
        restart: Restart::Never,
    }
}

/// A child that does nothing until it is asked to stop.
pub(crate) fn sleeper(data: &Path, name: &str) -> ProcessSpec {
    shell(data, name, "exec sleep 1000")
}

/// The test binary as a child in another role.
pub(crate) fn role(data: &Path, name: &str, role: &str) -> ProcessSpec {
    let env = [(ROLE, role.to_owned()), (DATA, data.display().to_string())];
    ProcessSpec {
        program: std::env::current_exe().expect("this program"),
        args: role_arguments(),
        env: env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        ..shell(data, name, "")
    }
}

/// An address nobody has now.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port")
}

pub(crate) fn tcp(name: &str, address: SocketAddr, sockets: u16) -> ListenerSpec {
    ListenerSpec { name: name.to_owned(), address: ListenAddress::Tcp(address), sockets }
}

/// What a `server` says to a new connection: its process id.
pub(crate) fn ask_server(address: SocketAddr) -> i32 {
    hear(TcpStream::connect(address).expect("connects"))
}

/// What a `server` says on a connection that may have waited for it.
pub(crate) fn hear(mut stream: TcpStream) -> i32 {
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    text.trim().parse().expect("a process id")
}

/// Whether such a process is there, as a zombie or not.
pub(crate) fn exists(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Whether such a process runs (a zombie does not: outside of a keeper somebody else has to bury it).
pub(crate) fn runs(pid: i32) -> bool {
    let Ok(text) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    text.rsplit(')')
        .next()
        .is_some_and(|rest| !matches!(rest.trim().chars().next(), Some('Z' | 'X')))
}

pub(crate) fn signal(pid: i32, signal: Signal) {
    let pid = Pid::from_raw(pid).expect("a process id");
    rustix::process::kill_process(pid, signal).expect("the process is there");
}

/// A running keeper on a data directory of its own.
pub(crate) struct House {
    folder: TempDir,
    keeper: Option<Child>,
    agent: Option<ProcessSpec>,
    silence: Option<Duration>,
}

impl House {
    /// With an agent that does nothing and may be silent.
    pub(crate) fn new() -> Self {
        let mut house = Self::empty();
        house.open();
        house
    }

    /// With an agent that `make` makes, which must not be silent for longer than `silence`.
    pub(crate) fn with_agent(silence: Duration, make: impl FnOnce(&Path) -> ProcessSpec) -> Self {
        let mut house = Self::empty();
        house.silence = Some(silence);
        house.agent = Some(make(house.data()));
        house.open();
        house
    }

    /// Without a keeper yet.
    pub(crate) fn empty() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["run", "logs"] {
            fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        Self { folder, keeper: None, agent: None, silence: None }
    }

    pub(crate) fn data(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.data().join("run/keeper.sock")
    }

    pub(crate) fn state_file(&self) -> PathBuf {
        self.data().join("run/keeper.json")
    }

    /// Starts a keeper and waits until it answers.
    pub(crate) fn open(&mut self) {
        self.keeper = Some(self.spawn_keeper(true));
        eventually("the keeper answers", || {
            let status = self.keeper.as_mut().and_then(|child| child.try_wait().expect("a child"));
            if let Some(status) = status {
                panic!("the keeper ended with {status}: {}", self.keeper_log());
            }
            keeper::call(&self.socket(), &Request::List).ok()
        });
    }

    /// Starts one more keeper; it may be refused.
    pub(crate) fn spawn_keeper(&self, takeover: bool) -> Child {
        let log = fs::File::options()
            .append(true)
            .create(true)
            .open(self.data().join("logs/keeper.log"))
            .expect("a log");
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(role_arguments()).env(ROLE, "keeper").env(DATA, self.data());
        command.env(TAKEOVER, if takeover { "yes" } else { "no" });
        if let Some(agent) = &self.agent {
            command.env(AGENT, serde_json::to_string(agent).expect("a spec"));
        }
        if let Some(silence) = self.silence {
            command.env(SILENCE, silence.as_millis().to_string());
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a descriptor")).stderr(log);
        command.spawn().expect("starts")
    }

    pub(crate) fn keeper_log(&self) -> String {
        fs::read_to_string(self.data().join("logs/keeper.log")).unwrap_or_default()
    }

    pub(crate) fn keeper_pid(&self) -> i32 {
        self.keeper.as_ref().and_then(|child| i32::try_from(child.id()).ok()).expect("a keeper")
    }

    /// Kills the keeper as a crash would.
    pub(crate) fn kill_keeper(&mut self) {
        signal(self.keeper_pid(), Signal::KILL);
        self.wait_for_keeper();
    }

    /// Waits until the keeper has ended.
    pub(crate) fn wait_for_keeper(&mut self) -> ExitStatus {
        let mut child = self.keeper.take().expect("a keeper");
        eventually("the keeper ends", || child.try_wait().expect("a child"))
    }

    pub(crate) fn ask(&self, request: &Request) -> Reply {
        keeper::call(&self.socket(), request).expect("the keeper answers")
    }

    /// Asks for something that must be done.
    pub(crate) fn tell(&self, request: &Request) {
        assert_eq!(self.ask(request), Reply::Done, "{request:?}");
    }

    /// Starts something that must start.
    pub(crate) fn start(&self, spec: &ProcessSpec) -> i32 {
        match self.ask(&Request::Start { spec: Box::new(spec.clone()) }) {
            Reply::Started { pid } => pid,
            other => panic!("{}: {other:?}", spec.name),
        }
    }

    /// Asks for something that must be refused.
    pub(crate) fn refusal(&self, request: &Request) -> String {
        match self.ask(request) {
            Reply::Refused { because } => because,
            other => panic!("{request:?} was not refused: {other:?}"),
        }
    }

    pub(crate) fn refused_start(&self, spec: &ProcessSpec) -> String {
        self.refusal(&Request::Start { spec: Box::new(spec.clone()) })
    }

    pub(crate) fn list(&self) -> (u64, Vec<ProcessState>, Vec<ListenerSpec>) {
        match self.ask(&Request::List) {
            Reply::Listed { generation, processes, listeners, .. } => {
                (generation, processes, listeners)
            }
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn find(&self, name: &str) -> Option<ProcessState> {
        self.list().1.into_iter().find(|process| process.spec.name == name)
    }

    /// The process once it has ended.
    pub(crate) fn ended(&self, name: &str) -> ProcessState {
        eventually(&format!("{name} ends"), || {
            self.find(name).filter(|process| process.pid.is_none())
        })
    }

    /// The first line that a file in `logs` has, once it has one.
    pub(crate) fn line(&self, file: &str) -> String {
        let path = self.data().join("logs").join(file);
        eventually(&format!("{file} has a line"), || {
            let text = fs::read_to_string(&path).ok()?;
            text.split_once('\n').map(|(line, _)| line.to_owned())
        })
    }

    pub(crate) fn pid_in(&self, file: &str) -> i32 {
        self.line(file).trim().parse().expect("a process id")
    }

    /// Direct children of the keeper, zombies too.
    pub(crate) fn children_of_keeper(&self) -> Vec<i32> {
        let parent = format!("PPid:\t{}\n", self.keeper_pid());
        let pids = fs::read_dir("/proc")
            .expect("/proc")
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid: &i32| {
            fs::read_to_string(format!("/proc/{pid}/status"))
                .is_ok_and(|text| text.contains(&parent))
        })
        .collect()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        // First, so that it starts nobody any more.
        if let Some(mut keeper) = self.keeper.take() {
            let _ = keeper.kill();
            let _ = keeper.wait();
        }
        let pids: Vec<i64> = fs::read(self.state_file())
            .ok()
            .and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok())
            .and_then(|state| {
                Some(
                    state
                        .get("processes")?
                        .as_array()?
                        .iter()
                        .filter_map(|process| process.get("pid")?.as_i64())
                        .collect(),
                )
            })
            .unwrap_or_default();
        for pid in pids
            .into_iter()
            .filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok().filter(|pid| *pid > 1)?))
        {
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
        if std::thread::panicking() {
            eprintln!("the keeper's log:\n{}", self.keeper_log());
        }
    }
}
