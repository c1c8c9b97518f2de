//! A bounded load of anonymous readers, logged-in readers and people who comment, and what became of every request.
//!
//! A request fails when there is no whole answer within the visitor's patience, or its status is 500 or above. What was
//! acknowledged is remembered, so that it can be looked for afterwards.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::visitor::Visitor;

/// Who sent a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// Reads stored pages.
    Anonymous,
    /// Reads pages that PHP makes for each request.
    LoggedIn,
    /// Writes.
    Commenter,
}

/// One request and what became of it.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) who: Who,
    pub(crate) began: Instant,
    pub(crate) took: Duration,
    /// Why it failed, if it did.
    pub(crate) failure: Option<String>,
    /// Nobody listened.
    pub(crate) was_refused: bool,
    pub(crate) cache: String,
}

/// A running load.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<(Vec<Sample>, Vec<String>)>>,
}

static COMMENTS: AtomicUsize = AtomicUsize::new(0);

impl Load {
    /// Starts two anonymous readers, one who is logged in and one who comments on `post`: each a request every 25 to 60 ms.
    pub(crate) fn start(reader: &Visitor, editor: &Visitor, post: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let spawn = |who: Who, visitor: &Visitor, pause: u64| {
            let (stop, mut visitor) = (Arc::clone(&stop), visitor.clone());
            visitor.patience = Duration::from_secs(10);
            std::thread::spawn(move || {
                let (mut samples, mut acknowledged) = (Vec::new(), Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    let (sample, words) = one(who, &mut visitor, post);
                    samples.push(sample);
                    acknowledged.extend(words);
                    std::thread::sleep(Duration::from_millis(pause));
                }
                (samples, acknowledged)
            })
        };
        let threads = vec![
            spawn(Who::Anonymous, reader, 25),
            spawn(Who::Anonymous, reader, 30),
            spawn(Who::LoggedIn, editor, 50),
            spawn(Who::Commenter, editor, 60),
        ];
        Self { stop, threads }
    }

    /// Ends it: every request in the order of its beginning, and the words of every acknowledged comment.
    pub(crate) fn end(self) -> (Vec<Sample>, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let (mut samples, mut acknowledged) = (Vec::new(), Vec::new());
        for thread in self.threads {
            let (more, words) = thread.join().expect("the load does not panic");
            samples.extend(more);
            acknowledged.extend(words);
        }
        samples.sort_by_key(|sample| sample.began);
        (samples, acknowledged)
    }
}

fn one(who: Who, visitor: &mut Visitor, post: u64) -> (Sample, Option<String>) {
    let began = Instant::now();
    let words = format!("remark number {} of this run", COMMENTS.fetch_add(1, Ordering::Relaxed));
    let answer = match who {
        Who::Anonymous => visitor.try_get("/"),
        Who::LoggedIn => visitor.try_get("/wp-admin/profile.php"),
        Who::Commenter => {
            let post = post.to_string();
            let fields = [
                ("comment_post_ID", post.as_str()),
                ("comment", words.as_str()),
                ("comment_parent", "0"),
            ];
            visitor.try_post("/wp-comments-post.php", &fields)
        }
    };
    let expected: &[u16] = if who == Who::Commenter { &[302] } else { &[200] };
    let was_refused = matches!(&answer, Err(error) if error.kind() == ErrorKind::ConnectionRefused);
    let (failure, cache) = match answer {
        Ok(answer) if expected.contains(&answer.status) => (None, answer.cache().to_owned()),
        Ok(answer) => (Some(format!("status {}", answer.status)), answer.cache().to_owned()),
        Err(error) => (Some(error.to_string()), String::new()),
    };
    let acknowledged = (who == Who::Commenter && failure.is_none()).then_some(words);
    (Sample { who, began, took: began.elapsed(), failure, was_refused, cache }, acknowledged)
}
