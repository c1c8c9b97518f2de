//! A site's code: its source and our own PHP become a release, which is linked into the site's folder.

use std::path::PathBuf;
use std::sync::OnceLock;

use include_dir::{Dir, include_dir};
use pressroom_model::config::{Site, Source};
use pressroom_model::id::{ReleaseId, SiteName};
use pressroom_release::overlay::Overlay;
use pressroom_release::releases::Releases;
use pressroom_release::source;
use pressroom_release::worktree::Part;
use pressroom_runtime::{clock, tree};

use super::Error;
use crate::agent::Agent;
use crate::apply::off_the_loop;
use crate::bytecode;
use crate::engine::fingerprint;
use crate::facts::{Origin, Release};
use crate::git::source::{checkout, look};
use crate::layout::Layout;
use crate::published::{Archive, fetch};

static WORDPRESS: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../../wordpress");

/// Our scripts that are run from outside of a site's code.
pub(super) fn scripts() -> impl Iterator<Item = (&'static str, &'static [u8])> {
    [
        "install.php",
        "network.php",
        "cron.php",
        "upgrade.php",
        "request.php",
        "rewrite.php",
        "addresses.php",
        "serialised.php",
        "values.php",
        "database.php",
        "environment.php",
    ]
    .into_iter()
    .filter_map(|name| Some((name, WORDPRESS.get_file(name)?.contents())))
}

/// Our script that compiles code.
pub(crate) fn compiler() -> &'static [u8] {
    WORDPRESS.get_file("compile.php").map_or(&[], include_dir::File::contents)
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

/// Whether a file of a release is one that we add, whatever a source has in its place.
pub fn is_ours(path: &str) -> bool {
    // A former Pressroom may have had others.
    path.starts_with("wp-content/mu-plugins/pressroom/")
        || ours().iter().any(|(own, _)| own == path)
}

/// Whether a release is what the configuration and this Pressroom would make: code that was brought by a command counts
/// until the source in the configuration changes.
pub fn is_current(release: &Release, site: &Site) -> bool {
    release.setting == setting(site) && release.ours == *our_digest()
}

fn setting(site: &Site) -> String {
    // An environment's code comes by commands alone: what its parent is configured to have is no news for it.
    if site.environment.is_some() {
        return "environment".into();
    }
    fingerprint(&[&serde_json::to_vec(&site.wordpress).expect("a source is plain data")])
}

fn our_digest() -> &'static String {
    static OURS: OnceLock<String> = OnceLock::new();
    OURS.get_or_init(|| {
        let parts: Vec<&[u8]> =
            ours().iter().flat_map(|(path, bytes)| [path.as_bytes(), *bytes]).collect();
        fingerprint(&parts)
    })
}

fn ms(since: std::time::Instant) -> u64 {
    since.elapsed().as_millis() as u64
}

/// A source, as people are told of it.
pub fn in_words(source: &Source) -> String {
    match source {
        Source::Debian => "Debian's package".into(),
        Source::Version(version) => format!("WordPress {version} as published"),
        Source::Git { url, reference } => format!("{url} at {reference}"),
        Source::Path(path) | Source::Archive { path, .. } => path.display().to_string(),
    }
}

/// Code that somebody brings by a command.
#[derive(Debug, Clone)]
pub struct Brought {
    /// What.
    pub code: Code,
    /// How.
    pub origin: Origin,
}

/// What a release is made of.
#[derive(Debug, Clone)]
pub enum Code {
    /// A source as the configuration has them.
    Source(Source),
    /// A folder that is a `wp-content` alone, on the core of a release.
    Content(PathBuf, ReleaseId),
    /// A release that was made before, with our files of today.
    Again(ReleaseId),
    /// Parts of a release as its writable copy has them now.
    Edited {
        /// The release that the copy was made from.
        base: ReleaseId,
        /// The copy.
        copy: PathBuf,
        /// What counts of it.
        parts: Vec<Part>,
    },
    /// A release that was made before, with what a folder has in its place, without some files.
    Changed {
        /// The release.
        base: ReleaseId,
        /// What is new or different, at its path.
        folder: PathBuf,
        /// What is gone.
        removed: Vec<String>,
    },
}

impl Agent {
    /// Builds and links the release that a site's configuration asks for.
    pub(crate) async fn build_release(&self, name: &SiteName) -> Result<(), Error> {
        let site = self.site(name).ok_or_else(|| Error::Unknown(name.clone()))?;
        let known = self.state.lock().sites.get(name).and_then(|facts| facts.release.clone());
        // Only our own files changed: what was brought stays.
        let brought =
            known.filter(|known| known.setting == setting(&site) && known.origin.is_brought);
        let release = match (brought, &site.environment) {
            (None, Some(environment)) => self.release_of_parent(&site, environment).await?,
            (brought, _) => {
                let (code, origin) = match brought {
                    Some(known) => (Code::Again(known.id), known.origin),
                    None => (Code::Source(site.wordpress.clone()), Origin::default()),
                };
                self.take_in(name, Brought { code, origin }).await?
            }
        };
        self.state.lock().sites.entry(name.clone()).or_default().release = Some(release);
        self.remember(name).await?;
        Ok(())
    }

