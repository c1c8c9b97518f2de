//! Where the cache keeps what on disk, and whether what an earlier process left there can be believed.
//!
//! A process that was killed leaves all it had written. A machine that lost power does not: purges may be missing, in
//! the journal or in what PHP came to say. So pages are believed only if the machine has not been started since they
//! were written, or if the process before ended in order.

use std::io;
use std::path::{Path, PathBuf};

use pressroom_model::id::SiteName;
use serde::{Deserialize, Serialize};

use super::disk::remove_all;
use super::journal::replace;

/// The paths below the edge's state folder.
#[derive(Debug, Clone)]
pub(super) struct Places {
    root: PathBuf,
    boot: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Session {
    /// The kernel's id of this start of the machine.
    boot: String,
    /// The process ended in order, with everything synced.
    ended: bool,
}

impl Places {
    /// The places below a folder; makes the folders, and says whether what is in them can be believed.
    pub(super) fn begin_session(root: &Path) -> io::Result<(Self, bool)> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let places = Self { root: root.to_owned(), boot: boot.trim().to_owned() };
        std::fs::create_dir_all(root.join("journals"))?;
        std::fs::create_dir_all(root.join("hot"))?;
        let before: Session = std::fs::read(places.session())
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        let same_boot = !places.boot.is_empty() && before.boot == places.boot;
        places.note(false)?;
        Ok((places, same_boot || before.ended))
    }

    /// The process ends in order: pages are written without a sync each, so all are synced now.
    pub(super) fn end_session(&self) -> io::Result<()> {
        rustix::fs::syncfs(std::fs::File::open(&self.root)?)?;
        self.note(true)
    }

    fn note(&self, ended: bool) -> io::Result<()> {
        let text = serde_json::to_vec(&Session { boot: self.boot.clone(), ended })?;
        replace(&self.session(), &text, true)
    }

    fn session(&self) -> PathBuf {
        self.root.join("hot/session.json")
    }

    /// The journal of a site.
    pub(super) fn journal(&self, site: &SiteName) -> PathBuf {
        self.root.join(format!("journals/{site}.journal"))
    }

    /// The cookie names of a site.
    pub(super) fn cookies(&self, site: &SiteName) -> PathBuf {
        self.root.join(format!("journals/{site}.cookies"))
    }

    /// The pages of a site.
    pub(super) fn pages(&self, site: &SiteName) -> PathBuf {
        self.root.join(format!("hot/{site}"))
    }

    /// What is known of the pages of a site.
    pub(super) fn index(&self, site: &SiteName) -> PathBuf {
        self.pages(site).join("index.json")
    }

    /// Makes the folder of a site.
    pub(super) fn make(&self, site: &SiteName) -> io::Result<()> {
        std::fs::create_dir_all(self.pages(site))
    }

    /// Removes the pages of a site, and its journal.
    pub(super) fn clear(&self, site: &SiteName) {
        remove_all(&self.pages(site));
        remove_all(&self.journal(site));
    }
}
