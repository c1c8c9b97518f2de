//! `pressroom lab`: hosts on this machine that can be cut off, killed and started, and a cluster made of them.
//!
//! Root only. Every lab is in a folder and on a bridge of its own, and is taken down again also after a panic.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::house::{is_root, wait_until};

/// A lab, and what a test does to it.
pub(crate) struct Lab {
    folder: tempfile::TempDir,
    /// What `lab up --json` printed.
    pub(crate) made: Value,
    _alone: File,
}

impl Lab {
    /// So many hosts that serve, in the zones a, b and c; `None` where nobody may make one.
    pub(crate) fn up(nodes: usize, further: &[&str]) -> Option<Self> {
        if !is_root() {
            eprintln!("only root makes network namespaces; no claim");
            return None;
        }
        let lock = Path::new(env!("CARGO_TARGET_TMPDIR")).join("house.lock");
        let alone = File::create(&lock).expect("the lock file");
        alone.lock().expect("to be the only test with a house");
        let folder = tempfile::Builder::new().prefix("pressroom-lab-").tempdir_in("/tmp");
        let folder = folder.expect("a folder");
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("an open folder");
        let mut lab = Self { folder, made: Value::Null, _alone: alone };
        let nodes = nodes.to_string();
        let words = [&["up", "--yes", "--json", "--nodes", &nodes], further].concat();
        lab.made = serde_json::from_str(&lab.must(&words)).expect("JSON");
        Some(lab)
    }