    /// Makes a release of what was brought, which the site should have from now on. The rollout follows by itself.
    pub async fn bring(&self, name: &SiteName, brought: Brought) -> Result<ReleaseId, Error> {
        let release = self.take_in(name, brought).await?;
        let id = release.id.clone();
        self.want(name, release).await?;
        Ok(id)
    }

    /// Makes a release of what was brought. The site does not have it yet: see [`Agent::want`].
    pub async fn take_in(&self, name: &SiteName, brought: Brought) -> Result<Release, Error> {
        let site = self.site(name).ok_or_else(|| Error::Unknown(name.clone()))?;
        let _made = self.collection.read().await;
        let release = self.make(&site, brought.code, brought.origin.plain()).await?;
        self.bring_near(name, &release);
        Ok(release)
    }

    /// The site will soon be asked to have it.
    fn bring_near(&self, name: &SiteName, release: &Release) {
        let mut state = self.state.lock();
        let facts = state.sites.entry(name.clone()).or_default();
        facts.brought = Some(release.id.clone());
    }

    /// Goes back to a release that served before, or, where nobody did `by` name, on to one that another site has. The rollout
    /// follows by itself.
    pub async fn bring_back(
        &self,
        name: &SiteName,
        kept: &Release,
        by: Option<&str>,
    ) -> Result<(), Error> {
        let site = self.site(name).ok_or_else(|| Error::Unknown(name.clone()))?;
        let mut release = self.adopt(&site, kept.clone()).await?;
        release.back_by = by.map(str::to_owned);
        self.want(name, release).await
    }

    /// Links a release that was made before into a site's folder, as one that it could have.
    pub(super) async fn adopt(&self, site: &Site, made: Release) -> Result<Release, Error> {
        let mut release = Release { setting: setting(site), ..made };
        // The source may hold something newer: it must not come by itself.
        release.origin.is_brought = true;
        let folder = self.layout.site(&site.name);
        let _made = self.collection.read().await;
        let releases = Releases::at(self.layout.releases());
        let (id, of) = (release.id.clone(), site.name.clone());
        let scratch = self.scratch_of(&site.name)?;
        // What its plugins kept when it served last is of another day.
        let stale = (!self.runs(&site.name, &id)).then(|| self.layout.scratch(&site.name, &id));
        off_the_loop(move || {
            if let Some(stale) = stale {
                tree::remove(&stale)?;
            }
            let failed = |source| Error::Code { site: of, source };
            releases.materialise(&id, &folder).map_err(failed)?;
            scratch(&releases, &id)
        })
        .await?;
        self.bring_near(&site.name, &release);
        Ok(release)
    }

    /// Links a release that is here into a site's folder.
    pub(crate) async fn link_release(&self, name: &SiteName, id: &ReleaseId) -> Result<(), Error> {
        let site = self.site(name).ok_or_else(|| Error::Unknown(name.clone()))?;
        let (layout, serving) = (self.layout.clone(), self.served_release(name));
        let (scratch, id) = (self.scratch_of(name)?, id.clone());
        off_the_loop(move || {
            link(&layout, &site, serving.as_ref(), &id)?;
            scratch(&Releases::at(layout.releases()), &id)
        })
        .await
    }

    /// The release of the version that serves.
    fn served_release(&self, name: &SiteName) -> Option<ReleaseId> {
        let state = self.state.lock();
        let serving = state.sites.get(name)?.serving.as_ref()?;
        Some(serving.release.id.clone())
    }

    /// Whether some of the site's instances may run this release.
    fn runs(&self, name: &SiteName, id: &ReleaseId) -> bool {
        let state = self.state.lock();
        state.sites.get(name).is_some_and(|facts| facts.used().contains(id))
    }

    /// The site should have this release from now on. The rollout follows by itself.
    pub async fn want(&self, name: &SiteName, release: Release) -> Result<(), Error> {
        self.change(name, |facts| {
            facts.release = Some(release);
            facts.brought = None;
            // Asked for again, it is tried again.
            facts.refused = None;
        })
        .await
    }

    /// Makes a release of what could be brought, and nothing more: to compare it with others.
    pub async fn make_only(&self, name: &SiteName, code: Code) -> Result<ReleaseId, Error> {
        let site = self.site(name).ok_or_else(|| Error::Unknown(name.clone()))?;
        Ok(self.make(&site, code, Origin::default()).await?.id)
    }

