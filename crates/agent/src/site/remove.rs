//! Removing a site for good: a dump first, then everything of it.

use std::path::PathBuf;

use pressroom_model::id::SiteName;
use pressroom_runtime::clock;

use super::Error;
use crate::agent::Agent;
use crate::files;
use crate::secrets;

/// Where the remains are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// A folder with `database.sql` and `uploads/`.
    pub kept: PathBuf,
}

impl Agent {
    /// Deletes what a site had, once nothing of it runs and the configuration does not name it any more. The dump is
    /// whole before anything is deleted.
    pub async fn delete_site(&self, name: &SiteName) -> Result<Removed, Error> {
        let config = self.config().ok_or_else(|| Error::Unknown(name.clone()))?;
        let mariadb = self.engines(&config)?.mariadb.clone();
        let stamp = clock::stamp(clock::wall_ms());
        let kept = self.layout.removed().join(format!("{name}-{stamp}"));
        files::folder(&self.layout.removed(), 0o700, None)?;
        files::folder(&kept, 0o700, None)?;
        let (dump, site, server) = (kept.join("database.sql"), name.clone(), mariadb.clone());
        crate::apply::off_the_loop(move || server.dump_site(&site, &dump).map_err(Error::from))
            .await?;
        let uploads = self.layout.uploads(name);
        if uploads.is_dir() {
            std::fs::rename(&uploads, kept.join("uploads"))?;
        }
        mariadb.drop_site(name).await?;
        for folder in [self.layout.site(name), self.layout.engine(&format!("php-{name}"))] {
            match std::fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(files::naming(&folder, &error).into());
                }
                _ => {}
            }
        }
        secrets::forget_site(&self.layout, name)?;
        self.forget(name).await?;
        Ok(Removed { kept })
    }
}
