//! Renders and saves interleaved at every step: no page is ever both old and called fresh.
//!
//! The probe plugin stops a request at a named step while a file asks for it; the test saves, or reads, meanwhile.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::house::{House, signal, wait_until};
use crate::stored::with_probe;
use crate::visitor::Visitor;

/// Holds one step of requests while it lives.
struct Hold {
    hold: PathBuf,
    held: PathBuf,
}

impl Hold {
    fn at(house: &House, step: &str) -> Self {
        let folder = house.data.join("sites/blog/uploads/probe");
        let (hold, held) =
            (folder.join(format!("hold-{step}")), folder.join(format!("held-{step}")));
        let _absent = fs::remove_file(&held);
        fs::write(&hold, "").expect("the file that holds");
        fs::set_permissions(&hold, fs::Permissions::from_mode(0o666)).expect("its mode");
        Self { hold, held }
    }

    /// Whether a request stands there, and in which process.
    fn worker(&self) -> Option<i32> {
        fs::read_to_string(&self.held).ok()?.parse().ok()
    }

    fn wait(&self) -> i32 {
        wait_until("a request that stands at its step", Duration::from_secs(15), || {
            self.worker().is_some()
        });
        self.worker().expect("its process")
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let _gone = fs::remove_file(&self.hold);
    }
}

fn save(editor: &mut Visitor, title: &str) {
    let answer = editor.rest("/wp/v2/posts/1", &serde_json::json!({ "title": title }));
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// From now on nobody may get a page without `title` that is called fresh, and soon everybody gets the new one.
fn is_new_from_now_on(house: &House, title: &str, step: &str) {
    let start = Instant::now();
    let mut reader = house.visitor("blog");
    loop {
        let page = reader.get("/");
        let is_new = page.body.contains(title);
        assert!(
            is_new || page.cache() != "hit",
            "{step}: an old page is called fresh: {}",
            page.header("cache-status")
        );
        if is_new && page.cache() == "hit" {
            return;
        }
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{step}: `{}` for ever: {}",
            page.cache(),
            page.header("cache-status")
        );
    }
}

#[test]
fn a_save_during_a_render_never_leaves_an_old_page_that_is_called_fresh() {
    let (house, mut editor) = with_probe("workers = 6");
    let steps = [
        "plugins_loaded",
        "init",
        "wp",
        "template_redirect",
        "loop_start",
        "loop_end",
        "wp_footer",
        "shutdown",
    ];
    for (number, step) in steps.into_iter().enumerate() {
        // A page that nobody has asked for yet, so that this visitor's request renders.
        let old = format!("Old {step} {number}");
        save(&mut editor, &old);
        is_new_from_now_on(&house, &old, step);
        let held = Hold::at(&house, &format!("read-{step}"));
        save(&mut editor, &format!("{old} again"));
        let mut first = house.visitor("blog");
        let render = std::thread::spawn(move || first.get("/"));
        held.wait();
        let new = format!("New {step} {number}");
        save(&mut editor, &new);
        drop(held);
        render.join().expect("the first visitor");
        is_new_from_now_on(&house, &new, step);
    }
}

#[test]
fn a_render_during_a_save_never_leaves_an_old_page_that_is_called_fresh() {
    let (house, editor) = with_probe("workers = 6");
    for step in ["before", "committed", "hook", "shutdown"] {
        let mut reader = house.visitor("blog");
        wait_until("a hit", Duration::from_secs(10), || reader.get("/").cache() == "hit");
        let held = Hold::at(&house, &format!("save-{step}"));
        let title = format!("Saved while read at {step}");
        let (mut saver, words) = (editor.clone(), title.clone());
        let saving = std::thread::spawn(move || save(&mut saver, &words));
        held.wait();
        for _ in 0..5 {
            reader.get("/");
            std::thread::sleep(Duration::from_millis(50)); // renders of the refresh end
        }
        drop(held);
        saving.join().expect("the save is acknowledged");
        is_new_from_now_on(&house, &title, step);
    }
}

#[test]
fn a_worker_killed_during_a_save_leaves_no_old_page_that_is_called_fresh() {
    let (house, editor) = with_probe("workers = 6");
    for step in ["committed", "hook", "shutdown"] {
        let mut reader = house.visitor("blog");
        wait_until("a hit", Duration::from_secs(10), || reader.get("/").cache() == "hit");
        let held = Hold::at(&house, &format!("save-{step}"));
        let title = format!("Saved by a worker killed at {step}");
        let (mut saver, words) = (editor.clone(), title.clone());
        let saving = std::thread::spawn(move || {
            saver.rest("/wp/v2/posts/1", &serde_json::json!({ "title": words })).status
        });
        let worker = held.wait();
        signal(worker, Signal::KILL);
        drop(held);
        let status = saving.join().expect("an answer, whatever it says");
        let kept = house.php("blog", "echo get_post( 1 )->post_title;");
        println!("{step}: the editor got {status}, the database has `{kept}`");
        is_new_from_now_on(&house, kept.trim(), step);
    }
}