    /// Its folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs `pressroom lab`.
    pub(crate) fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pressroom"));
        command.arg("--data").arg(self.folder.path()).arg("lab").args(words);
        command.stdin(Stdio::null()).output().expect("the binary runs")
    }

    /// Runs `pressroom lab` with words that must succeed; what it printed.
    pub(crate) fn must(&self, words: &[&str]) -> String {
        succeeded(&words.join(" "), &self.run(words))
    }

    /// A node, by its number from 1 on.
    pub(crate) fn node(&self, number: usize) -> &Value {
        &self.made["nodes"][number - 1]
    }

    /// `pressroom` on a node, for its data directory.
    pub(crate) fn on(&self, number: usize, words: &[&str]) -> Output {
        let node = self.node(number);
        let (name, data) = (text(&node["name"]), text(&node["data"]));
        let program = [env!("CARGO_BIN_EXE_pressroom"), "--data", data];
        self.run(&[&["exec", name, "--"], &program[..], words].concat())
    }

    /// The same, and it must succeed.
    pub(crate) fn must_on(&self, number: usize, words: &[&str]) -> String {
        succeeded(&format!("n{number}: {}", words.join(" ")), &self.on(number, words))
    }

    /// The status that a visitor at the place `from` (a node or `client`) gets from a node; 0: it cannot be reached.
    pub(crate) fn visit(&self, from: &str, number: usize, path: &str) -> u16 {
        let output = self.ask(from, number, &["-o", "/dev/null", "-w", "%{http_code}"], path);
        String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or(0)
    }

    /// What a visitor at the place `from` gets from a node, with further words for `curl`.
    pub(crate) fn fetch(&self, from: &str, number: usize, options: &[&str], path: &str) -> String {
        String::from_utf8_lossy(&self.ask(from, number, options, path).stdout).into_owned()
    }

    fn ask(&self, from: &str, number: usize, options: &[&str], path: &str) -> Output {
        self.ask_at(from, text(&self.node(number)["address"]), options, path)
    }

    /// What a visitor at the place `from` gets at an address, with further words for `curl`.
    pub(crate) fn fetch_at(
        &self,
        from: &str,
        address: &str,
        options: &[&str],
        path: &str,
    ) -> String {
        String::from_utf8_lossy(&self.ask_at(from, address, options, path).stdout).into_owned()
    }

    fn ask_at(&self, from: &str, address: &str, options: &[&str], path: &str) -> Output {
        let host = text(&self.made["site"]["host"]);
        let resolve = format!("{host}:443:{address}");
        let url = format!("https://{host}{path}");
        let curl = [
            "exec",
            from,
            "--",
            "curl",
            "-sk",
            "--connect-timeout",
            "3",
            "-m",
            "10",
            "--resolve",
            &resolve,
        ];
        self.run(&[&curl[..], options, &[&url]].concat())
    }

    /// Prints what each node said last: a test that fails now and then, elsewhere, has nothing else to tell.
    fn testify(&self) {
        for node in self.made["nodes"].as_array().into_iter().flatten() {
            let log = Path::new(text(&node["data"])).join("logs/agent.log");
            let said = fs::read_to_string(log).unwrap_or_default();
            let lines: Vec<&str> = said.lines().collect();
            eprintln!("-- {} said last:", text(&node["name"]));
            lines[lines.len().saturating_sub(60)..].iter().for_each(|line| eprintln!("{line}"));
        }
    }

    /// What the machine still has of it: namespaces, interfaces, processes, mounts.
    pub(crate) fn left(&self) -> Vec<String> {
        let netns = text(&self.made["client"]["netns"]);
        let mark = netns.strip_prefix("pr").and_then(|rest| rest.split('-').next());
        let mark = mark.expect("a mark").to_owned();
        let names = |folder: &str, mark: &str| -> Vec<String> {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
            names.filter(|name| name.contains(mark)).collect()
        };
        let mut left = names("/run/netns", &mark);
        left.extend(names("/sys/class/net", &mark));
        left.extend(processes_of(self.folder.path()));
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let of_it = |line: &&str| line.contains(&*self.folder.path().to_string_lossy());
        left.extend(mounts.lines().filter(of_it).map(str::to_owned));
        left
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.testify();
        }
        let output = self.run(&["down"]);
        if !output.status.success() {
            eprintln!("lab down: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

fn succeeded(words: &str, output: &Output) -> String {
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "`{words}`: {}\n{out}{err}", output.status);
    out.into_owned()
}

/// A value that is text.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// The command lines of all processes that name this folder.
pub(crate) fn processes_of(folder: &Path) -> Vec<String> {
    let folder = folder.to_string_lossy().into_owned();
    let lines = fs::read_dir("/proc").expect("/proc").flatten().filter_map(|entry| {
        let _number: i32 = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    lines.filter(|line| line.contains(&folder)).collect()
}

#[test]
fn hosts_of_a_lab_are_cut_off_healed_killed_and_started_and_nothing_is_left_of_them() {
    let Some(lab) = Lab::up(2, &["--zones", "a,b", "--standalone"]) else { return };
    let (one, two) = (lab.node(1)["name"].clone(), lab.node(2)["name"].clone());
    let (one, two) = (text(&one), text(&two));
    assert_eq!(lab.node(2)["zone"], "b");
    assert_eq!((lab.visit("client", 1, "/"), lab.visit(one, 2, "/")), (200, 200));
    assert_eq!(lab.must(&["exec", one, "--", "hostname"]).trim(), one);
    let status: Value = serde_json::from_str(&lab.must_on(1, &["status", "--json"])).expect("JSON");
    assert_eq!(status["sites"][0]["name"], lab.made["site"]["name"]);
    assert_eq!(lab.run(&["exec", one, "--", "sh", "-c", "exit 7"]).status.code(), Some(7));

    lab.must(&["cut", "zone:b"]);
    lab.must(&["cut", "zone:b"]);
    assert_eq!((lab.visit("client", 2, "/"), lab.visit(one, 2, "/")), (0, 0));
    assert_eq!((lab.visit("client", 1, "/"), lab.visit(two, 2, "/")), (200, 200));
    lab.must(&["heal", two]);
    lab.must(&["heal", two]);
    wait_until("it is reached again", Duration::from_secs(5), || lab.visit(one, 2, "/") == 200);

    // The agent would put another edge in the place of one that does not answer.
    lab.must(&["freeze", two, "--process", "agent"]);
    assert_eq!(lab.visit("client", 2, "/"), 200);
    lab.must(&["freeze", two, "--process", "edge"]);
    assert_eq!(lab.visit("client", 2, "/"), 0);
    lab.must(&["thaw", two]);
    wait_until("it goes on", Duration::from_secs(5), || lab.visit("client", 2, "/") == 200);

    lab.must(&["kill", one]);
    assert_eq!(processes_of(&lab.folder().join(one)), Vec::<String>::new());
    lab.must(&["kill", one]);
    assert_eq!((lab.visit("client", 1, "/"), lab.visit("client", 2, "/")), (0, 200));
    assert_eq!(lab.run(&["exec", one, "--", "true"]).status.code(), Some(1));
    lab.must(&["start", one]);
    wait_until("it serves again", Duration::from_secs(20), || lab.visit("client", 1, "/") == 200);

    lab.must(&["down"]);
    lab.must(&["down"]);
    wait_until("nothing is left", Duration::from_secs(10), || lab.left().is_empty());
    assert_eq!(fs::read_dir(lab.folder()).expect("the folder").count(), 0);
}
