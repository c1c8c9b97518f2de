//! The keeper from outside: real keepers, real children, real signals.
//!
//! The test binary is also the keeper and the children that need more than a shell: it executes itself with [`ROLE`] set, see
//! `keeper_child`. Every test has a keeper and a data directory of its own; dropping it ends whatever is left.

mod house;
mod lives;
mod sockets;
mod succession;
mod walls;

use std::io::Write;
use std::net::TcpListener;
use std::os::fd::FromRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pressroom_agent::keeper;
use pressroom_model::process::{ProcessSpec, Request};

use house::sleeper;

/// What a re-executed test binary is.
const ROLE: &str = "PRESSROOM_TEST_ROLE";
/// Its data directory.
const DATA: &str = "PRESSROOM_TEST_DATA";
/// The agent's spec, as JSON.
const AGENT: &str = "PRESSROOM_TEST_AGENT";
/// How long the agent may be silent, in milliseconds.
const SILENCE: &str = "PRESSROOM_TEST_SILENCE_MS";
/// `no` forbids adopting.
const TAKEOVER: &str = "PRESSROOM_TEST_TAKEOVER";

/// The arguments with which the test binary becomes what `ROLE` says.
fn role_arguments() -> Vec<String> {
    ["keeper::keeper_child", "--exact", "--nocapture", "--test-threads=1"]
        .map(str::to_owned)
        .to_vec()
}

/// No test of its own: what the other tests start.
#[test]
fn keeper_child() {
    match std::env::var(ROLE).as_deref() {
        Ok("keeper") => be_keeper(),
        Ok("server") => be_server(),
        Ok("agent") => be_agent(),
        _ => {}
    }
}

fn data() -> PathBuf {
    PathBuf::from(std::env::var(DATA).expect("a data directory"))
}

fn be_keeper() {
    let agent: ProcessSpec = match std::env::var(AGENT) {
        Ok(text) => serde_json::from_str(&text).expect("the agent's spec"),
        Err(_) => sleeper(&data(), "agent"),
    };
    let mut options = keeper::Options::new(&data(), agent);
    let silence = std::env::var(SILENCE).ok().and_then(|text| text.parse().ok()).unwrap_or(60_000);
    options.silence = Duration::from_millis(silence);
    options.takeover = std::env::var(TAKEOVER).as_deref() != Ok("no");
    if let Err(error) = keeper::run(options) {
        panic!("error: {error}");
    }
}

/// Says its process id to everybody who connects to its first inherited socket.
#[expect(unsafe_code, reason = "an inherited descriptor is known by its number only")]
fn be_server() {
    let listener = unsafe { TcpListener::from_raw_fd(3) };
    loop {
        let (mut peer, _) = listener.accept().expect("accepts");
        writeln!(peer, "{}", std::process::id()).expect("answers");
    }
}

/// Gives a sign of life every 100 ms.
fn be_agent() {
    let socket: &Path = &data().join("run/keeper.sock");
    loop {
        let _ = keeper::call(socket, &Request::Alive);
        std::thread::sleep(Duration::from_millis(100));
    }
}
