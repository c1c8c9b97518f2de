//! Which files of a source belong to its code, and which never do.
//!
//! A source is walked once; links are followed and their targets copied, so that a release stands by itself. A link
//! out of the source is followed only to what everybody on the machine may read: otherwise whoever may write to a
//! source could have root copy a secret into a tree that PHP reads. Paths are walked as root, so what was walked is
//! opened later without following any link (see `copy`).
//!
//! Left out, with a word: uploads and caches (they are data), version control, and secrets.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use pressroom_model::config::Source;

use crate::manifest::{File, check_path};
use crate::worktree::Part;
use crate::{ReleaseError, failed};

/// Where Debian's package keeps WordPress.
pub const DEBIAN: &str = "/usr/share/wordpress";
/// Where Debian's package keeps what an administrator adds: plugins, themes, languages.
pub const DEBIAN_CONTENT: &str = "/var/lib/wordpress/wp-content";

/// More folders within each other than any WordPress has.
const DEPTH: usize = 40;

/// Something of the source that is not in the release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Its path in the source.
    pub path: String,
    /// Why.
    pub because: &'static str,
}

/// A file of the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Where it really is: no link in it.
    pub(crate) from: PathBuf,
    pub(crate) is_executable: bool,
    /// What it is, where that need not be read: it is a file of a release.
    pub(crate) known: Option<File>,
}

/// A source, walked.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    pub(crate) files: BTreeMap<String, Found>,
    pub(crate) left_out: Vec<LeftOut>,
}

