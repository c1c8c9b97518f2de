//! Nodes without a network: real folders and ledgers, told of each other by calls.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;
use pressroom_media::exchange::Stamp;
use pressroom_media::folder::{Folder, Heard};
use pressroom_media::journal::Journal;
use pressroom_media::ledger::{Entry, Ledger};
use pressroom_media::tree::Tree;
use tempfile::TempDir;

const SECOND: i64 = 1_000_000_000;

/// A clock that all share and that never stands still.
pub(crate) fn now() -> i64 {
    static NOW: AtomicI64 = AtomicI64::new(2_000_000_000 * SECOND);
    NOW.fetch_add(SECOND, Ordering::Relaxed)
}

/// A node whose agent runs.
pub(crate) struct Node {
    place: TempDir,
    ledger: Arc<Mutex<Ledger>>,
    journal: Mutex<Journal>,
    room: AtomicU64,
}

/// A node whose agent does not run.
pub(crate) struct Stopped(TempDir);

/// Files as they are expected.
pub(crate) fn map(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

impl Stopped {
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.0.path().join("uploads").join(path)
    }

    pub(crate) fn cut_journal(&self, bytes: u64) {
        let file = std::fs::OpenOptions::new().write(true).open(self.0.path().join("journal"));
        let file = file.expect("there");
        let length = file.metadata().expect("seen").len();
        file.set_len(length - bytes).expect("cut");
    }

    pub(crate) fn make_folder_anew(&self) {
        // Beside each other for a moment, so that they have different numbers.
        std::fs::rename(self.path(""), self.0.path().join("former")).expect("moved");
        std::fs::create_dir(self.path("")).expect("made");
    }

    pub(crate) fn start(self) -> Node {
        let (journal, ledger) = Journal::read(self.0.path().join("journal")).expect("read");
        let (ledger, journal) = (Arc::new(Mutex::new(ledger)), Mutex::new(journal));
        let node = Node { place: self.0, ledger, journal, room: AtomicU64::new(u64::MAX) };
        node.look();
        node
    }
}

impl Node {
    pub(crate) fn new() -> Self {
        // In memory where there is such a place: each file that is put is synced.
        let place = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let place = place.expect("a folder");
        std::fs::create_dir(place.path().join("uploads")).expect("made");
        Stopped(place).start()
    }

    pub(crate) fn folder(&self) -> Folder {
        let tree = Tree::new(self.path(""), None);
        Folder { tree, ledger: Arc::clone(&self.ledger), kept: self.place.path().join("kept") }
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.place.path().join("uploads").join(path)
    }

    pub(crate) fn place(&self) -> &std::path::Path {
        self.place.path()
    }

    /// Looks at everything.
    pub(crate) fn look(&self) {
        self.folder().look(now()).expect("looked");
        self.journal.lock().write(&mut self.ledger.lock()).expect("written");
    }

    pub(crate) fn write_at(&self, path: &str, text: &str, mtime: i64) {
        let stamp = Stamp { size: text.len() as u64, mtime };
        self.folder().tree.put(path, stamp, text.as_bytes()).expect("put").expect("whole");
        assert!(self.folder().see(path, now()).expect("seen"));
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        self.write_at(path, text, now());
    }

    pub(crate) fn delete(&self, path: &str) {
        self.folder().tree.delete(path).expect("deleted");
        assert!(self.folder().see(path, now()).expect("seen"));
    }

    pub(crate) fn stop(self) -> Stopped {
        self.journal.lock().write(&mut self.ledger.lock()).expect("written");
        Stopped(self.place)
    }

    pub(crate) fn files(&self) -> BTreeMap<String, String> {
        let listing = self.folder().tree.list().expect("a list");
        let read = |path: &String| std::fs::read_to_string(self.path(path)).expect("read");
        listing.files.keys().map(|path| (path.clone(), read(path))).collect()
    }

    pub(crate) fn kept(&self) -> Vec<String> {
        let Ok(kept) = std::fs::read_dir(self.place.path().join("kept")) else { return Vec::new() };
        kept.flatten().map(|it| std::fs::read_to_string(it.path()).expect("read")).collect()
    }

    pub(crate) fn remembered(&self) -> usize {
        let is_gone = |entry: &&Entry| matches!(entry, Entry::Gone(..));
        self.ledger.lock().entries().values().filter(is_gone).count()
    }

    pub(crate) fn forget(&self, all_heard: i64) -> usize {
        self.ledger.lock().forget(all_heard);
        self.remembered()
    }

    pub(crate) fn fill_up_after(&self, bytes: u64) {
        self.room.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn make_room(&self) {
        self.fill_up_after(u64::MAX);
    }
}

/// Bytes that fail as a full disk does.
struct Filling<R> {
    from: R,
    room: u64,
}

impl<R: Read> Read for Filling<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.room == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let most = into.len().min(usize::try_from(self.room).unwrap_or(usize::MAX));
        let length = self.from.read(&mut into[..most])?;
        self.room -= length as u64;
        Ok(length)
    }
}

/// One node tells the other everything.
pub(crate) fn tell(from: &Node, to: &Node) -> io::Result<()> {
    let offers = from.ledger.lock().offers(None, 700);
    for offer in offers {
        let mut heard = Heard::default();
        to.folder().hear(&offer, now(), &mut heard)?;
        for path in heard.wanted.files {
            let (file, _) = from.folder().tree.read(&path)?;
            let bytes = Filling { from: file, room: to.room.load(Ordering::Relaxed) };
            to.folder().receive(&path, &offer.files[&path], bytes, now())?;
        }
    }
    to.journal.lock().write(&mut to.ledger.lock())
}

/// Both tell each other everything.
pub(crate) fn meet(one: &Node, two: &Node) {
    tell(one, two).expect("told");
    tell(two, one).expect("told");
}
