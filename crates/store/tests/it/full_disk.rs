//! A disk that is full costs the writes that do not fit, and nothing once there is room again.
//!
//! The disk is played by the limit on a file's size, in a process of its own whose parent ignores the limit's signal.

use std::process::Command;

use pressroom_store::key::Prefix;
use pressroom_store::{Store, transaction::Transaction};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::{Opened, put};

const CHILD: &str = "PRESSROOM_TEST_STORE_FULL";

fn limit(bytes: Option<u64>) {
    setrlimit(Resource::Fsize, Rlimit { current: bytes, maximum: None }).expect("a limit");
}

/// Not a test of its own: what the limited process does. Does nothing unless it is that process.
#[tokio::test]
async fn child_fills_its_disk() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let opened = Opened::at(path.as_ref()).await;
    limit(Some(4 << 20));
    let mut acknowledged = Vec::new();
    let error = loop {
        let name = format!("n/{}", acknowledged.len());
        let big = Transaction::new().put(name.parse().expect("a key"), vec![7; 100_000]);
        match opened.store.commit(big).await {
            Ok(_) => acknowledged.push(name),
            Err(error) => break error,
        }
        assert!(acknowledged.len() < 1000, "the limit holds");
    };
    assert!(error.is_passing(), "{error}");
    assert!(opened.store.list(&Prefix::all()).await.is_ok(), "reading goes on");

    limit(None);
    put(&opened.store, "after", "there is room again").await;
    let listing = opened.store.list(&Prefix::all()).await.expect("a listing");
    let names: Vec<String> = listing.entries.iter().map(|e| e.key.to_string()).collect();
    assert!(acknowledged.iter().all(|name| names.contains(name)), "{names:?}");
    assert!(!acknowledged.is_empty() && names.contains(&"after".to_owned()));
    opened.close().await;
    println!("\nhealed");
}

#[test]
fn a_full_disk_is_an_error_and_passes() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" --exact full_disk::child_fills_its_disk --nocapture --test-threads=1"])
        .arg(std::env::current_exe().expect("this test"))
        .env(CHILD, folder.path().join("state.redb"))
        .output()
        .expect("a child");
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success() && said.contains("healed"),
        "{said}\n{}",
        String::from_utf8_lossy(&out.stderr)
    );
}
