//! A private Garage: an object store that speaks S3, where it is installed (`PRESSROOM_GARAGE`, else in `PATH`).

use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pressroom_runtime::clock;
use tempfile::TempDir;

/// The public part of its key.
pub(crate) const ID: &str = "GK0123456789abcdef01234567";
/// The secret part of its key.
pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
/// Its bucket.
pub(crate) const BUCKET: &str = "uploads";

pub(crate) struct Garage {
    program: PathBuf,
    enter: Vec<String>,
    place: TempDir,
    address: SocketAddr,
    child: Option<Child>,
}

/// A file with its key.
pub(crate) fn key() -> String {
    format!("aws_access_key_id = {ID}\naws_secret_access_key = {SECRET}\n")
}

/// Where it is installed; `None`, and said: nowhere.
pub(crate) fn program() -> Option<PathBuf> {
    let named = std::env::var_os("PRESSROOM_GARAGE").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut installed = std::env::split_paths(&path).map(|folder| folder.join("garage"));
    let program = named.or_else(|| installed.find(|it| it.is_file()));
    if program.is_none() {
        eprintln!("passed over: no `garage` in PATH, and no PRESSROOM_GARAGE");
    }
    program
}

/// An address that is free now, and most likely still in a moment.
pub(crate) fn free() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("bound")
}

impl Garage {
    /// Starts one that answers there; `enter` are words before its command, such as those that enter a network namespace. `None`:
    /// there is none.
    pub(crate) fn start(address: SocketAddr, enter: &[&str]) -> Option<Self> {
        let program = program()?;
        let place = tempfile::tempdir().expect("a folder");
        let rpc = SocketAddr::new(address.ip(), free().port());
        let folder = place.path().display();
        let text = format!(
            "metadata_dir = \"{folder}/meta\"\ndata_dir = \"{folder}/data\"\ndb_engine = \"sqlite\"\nreplication_factor = 1\n\
             rpc_bind_addr = \"{rpc}\"\nrpc_public_addr = \"{rpc}\"\nrpc_secret = \"{SECRET}\"\n\
             [s3_api]\ns3_region = \"garage\"\napi_bind_addr = \"{address}\"\n"
        );
        std::fs::write(place.path().join("garage.toml"), text).expect("written");
        let enter = enter.iter().map(|&word| word.to_owned()).collect();
        let mut garage = Self { program, enter, place, address, child: None };
        garage.run();
        Some(garage)
    }

    /// Starts it again.
    pub(crate) fn run(&mut self) {
        let mut log = std::fs::OpenOptions::new();
        let log = log.create(true).append(true).open(self.place.path().join("log")).expect("made");
        let mut command = self.command(&self.program);
        command
            .args(["-c", "garage.toml", "server", "--single-node", "--default-bucket"])
            .current_dir(self.place.path())
            .env("GARAGE_DEFAULT_ACCESS_KEY", ID)
            .env("GARAGE_DEFAULT_SECRET_KEY", SECRET)
            .env("GARAGE_DEFAULT_BUCKET", BUCKET)
            .stdout(Stdio::null())
            .stderr(log);
        self.child = Some(command.spawn().expect("started"));
        let deadline = clock::now() + Duration::from_secs(60);
        while !self.answers() {
            assert!(clock::now() < deadline, "garage does not answer:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it wrote, with a line for each request.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.place.path().join("log")).unwrap_or_default()
    }

    fn answers(&self) -> bool {
        let mut curl = self.command(Path::new("curl"));
        curl.args(["-s", "-m", "2", "-o", "/dev/null"]).arg(format!("http://{}/", self.address));
        curl.status().expect("curl runs").success()
    }

    /// A program where the store is.
    fn command(&self, program: &Path) -> Command {
        let mut words = self.enter.iter().map(OsStr::new).chain([program.as_os_str()]);
        let mut command = Command::new(words.next().expect("there is the program"));
        command.args(words);
        command
    }

    /// Kills it.
    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("killed");
            child.wait().expect("ended");
        }
    }
}

impl Drop for Garage {
    fn drop(&mut self) {
        self.stop();
    }
}
