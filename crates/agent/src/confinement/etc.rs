//! What a site's PHP sees as `/etc`: copies of what every program may need and everybody may read, and no user but its own.
//!
//! A folder of the site's own, kept up to date: a file that was bound would stay the old one when the machine replaces it by a
//! rename, as it does with `resolv.conf` and `hosts`.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::files;

/// Folders of `/etc` that are seen as they are.
pub(super) const FOLDERS: [&str; 8] = [
    "alternatives",
    "ca-certificates",
    "fonts",
    "ImageMagick-6",
    "ImageMagick-7",
    "php",
    "pki",
    "ssl",
];

/// Files that are copied; those of them that the machine has and everybody may read.
const FILES: [&str; 21] = [
    "aliases",
    "debian_version",
    "gai.conf",
    "host.conf",
    "hostname",
    "hosts",
    "ld.so.cache",
    "locale.alias",
    "localtime",
    "magic",
    "mailname",
    "mime.types",
    "msmtprc",
    "networks",
    "nsswitch.conf",
    "os-release",
    "papersize",
    "protocols",
    "resolv.conf",
    "services",
    "timezone",
];

/// Users and groups that are no site's.
const COMMON: [&str; 2] = ["0", "65534"];

/// Brings the folder up to date; `ids` are the site's user and group.
pub fn keep(folder: &Path, (uid, gid): (u32, u32)) -> io::Result<()> {
    files::folder(folder, 0o755, Some((0, 0)))?;
    let etc = Path::new("/etc");
    for name in FOLDERS.iter().filter(|name| etc.join(name).is_dir()) {
        files::folder(&folder.join(name), 0o755, Some((0, 0)))?;
    }
    for name in FILES {
        let copy = folder.join(name);
        match readable(&etc.join(name)) {
            Some(contents) => files::write(&copy, &contents, 0o644, Some((0, 0))).map(drop)?,
            // Docker puts files of its own there, and cannot make them in a folder that is read-only.
            None if matches!(name, "hosts" | "hostname" | "resolv.conf") => {
                files::write(&copy, b"", 0o644, Some((0, 0))).map(drop)?;
            }
            None if copy.exists() => fs::remove_file(&copy)?,
            None => {}
        }
    }
    for (name, own) in [("passwd", uid), ("group", gid)] {
        let all = fs::read_to_string(etc.join(name)).unwrap_or_default();
        let own = entries(&all, &own.to_string());
        files::write(&folder.join(name), own.as_bytes(), 0o644, Some((0, 0)))?;
    }
    Ok(())
}

fn readable(path: &Path) -> Option<Vec<u8>> {
    let found = fs::metadata(path).ok()?;
    (found.is_file() && found.mode() & 0o004 != 0).then(|| fs::read(path).ok()).flatten()
}

/// Lines of `/etc/passwd` or `/etc/group` with these numbers.
fn entries(all: &str, own: &str) -> String {
    let is_seen = |line: &&str| {
        line.split(':').nth(2).is_some_and(|number| number == own || COMMON.contains(&number))
    };
    all.lines().filter(is_seen).map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_sites_users_are_not_in_it() {
        let all = "root:x:0:0::/root:/bin/sh\npr-one:x:991:991::/:/bin/false\npr-two:x:992:992::/:/bin/false\nnobody:x:65534:65534::/:/bin/false\n";
        let own = entries(all, "991");
        assert_eq!(
            own,
            "root:x:0:0::/root:/bin/sh\npr-one:x:991:991::/:/bin/false\nnobody:x:65534:65534::/:/bin/false\n"
        );
    }
}
