//! Removing a site for good: a dump first, then everything of it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pressroom_model::id::{InstanceId, SiteName};
use pressroom_plan::machine::instance_of;
use pressroom_runtime::{clock, tree};

use super::Error;
use crate::agent::Agent;
use crate::files;
use crate::keeper;
use crate::secrets;

/// Where the remains are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// A folder with `database.sql` and `uploads/`, as far as the site had them.
    pub kept: PathBuf,
}

/// Between two looks whether releases are being made.
const AGAIN: Duration = Duration::from_millis(50);

impl Agent {
    /// Deletes what a site had, once nothing of it runs and the configuration does not name it any more. The dump is
    /// whole before anything is deleted. A removal that broke off, or a site that was never whole, is removed as well.
    pub async fn delete_site(&self, name: &SiteName) -> Result<Removed, Error> {
        let config = self.config().ok_or_else(|| Error::Unknown(name.clone()))?;
        if config.sites.iter().any(|site| site.name == *name) {
            return Err(Error::Wanted(name.clone()));
        }
        // A script may still be at work.
        keeper::end_limit(self.layout.data(), name.as_str());
        let engines = self.engines(&config)?;
        let mariadb = engines.mariadb.clone();
        let stamp = clock::stamp(clock::wall_ms());
        let kept = self.layout.removed().join(format!("{name}-{stamp}"));
        files::folder(&self.layout.removed(), 0o700, None)?;
        files::folder(&kept, 0o700, None)?;
        if mariadb.has_site(name).await? {
            let (dump, site, server) = (kept.join("database.sql"), name.clone(), mariadb.clone());
            crate::apply::off_the_loop(move || server.dump_site(&site, &dump).map_err(Error::from))
                .await?;
        }
        let uploads = self.layout.uploads(name);
        if uploads.is_dir() {
            std::fs::rename(&uploads, kept.join("uploads"))?;
        }
        self.clear_site(name).await?;
        Ok(Removed { kept })
    }

    /// Deletes what a site has, whatever there is of it. Nothing of it may run.
    pub(crate) async fn clear_site(&self, name: &SiteName) -> Result<(), Error> {
        let config = self.config().ok_or_else(|| Error::Unknown(name.clone()))?;
        if config.sites.iter().any(|site| site.name == *name) {
            return Err(Error::Wanted(name.clone()));
        }
        let engines = self.engines(&config)?;
        engines.mariadb.drop_site(name).await?;
        for path in engines.mariadb.copying_files(name) {
            delete(&path)?;
        }
        for redis in &engines.redis {
            redis.forget_site(name).await?;
        }
        // The edge may have been replaced before it saw that the site is gone, and whoever gets this name later must
        // not be answered with these pages.
        for path in self.layout.edge_of(name) {
            delete(&path)?;
        }
        for folder in self.instance_folders(name)? {
            delete(&folder)?;
        }
        for path in self.layout.certificate_files(name) {
            delete(&path)?;
        }
        for path in [
            self.layout.author(name),
            self.layout.author_change(name),
            self.layout.author_loopback(name),
        ] {
            delete(&path)?;
        }
        delete(&self.layout.site(name))?;
        // Git may still be writing what served last.
        let _history = self.histories.lock(name).lock_owned().await;
        delete(&self.layout.history(name))?;
        crate::git::token::revoke(&self.layout, name)?;
        secrets::forget_site(&self.layout, name)?;
        // Its releases first: what is forgotten is not deleted any more.
        {
            let _alone = self.alone_with_releases().await;
            let known = self.known_releases(|of| of == name);
            let others = self.known_releases(|of| of != name);
            self.delete_releases(name, known, others).await?;
        }
        self.forget(name).await?;
        Ok(())
    }

    /// The right to delete releases, once nobody makes one. Who makes some must not wait behind us, so we do not queue.
    async fn alone_with_releases(&self) -> tokio::sync::RwLockWriteGuard<'_, ()> {
        loop {
            if let Ok(alone) = self.collection.try_write() {
                return alone;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Deletes what nothing has a use for when an environment is gone: its user, its evidence, its dumps.
    pub(crate) fn clear_traces(&self, name: &SiteName) -> Result<(), Error> {
        for path in [self.layout.dumps(name), self.layout.evidence(name)] {
            delete(&path)?;
        }
        Ok(self.users.forget_site(name)?)
    }

    /// Folders of a site's instances, and its `php.ini` values.
    fn instance_folders(&self, name: &SiteName) -> io::Result<Vec<PathBuf>> {
        let is_of = |id: Option<InstanceId>| id.is_some_and(|id| id.site() == *name);
        let mut folders = below(&self.layout.engines(), |found| is_of(instance_of(found)))?;
        folders.extend(below(&self.layout.run().join("php"), |found| is_of(found.parse().ok()))?);
        folders.push(self.layout.php_ini(name));
        if let Some(affirm) = self.layout.affirm(name).parent() {
            folders.push(affirm.to_owned());
        }
        // `php-blog-1.log`, and what it was before it was rotated.
        let process = |found: &str| instance_of(found.split_once(".log")?.0);
        folders.extend(below(&self.layout.logs(), |found| is_of(process(found)))?);
        Ok(folders)
    }
}

/// What is in a folder and has such a name.
fn below(folder: &Path, is_meant: impl Fn(&str) -> bool) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| files::naming(folder, &error))? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(&is_meant) {
            paths.push(entry.path());
        }
    }
    Ok(paths)
}

fn delete(path: &Path) -> io::Result<()> {
    tree::remove(path).map_err(|error| files::naming(path, &error))
}
