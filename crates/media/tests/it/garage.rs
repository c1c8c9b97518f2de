//! A private Garage: an object store that speaks S3, where it is installed (`PRESSROOM_GARAGE`, else in `PATH`).

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pressroom_runtime::clock;
use tempfile::TempDir;

const ID: &str = "GK0123456789abcdef01234567";
/// The secret part of its key.
pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
/// Its bucket.
pub(crate) const BUCKET: &str = "uploads";

pub(crate) struct Garage {
    program: PathBuf,
    place: TempDir,
    address: SocketAddr,
    child: Option<Child>,
}

/// A file with its key.
pub(crate) fn key() -> String {
    format!("aws_access_key_id = {ID}\naws_secret_access_key = {SECRET}\n")
}

fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("PRESSROOM_GARAGE") {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("garage")).find(|it| it.is_file())
}

/// An address that is free now, and most likely still in a moment.
pub(crate) fn free() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("bound")
}

impl Garage {
    /// Starts one that answers there; `None`: there is none.
    pub(crate) fn start(address: SocketAddr) -> Option<Self> {
        let Some(program) = program() else {
            eprintln!("passed over: no `garage` in PATH, and no PRESSROOM_GARAGE");
            return None;
        };
        let place = tempfile::tempdir().expect("a folder");
        let rpc = free();
        let folder = place.path().display();
        let text = format!(
            "metadata_dir = \"{folder}/meta\"\ndata_dir = \"{folder}/data\"\ndb_engine = \"sqlite\"\nreplication_factor = 1\n\
             rpc_bind_addr = \"{rpc}\"\nrpc_public_addr = \"{rpc}\"\nrpc_secret = \"{SECRET}\"\n\
             [s3_api]\ns3_region = \"garage\"\napi_bind_addr = \"{address}\"\n"
        );
        std::fs::write(place.path().join("garage.toml"), text).expect("written");
        let mut garage = Self { program, place, address, child: None };
        garage.run();
        Some(garage)
    }

    /// Starts it again.
    pub(crate) fn run(&mut self) {
        let log = std::fs::File::create(self.place.path().join("log")).expect("made");
        let mut command = Command::new(&self.program);
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
        while TcpStream::connect(self.address).is_err() {
            let log = std::fs::read_to_string(self.place.path().join("log")).unwrap_or_default();
            assert!(clock::now() < deadline, "garage does not answer:\n{log}");
            std::thread::sleep(Duration::from_millis(20));
        }
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