/// Says, without reading the files, whether a source may have changed: a digest of its paths, sizes and times.
/// The same source in two places has two of them; a release's name is what tells code apart.
pub fn fingerprint(source: &Source) -> Result<String, ReleaseError> {
    let tree = match source {
        Source::Debian => debian(Path::new(DEBIAN), Path::new(DEBIAN_CONTENT))?,
        Source::Path(path) => project(path)?,
        Source::Git { reference, .. } => return Ok(reference.clone()),
        Source::Version(version) => return Ok(version.clone()),
        Source::Archive { sha256, .. } => return Ok(sha256.to_ascii_lowercase()),
    };
    let mut hasher = blake3::Hasher::new();
    for (path, found) in &tree.files {
        let meta = fs::metadata(&found.from).map_err(failed("cannot read", &found.from))?;
        hasher.update(path.as_bytes());
        let facts = [meta.len(), meta.ino(), u64::from(meta.mode())];
        let times = [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()];
        for fact in facts {
            hasher.update(&fact.to_le_bytes());
        }
        for time in times {
            hasher.update(&time.to_le_bytes());
        }
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// The distribution's package, with what was added to it.
pub(crate) fn debian(code: &Path, content: &Path) -> Result<Tree, ReleaseError> {
    if !code.join("wp-includes/version.php").is_file() {
        return Err(ReleaseError::PackageMissing { missing: code.join("wp-includes/version.php") });
    }
    let mut tree = folder(code)?;
    if !content.is_dir() {
        return Ok(tree);
    }
    let mut added = Walk::of(content)?;
    added.folder(content, "wp-content", &mut Vec::new())?;
    // A plugin or theme is one version whole: the added one counts, without leftovers of the packaged one.
    for unit in added.tree.files.keys().filter_map(|path| unit(path)) {
        let within = format!("{unit}/");
        tree.files.retain(|path, _| !path.starts_with(&within));
    }
    tree.files.append(&mut added.tree.files);
    tree.left_out.append(&mut added.tree.left_out);
    Ok(tree)
}

/// `wp-content/plugins/NAME` or `wp-content/themes/NAME`, if that is a folder of the path.
fn unit(path: &str) -> Option<String> {
    let mut names = path.split('/');
    let (content, kind, name) = (names.next()?, names.next()?, names.next()?);
    names.next()?;
    (content == "wp-content" && matches!(kind, "plugins" | "themes"))
        .then(|| format!("{content}/{kind}/{name}"))
}

/// A folder with a whole WordPress, or with a Bedrock project.
pub(crate) fn project(path: &Path) -> Result<Tree, ReleaseError> {
    if is_bedrock(path) { bedrock(path) } else { folder(path) }
}

fn is_bedrock(path: &Path) -> bool {
    path.join("web/app").is_dir() && !path.join("wp-includes/version.php").is_file()
}

/// Bedrock's own place of things: `web/wp` is the core, `web/app` is `wp-content`, and what else is in `web` lies beside the
/// core. Its `index.php` and its configuration only say so, and are not needed.
fn bedrock(path: &Path) -> Result<Tree, ReleaseError> {
    let web = path.join("web");
    if !web.join("wp/wp-includes/version.php").is_file() {
        return Err(ReleaseError::NotWordPress {
            source_path: path.to_owned(),
            why: "it is a Bedrock project without `web/wp`: `composer install` brings that, which needs a composer.lock and the package `composer`".into(),
        });
    }
    let mut walk = Walk::of(path)?;
    walk.folder(&web.join("wp"), "", &mut Vec::new())?;
    walk.tree.files.retain(|path, _| !path.starts_with("wp-content/"));
    walk.folder(&web.join("app"), "wp-content", &mut Vec::new())?;
    for entry in fs::read_dir(&web).map_err(failed("cannot read the folder", &web))? {
        let entry = entry.map_err(failed("cannot read the folder", &web))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_file = entry.path().is_file() && name != "index.php";
        if is_file && never(&name).is_none() && check_path(&name).is_ok() {
            walk.entry(&entry.path(), name, &mut Vec::new())?;
        }
    }
    Ok(walk.tree)
}

/// What a folder brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A whole WordPress.
    Whole,
    /// A `wp-content` alone: plugins, themes, must-use plugins, drop-ins, languages.
    Content,
}

/// What a folder is, with the folder that counts: it may lie in one named `wp-content`.
pub fn shape(path: &Path) -> Result<(Shape, PathBuf), ReleaseError> {
    let not = |why: &str| ReleaseError::NotWordPress {
        source_path: path.to_owned(),
        why: why.to_owned(),
    };
    if !path.is_dir() {
        return Err(not("it is no folder"));
    }
    if path.join("wp-includes/version.php").is_file() || is_bedrock(path) {
        return Ok((Shape::Whole, path.to_owned()));
    }
    let has_code = |path: &Path| {
        ["plugins", "themes", "mu-plugins"].iter().any(|name| path.join(name).is_dir())
    };
    let inner = path.join("wp-content");
    for folder in [path, &inner] {
        if has_code(folder) {
            return Ok((Shape::Content, folder.to_owned()));
        }
    }
    Err(not("it has neither wp-includes/version.php nor a folder plugins, themes or mu-plugins"))
}

/// A folder that is a `wp-content`.
pub(crate) fn content(path: &Path) -> Result<Tree, ReleaseError> {
    let mut walk = Walk::of(path)?;
    walk.folder(path, "wp-content", &mut Vec::new())?;
    Ok(walk.tree)
}

/// A folder with a whole WordPress.
pub(crate) fn folder(path: &Path) -> Result<Tree, ReleaseError> {
    let mut walk = Walk::of(path)?;
    walk.folder(path, "", &mut Vec::new())?;
    Ok(walk.tree)
}

/// The same, of which only these parts count; others may be in it.
pub(crate) fn parts(path: &Path, parts: &[Part]) -> Result<Tree, ReleaseError> {
    let mut walk = Walk::of(path)?;
    for part in parts {
        match part {
            Part::Core => return folder(path),
            Part::Path(part) if not_code(part).is_some() => {}
            Part::Path(part) => {
                let real = path.join(part);
                if fs::symlink_metadata(&real).is_ok() {
                    walk.entry(&real, part.clone(), &mut Vec::new())?;
                }
            }
        }
    }
    Ok(walk.tree)
}

/// Why a path of a source is never part of a release: data, secrets, caches, another program's files.
pub fn not_code(path: &str) -> Option<&'static str> {
    let above = path.match_indices('/').map(|(at, _)| &path[..at]);
    above.chain([path]).find_map(never)
}

/// Why a path of a source is not code; `None`: it is. Those above it are code.
fn never(path: &str) -> Option<&'static str> {
    let name = path.rsplit('/').next().unwrap_or(path);
    match path {
        "wp-content/uploads" | "wp-content/blogs.dir" => {
            return Some("uploads are data, not code; bring them with the site's media");
        }
        "wp-content/cache" | "wp-content/upgrade" | "wp-content/upgrade-temp-backup" => {
            return Some("it is a cache");
        }
        "wp-content/debug.log" => return Some("it is a log"),
        "wp-config-sample.php" => return None,
        _ => {}
    }
    match name {
        ".git" | ".svn" | ".hg" | ".gitignore" | ".gitattributes" | ".gitmodules" => {
            Some("it is version control's")
        }
        ".htaccess" | ".htpasswd" => Some("it is for another web server and may hold secrets"),
        ".user.ini" => Some("PHP's settings belong into the configuration"),
        ".DS_Store" => Some("it is a desktop's"),
        _ if name.starts_with(".env") => Some("it may hold secrets"),
        _ if path.starts_with("wp-config") && !path.contains('/') => {
            Some("secrets belong to the site, not to its code")
        }
        _ => None,
    }
}

