//! The folder of releases: build, verify, hard-link into a site.
//!
//! `ID/` is the tree, `ID.manifest` says that it is whole and is written last. Trees are made under another name
//! and renamed, after the file system has everything on disk; what an interrupted build left behind is swept by the
//! next one. One build at a time, by a lock on `.lock`; readers need none, because nothing here ever changes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::{self, File as Handle};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use pressroom_model::config::Source;
use pressroom_model::id::ReleaseId;
use pressroom_model::writes::SCRATCH;

use crate::copy::{self, Bytes};
use crate::manifest::{self, File, Manifest};
use crate::overlay::Overlay;
use crate::source::{self, Found, LeftOut, Tree};
use crate::worktree::Part;
use crate::{ReleaseError, archive, failed, wordpress};

/// How far a build is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// An archive is checked and unpacked.
    Unpacking,
    /// Files are read and hashed: so many of so many.
    Reading(usize, usize),
    /// Files are copied: so many of so many.
    Copying(usize, usize),
    /// Everything is being written to disk.
    Syncing,
}

/// What a build made, or found made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The release.
    pub id: ReleaseId,
    /// WordPress's version.
    pub wordpress: String,
    /// How many files.
    pub files: usize,
    /// All their bytes.
    pub bytes: u64,
    /// What of the source is not in it.
    pub left_out: Vec<LeftOut>,
    /// Whether it was there already.
    pub was_there: bool,
}

/// A difference between a tree and its manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Its path in the release.
    pub path: String,
    /// What is wrong.
    pub what: &'static str,
}

/// What tells one release from another: paths, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diff {
    /// Only in the later one.
    pub added: Vec<String>,
    /// In both, with other bytes or another mode.
    pub changed: Vec<String>,
    /// Only in the earlier one.
    pub removed: Vec<String>,
}

/// Where the bytes of releases are that are on their way here.
const INCOMING: &str = ".incoming";

/// The folder of releases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Releases {
    folder: PathBuf,
}

impl Releases {
    /// The releases in `folder`, which is made with the first of them.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Where a release's tree is, if it is there.
    pub fn tree(&self, id: &ReleaseId) -> PathBuf {
        self.folder.join(id.as_str())
    }

