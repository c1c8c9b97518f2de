//! Whether this node may hold floating addresses: what keepalived asks once a second.
//!
//! Its edge must run (one that the kernel has stopped does not) and answer a visitor's question within [`PATIENCE`], whatever it answers:
//! a node that was drained leaves by its configuration. Its agent must have been at work within [`AGENT`]: one that stands still would
//! mend nothing here. An agent that is started again is back long before that.
//!
//! A process of its own that asks nobody but the edge: the answer holds while agent and keeper are gone.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use pressroom_runtime::clock;

use crate::host;

/// The word by which our program is called for this.
pub const WORD: &str = "fit";
/// Longest wait for the edge's answer; all of a look has to end within keepalived's second.
const PATIENCE: Duration = Duration::from_millis(600);
/// Between two looks at a process: one that is being replaced is there again then.
const AGAIN: Duration = Duration::from_millis(150);
/// An agent that was not at work for so long stands still, or nobody starts it again.
const AGENT: Duration = Duration::from_secs(20);

/// How it is called: the edge's control socket, the file that the agent touches, where the edge serves plain HTTP, and whether it
/// expects the PROXY protocol there.
pub(super) fn arguments(
    control: &Path,
    alive: &Path,
    http: Option<(SocketAddr, bool)>,
) -> Vec<String> {
    let mut words =
        vec![WORD.to_owned(), control.display().to_string(), alive.display().to_string()];
    words.extend(http.iter().map(|(address, _)| address.to_string()));
    words.extend(http.filter(|(_, proxy)| *proxy).map(|_| "proxy".to_owned()));
    words
}

/// Exits well if the node is fit, else says why not.
pub fn run(words: impl Iterator<Item = OsString>) -> ExitCode {
    let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    match look(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(because) => {
            eprintln!("not fit to hold addresses: {because}");
            ExitCode::FAILURE
        }
    }
}

fn look(words: &[String]) -> Result<(), String> {
    let [control, alive, rest @ ..] = words else { return Err("called wrongly".into()) };
    let begun = clock::now();
    runs(Path::new(control))?;
    let answered = match rest.first().map(|address| address.parse::<SocketAddr>()) {
        None => by_control(Path::new(control)),
        Some(Ok(address)) => by_http(address, rest.len() > 1),
        Some(Err(error)) => return Err(error.to_string()),
    };
    answered.map_err(|error| format!("the edge does not answer: {error}"))?;
    is_at_work(Path::new(alive))?;
    // The other half of the second.
    std::thread::sleep(Duration::from_millis(500).saturating_sub(begun.elapsed()));
    runs(Path::new(control))
}

/// Whether the edge's process is there and not stopped.
fn runs(control: &Path) -> Result<(), String> {
    let look = || -> Result<(), String> {
        let socket = UnixStream::connect(control).map_err(|error| format!("no edge: {error}"))?;
        let owner = rustix::net::sockopt::socket_peercred(&socket);
        let pid = owner.map_err(|error| error.to_string())?.pid.as_raw_nonzero().get();
        match host::stat(pid) {
            Some(stat) if stat.is_stopped() => Err("the edge is stopped".into()),
            _ => Ok(()),
        }
    };
    look().or_else(|_| {
        std::thread::sleep(AGAIN);
        look()
    })
}

fn by_http(address: SocketAddr, proxy: bool) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    if proxy {
        stream.write_all(b"PROXY UNKNOWN\r\n")?;
    }
    answers(stream, "/heartbeat.html")
}

fn by_control(control: &Path) -> io::Result<()> {
    let stream = UnixStream::connect(control)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    answers(stream, "/status")
}

/// Any answer is one.
fn answers(mut stream: impl Read + Write, path: &str) -> io::Result<()> {
    let asked = format!("GET {path} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n");
    stream.write_all(asked.as_bytes())?;
    let mut begin = [0; 9];
    stream.read_exact(&mut begin)?;
    match begin.starts_with(b"HTTP/1.") {
        true => Ok(()),
        false => Err(io::Error::other("that is no HTTP")),
    }
}

fn is_at_work(alive: &Path) -> Result<(), String> {
    let touched = std::fs::metadata(alive).and_then(|file| file.modified());
    let touched = touched.map_err(|error| format!("no sign of the agent: {error}"))?;
    // A sign from the future is one: a clock was set back.
    match touched.elapsed() {
        Ok(age) if age > AGENT => Err(format!("no sign of the agent for {} s", age.as_secs())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;

    /// Answers each connection with these bytes, for as long as the test runs.
    fn serve(listener: TcpListener, answer: &'static [u8]) {
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut asked = [0; 512];
                let _ = stream.read(&mut asked);
                let _ = stream.write_all(answer);
            }
        });
    }

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        (listener, address)
    }

    #[test]
    fn a_node_is_fit_while_its_edge_answers_and_its_agent_is_at_work() {
        let folder = tempfile::tempdir().expect("a folder");
        let (control, alive) = (folder.path().join("control.sock"), folder.path().join("alive"));
        let (well, serving) = listener();
        serve(well, b"HTTP/1.1 503 Service Unavailable\r\n\r\n");
        let (odd, speaking) = listener();
        serve(odd, b"SSH-2.0-x\r\n");
        let (_silent, accepting) = listener();
        let is_fit =
            |address: SocketAddr| look(&arguments(&control, &alive, Some((address, false)))[1..]);
        let why = |address| is_fit(address).expect_err("not fit");
        assert!(why(serving).contains("no edge"));
        let _edge = UnixListener::bind(&control).expect("a socket");
        assert!(why(serving).contains("no sign of the agent"));
        std::fs::write(&alive, "").expect("written");
        assert_eq!(is_fit(serving), Ok(()));
        assert!(why(speaking).contains("no HTTP"));
        assert!(why(accepting).contains("does not answer"));
        let file = std::fs::File::options().write(true).open(&alive).expect("the file");
        let old = std::time::SystemTime::UNIX_EPOCH;
        file.set_modified(old).expect("touched");
        assert!(why(serving).contains("no sign of the agent for"));
    }
}
