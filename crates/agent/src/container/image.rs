//! The image of a PHP version: this machine's own packages of it, and everything that they depend on.
//!
//! No registry and no network is needed, and PHP is the one that is installed and kept up to date here. The tag is a digest of the packages
//! with their versions: an image is built once for all sites, and an update of a package makes another one, which reaches
//! sites by a rollout like code. In the image are programs and libraries alone; `/etc` is mounted, documentation is left out, and
//! so is `/usr/local`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Docker;
use crate::confinement::SYSTEM;
use crate::engine::{self, Error};

/// What our tags begin with.
const OURS: &str = "pressroom/php:";
/// Our label on every image that was made here.
const LABEL: &str = "pressroom.image=true";
/// Raised when images are made otherwise.
const RECIPE: &str = "1";
/// Packages that PHP of a site may start or look into, where they are installed.
const FURTHER: [&str; 9] = [
    "ca-certificates",
    "default-mysql-client",
    "fontconfig",
    "ghostscript",
    "imagemagick",
    "msmtp",
    "msmtp-mta",
    "poppler-utils",
    "tzdata",
];
/// What is not packed of them.
const LEFT_OUT: [&str; 7] = [
    "/usr/include",
    "/usr/share/bug",
    "/usr/share/doc",
    "/usr/share/info",
    "/usr/share/lintian",
    "/usr/share/locale",
    "/usr/share/man",
];
/// What no package says that it has, but PHP may have beside them: extensions, and data that packages make when they are installed.
const MADE_HERE: [&str; 3] = ["/usr/lib/php", "/usr/lib/locale", "/usr/share/mime"];
/// What is known of the packages that are installed.
pub(super) const KNOWN: &str = "/var/lib/dpkg/status";

/// An image, there or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its name.
    pub tag: String,
    packages: Vec<String>,
}

/// The image that a PHP version should have now.
pub fn of(version: &str) -> Result<Image, Error> {
    let format = "${db:Status-Abbrev}\t${binary:Package}\t${Version}\t${Essential}\t${Provides}\t${Pre-Depends}, ${Depends}\n";
    let mut query = Command::new("dpkg-query");
    let installed = engine::answer(
        "dpkg",
        "the question which packages there are",
        query.args(["--show", "--showformat", format]),
    )?;
    let packages = closure(&installed, version);
    let server = format!("php{version}-fpm");
    if !packages.keys().any(|name| without_architecture(name) == server) {
        return Err(Error::Missing { program: format!("/usr/sbin/php-fpm{version}") });
    }
    let parts: Vec<String> =
        packages.iter().map(|(name, version)| format!("{name} {version}")).collect();
    let parts: Vec<&[u8]> =
        std::iter::once(RECIPE).chain(parts.iter().map(|s| &**s)).map(str::as_bytes).collect();
    let tag = format!("{OURS}{version}-{}", engine::fingerprint(&parts));
    Ok(Image { tag, packages: packages.into_keys().collect() })
}

impl Docker {
    /// Makes an image again that a version is of and that somebody has deleted, if that can be done.
    pub fn ensure(&self, tag: &str, version: &str) -> Result<(), Error> {
        if self.has_image(tag)? {
            return Ok(());
        }
        if !tag.starts_with(OURS) {
            let said = "it is not there: `docker pull` it, or build it".to_owned();
            return Err(Error::Refused {
                engine: "docker",
                what: format!("the image {tag}"),
                said,
            });
        }
        let image = of(version)?;
        if image.tag == tag {
            return self.build(&image);
        }
        let said = "it was deleted, and other packages are installed now; a version of the new image takes its place";
        Err(Error::Refused {
            engine: "docker",
            what: format!("the image {tag}"),
            said: said.into(),
        })
    }

    /// Deletes the images made here that are none of these; one of which there is a container stays.
    pub fn prune(&self, wanted: &BTreeSet<String>) -> Result<(), Error> {
        let (label, format) = (format!("label={LABEL}"), "{{.Repository}}:{{.Tag}}");
        let list = self.ask(&["image", "ls", "--filter", &label, "--format", format])?;
        for tag in list.lines().filter(|tag| tag.starts_with(OURS) && !wanted.contains(*tag)) {
            match self.ask(&["image", "rm", tag]) {
                Ok(_) => tracing::info!(tag, "deleted the image of former packages"),
                Err(error) => tracing::debug!(tag, %error, "the image is in use"),
            }
        }
        Ok(())
    }

    /// Makes an image unless it is there.
    pub fn build(&self, image: &Image) -> Result<(), Error> {
        if self.has_image(&image.tag)? {
            return Ok(());
        }
        let mut list = tempfile()?;
        list.write_all(&files_of(&image.packages)?)?;
        let list = rewound(list)?;
        let mut tar = Command::new("tar")
            .args(["--create", "--null", "--no-recursion", "--directory=/", "--mode=ug-s"])
            .args(["--verbatim-files-from", "--files-from=-"])
            .stdin(list)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let packed = tar.stdout.take().expect("it is piped");
        let mut import = self.command()?;
        import.args(["import", &format!("--change=LABEL {LABEL}")]);
        import.args(["--message", "packages of this machine", "-", &image.tag]);
        let imported =
            engine::fed("docker", &format!("the image {}", image.tag), &mut import, packed.into());
        let packed = tar.wait()?;
        imported?;
        if !packed.success() {
            // An image that lacks something is worse than none.
            self.ask(&["image", "rm", "--force", &image.tag])?;
            let said = format!("tar: {packed}: a package was changed meanwhile, perhaps");
            return Err(Error::Refused { engine: "docker", what: "the image".into(), said });
        }
        Ok(())
    }
}

