//! A site's code: its source and our own PHP become a release, which is linked into the site's folder.

use std::sync::OnceLock;

use include_dir::{Dir, include_dir};
use pressroom_model::config::{Site, Source};
use pressroom_model::id::SiteName;
use pressroom_release::overlay::Overlay;
use pressroom_release::releases::Releases;
use pressroom_release::source;

use super::Error;
use crate::agent::{Agent, Release};
use crate::apply::off_the_loop;
use crate::engine::fingerprint;

static WORDPRESS: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../../wordpress");

/// Our scripts that are run from outside of a site's code.
pub(super) fn scripts() -> impl Iterator<Item = (&'static str, &'static [u8])> {
    ["install.php", "network.php", "cron.php"]
        .into_iter()
        .filter_map(|name| Some((name, WORDPRESS.get_file(name)?.contents())))
}

/// Our files in a release: path and contents.
fn ours() -> &'static Vec<(String, &'static [u8])> {
    static FILES: OnceLock<Vec<(String, &'static [u8])>> = OnceLock::new();
    FILES.get_or_init(|| {
        let mut files = Vec::new();
        if let Some(folder) = WORDPRESS.get_dir("mu-plugins") {
            collect(folder, &mut files);
        }
        for (name, path) in [
            ("object-cache.php", "wp-content/object-cache.php"),
            ("wp-config.php", "wp-config.php"),
        ] {
            if let Some(file) = WORDPRESS.get_file(name) {
                files.push((path.to_owned(), file.contents()));
            }
        }
        files.sort();
        files
    })
}

fn collect(folder: &'static Dir<'static>, files: &mut Vec<(String, &'static [u8])>) {
    for file in
        folder.files().filter(|file| file.path().extension().is_some_and(|end| end == "php"))
    {
        files.push((format!("wp-content/{}", file.path().display()), file.contents()));
    }
    for below in folder.dirs() {
        collect(below, files);
    }
}

/// Digest of what a site's release is made from: the source as configured, and our files.
pub fn made_from(site: &Site) -> String {
    static OURS: OnceLock<String> = OnceLock::new();
    let ours = OURS.get_or_init(|| {
        let parts: Vec<&[u8]> =
            ours().iter().flat_map(|(path, bytes)| [path.as_bytes(), *bytes]).collect();
        fingerprint(&parts)
    });
    let source = serde_json::to_vec(&site.wordpress).expect("a source is plain data");
    fingerprint(&[&source, ours.as_bytes()])
}

impl Agent {
    /// Builds and links a site's release.
    pub(crate) async fn build_release(&self, name: &SiteName) -> Result<(), Error> {
        let site = self.site(name).ok_or_else(|| Error::Unknown(name.clone()))?;
        let (releases, folder) = (Releases::at(self.layout.releases()), self.layout.site(name));
        let (source, of) = (site.wordpress.clone(), name.clone());
        let (seen, built) = off_the_loop(move || {
            let failed = |source| Error::Code { site: of.clone(), source };
            let files = ours().iter().map(|(path, bytes)| (path.clone(), bytes.to_vec()));
            let overlay = Overlay::new(files).map_err(failed)?;
            // Looked at first: what changes meanwhile is noticed the next time.
            let seen = source::fingerprint(&source).map_err(failed)?;
            let built = releases.build(&source, &overlay, &|_| {}).map_err(failed)?;
            releases.materialise(&built.id, &folder).map_err(failed)?;
            Ok::<_, Error>((seen, built))
        })
        .await?;
        // What the distribution's package has besides is known, and no news.
        let is_own = site.wordpress != pressroom_model::config::Source::Debian;
        for left_out in built.left_out.iter().filter(|_| is_own).take(5) {
            self.notice(format!("`{name}`: {} was left out: {}", left_out.path, left_out.because));
        }
        let release = Release {
            id: built.id,
            made_from: made_from(&site),
            source: seen,
            wordpress: built.wordpress,
        };
        self.state.lock().sites.entry(name.clone()).or_default().release = Some(release);
        self.remember(name).await?;
        Ok(())
    }

    /// Looks whether the files of the sources changed since the releases were made (an upgraded package, a new
    /// checkout); such a site's release is made anew. Asked for by `apply`, since it looks at thousands of files.
    /// A source that cannot be looked at leaves its site with the release that it has.
    pub async fn look_at_sources(&self) {
        let sites = self.config().map(|config| config.sites).unwrap_or_default();
        let mut known: Vec<(Source, Option<String>)> = Vec::new();
        for site in sites {
            if !known.iter().any(|(source, _)| *source == site.wordpress) {
                let source = site.wordpress.clone();
                let looked = off_the_loop(move || {
                    Ok::<_, std::io::Error>(source::fingerprint(&source).ok())
                });
                known.push((site.wordpress.clone(), looked.await.ok().flatten()));
            }
            let now = known.iter().find(|(source, _)| *source == site.wordpress);
            let Some(now) = now.and_then(|(_, seen)| seen.as_deref()) else { continue };
            let mut state = self.state.lock();
            let release = state.sites.get_mut(&site.name).and_then(|facts| facts.release.as_mut());
            if let Some(release) = release.filter(|release| release.source != now) {
                release.made_from.clear();
            }
        }
    }
}
