//! Files that are ours: laid over the source, in whose place they stand.

use std::collections::BTreeMap;

use crate::ReleaseError;
use crate::manifest::check_path;

/// Files by path, with `/` between names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Overlay(BTreeMap<String, Vec<u8>>);

impl Overlay {
    /// Checks the paths. The last of two files with one path counts.
    pub fn new<P: Into<String>, B: Into<Vec<u8>>>(
        files: impl IntoIterator<Item = (P, B)>,
    ) -> Result<Self, ReleaseError> {
        let mut overlay = BTreeMap::new();
        for (path, bytes) in files {
            let path = path.into();
            check_path(&path)
                .map_err(|why| ReleaseError::BadPath { path: path.clone().into(), why })?;
            overlay.insert(path, bytes.into());
        }
        Ok(Self(overlay))
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = (&String, &Vec<u8>)> {
        self.0.iter()
    }
}
