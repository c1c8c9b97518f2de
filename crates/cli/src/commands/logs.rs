//! `pressroom logs`: what processes wrote. Reads the files, so it works with everything stopped.
//!
//! Every process writes `logs/NAME.log`; the edge's access log is `logs/edge/access.log`; a site's PHP also writes in
//! the site's own folder. A file that is rotated is followed from its beginning.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pressroom_api::failure::Failure;

use super::{Context, Done};
use crate::args::Logs;

/// Bytes from the end of a file in which its last lines are looked for.
const TAIL: u64 = 1 << 20;
/// Between two looks at files that are followed.
const LOOK: Duration = Duration::from_millis(200);

pub(super) fn run(context: &Context<'_>, arguments: &Logs) -> Done {
    let wanted = arguments.name.as_deref();
    let mut files: Vec<Followed> = Vec::new();
    let found = find(context, wanted);
    if found.is_empty() {
        return Err(nothing(context, wanted));
    }
    let mut has_many = found.len() > 1;
    for (name, path) in found {
        files.push(show_tail(context, name, path, arguments.lines, has_many));
    }
    while arguments.follow && context.talk.is_read() {
        context.rest(LOOK);
        for (name, path) in find(context, wanted) {
            if !files.iter().any(|file| file.path == path) {
                files.push(Followed::new(name, path));
                has_many = true;
            }
        }
        for file in &mut files {
            for line in file.news() {
                say(context, &file.name, &line, has_many);
            }
        }
    }
    Ok(0)
}

fn nothing(context: &Context<'_>, wanted: Option<&str>) -> Failure {
    let all: Vec<_> =
        find(context, None).into_iter().map(|(name, _)| format!("`{name}`")).collect();
    match wanted {
        Some(name) if !all.is_empty() => Failure::yours(format!("nothing was written by `{name}`"))
            .hint(format!("there are logs of {}", all.join(", "))),
        _ => Failure::yours(format!("there are no logs in `{}`", context.place.logs().display()))
            .hint("name the data directory with `--data DIR`"),
    }
}

/// The files that are meant, by the names that people give them.
fn find(context: &Context<'_>, wanted: Option<&str>) -> Vec<(String, PathBuf)> {
    let mut all = logs_in(&context.place.logs(), "");
    all.extend(logs_in(&context.place.logs().join("edge"), ""));
    let sites = std::fs::read_dir(context.place.data.join("sites")).into_iter().flatten().flatten();
    for site in sites.filter_map(|entry| entry.file_name().into_string().ok()) {
        all.extend(logs_in(&context.place.site_logs(&site), &format!("{site}/")));
    }
    all.sort();
    all.retain(|(name, _)| wanted.is_none_or(|wanted| is_of(name, wanted)));
    all
}

fn logs_in(folder: &Path, prefix: &str) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "log"));
    let named = |path: PathBuf| {
        let name = format!("{prefix}{}", path.file_stem()?.to_str()?);
        Some((name, path))
    };
    paths.filter_map(named).collect()
}

/// Whether the log `name` belongs to the site, engine or process `wanted`.
fn is_of(name: &str, wanted: &str) -> bool {
    let instance = name.strip_prefix("php-").unwrap_or(name);
    let is_instance = instance
        .rsplit_once('-')
        .is_some_and(|(site, n)| site == wanted && n.parse::<u16>().is_ok());
    name == wanted
        || instance == wanted
        || is_instance
        || name.split_once('/').is_some_and(|(site, _)| site == wanted)
}

/// A file that may grow, be rotated, or go. It stays open, so that nothing written just before a rotation is missed.
struct Followed {
    name: String,
    path: PathBuf,
    file: Option<File>,
    at: u64,
    rest: Vec<u8>,
}

