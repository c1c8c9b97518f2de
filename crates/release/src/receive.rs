//! Releases from other machines: what is lacking is asked for by digest, checked, and linked with what is here.
//!
//! Bytes that arrived are kept in a folder of their own, each under its digest, until the release is whole: what was fetched
//! before an interruption need not be fetched again. Nothing is believed: the release's id is the digest of its manifest, and
//! every file is hashed again while it is copied to its place.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use pressroom_model::id::ReleaseId;

use crate::copy::Bytes;
use crate::manifest::{File, Manifest};
use crate::releases::{Releases, make_folder, remove};
use crate::source::Found;
use crate::{ReleaseError, failed};

/// A release on its way.
#[derive(Debug)]
pub struct Incoming {
    releases: Releases,
    manifest: Manifest,
    folder: PathBuf,
    /// What is here in other releases.
    known: BTreeMap<File, PathBuf>,
}

impl Releases {
    /// Begins to receive the release `id`, or goes on where it was interrupted; `text` is its manifest, as somebody sent it.
    pub fn begin_receiving(&self, id: &ReleaseId, text: &str) -> Result<Incoming, ReleaseError> {
        let folder = self.incoming(id);
        let bad = |why| ReleaseError::BadManifest { path: folder.clone(), why };
        let manifest = Manifest::parse(text).map_err(bad)?;
        if manifest.id() != *id {
            return Err(bad(format!("its digest is {}, not {id}", manifest.id())));
        }
        make_folder(&folder)?;
        let known = self.having(manifest.files.values())?;
        Ok(Incoming { releases: self.clone(), manifest, folder, known })
    }

    /// Where the files of these digests are in a release, for another machine.
    pub fn find(
        &self,
        id: &ReleaseId,
        digests: &[String],
    ) -> Result<BTreeMap<String, PathBuf>, ReleaseError> {
        let (manifest, tree) = (self.manifest(id)?, self.tree(id));
        let known = manifest.files.into_iter();
        let known: BTreeMap<String, PathBuf> =
            known.map(|(path, file)| (file.digest.to_hex().to_string(), tree.join(path))).collect();
        let wanted = digests.iter();
        Ok(wanted.filter_map(|digest| Some((digest.clone(), known.get(digest)?.clone()))).collect())
    }
}

impl Incoming {
    /// The digests of what no release here has and did not arrive yet, each once.
    pub fn lacking(&self) -> Vec<String> {
        let files = self.manifest.files.values().filter(|file| !self.known.contains_key(file));
        let mut digests: Vec<String> = files
            .map(|file| file.digest.to_hex().to_string())
            .filter(|digest| !self.folder.join(digest).is_file())
            .collect();
        digests.sort();
        digests.dedup();
        digests
    }

    /// Takes a file's bytes; those that are not what they were sent for are refused.
    pub fn take(&self, digest: &str, bytes: &[u8]) -> Result<(), ReleaseError> {
        let found = blake3::hash(bytes).to_hex();
        if found.as_str() != digest {
            return Err(ReleaseError::Changed { path: self.folder.join(digest) });
        }
        let (to, scratch) = (self.folder.join(digest), self.folder.join(format!(".{digest}")));
        let write = || {
            fs::write(&scratch, bytes)?;
            fs::rename(&scratch, &to)
        };
        write().map_err(failed("cannot write", &to))
    }

    /// Makes the release of what has arrived and what was here.
    pub fn finish(self) -> Result<(), ReleaseError> {
        let _lock = self.releases.lock()?;
        self.releases.sweep()?;
        let found: Vec<(&String, Found)> =
            self.manifest.files.iter().map(|(path, file)| (path, self.found(file))).collect();
        let files: Vec<_> = found.iter().map(|(path, it)| (*path, Bytes::Source(it))).collect();
        let id = self.manifest.id();
        let is_there = self.releases.manifest(&id).is_ok() && self.releases.tree(&id).is_dir();
        let made = match is_there {
            true => Ok(()),
            false => self.releases.write(&id, &self.manifest, &files, &BTreeMap::new(), &|_| ()),
        };
        // What a power cut left half of is fetched again by the next try.
        if matches!(made, Ok(()) | Err(ReleaseError::Changed { .. })) {
            remove(&self.folder)?;
        }
        made
    }

    fn found(&self, file: &File) -> Found {
        let arrived = || self.folder.join(file.digest.to_hex().as_str());
        let known = self.known.get(file);
        Found {
            from: known.cloned().unwrap_or_else(arrived),
            is_executable: file.is_executable,
            known: known.map(|_| file.clone()),
        }
    }
}