struct Walk {
    root: PathBuf,
    is_root_user: bool,
    tree: Tree,
}

impl Walk {
    fn of(path: &Path) -> Result<Self, ReleaseError> {
        let root = path.canonicalize().map_err(failed("cannot read the folder", path))?;
        Ok(Self { root, is_root_user: rustix::process::geteuid().is_root(), tree: Tree::default() })
    }

    /// Walks `real`, which is `inside` the release. `above` are the folders that we are in, to notice a circle.
    fn folder(
        &mut self,
        real: &Path,
        inside: &str,
        above: &mut Vec<PathBuf>,
    ) -> Result<(), ReleaseError> {
        let canonical = real.canonicalize().map_err(failed("cannot read the folder", real))?;
        if above.contains(&canonical) || above.len() > DEPTH {
            self.leave_out(inside, "it is a circle of links, or too deep");
            return Ok(());
        }
        above.push(canonical);
        let entries = fs::read_dir(real).map_err(failed("cannot read the folder", real))?;
        for entry in entries {
            let entry = entry.map_err(failed("cannot read the folder", real))?;
            let name = entry.file_name();
            let bad = |why| ReleaseError::BadPath { path: entry.path(), why };
            let name = name.to_str().ok_or_else(|| bad("its name is not UTF-8"))?;
            let path = if inside.is_empty() { name.to_owned() } else { format!("{inside}/{name}") };
            match never(&path) {
                Some(because) => self.leave_out(&path, because),
                None => {
                    check_path(&path).map_err(bad)?;
                    self.entry(&entry.path(), path, above)?;
                }
            }
        }
        above.pop();
        Ok(())
    }

    fn entry(
        &mut self,
        real: &Path,
        path: String,
        above: &mut Vec<PathBuf>,
    ) -> Result<(), ReleaseError> {
        let Ok(from) = real.canonicalize() else {
            self.leave_out(&path, "it is a link to nothing");
            return Ok(());
        };
        let meta = fs::metadata(&from).map_err(failed("cannot read", &from))?;
        if !from.starts_with(&self.root) && self.is_root_user && !may_everybody_read(&from, &meta) {
            return Err(ReleaseError::LinkLeaves { link: real.to_owned(), target: from });
        }
        if meta.is_dir() {
            return self.folder(&from, &path, above);
        }
        if !meta.is_file() {
            self.leave_out(&path, "it is neither a file nor a folder");
            return Ok(());
        }
        self.tree.files.insert(
            path,
            Found { from, is_executable: meta.permissions().mode() & 0o111 != 0, known: None },
        );
        Ok(())
    }

    fn leave_out(&mut self, path: &str, because: &'static str) {
        self.tree.left_out.push(LeftOut { path: path.to_owned(), because });
    }
}

/// Whether any user of the machine could have read it without us. `path` is canonical.
fn may_everybody_read(path: &Path, meta: &Metadata) -> bool {
    let needed = if meta.is_dir() { 0o005 } else { 0o004 };
    let may_enter = |folder: &Path| fs::metadata(folder).is_ok_and(|m| m.mode() & 0o001 != 0);
    meta.mode() & needed == needed && path.ancestors().skip(1).all(may_enter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_and_secrets_are_never_code() {
        for path in [
            "wp-content/uploads",
            "wp-content/cache",
            ".git",
            "wp-content/plugins/x/.git",
            ".htaccess",
            "wp-config.php",
            "wp-config.php.bak",
            ".env",
            ".env.local",
            "wp-content/debug.log",
        ] {
            assert!(never(path).is_some(), "{path}");
        }
        for path in [
            "wp-config-sample.php",
            "wp-content/plugins/cache/uploads",
            "wp-includes/wp-config.php",
            "index.php",
            "wp-content/plugins/x/cache",
        ] {
            assert!(never(path).is_none(), "{path}");
        }
    }

    #[test]
    fn a_plugin_is_one_unit_and_its_folder_is_not() {
        assert_eq!(
            unit("wp-content/plugins/akismet/akismet.php").as_deref(),
            Some("wp-content/plugins/akismet")
        );
        assert_eq!(unit("wp-content/plugins/index.php"), None);
        assert_eq!(unit("wp-content/languages/de.mo"), None);
    }
}
