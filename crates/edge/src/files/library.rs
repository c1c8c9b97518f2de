//! What is known of a site's files: small ones are kept whole, and coded once; every one is checked at most once a
//! second, so a changed file is seen within that time.
//!
//! Always: at most [`MOST_BYTES`] of content and [`MOST_ENTRIES`] entries; what was not asked for lately goes first.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::HeaderValue;
use parking_lot::{Mutex, RwLock};

use super::folder::{Folder, Mark};
use super::kind;
use crate::compress::{Encoding, is_compressible};
use crate::route::{Kind, Probe, Tree};

/// Files up to this size are kept.
pub const SMALL: u64 = 256 * 1024;
const MOST_BYTES: u64 = 64 << 20;
const MOST_ENTRIES: usize = 8192;
const FRESH: Duration = Duration::from_secs(1);
/// Smaller files are not worth coding.
const CODE_FROM: u64 = 512;

/// The two folders of a site.
pub struct Library {
    root: Place,
    uploads: Place,
    entries: [RwLock<HashMap<Box<str>, Entry>>; 2],
    bytes: AtomicU64,
    coding: Mutex<()>,
    epoch: Instant,
}

/// A folder that is opened once it can be.
struct Place {
    path: PathBuf,
    folder: OnceLock<Folder>,
}

impl Place {
    fn new(path: &Path) -> Self {
        let place = Self { path: path.to_owned(), folder: OnceLock::new() };
        if let Err(error) = place.open() {
            tracing::warn!(path = %path.display(), %error, "a folder of files cannot be opened yet");
        }
        place
    }

    fn open(&self) -> std::io::Result<&Folder> {
        if let Some(folder) = self.folder.get() {
            return Ok(folder);
        }
        let folder = Folder::open(&self.path)?;
        Ok(self.folder.get_or_init(|| folder))
    }
}

struct Entry {
    kind: Kind,
    file: Option<Arc<Known>>,
    checked_ms: AtomicU64,
    used: AtomicBool,
}

impl Entry {
    fn is_fresh(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.checked_ms.load(Ordering::Relaxed)) < FRESH.as_millis() as u64
    }
}

/// A file as it was when it was last looked at.
pub struct Known {
    /// Size and time.
    pub mark: Mark,
    /// `ETag` of the plain bytes.
    pub etag: HeaderValue,
    /// `Last-Modified`.
    pub modified: HeaderValue,
    /// `Content-Type`.
    pub content_type: HeaderValue,
    /// Whether codings are worth it.
    pub is_text: bool,
    /// The bytes by coding; a big file has none.
    variants: [OnceLock<Variant>; 4],
    coding_begun: AtomicBool,
}

/// Bytes in one coding, with what their answer needs.
#[derive(Debug, Clone)]
pub struct Variant {
    /// The bytes.
    pub bytes: Bytes,
    /// `Content-Length`.
    pub length: HeaderValue,
    /// `ETag` of this coding.
    pub etag: HeaderValue,
}

impl Known {
    fn new(path: &str, mark: Mark) -> Self {
        let content_type = kind::content_type(path);
        let time =
            SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(mark.seconds).unwrap_or(0));
        Self {
            etag: etag(&mark, ""),
            modified: value(httpdate::fmt_http_date(time)),
            content_type: HeaderValue::from_static(content_type),
            is_text: is_compressible(content_type) && mark.length >= CODE_FROM,
            mark,
            variants: Default::default(),
            coding_begun: AtomicBool::new(false),
        }
    }

    /// The bytes in a coding, when they are there.
    pub fn variant(&self, encoding: Encoding) -> Option<&Variant> {
        self.variants[encoding as usize].get()
    }

    fn keep(&self, encoding: Encoding, bytes: Vec<u8>) {
        let suffix = encoding.token().map(|t| format!("-{t}")).unwrap_or_default();
        let variant = Variant {
            length: HeaderValue::from(bytes.len()),
            etag: etag(&self.mark, &suffix),
            bytes: bytes.into(),
        };
        let _ = self.variants[encoding as usize].set(variant);
    }

    fn weight(&self) -> u64 {
        self.variants.iter().filter_map(OnceLock::get).map(|v| v.bytes.len() as u64).sum()
    }
}

fn etag(mark: &Mark, suffix: &str) -> HeaderValue {
    value(format!("\"{:x}{:08x}-{:x}{suffix}\"", mark.seconds, mark.nanoseconds, mark.length))
}

fn value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("made of digits and letters")
}

impl Library {
    /// Opens a site's folders. One that cannot be opened has no files, and is tried again by whoever asks for one.
    pub fn open(root: &Path, uploads: &Path) -> Self {
        Self {
            root: Place::new(root),
            uploads: Place::new(uploads),
            entries: Default::default(),
            bytes: AtomicU64::new(0),
            coding: Mutex::new(()),
            epoch: Instant::now(),
        }
    }

    fn folder(&self, tree: Tree) -> Option<&Folder> {
        let place = match tree {
            Tree::Root => &self.root,
            Tree::Uploads => &self.uploads,
        };
        place.open().ok()
    }

    fn now_ms(&self) -> u64 {
        self.epoch.elapsed().as_millis() as u64
    }

