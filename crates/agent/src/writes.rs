//! What a site's PHP writes beside its database: the folders where plugins may, and the list of who wrote what.
//!
//! Always: these folders belong to somebody who may be hostile and quick, and we are root. They are walked without following any
//! link, within limits, and what the site says itself is read as anybody's word.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use pressroom_model::id::{ReleaseId, SiteName};
use pressroom_model::rollout::Part;
use pressroom_model::text::plain;
use pressroom_model::writes::{Class, Refusal, SCRATCH, Written};
use pressroom_plan::writes::{is_drop_in, keeper, refused};
use pressroom_release::manifest::Manifest;
use pressroom_release::parts::parts;
use pressroom_release::releases::Releases;
use pressroom_runtime::tree;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::acl;
use crate::agent::Agent;
use crate::apply::off_the_loop;
use crate::engine::owner;
use crate::files;
use crate::site::{Error, is_ours};

/// What all scratch of a site may take, in files; more is emptied. A cache that is full is a cache that is not cleaned.
pub(crate) const MOST_SCRATCH: u64 = 512 << 20;
/// So many files and folders are counted.
const MOST_NAMES: u64 = 2_000_000;
/// Folders within folders.
const DEPTH: usize = 32;
/// So many names of a folder are told one by one.
const MOST_CHILDREN: usize = 1000;
/// So much of the site's own list is read; the must-use plugin keeps no more.
const MOST_LINES: u64 = 256 << 10;

const UPLOADS: &str = "wp-content/uploads";

/// What lies in a folder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Heap {
    files: u64,
    bytes: u64,
    newest_ms: u64,
}

impl Heap {
    fn of(path: &Path) -> Self {
        let mut heap = Self::default();
        let mut left = MOST_NAMES;
        // What went while we looked is no fault.
        let _gone = heap.add(CWD, path, DEPTH, &mut left);
        heap
    }

    fn add<P: Arg + Copy>(
        &mut self,
        at: impl AsFd,
        name: P,
        depth: usize,
        left: &mut u64,
    ) -> Result<(), Errno> {
        let found = statat(&at, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
            self.files += 1;
            self.bytes += u64::try_from(found.st_size).unwrap_or(0);
            let at_ms = u64::try_from(found.st_mtime).unwrap_or(0) * 1000;
            self.newest_ms = self.newest_ms.max(at_ms);
            return Ok(());
        }
        if depth == 0 {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = openat(&at, name, flags, Mode::empty())?;
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            if entry.file_name() == c"." || entry.file_name() == c".." {
                continue;
            }
            let Some(less) = left.checked_sub(1) else { return Ok(()) };
            *left = less;
            let _gone = self.add(&folder, entry.file_name(), depth - 1, left);
        }
        Ok(())
    }

    fn written(self, class: Class, path: String, by: Option<String>, because: &str) -> Written {
        let at_ms = (self.newest_ms > 0).then_some(self.newest_ms);
        let because = because.to_owned();
        Written { class, path, by, files: self.files, bytes: self.bytes, at_ms, because }
    }
}

impl Agent {
    /// What makes the folders that a release has links to.
    pub(crate) fn scratch_of(
        &self,
        name: &SiteName,
    ) -> Result<impl FnOnce(&Releases, &ReleaseId) -> Result<(), Error> + use<>, Error> {
        let (layout, name) = (self.layout.clone(), name.clone());
        let user = self.users.site(&name)?;
        Ok(move |releases: &Releases, id: &ReleaseId| {
            let failed = |source| Error::Code { site: name.clone(), source };
            let folder = layout.scratch(&name, id);
            for path in releases.manifest(id).map_err(failed)?.scratch() {
                let folder = folder.join(path);
                files::folder(&folder, 0o755, owner(user.as_ref()))?;
                // The edge serves what plugins keep for visitors. A file system without such lists serves what they chmod.
                if let Err(error) = acl::share(&folder) {
                    tracing::debug!(folder = %folder.display(), %error, "no default list");
                }
            }
            Ok(())
        })
    }

    /// Empties what plugins of a site keep when it is more than they may: of releases that do not serve first.
    pub(crate) fn bound_scratch(&self, name: &SiteName, serving: &ReleaseId, most: u64) {
        let all = self.layout.site(name).join("scratch");
        let mut folders: Vec<PathBuf> = children(&all).into_iter().map(|(_, path)| path).collect();
        folders.sort_by_key(|path| path.ends_with(serving.as_str()));
        let sizes: Vec<u64> = folders.iter().map(|folder| Heap::of(folder).bytes).collect();
        let bytes: u64 = sizes.iter().sum();
        if bytes <= most {
            return;
        }
        let mut left = bytes;
        for (folder, size) in folders.iter().zip(sizes).filter(|(_, size)| *size > 0) {
            if left <= most {
                break;
            }
            left -= size;
            for scratch in SCRATCH {
                if let Err(error) = tree::empty(&folder.join(scratch.path)) {
                    tracing::debug!(site = %name, %error, "scratch stays until the next look");
                }
            }
        }
        self.notice(format!(
            "`{name}`: what plugins keep in their caches grew to {} MiB and was emptied; `pressroom site writes {name}` shows who writes",
            bytes >> 20
        ));
    }