fn show_tail(
    context: &Context<'_>,
    name: String,
    path: PathBuf,
    lines: usize,
    has_many: bool,
) -> Followed {
    let mut file = Followed::new(name, path);
    let whole = std::fs::metadata(&file.path).map_or(0, |facts| facts.len());
    file.at = whole.saturating_sub(TAIL);
    let is_cut = file.at > 0;
    let mut news = file.news();
    if is_cut && !news.is_empty() {
        news.remove(0);
    }
    for line in &news[news.len().saturating_sub(lines)..] {
        say(context, &file.name, line, has_many);
    }
    file
}

fn say(context: &Context<'_>, name: &str, line: &str, has_many: bool) {
    let plain: String = line.chars().filter(|c| !c.is_control() || *c == '\t').collect();
    if has_many {
        context.talk.data(format!("{name}: {plain}"));
    } else {
        context.talk.data(plain);
    }
}

impl Followed {
    fn new(name: String, path: PathBuf) -> Self {
        Self { name, path, file: None, at: 0, rest: Vec::new() }
    }

    /// The whole lines that were written since the last look.
    fn news(&mut self) -> Vec<String> {
        let mut bytes = self.read();
        let inode = |facts: std::io::Result<std::fs::Metadata>| facts.ok().map(|facts| facts.ino());
        let ours = self.file.as_ref().and_then(|file| inode(file.metadata()));
        let there = inode(std::fs::metadata(&self.path));
        if there.is_some() && there != ours {
            if ours.is_some() {
                self.at = 0;
            }
            self.file = File::open(&self.path).ok();
            bytes.extend(self.read());
        }
        self.rest.extend(bytes);
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else {
            return Vec::new();
        };
        let lines: Vec<u8> = self.rest.drain(..=end).collect();
        String::from_utf8_lossy(&lines).lines().map(str::to_owned).collect()
    }

    /// What the open file has beyond what was read; all of it, if it was cut.
    fn read(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let Some(file) = &mut self.file else { return bytes };
        if file.metadata().is_ok_and(|facts| facts.len() < self.at) {
            self.at = 0;
        }
        let read = file
            .seek(SeekFrom::Start(self.at))
            .and_then(|_| file.take(8 * TAIL).read_to_end(&mut bytes));
        self.at += read.unwrap_or(0) as u64;
        bytes
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_name_means_a_process_a_site_or_one_of_its_instances() {
        for (name, wanted) in [
            ("mariadb", "mariadb"),
            ("php-blog-1", "blog"),
            ("php-blog-1", "blog-1"),
            ("php-blog-1", "php-blog-1"),
            ("blog/slow", "blog"),
            ("php-my-shop-12", "my-shop"),
            ("access", "access"),
        ] {
            assert!(is_of(name, wanted), "{name} {wanted}");
        }
        for (name, wanted) in [
            ("php-blog-2-1", "blog"),
            ("php-myblog-1", "blog"),
            ("redis-cache", "redis"),
            ("shop/slow", "blog"),
        ] {
            assert!(!is_of(name, wanted), "{name} {wanted}");
        }
    }

    #[test]
    fn a_rotated_file_is_followed_from_its_beginning() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.log");
        let mut file = Followed::new("a".to_owned(), path.clone());
        assert_eq!(file.news(), Vec::<String>::new());
        std::fs::write(&path, "one\ntw").expect("written");
        assert_eq!(file.news(), ["one"]);
        File::options()
            .append(true)
            .open(&path)
            .and_then(|mut log| log.write_all(b"o\n"))
            .expect("written");
        assert_eq!(file.news(), ["two"]);
        std::fs::rename(&path, folder.path().join("a.log.1")).expect("rotated");
        std::fs::write(&path, "three is longer than all before\n").expect("written");
        assert_eq!(file.news(), ["three is longer than all before"]);
        std::fs::write(&path, "4\n").expect("truncated");
        assert_eq!(file.news(), ["4"]);
        File::options()
            .append(true)
            .open(&path)
            .and_then(|mut log| log.write_all(b"last\n"))
            .expect("written");
        std::fs::rename(&path, folder.path().join("a.log.1")).expect("rotated");
        std::fs::write(&path, "new\n").expect("written");
        assert_eq!(file.news(), ["last", "new"]);
    }
}