/// A file that has no name.
fn tempfile() -> Result<fs::File, Error> {
    use rustix::fs::{MemfdFlags, memfd_create};
    let file = memfd_create("files", MemfdFlags::CLOEXEC).map_err(std::io::Error::from)?;
    Ok(file.into())
}

fn rewound(mut file: fs::File) -> Result<fs::File, Error> {
    use std::io::Seek;
    file.rewind()?;
    Ok(file)
}

/// The packages of a PHP version, what must be on every machine, and whatever they depend on, each with its version.
fn closure(installed: &str, version: &str) -> BTreeMap<String, String> {
    struct Package<'a> {
        version: &'a str,
        depends: &'a str,
    }
    let mut all: BTreeMap<&str, Package<'_>> = BTreeMap::new();
    let mut providers: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut open: Vec<&str> = Vec::new();
    let own = format!("php{version}-");
    for line in installed.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let &[status, name, release, essential, provides, depends] = &fields[..] else { continue };
        if !status.starts_with("ii") {
            continue;
        }
        all.insert(name, Package { version: release, depends });
        let bare = without_architecture(name);
        for other in names(provides).chain([bare]) {
            providers.entry(other).or_default().push(name);
        }
        if essential == "yes" || bare.starts_with(&own) || FURTHER.contains(&bare) {
            open.push(name);
        }
    }
    let mut found = BTreeMap::new();
    while let Some(name) = open.pop() {
        let Some(package) = all.get(name).filter(|_| !found.contains_key(name)) else { continue };
        found.insert(name.to_owned(), package.version.to_owned());
        open.extend(names(package.depends).filter_map(|name| providers.get(name)).flatten());
    }
    found
}

/// The names in a list of dependencies: of alternatives all, since only what is installed counts.
fn names(list: &str) -> impl Iterator<Item = &str> {
    let names = list.split([',', '|']).filter_map(|one| one.trim().split([' ', '(', ':']).next());
    names.filter(|name| !name.is_empty())
}

fn without_architecture(name: &str) -> &str {
    name.split(':').next().unwrap_or(name)
}

/// The paths of what is packed, relative to the root, each with a zero byte at its end.
fn files_of(packages: &[String]) -> Result<Vec<u8>, Error> {
    let mut query = Command::new("dpkg");
    let listed =
        engine::answer("dpkg", "the question for files", query.arg("--listfiles").args(packages))?;
    let mut folders: BTreeMap<PathBuf, Option<PathBuf>> = BTreeMap::new();
    let mut found: BTreeSet<PathBuf> = BTreeSet::new();
    let mut more = Vec::new();
    for folder in MADE_HERE {
        below(Path::new(folder), &mut more);
    }
    links(&mut more);
    for path in listed.lines().map(PathBuf::from).filter(|path| path.is_absolute()).chain(more) {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { continue };
        // `/bin/sh` is `/usr/bin/sh` where `/bin` is a link.
        let real = folders.entry(folder.to_owned()).or_insert_with(|| folder.canonicalize().ok());
        let Some(path) = real.as_ref().map(|folder| folder.join(name)) else { continue };
        let is_system = SYSTEM.iter().any(|system| path.starts_with(system));
        let is_left_out = LEFT_OUT.iter().any(|folder| path.starts_with(folder));
        let is_packed = path.symlink_metadata().is_ok_and(|it| it.is_file() || it.is_symlink());
        if is_system && !is_left_out && is_packed {
            found.insert(path);
        }
    }
    // `/bin` itself and its like.
    found.extend(SYSTEM.map(PathBuf::from).into_iter().filter(|path| path.is_symlink()));
    let mut bytes = Vec::new();
    for path in found {
        let relative = path.strip_prefix("/").unwrap_or(&path);
        bytes.extend_from_slice(relative.as_os_str().as_encoded_bytes());
        bytes.push(0);
    }
    Ok(bytes)
}

fn below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => below(&entry.path(), found),
            _ => found.push(entry.path()),
        }
    }
}

/// Links that choose among packages (`awk`, `sendmail`, a library of linear algebra): no package has them.
fn links(found: &mut Vec<PathBuf>) {
    let libraries = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let libraries = libraries
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().contains("-linux-"));
    for folder in libraries.chain(["/usr/bin".into(), "/usr/sbin".into()]) {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        found.extend(entries.map(|entry| entry.path()).filter(|path| {
            fs::read_link(path).is_ok_and(|target| target.starts_with("/etc/alternatives"))
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_what_php_depends_on_and_what_provides_that() {
        let installed = "ii \tphp8.2-fpm\t1\tno\t\t, libc6 (>= 2), mail-agent | other\n\
             ii \tlibc6:amd64\t2\tno\t\t\n\
             ii \tmsg\t3\tno\tmail-agent (= 1), x\tlibc6\n\
             ii \tbash\t4\tyes\t\t\n\
             ii \tphp8.3-fpm\t5\tno\t\tmore\n\
             ii \tmore\t6\tno\t\t\n\
             rc \tghostscript\t7\tno\t\t\n";
        let found: Vec<String> = closure(installed, "8.2")
            .into_iter()
            .map(|(name, version)| format!("{name} {version}"))
            .collect();
        assert_eq!(found, ["bash 4", "libc6:amd64 2", "msg 3", "php8.2-fpm 1"]);
    }

    #[test]
    fn another_version_of_a_package_is_another_image() {
        let tag = |libc: &str| {
            let installed =
                format!("ii \tphp8.2-fpm\t1\tno\t\tlibc6\nii \tlibc6\t{libc}\tno\t\t\n");
            closure(&installed, "8.2")
        };
        assert_ne!(tag("1"), tag("2"));
    }
}