    async fn make(&self, site: &Site, code: Code, mut origin: Origin) -> Result<Release, Error> {
        let name = site.name.clone();
        let releases = Releases::at(self.layout.releases());
        let (layout, of) = (self.layout.clone(), site.clone());
        let serving = self.served_release(&name);
        let builder = match &code {
            Code::Source(Source::Git { .. }) => self.users.builder()?,
            _ => None,
        };
        let scratch = self.scratch_of(&site.name)?;
        let mirror = self.config().and_then(|config| config.wordpress.mirror);
        let (built, seen) = off_the_loop(move || {
            let failed = |source| Error::Code { site: name.clone(), source };
            let begun = clock::now();
            let files = ours().iter().map(|(path, bytes)| (path.clone(), bytes.to_vec()));
            let overlay = Overlay::new(files).map_err(failed)?;
            let (code, checkout) = match code {
                Code::Source(Source::Git { url, reference }) => {
                    let checkout = checkout(&layout, &name, (&url, &reference), builder.as_ref());
                    let checkout =
                        checkout.map_err(|source| Error::Source { site: name.clone(), source })?;
                    (Code::Source(Source::Path(checkout.folder.clone())), Some(checkout))
                }
                Code::Source(Source::Version(version)) => {
                    let Archive { path, sha256 } = fetch(&layout, mirror.as_deref(), &version)?;
                    (Code::Source(Source::Archive { path, sha256 }), None)
                }
                code => (code, None),
            };
            // Looked at first: what changes meanwhile is noticed the next time.
            let seen = match &code {
                _ if let Some(checkout) = &checkout => checkout.commit.clone(),
                Code::Source(source) => source::fingerprint(source).map_err(failed)?,
                Code::Content(..) | Code::Again(_) | Code::Edited { .. } | Code::Changed { .. } => {
                    String::new()
                }
            };
            let built = match &code {
                Code::Source(source) => releases.build(source, &overlay, &|_| {}),
                Code::Content(content, core) => {
                    releases.build_content(content, core, &overlay, &|_| {})
                }
                Code::Again(id) => releases.build_again(id, &overlay, &|_| {}),
                Code::Edited { base, copy, parts } => {
                    releases.build_edited(base, copy, parts, &overlay, &|_| {})
                }
                Code::Changed { base, folder, removed } => {
                    releases.build_changed(base, folder, removed, &overlay, &|_| {})
                }
            };
            let built = built.map_err(failed)?;
            let (id, built_ms) = (&built.id, ms(begun));
            link(&layout, &of, serving.as_ref(), id)?;
            scratch(&releases, id)?;
            tracing::info!(site = %of.name, release = %id, built_ms, ms = ms(begun), "made a release");
            Ok::<_, Error>((built, seen))
        })
        .await?;
        // What the distribution's package has besides is known, and no news.
        let is_own = site.wordpress != Source::Debian || origin.is_brought;
        for left_out in built.left_out.iter().filter(|_| is_own).take(5) {
            self.notice(format!(
                "`{}`: {} was left out: {}",
                site.name, left_out.path, left_out.because
            ));
        }
        if origin.source.is_empty() {
            origin.source = in_words(&site.wordpress);
        }
        if origin.author.is_empty() {
            origin.author = "configuration".into();
        }
        if origin.message.is_empty() {
            origin.message = format!("WordPress {}", built.wordpress);
        }
        Ok(Release {
            id: built.id,
            setting: setting(site),
            ours: our_digest().clone(),
            origin,
            source: seen,
            wordpress: built.wordpress,
            files: built.files,
            bytes: built.bytes,
            back_by: None,
        })
    }

    /// Looks whether the files of the sources changed since the releases were made (an upgraded package, a new
    /// checkout); such a site's release is made anew. Asked for by `apply`, since it looks at thousands of files.
    /// A source that cannot be looked at leaves its site with the release that it has.
    pub async fn look_at_sources(&self) {
        let sites = self.config().map(|config| config.sites).unwrap_or_default();
        let mut known: Vec<(Source, Option<String>)> = Vec::new();
        for site in sites {
            if !known.iter().any(|(source, _)| *source == site.wordpress) {
                let (source, layout) = (site.wordpress.clone(), self.layout.clone());
                let looked = off_the_loop(move || {
                    Ok::<_, std::io::Error>(match &source {
                        Source::Git { url, reference } => look(&layout, url, reference).ok(),
                        source => source::fingerprint(source).ok(),
                    })
                });
                known.push((site.wordpress.clone(), looked.await.ok().flatten()));
            }
            let now = known.iter().find(|(source, _)| *source == site.wordpress);
            let Some(now) = now.and_then(|(_, seen)| seen.as_deref()) else { continue };
            let mut state = self.state.lock();
            let release = state.sites.get_mut(&site.name).and_then(|facts| facts.release.as_mut());
            let release = release.filter(|release| !release.origin.is_brought);
            if let Some(release) = release.filter(|release| release.source != now) {
                release.setting.clear();
            }
        }
    }
}

/// Links a release into a site's folder, and gives it the bytecode of what it has in common with the one that serves.
fn link(
    layout: &Layout,
    site: &Site,
    serving: Option<&ReleaseId>,
    id: &ReleaseId,
) -> Result<(), Error> {
    let releases = Releases::at(layout.releases());
    let linked = std::thread::scope(|scope| {
        if let Some(serving) = serving {
            scope.spawn(|| bytecode::take_over(layout, site, serving, id));
        }
        releases.materialise(id, &layout.site(&site.name))
    });
    linked.map(drop).map_err(|source| Error::Code { site: site.name.clone(), source })
}