    /// The releases that are whole.
    pub fn list(&self) -> Result<Vec<ReleaseId>, ReleaseError> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed("cannot read the folder", &self.folder)(error)),
        };
        let name = |entry: fs::DirEntry| {
            entry.file_name().to_str()?.strip_suffix(".manifest")?.parse().ok()
        };
        let mut ids: Vec<ReleaseId> = entries.flatten().filter_map(name).collect();
        ids.retain(|id| self.tree(id).is_dir());
        ids.sort();
        Ok(ids)
    }

    /// Deletes releases that nobody has `known` for some time: made to be compared, refused, or left by a process that died.
    pub fn remove_strays(
        &self,
        known: &BTreeSet<ReleaseId>,
        older_than: SystemTime,
    ) -> Result<Vec<ReleaseId>, ReleaseError> {
        let is_old = |id: &ReleaseId| {
            let made = fs::metadata(self.manifest_path(id)).and_then(|meta| meta.modified());
            made.is_ok_and(|made| made < older_than)
        };
        let strays: Vec<ReleaseId> =
            self.list()?.into_iter().filter(|id| !known.contains(id) && is_old(id)).collect();
        strays.iter().try_for_each(|id| self.remove(id))?;
        // Nobody came back for the rest of these.
        for entry in fs::read_dir(self.folder.join(INCOMING)).into_iter().flatten().flatten() {
            let changed = entry.metadata().and_then(|meta| meta.modified());
            if changed.is_ok_and(|changed| changed < older_than) {
                remove(&entry.path())?;
            }
        }
        Ok(strays)
    }

    /// What a release consists of.
    pub fn manifest(&self, id: &ReleaseId) -> Result<Manifest, ReleaseError> {
        let bad = |why| ReleaseError::BadManifest { path: self.manifest_path(id), why };
        Manifest::parse(&self.manifest_text(id)?).map_err(bad)
    }

    /// The same as text, for another machine.
    pub fn manifest_text(&self, id: &ReleaseId) -> Result<String, ReleaseError> {
        let path = self.manifest_path(id);
        let text = fs::read_to_string(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ReleaseError::Unknown(id.clone()),
            _ => failed("cannot read", &path)(error),
        })?;
        let why = "its digest is not its name".to_owned();
        let is_whole = manifest::id_of(&text) == *id;
        if is_whole { Ok(text) } else { Err(ReleaseError::BadManifest { path, why }) }
    }

    /// Makes a release of `source` and `overlay`. Doing it twice makes it once.
    pub fn build(
        &self,
        source: &Source,
        overlay: &Overlay,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Built, ReleaseError> {
        let _lock = self.lock()?;
        self.sweep()?;
        let unpacked = Scratch(self.scratch("source"));
        let (place, tree) = match source {
            Source::Debian => {
                let place = PathBuf::from(source::DEBIAN);
                let tree = source::debian(&place, Path::new(source::DEBIAN_CONTENT))?;
                (place, tree)
            }
            Source::Path(path) => (path.clone(), source::project(path)?),
            Source::Version(version) => {
                return Err(ReleaseError::NotDownloaded { version: version.clone() });
            }
            Source::Git { url, .. } => return Err(ReleaseError::NotFetched { url: url.clone() }),
            Source::Archive { path, sha256 } => {
                progress(Progress::Unpacking);
                make_folder(&unpacked.0)?;
                let inner = archive::unpack(path, sha256, &unpacked.0, archive::Limits::default())?;
                (path.clone(), source::folder(&inner)?)
            }
        };
        self.build_tree(&place, &tree, overlay, progress)
    }

    /// Makes a release of the core of another one and a folder that is a `wp-content`: what that release had in its own
    /// `wp-content` does not count.
    pub fn build_content(
        &self,
        content: &Path,
        core: &ReleaseId,
        overlay: &Overlay,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Built, ReleaseError> {
        let _lock = self.lock()?;
        self.sweep()?;
        let mut tree = self.as_source(core)?;
        tree.files.retain(|path, _| !path.starts_with("wp-content/"));
        let mut added = source::content(content)?;
        tree.files.append(&mut added.files);
        tree.left_out = added.left_out;
        self.build_tree(content, &tree, overlay, progress)
    }

    /// Makes a release of the code of another one and this overlay.
    pub fn build_again(
        &self,
        id: &ReleaseId,
        overlay: &Overlay,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Built, ReleaseError> {
        let _lock = self.lock()?;
        self.sweep()?;
        let tree = self.code_of(id)?;
        self.build_tree(&self.tree(id), &tree, overlay, progress)
    }

    /// Makes a release of another one, with these parts as a writable copy of it has them now. Whatever else is in the
    /// copy does not count.
    pub fn build_edited(
        &self,
        base: &ReleaseId,
        copy: &Path,
        parts: &[Part],
        overlay: &Overlay,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Built, ReleaseError> {
        let _lock = self.lock()?;
        self.sweep()?;
        let is_edited = |path: &str| parts.iter().any(|part| part.has(path));
        let mut tree = self.as_source(base)?;
        tree.files.retain(|path, _| !is_edited(path));
        let mut edited = source::parts(copy, parts)?;
        edited.files.retain(|path, _| is_edited(path));
        tree.files.append(&mut edited.files);
        edited.left_out.retain(|left| is_edited(&left.path));
        tree.left_out = edited.left_out;
        self.build_tree(copy, &tree, overlay, progress)
    }

    /// Makes a release of the code of another one, with what lies in the folder `changed` in its place, without `removed`.
    pub fn build_changed(
        &self,
        base: &ReleaseId,
        changed: &Path,
        removed: &[String],
        overlay: &Overlay,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Built, ReleaseError> {
        let _lock = self.lock()?;
        self.sweep()?;
        let mut tree = self.code_of(base)?;
        for path in removed {
            tree.files.remove(path);
        }
        let mut added = source::folder(changed)?;
        tree.files.append(&mut added.files);
        tree.left_out = added.left_out;
        self.build_tree(&self.tree(base), &tree, overlay, progress)
    }

    /// Of our own files only today's will count: a former Pressroom may have had others.
    fn code_of(&self, id: &ReleaseId) -> Result<Tree, ReleaseError> {
        let mut tree = self.as_source(id)?;
        tree.files.retain(|path, _| !path.starts_with("wp-content/mu-plugins/pressroom"));
        Ok(tree)
    }

    fn as_source(&self, id: &ReleaseId) -> Result<Tree, ReleaseError> {
        let (manifest, tree) = (self.manifest(id)?, self.real_tree(id)?);
        let files = manifest.files.into_iter().map(|(path, file)| {
            let (from, is_executable) = (tree.join(&path), file.is_executable);
            (path, Found { from, is_executable, known: Some(file) })
        });
        Ok(Tree { files: files.collect(), left_out: Vec::new() })
    }

    /// Deletes a release; one that is not there is no error. What is linked elsewhere stays there.
    pub fn remove(&self, id: &ReleaseId) -> Result<(), ReleaseError> {
        let _lock = self.lock()?;
        // Without its manifest it is none any more, whatever happens next.
        remove(&self.manifest_path(id))?;
        remove(&self.tree(id))
    }

    fn build_tree(
        &self,
        place: &Path,
        tree: &Tree,
        overlay: &Overlay,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Built, ReleaseError> {
        let version = version_of(place, tree)?;
        let mut files: BTreeMap<&String, Bytes<'_>> =
            tree.files.iter().map(|(path, found)| (path, Bytes::Source(found))).collect();
        files.extend(overlay.files().map(|(path, bytes)| (path, Bytes::Ours(bytes))));
        let files: Vec<(&String, Bytes<'_>)> = files.into_iter().collect();
        check_shape(&files)?;
        let total = files.len();
        let read = copy::each(&files, |(_, bytes)| bytes.digest(), &|n| {
            progress(Progress::Reading(n, total));
        })?;
        let named = files.iter().map(|(path, _)| (*path).clone()).zip(read);
        let manifest = Manifest { wordpress: version, files: named.collect() };
        let id = manifest.id();
        let was_there = self.manifest(&id).is_ok() && self.tree(&id).is_dir();
        if !was_there {
            let strange = files.iter().filter(|(_, bytes)| bytes.there().is_none());
            let strange = strange.filter_map(|(path, _)| manifest.files.get(*path));
            self.write(&id, &manifest, &files, &self.having(strange)?, progress)?;
        }
        let (files, bytes) = (manifest.files.len(), manifest.bytes());
        Ok(Built {
            id,
            wordpress: manifest.wordpress,
            files,
            bytes,
            left_out: tree.left_out.clone(),
            was_there,
        })
    }

    /// Copies the files, checks that they are still those of the manifest, and gives them their name. What is `known`, see
    /// [`Releases::having`], is linked.
    pub(crate) fn write(
        &self,
        id: &ReleaseId,
        manifest: &Manifest,
        files: &[(&String, Bytes<'_>)],
        known: &BTreeMap<File, PathBuf>,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<(), ReleaseError> {
        let scratch = Scratch(self.scratch("tree"));
        make_folders(&scratch.0, manifest.files.keys())?;
        let total = files.len();
        let copy = |(path, bytes): &(&String, Bytes<'_>)| {
            let to = scratch.0.join(path);
            let wanted = manifest.files.get(*path);
            // What another release has is one file on disk, whatever the number of releases.
            let there = bytes.there().filter(|(_, file)| Some(*file) == wanted).map(|it| it.0);
            let there = there.or_else(|| known.get(wanted?).map(PathBuf::as_path));
            if there.is_some_and(|there| fs::hard_link(there, &to).is_ok()) {
                return Ok(());
            }
            let copied = bytes.copy(&to)?;
            if Some(&copied) == manifest.files.get(*path) {
                Ok(())
            } else {
                Err(ReleaseError::Changed { path: path.into() })
            }
        };
        copy::each(files, copy, &|n| progress(Progress::Copying(n, total)))?;
        progress(Progress::Syncing);
        sync_all(&scratch.0)?;
        let tree = self.tree(id);
        if tree.exists() {
            remove(&tree)?; // Without a manifest, so nobody uses it: a build was interrupted here.
        }
        fs::rename(&scratch.0, &tree).map_err(failed("cannot rename to", &tree))?;
        self.write_manifest(id, manifest)
    }

    /// Which of these files are in releases here, and where. They are root's and read-only; `verify` would find a change.
    pub(crate) fn having<'a>(
        &self,
        wanted: impl Iterator<Item = &'a File>,
    ) -> Result<BTreeMap<File, PathBuf>, ReleaseError> {
        // Most lines of most manifests are of no interest, so they are not read as files.
        let mut lacking: HashMap<String, &File> = wanted.map(|file| (file.head(), file)).collect();
        let mut known = BTreeMap::new();
        for id in self.list()? {
            if lacking.is_empty() {
                break;
            }
            // A damaged one has nothing to give.
            let (Ok(text), Ok(tree)) = (self.manifest_text(&id), self.real_tree(&id)) else {
                continue;
            };
            for (head, path) in text.lines().filter_map(manifest::split) {
                if manifest::check_path(path).is_ok()
                    && let Some(file) = lacking.remove(head)
                {
                    known.insert(file.clone(), tree.join(path));
                }
            }
        }
        Ok(known)
    }

    fn write_manifest(&self, id: &ReleaseId, manifest: &Manifest) -> Result<(), ReleaseError> {
        let (scratch, path) = (self.scratch("manifest"), self.manifest_path(id));
        let write = || {
            sync_folder(&self.folder)?;
            let mut file = Handle::create(&scratch)?;
            file.write_all(manifest.text().as_bytes())?;
            file.set_permissions(fs::Permissions::from_mode(0o444))?;
            file.sync_all()?;
            fs::rename(&scratch, &path)?;
            sync_folder(&self.folder)
        };
        write().map_err(failed("cannot write", &path))
    }

    /// What tells `to` from `from`.
    pub fn diff(&self, from: &ReleaseId, to: &ReleaseId) -> Result<Diff, ReleaseError> {
        let (before, after) = (self.manifest(from)?.files, self.manifest(to)?.files);
        let mut diff = Diff::default();
        for (path, file) in &after {
            match before.get(path) {
                None => diff.added.push(path.clone()),
                Some(old) if old != file => diff.changed.push(path.clone()),
                Some(_) => {}
            }
        }
        diff.removed = before.into_keys().filter(|path| !after.contains_key(path)).collect();
        Ok(diff)
    }

    /// How many bytes of a release the `next` one does not have as well.
    pub fn own_bytes(&self, id: &ReleaseId, next: &ReleaseId) -> Result<u64, ReleaseError> {
        let (files, next) = (self.manifest(id)?.files, self.manifest(next)?.files);
        let known: HashSet<_> = next.values().map(|file| file.digest).collect();
        let own = files.values().filter(|file| !known.contains(&file.digest));
        Ok(own.map(|file| file.size).sum())
    }

    /// Hashes every file again; what differs from the manifest. Empty: the release is what its name says.
    pub fn verify(&self, id: &ReleaseId) -> Result<Vec<Fault>, ReleaseError> {
        self.verify_tree(id, &self.real_tree(id)?)
    }

    /// The same for a site's tree of the release; its links to the uploads and to plugins' scratch are no part of it.
    pub fn verify_linked(&self, id: &ReleaseId, tree: &Path) -> Result<Vec<Fault>, ReleaseError> {
        let real = tree.canonicalize().map_err(failed("cannot read the release", tree))?;
        let mut faults = self.verify_tree(id, &real)?;
        faults.retain(|fault| {
            let is_scratch = SCRATCH.iter().any(|scratch| scratch.path == fault.path);
            fault.path != "wp-content/uploads" && !is_scratch
        });
        Ok(faults)
    }

    fn verify_tree(&self, id: &ReleaseId, tree: &Path) -> Result<Vec<Fault>, ReleaseError> {
        let manifest = self.manifest(id)?;
        let files: Vec<(&String, &File)> = manifest.files.iter().collect();
        let check = |(path, file): &(&String, &File)| {
            Ok(match copy::existing(&tree.join(path)) {
                Ok(found) if found == **file => None,
                Ok(_) => {
                    Some(Fault { path: (*path).clone(), what: "its bytes or its mode changed" })
                }
                Err(_) => Some(Fault {
                    path: (*path).clone(),
                    what: "it is missing, or it cannot be read",
                }),
            })
        };
        let mut faults: Vec<Fault> =
            copy::each(&files, check, &|_| ())?.into_iter().flatten().collect();
        strangers(tree, "", &manifest, &mut faults)?;
        Ok(faults)
    }

    /// Hard-links the release to `SITE_DIR/releases/ID`, with `wp-content/uploads` leading to `SITE_DIR/uploads` and the
    /// folders of [`SCRATCH`] to `SITE_DIR/scratch/ID`, and returns the new tree. On another file system files are copied. Doing it twice makes it once.
    pub fn materialise(&self, id: &ReleaseId, site_dir: &Path) -> Result<PathBuf, ReleaseError> {
        let manifest = self.manifest(id)?;
        let site = std::path::absolute(site_dir).map_err(failed("cannot find", site_dir))?;
        let folder = site.join("releases");
        let tree = folder.join(id.as_str());
        if tree.is_dir() {
            return Ok(tree);
        }
        make_folder(&folder)?;
        let scratch = Scratch(folder.join(format!(".tmp-{id}")));
        remove(&scratch.0)?;
        make_folders(&scratch.0, manifest.files.keys())?;
        let from = self.real_tree(id)?;
        let paths: Vec<&String> = manifest.files.keys().collect();
        let link = |path: &&String| link_or_copy(&from.join(path), &scratch.0.join(path));
        let put = copy::each(&paths, link, &|_| ())?;
        let uploads = scratch.0.join("wp-content/uploads");
        make_folder(&scratch.0.join("wp-content"))?;
        symlink(site.join("uploads"), &uploads)
            .map_err(failed("cannot make the link", &uploads))?;
        for name in manifest.scratch() {
            let (to, link) = (site.join("scratch").join(id.as_str()), scratch.0.join(name));
            symlink(to.join(name), &link).map_err(failed("cannot make the link", &link))?;
        }
        // What is linked is on disk; names come there in the order in which they were given, with a journal.
        if put.contains(&Put::Copied) {
            sync_all(&scratch.0)?;
        }
        fs::rename(&scratch.0, &tree).map_err(failed("cannot rename to", &tree))?;
        sync_folder(&folder).map_err(failed("cannot sync", &folder))?;
        Ok(tree)
    }

    /// The tree without a link in its path: files in it are opened so that links are noticed.
    fn real_tree(&self, id: &ReleaseId) -> Result<PathBuf, ReleaseError> {
        let tree = self.tree(id);
        tree.canonicalize().map_err(failed("cannot read the release", &tree))
    }

    fn manifest_path(&self, id: &ReleaseId) -> PathBuf {
        self.folder.join(format!("{id}.manifest"))
    }

    fn scratch(&self, what: &str) -> PathBuf {
        self.folder.join(format!(".tmp-{what}"))
    }

    /// Where the bytes of a release are kept that is on its way here.
    pub(crate) fn incoming(&self, id: &ReleaseId) -> PathBuf {
        self.folder.join(INCOMING).join(id.as_str())
    }

    /// Held while building; the kernel gives it back when we die.
    pub(crate) fn lock(&self) -> Result<Handle, ReleaseError> {
        make_folder(&self.folder)?;
        let path = self.folder.join(".lock");
        let open = || {
            let file =
                fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
            file.lock()?;
            Ok(file)
        };
        open().map_err(failed("cannot lock", &path))
    }

    /// Removes what an interrupted build left.
    pub(crate) fn sweep(&self) -> Result<(), ReleaseError> {
        for what in ["source", "tree", "manifest"] {
            remove(&self.scratch(what))?;
        }
        Ok(())
    }
}

/// WordPress's version; an error that says what is missing when it is none.
fn version_of(place: &Path, tree: &Tree) -> Result<String, ReleaseError> {
    let not = |why: String| ReleaseError::NotWordPress { source_path: place.to_owned(), why };
    let missing = wordpress::missing(|path| tree.files.contains_key(path));
    if !missing.is_empty() {
        let nested =
            tree.files.keys().find_map(|path| path.strip_suffix("/wp-includes/version.php"));
        let hint = nested
            .map(|folder| format!(" (did you mean its folder `{folder}`?)"))
            .unwrap_or_default();
        return Err(not(format!("it has no {}{hint}", missing.join(", "))));
    }
    let path = &tree.files["wp-includes/version.php"].from;
    let text = fs::read_to_string(path).map_err(failed("cannot read", path))?;
    let version = wordpress::version(&text).map(str::to_owned);
    version.ok_or_else(|| not("its wp-includes/version.php names no version".into()))
}

/// A file of the overlay must not stand where the source has a folder, nor the other way round.
fn check_shape(files: &[(&String, Bytes<'_>)]) -> Result<(), ReleaseError> {
    let names: BTreeSet<&str> = files.iter().map(|(path, _)| path.as_str()).collect();
    let clash = |path: &&str| {
        Path::new(path)
            .ancestors()
            .skip(1)
            .any(|above| above.to_str().is_some_and(|a| names.contains(a)))
    };
    match names.iter().find(|path| clash(path)) {
        Some(path) => Err(ReleaseError::BadPath {
            path: path.into(),
            why: "one of its folders is a file, too",
        }),
        None => Ok(()),
    }
}

/// A folder or file that is removed however its maker ends; renaming it away keeps it.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "a scratch folder stays until the next build");
        }
    }
}

pub(crate) fn remove(path: &Path) -> Result<(), ReleaseError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed("cannot remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Makes the folder and those above it, open to be entered whatever the umask; one that is there stays as it is.
pub(crate) fn make_folder(path: &Path) -> Result<(), ReleaseError> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
        make_folder(above)?;
    }
    make_one_folder(path)
}

fn make_one_folder(path: &Path) -> Result<(), ReleaseError> {
    let made = fs::create_dir(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)));
    made.map_err(failed("cannot make the folder", path))
}

/// Makes the folders of a tree.
fn make_folders<'a>(
    tree: &Path,
    paths: impl Iterator<Item = &'a String>,
) -> Result<(), ReleaseError> {
    make_folder(tree)?;
    let mut folders = BTreeSet::new();
    for path in paths {
        let mut rest = path.as_str();
        while let Some((folder, _)) = rest.rsplit_once('/')
            && folders.insert(folder)
        {
            rest = folder;
        }
    }
    // Those above come first.
    folders.into_iter().try_for_each(|folder| make_one_folder(&tree.join(folder)))
}

/// How a file came into a site's tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Put {
    Linked,
    Copied,
}

fn link_or_copy(from: &Path, to: &Path) -> Result<Put, ReleaseError> {
    match fs::hard_link(from, to) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::CrossesDevices
                    | io::ErrorKind::TooManyLinks
                    | io::ErrorKind::PermissionDenied
            ) =>
        {
            copy::existing(from)?;
            fs::copy(from, to).map(|_| Put::Copied).map_err(failed("cannot write", to))
        }
        other => other.map(|()| Put::Linked).map_err(failed("cannot write", to)),
    }
}

/// One call for thousands of files: everything of the file system that `folder` is on.
fn sync_all(folder: &Path) -> Result<(), ReleaseError> {
    let sync = || Ok(rustix::fs::syncfs(Handle::open(folder)?)?);
    sync().map_err(failed("cannot sync", folder))
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    Handle::open(folder)?.sync_all()
}

/// Files that the manifest does not know.
fn strangers(
    real: &Path,
    inside: &str,
    manifest: &Manifest,
    faults: &mut Vec<Fault>,
) -> Result<(), ReleaseError> {
    for entry in fs::read_dir(real).map_err(failed("cannot read the folder", real))? {
        let entry = entry.map_err(failed("cannot read the folder", real))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if inside.is_empty() { name } else { format!("{inside}/{name}") };
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            strangers(&entry.path(), &path, manifest, faults)?;
        } else if !manifest.files.contains_key(&path) {
            faults.push(Fault { path, what: "it is not part of the release" });
        }
    }
    Ok(())
}
