//! confd's folder: resources in `conf.d/*.toml`, templates below `templates`.

use std::io;
use std::path::{Path, PathBuf};

use pressroom_model::template::{Resource, parse};

use crate::files::naming;

/// One resource of a folder.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The resource's file, relative to `conf.d`.
    pub name: String,
    /// What it says, or what is wrong with it.
    pub resource: Result<Resource, String>,
    /// Its template.
    pub template: PathBuf,
}

/// Folders inside of each other, at most.
const DEPTH: usize = 16;

/// Every resource of the folder, by name. `prefix` counts instead of the resources' own.
pub fn load(folder: &Path, prefix: Option<&str>) -> io::Result<Vec<Loaded>> {
    let resources = folder.join("conf.d");
    let mut files = Vec::new();
    walk(&resources, DEPTH, &mut |path, _| {
        if path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path.to_owned());
        }
    })?;
    files.sort();
    let load = |path: PathBuf| {
        let name = path.strip_prefix(&resources).unwrap_or(&path).display().to_string();
        let text = std::fs::read_to_string(&path).map_err(|error| error.to_string());
        let resource = text.and_then(|text| match parse(&text, prefix) {
            Ok((resource, unknown)) => {
                if !unknown.is_empty() {
                    let keys = unknown.join("`, `");
                    tracing::warn!(resource = name, "nobody knows `{keys}`: passed over");
                }
                Ok(resource)
            }
            Err(faults) => Err(faults.to_string()),
        });
        let src = resource.as_ref().map(|resource| resource.src.clone()).unwrap_or_default();
        Loaded { name, resource, template: folder.join("templates").join(src) }
    };
    Ok(files.into_iter().map(load).collect())
}

/// Another one whenever a resource or template was changed.
pub fn signature(folder: &Path) -> io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    for part in ["conf.d", "templates"] {
        let mut lines = Vec::new();
        walk(&folder.join(part), DEPTH, &mut |path, about| {
            use std::os::unix::fs::MetadataExt as _;
            lines.push(format!(
                "{}\0{}\0{}\0{}.{}\n",
                path.display(),
                about.ino(),
                about.len(),
                about.mtime(),
                about.mtime_nsec()
            ));
        })?;
        lines.sort();
        lines.iter().for_each(|line| {
            hasher.update(line.as_bytes());
        });
    }
    Ok(hasher.finalize())
}

/// All files below a folder; links are followed, as confd's users expect.
pub(super) fn walk(
    folder: &Path,
    depth: usize,
    found: &mut impl FnMut(&Path, &std::fs::Metadata),
) -> io::Result<()> {
    let entries = std::fs::read_dir(folder).map_err(|error| naming(folder, &error))?;
    for entry in entries {
        let path = entry.map_err(|error| naming(folder, &error))?.path();
        // An editor may have taken it away again.
        let Ok(about) = std::fs::metadata(&path) else { continue };
        if about.is_dir() && depth > 0 {
            walk(&path, depth - 1, found)?;
        } else if about.is_file() {
            found(&path, &about);
        }
    }
    Ok(())
}
