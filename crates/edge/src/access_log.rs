//! The access log: lines are collected per core and written by one thread, at most a second later.
//!
//! Always: a serving thread never touches the file. When the disk does not keep up, lines are dropped and counted, and
//! nobody waits. At 64 MiB the file becomes `….1`, and a new one begins.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pressroom_model::snapshot::{AccessLog, LogFormat};

const ROTATE: u64 = 64 << 20;
const BATCH: usize = 64 * 1024;
const DELAY: Duration = Duration::from_millis(500);

/// One answered request.
pub struct Entry<'a> {
    /// The site, if the host was known.
    pub site: &'a str,
    /// Client.
    pub address: IpAddr,
    /// Method.
    pub method: &'a str,
    /// Host as asked for.
    pub host: &'a str,
    /// Path and query.
    pub uri: &'a str,
    /// `HTTP/1.1` …
    pub protocol: &'a str,
    /// Status.
    pub status: u16,
    /// Bytes of the body.
    pub bytes: u64,
    /// Microseconds.
    pub micros: u64,
    /// What the cache said.
    pub cache: &'a str,
    /// Referer.
    pub referer: &'a str,
    /// User-Agent.
    pub agent: &'a str,
    /// The request's id.
    pub request_id: &'a str,
}

#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    /// The second for which `stamp` holds.
    second: u64,
    stamp: String,
}

enum Command {
    Lines(Vec<u8>),
    Use(Option<AccessLog>),
    Flush(std::sync::mpsc::Sender<()>),
}

/// The log.
pub struct Log {
    buffers: Vec<Mutex<Buffer>>,
    writer: SyncSender<Command>,
    dropped: AtomicU64,
}

impl Log {
    /// Starts the writing thread.
    pub fn start(cores: usize) -> std::io::Result<Self> {
        let (writer, commands) = sync_channel(256);
        std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write_all(&commands))?;
        let buffers = (0..cores.max(1)).map(|_| Mutex::default()).collect();
        Ok(Self { buffers, writer, dropped: AtomicU64::new(0) })
    }

    /// Sets where lines go.
    pub fn configure(&self, log: Option<&AccessLog>) {
        let _ = self.writer.send(Command::Use(log.cloned()));
    }

    /// Notes a request.
    pub fn note(&self, core: usize, format: LogFormat, entry: &Entry<'_>) {
        let mut buffer = self.buffers[core % self.buffers.len()].lock();
        let now = crate::cache::now();
        if buffer.second != now / 1000 {
            buffer.second = now / 1000;
            buffer.stamp = match format {
                LogFormat::Json => pressroom_runtime::clock::rfc3339(now / 1000 * 1000),
                LogFormat::Combined => combined_time(now / 1000),
            };
        }
        let Buffer { bytes, stamp, .. } = &mut *buffer;
        match format {
            LogFormat::Json => json(bytes, stamp, entry),
            LogFormat::Combined => combined(bytes, stamp, entry),
        }
        if bytes.len() >= BATCH {
            let lines = std::mem::replace(bytes, Vec::with_capacity(BATCH + 1024));
            self.give(lines);
        }
    }

    /// Gives a core's lines to the writer; called every second or so.
    pub fn flush(&self, core: usize) {
        let mut buffer = self.buffers[core % self.buffers.len()].lock();
        buffer.stamp.clear();
        buffer.second = 0;
        let lines = std::mem::take(&mut buffer.bytes);
        drop(buffer);
        if !lines.is_empty() {
            self.give(lines);
        }
    }

    /// Everything to the file, before the process ends.
    pub fn close(&self) {
        for core in 0..self.buffers.len() {
            self.flush(core);
        }
        let (done, told) = std::sync::mpsc::channel();
        if self.writer.send(Command::Flush(done)).is_ok() {
            let _ = told.recv_timeout(Duration::from_secs(2));
        }
    }

    fn give(&self, lines: Vec<u8>) {
        if self.writer.try_send(Command::Lines(lines)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Batches that the disk was too slow for.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

fn write_all(commands: &Receiver<Command>) {
    let mut log: Option<(PathBuf, File, u64)> = None;
    let mut checked = Instant::now();
    while let Ok(command) = commands.recv() {
        match command {
            Command::Use(wanted) => log = wanted.and_then(|w| open(w.path)),
            Command::Flush(done) => {
                let _ = done.send(());
            }
            Command::Lines(lines) => {
                let Some((path, file, size)) = &mut log else { continue };
                if let Err(error) = file.write_all(&lines) {
                    tracing::warn!(%error, "the access log cannot be written");
                }
                *size += lines.len() as u64;
                // Somebody else may have moved it away, too.
                let is_gone = checked.elapsed() > DELAY && {
                    checked = Instant::now();
                    !path.exists()
                };
                if *size >= ROTATE || is_gone {
                    let path = path.clone();
                    if !is_gone {
                        let mut old = path.clone().into_os_string();
                        old.push(".1");
                        let _ = std::fs::rename(&path, old);
                    }
                    log = open(path);
                }
            }
        }
    }
}

fn open(path: PathBuf) -> Option<(PathBuf, File, u64)> {
    match OpenOptions::new().create(true).append(true).open(&path) {
        Ok(file) => {
            let size = file.metadata().map_or(0, |m| m.len());
            Some((path, file, size))
        }
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "the access log cannot be opened");
            None
        }
    }
}