    /// Who wrote what: media, scratch, code that is no plugin's or theme's, and what was refused.
    pub async fn writes(&self, name: &SiteName) -> Result<Vec<Written>, Error> {
        let (layout, name) = (self.layout.clone(), name.clone());
        let serving = self.state.lock().sites.get(&name).and_then(|facts| facts.serving.clone());
        let version = serving.ok_or_else(|| Error::Unknown(name.clone()))?;
        let (id, root) = (version.release.id, version.means.php_root());
        let root = root.unwrap_or_else(|| layout.site_root(&name, &id)).display().to_string();
        off_the_loop(move || {
            let releases = Releases::at(layout.releases());
            let failed = |source| Error::Code { site: name.clone(), source };
            let manifest = releases.manifest(&id).map_err(failed)?;
            let parts = parts(&manifest, &releases.tree(&id));
            let mut all = media(&layout.uploads(&name), &parts);
            all.extend(scratch(&layout.scratch(&name, &id), &parts));
            all.extend(code(&manifest));
            all.extend(refused(refusals(&layout.refusals(&name))?, &root));
            Ok::<_, Error>(all)
        })
        .await
    }
}

fn names(parts: &[Part]) -> impl Iterator<Item = (&str, &str)> {
    parts.iter().map(|part| (part.name.as_str(), part.title.as_str()))
}

/// What is in a folder, by the first names in it.
fn children(folder: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut all: Vec<_> = entries
        .map(|entry| (plain(&entry.file_name().to_string_lossy()), entry.path()))
        .take(MOST_CHILDREN)
        .collect();
    all.sort();
    all
}

fn media(uploads: &Path, parts: &[Part]) -> Vec<Written> {
    let mut loose = Heap::default();
    let mut all = Vec::new();
    for (name, path) in children(uploads) {
        if !std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
            let _gone = loose.add(CWD, path.as_path(), 0, &mut 1);
            continue;
        }
        let is_year = name.len() == 4 && name.bytes().all(|byte| byte.is_ascii_digit());
        let inside = format!("{UPLOADS}/{name}");
        let (by, because) = match () {
            () if is_year => (Some("the media library".to_owned()), "media by year and month"),
            () if name == "sites" => (Some("the media library".to_owned()), "media of the blogs"),
            () => (keeper(&inside, names(parts)), "a plugin's own folder among the media"),
        };
        all.push(Heap::of(&path).written(Class::Media, inside, by, because));
    }
    if loose.files > 0 {
        all.push(loose.written(Class::Media, UPLOADS.to_owned(), None, "files in no folder"));
    }
    all
}

fn scratch(folder: &Path, parts: &[Part]) -> Vec<Written> {
    let mut all = Vec::new();
    for scratch in SCRATCH {
        let path = folder.join(scratch.path);
        let inside = children(&path);
        if scratch.by.is_empty() {
            for (name, path) in inside {
                let inside = format!("{}/{name}", scratch.path);
                let by = keeper(&inside, names(parts));
                all.push(Heap::of(&path).written(Class::Scratch, inside, by, scratch.because));
            }
        } else if !inside.is_empty() {
            let by = Some(scratch.by.to_owned());
            let heap = Heap::of(&path);
            all.push(heap.written(Class::Scratch, scratch.path.to_owned(), by, scratch.because));
        }
    }
    all
}

/// Drop-ins one by one, languages together.
fn code(manifest: &Manifest) -> Vec<Written> {
    let mut all: BTreeMap<&str, (Heap, &str)> = BTreeMap::new();
    for (path, file) in &manifest.files {
        let (at, because) = match path.as_str() {
            path if path.starts_with("wp-content/languages/") => {
                ("wp-content/languages", "translations")
            }
            path if is_drop_in(path) => (path, "a drop-in"),
            _ => continue,
        };
        let (heap, _) = all.entry(at).or_insert((Heap::default(), because));
        heap.files += 1;
        heap.bytes += file.size;
    }
    let written = |(path, (heap, because)): (&str, (Heap, &str))| {
        let by = is_ours(path).then(|| "Pressroom".to_owned());
        heap.written(Class::Code, path.to_owned(), by, because)
    };
    all.into_iter().map(written).collect()
}

/// The site's own lines.
fn refusals(path: &Path) -> io::Result<Vec<Refusal>> {
    let mut options = std::fs::OpenOptions::new();
    // It is in a folder of the site's: it may be anything.
    options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let mut bytes = Vec::new();
    match options.open(path) {
        Ok(file) if file.metadata()?.is_file() => file.take(MOST_LINES).read_to_end(&mut bytes)?,
        _ => return Ok(Vec::new()),
    };
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_site_says_is_read_within_limits_and_through_no_link() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("refused.jsonl");
        assert_eq!(refusals(&path).expect("nothing yet"), []);
        std::fs::write(&path, "no json\n{\"path\": \"/a\"}\n{\"path\": 7}\n").expect("written");
        assert_eq!(refusals(&path).expect("read").len(), 1);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("linked");
        assert_eq!(refusals(&link).expect("not followed"), []);
    }

    #[test]
    fn a_heap_counts_links_as_links() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("in")).expect("made");
        std::fs::write(folder.path().join("in/a"), "abc").expect("written");
        std::os::unix::fs::symlink("/usr", folder.path().join("out")).expect("linked");
        let heap = Heap::of(folder.path());
        assert_eq!((heap.files, heap.bytes), (2, 3 + "/usr".len() as u64));
    }
}