    /// The file at a path, as it is now or was within the last second.
    pub fn find(&self, tree: Tree, path: &str) -> Option<Arc<Known>> {
        self.with(tree, path, |entry| entry.file.clone())
    }

    fn with<T>(&self, tree: Tree, path: &str, take: impl Fn(&Entry) -> T) -> T {
        let now = self.now_ms();
        let entries = &self.entries[tree as usize];
        if let Some(entry) = entries.read().get(path)
            && entry.is_fresh(now)
        {
            entry.used.store(true, Ordering::Relaxed);
            return take(entry);
        }
        let (kind, mark) = self.folder(tree).map_or((Kind::Missing, None), |f| f.look(path));
        let mut entries = entries.write();
        if let Some(entry) = entries.get(path)
            && entry.kind == kind
            && entry.file.as_ref().map(|f| f.mark) == mark
        {
            entry.checked_ms.store(now, Ordering::Relaxed);
            return take(entry);
        }
        let file = mark.map(|mark| Arc::new(Known::new(path, mark)));
        let entry =
            Entry { kind, file, checked_ms: AtomicU64::new(now), used: AtomicBool::new(true) };
        let result = take(&entry);
        if entries.len() >= MOST_ENTRIES {
            self.forget(&mut entries);
        }
        if let Some(Entry { file: Some(old), .. }) = entries.insert(path.into(), entry) {
            self.bytes
                .fetch_sub(old.weight().min(self.bytes.load(Ordering::Relaxed)), Ordering::Relaxed);
        }
        result
    }

    /// Drops what was not used since the last time; everything, if that is not enough.
    fn forget(&self, entries: &mut HashMap<Box<str>, Entry>) {
        let before = entries.len();
        entries.retain(|_, entry| entry.used.swap(false, Ordering::Relaxed));
        if entries.len() > before * 3 / 4 {
            entries.clear();
        }
        self.bytes.store(
            entries.values().filter_map(|e| e.file.as_ref()).map(|f| f.weight()).sum(),
            Ordering::Relaxed,
        );
    }

    /// Reads a small file, and whatever coded copies lie beside it. Blocking.
    pub fn load(&self, tree: Tree, path: &str, known: &Known) -> std::io::Result<()> {
        let folder = self.folder(tree).ok_or(std::io::ErrorKind::NotFound)?;
        let bytes = read(folder, path, known.mark.length.max(1))?;
        if bytes.len() as u64 != known.mark.length {
            return Err(std::io::ErrorKind::Interrupted.into());
        }
        if known.is_text {
            for (encoding, suffix) in
                [(Encoding::Brotli, "br"), (Encoding::Zstd, "zst"), (Encoding::Gzip, "gz")]
            {
                let beside = format!("{path}.{suffix}");
                // An older copy belongs to an older file.
                if let (Kind::File, Some(mark)) = folder.look(&beside)
                    && mark.seconds >= known.mark.seconds
                    && let Ok(coded) = read(folder, &beside, SMALL)
                {
                    self.bytes.fetch_add(coded.len() as u64, Ordering::Relaxed);
                    known.keep(encoding, coded);
                }
            }
        }
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        known.keep(Encoding::Identity, bytes);
        if self.bytes.load(Ordering::Relaxed) > MOST_BYTES {
            self.forget(&mut self.entries[tree as usize].write());
        }
        Ok(())
    }

    /// Whether the caller should code this file now; says yes once.
    pub fn should_code(&self, known: &Known) -> bool {
        known.is_text
            && !known.coding_begun.load(Ordering::Relaxed)
            && !known.coding_begun.swap(true, Ordering::Relaxed)
    }

    /// Codes a kept file, one at a time. Blocking and slow: not on a serving thread.
    pub fn code(&self, known: &Known) {
        let Some(plain) = known.variant(Encoding::Identity) else { return };
        let _one_at_a_time = self.coding.lock();
        for encoding in [Encoding::Gzip, Encoding::Brotli, Encoding::Zstd] {
            if known.variant(encoding).is_some() {
                continue;
            }
            if let Ok(coded) = encoding.encode(&plain.bytes)
                && coded.len() < plain.bytes.len()
            {
                self.bytes.fetch_add(coded.len() as u64, Ordering::Relaxed);
                known.keep(encoding, coded);
            }
        }
    }

    /// Opens a file for streaming. Blocking.
    pub fn open_file(&self, tree: Tree, path: &str) -> std::io::Result<(std::fs::File, Mark)> {
        self.folder(tree).ok_or(std::io::ErrorKind::NotFound)?.read(path)
    }
}

fn read(folder: &Folder, path: &str, most: u64) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let (file, mark) = folder.read(path)?;
    let mut bytes = Vec::with_capacity(mark.length.min(most) as usize);
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl Probe for Library {
    fn kind(&self, tree: Tree, path: &str) -> Kind {
        self.with(tree, path, |entry| entry.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_comes_later_is_served() {
        let dir = tempfile::tempdir().expect("a folder");
        let uploads = dir.path().join("uploads");
        let library = Library::open(dir.path(), &uploads);
        assert!(library.find(Tree::Uploads, "early.txt").is_none());
        std::fs::create_dir(&uploads).expect("made");
        std::fs::write(uploads.join("a.txt"), "a").expect("written");
        assert!(library.find(Tree::Uploads, "a.txt").is_some());
    }
}