fn json(out: &mut Vec<u8>, time: &str, e: &Entry<'_>) {
    let _ = write!(
        out,
        "{{\"time\":\"{time}\",\"site\":\"{}\",\"client\":\"{}\",\"method\":\"{}\",\"host\":\"",
        e.site, e.address, e.method
    );
    escape(out, e.host);
    out.extend_from_slice(b"\",\"uri\":\"");
    escape(out, e.uri);
    let _ = write!(
        out,
        "\",\"protocol\":\"{}\",\"status\":{},\"bytes\":{},\"us\":{},\"cache\":\"{}\",\"request\":\"{}\",\"referer\":\"",
        e.protocol, e.status, e.bytes, e.micros, e.cache, e.request_id
    );
    escape(out, e.referer);
    out.extend_from_slice(b"\",\"agent\":\"");
    escape(out, e.agent);
    out.extend_from_slice(b"\"}\n");
}

fn combined(out: &mut Vec<u8>, time: &str, e: &Entry<'_>) {
    let _ = write!(out, "{} - - [{time}] \"{} ", e.address, e.method);
    escape(out, e.uri);
    let _ = write!(out, " {}\" {} {} \"", e.protocol, e.status, e.bytes);
    escape(out, if e.referer.is_empty() { "-" } else { e.referer });
    out.extend_from_slice(b"\" \"");
    escape(out, if e.agent.is_empty() { "-" } else { e.agent });
    out.extend_from_slice(b"\"\n");
}

/// What a client says must not be able to end a line or a field.
fn escape(out: &mut Vec<u8>, text: &str) {
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend_from_slice(&[b'\\', c as u8]),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => {
                let mut utf8 = [0; 4];
                out.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes());
            }
        }
    }
}

/// `10/Oct/2026:13:55:36 +0000`.
fn combined_time(seconds: u64) -> String {
    let text = httpdate::fmt_http_date(std::time::UNIX_EPOCH + Duration::from_secs(seconds));
    // `Sun, 06 Nov 1994 08:49:37 GMT`
    let part = |range: std::ops::Range<usize>| text.get(range).unwrap_or("");
    format!("{}/{}/{}:{} +0000", part(5..7), part(8..11), part(12..16), part(17..25))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_cannot_be_forged() {
        let entry = Entry {
            site: "blog",
            address: IpAddr::from([192, 0, 2, 1]),
            method: "GET",
            host: "example.com",
            uri: "/\"x\\",
            protocol: "HTTP/1.1",
            status: 200,
            bytes: 5,
            micros: 7,
            cache: "hit",
            referer: "",
            agent: "evil\"\n{\u{1}é",
            request_id: "0123",
        };
        let mut out = Vec::new();
        json(&mut out, "2026-11-21T00:00:00Z", &entry);
        let value: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
        assert_eq!(value["agent"], "evil\"\n{\u{1}é");
        assert_eq!(value["uri"], "/\"x\\");
        assert_eq!(out.iter().filter(|b| **b == b'\n').count(), 1);
        let mut out = Vec::new();
        combined(&mut out, &combined_time(784_111_777), &entry);
        assert_eq!(
            String::from_utf8(out).expect("text"),
            "192.0.2.1 - - [06/Nov/1994:08:49:37 +0000] \"GET /\\\"x\\\\ HTTP/1.1\" 200 5 \"-\" \"evil\\\"\\u000a{\\u0001é\"\n"
        );
    }
}
