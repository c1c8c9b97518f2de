//! A process that is killed while it writes loses nothing that it was told is written.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use pressroom_store::key::{Key, Prefix};
use pressroom_store::{Store, transaction::Transaction};

use crate::Opened;

const CHILD: &str = "PRESSROOM_TEST_STORE";

/// Not a test of its own: what the killed process does. Does nothing unless it is that process.
#[tokio::test]
async fn child_writes_until_it_is_killed() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let opened = Opened::at(path.as_ref()).await;
    let from = opened.store.list(&Prefix::all()).await.expect("a listing").entries.len();
    for n in from.. {
        let both = Transaction::new()
            .put(format!("n/{n:08}").parse().expect("a key"), vec![b'x'; n % 5000])
            .put(Key::literal("last"), n.to_string());
        assert!(opened.store.commit(both).await.expect("a commit").is_committed());
        let mut out = std::io::stdout().lock();
        writeln!(out, "\nwritten {n}").expect("somebody listens");
    }
}

/// Starts the child, reads what it says is written, and kills it after `writes` of them.
fn write_and_kill(path: &std::path::Path, writes: usize) -> usize {
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args([
            "--exact",
            "crash::child_writes_until_it_is_killed",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(CHILD, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("a child");
    let out = BufReader::new(child.stdout.take().expect("its output"));
    let mut last = None;
    let written = out
        .lines()
        .map_while(Result::ok)
        .filter_map(|l| l.strip_prefix("written ").and_then(|n| n.parse().ok()));
    for (seen, n) in written.enumerate() {
        last = Some(n);
        if seen + 1 == writes {
            child.kill().expect("it was running");
        }
    }
    child.wait().expect("its end");
    last.expect("it wrote something")
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_to_kill_9() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("state.redb");
    for round in 1..=6 {
        let acknowledged = write_and_kill(&path, round * 7);
        let opened = Opened::at(&path).await;
        let listing = opened.store.list(&"n".parse().expect("a prefix")).await.expect("a listing");
        let last =
            opened.store.get(&Key::literal("last")).await.expect("an answer").expect("it is there");
        let last: usize = String::from_utf8_lossy(&last.value).parse().expect("a number");
        assert!(last >= acknowledged, "{last} is there, {acknowledged} was acknowledged");
        let names: Vec<_> = listing
            .entries
            .iter()
            .map(|e| e.key.name().parse::<usize>().expect("a number"))
            .collect();
        assert!(
            names.contains(&acknowledged) && names.contains(&last),
            "both keys of a transaction, or none"
        );
        assert!(
            listing
                .entries
                .iter()
                .all(|e| e.value.len() == e.key.name().parse::<usize>().expect("a number") % 5000)
        );
        opened.close().await;
    }
}
