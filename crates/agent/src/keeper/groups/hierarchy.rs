//! A mounted hierarchy of control groups, and where in it we may make some.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Kind, put};

/// The kernel's two kinds of hierarchies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// One for each controller.
    One,
    /// One for all.
    Two,
}

/// One that is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub(super) version: Version,
    pub(super) kinds: Vec<Kind>,
    /// The highest group that we see.
    top: PathBuf,
    /// The group that we are in.
    own: PathBuf,
}

/// Those of a machine, from `/proc/self/mountinfo` and `/proc/self/cgroup`.
pub(super) fn find(mounts: &str, own: &str) -> Vec<Hierarchy> {
    mounts.lines().filter_map(|line| one(line, own)).collect()
}

fn one(mount: &str, own: &str) -> Option<Hierarchy> {
    let (place, kind) = mount.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let (root, top) = (place.next()?, plain(place.next()?));
    let mut kind = kind.split(' ');
    let version = match kind.next()? {
        "cgroup" => Version::One,
        "cgroup2" => Version::Two,
        _ => return None,
    };
    let options: Vec<&str> = kind.nth(1)?.split(',').collect();
    // `NUMBER:CONTROLLERS:GROUP`; version two has the number 0 and no controllers.
    let group = own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (number, controllers, group) = (fields.next()?, fields.next()?, fields.next()?);
        let is_it = match version {
            Version::One => {
                !controllers.is_empty() && controllers.split(',').all(|c| options.contains(&c))
            }
            Version::Two => number == "0" && controllers.is_empty(),
        };
        is_it.then_some(group)
    })?;
    let below = group.strip_prefix(root).unwrap_or("").trim_start_matches('/');
    let controllers = match version {
        Version::One => options.join(" "),
        Version::Two => fs::read_to_string(top.join("cgroup.controllers")).unwrap_or_default(),
    };
    let has = |kind: &Kind| controllers.split_whitespace().any(|one| one == kind.controller());
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(has).collect();
    let own = if below.is_empty() { top.clone() } else { top.join(below) };
    (!kinds.is_empty()).then_some(Hierarchy { version, kinds, top, own })
}

/// The kernel writes blanks in paths as octal numbers.
fn plain(path: &str) -> PathBuf {
    path.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\").into()
}

impl Hierarchy {
    /// The group below which ours may be.
    pub(super) fn home(&self, kind: Kind) -> Result<&Path, String> {
        if let Some(delegated) = self.delegated() {
            return Ok(delegated);
        }
        let left = self.own.ancestors().take_while(|group| *group != self.top);
        match left.into_iter().find(|group| is_limited(group, kind, self.version)) {
            None => Ok(&self.top),
            Some(group) => Err(format!("it would leave that of {}", group.display())),
        }
    }

    /// Where ours may be, or may have been.
    pub(super) fn places(&self) -> impl Iterator<Item = &Path> {
        self.delegated().into_iter().chain([self.top.as_path()])
    }

    /// A service manager marks a group that it has given away. With processes in it, none of its groups can have limits, so a
    /// good manager puts us one below.
    fn delegated(&self) -> Option<&Path> {
        if self.version == Version::One || self.own == self.top {
            return None;
        }
        self.own.parent().filter(|parent| *parent != self.top && is_delegated(parent))
    }

    /// Lets the groups in `home` be limited. Only groups that are ours are told so.
    pub(super) fn hand_down(&self, home: &Path, kind: Kind) -> Result<(), String> {
        if self.version == Version::One {
            return Ok(());
        }
        let control = |group: &Path| {
            put(&group.join("cgroup.subtree_control"), &format!("+{}", kind.controller()))
        };
        self.delegated().map_or(Ok(()), control)?;
        control(home)
    }
}

fn is_delegated(group: &Path) -> bool {
    ["trusted.delegate", "user.delegate"].iter().any(|name| {
        let mut value = [0_u8; 4];
        rustix::fs::getxattr(group, *name, &mut value[..])
            .is_ok_and(|length| value[..length] == *b"1")
    })
}

fn is_limited(group: &Path, kind: Kind, version: Version) -> bool {
    let file = match (kind, version) {
        (Kind::Memory, Version::One) => "memory.limit_in_bytes",
        (Kind::Memory, Version::Two) => "memory.max",
        (Kind::Tasks, _) => "pids.max",
        (Kind::Cpu, Version::One) => "cpu.cfs_quota_us",
        (Kind::Cpu, Version::Two) => "cpu.max",
    };
    let text = fs::read_to_string(group.join(file)).unwrap_or_default();
    match text.split_whitespace().next() {
        None | Some("max" | "-1") => false,
        // Version one has a number near the greatest for "none".
        Some(number) => number.parse::<u64>().is_ok_and(|number| number < 1 << 62),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_group_is_found_in_both_versions_and_in_a_container() {
        let mounts = "\
            30 24 0:26 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755\n\
            31 30 0:27 /docker/c1 /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
            33 30 0:29 / /a\\040b rw - cgroup cgroup rw,pids\n\
            34 30 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n";
        let own =
            "12:memory:/docker/c1/below\n5:cpu,cpuacct:/one\n4:pids:/\n1:name=systemd:/x\n0::/\n";
        let found = find(mounts, own);
        let of = |kind: Kind, top: &str, own: &str| Hierarchy {
            version: Version::One,
            kinds: vec![kind],
            top: top.into(),
            own: own.into(),
        };
        let expected = [
            of(Kind::Memory, "/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/below"),
            of(Kind::Cpu, "/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct/one"),
            of(Kind::Tasks, "/a b", "/a b"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn no_process_is_taken_out_of_a_limit_that_others_have_set() {
        let top = tempfile::tempdir().expect("a temporary folder");
        let own = top.path().join("service/inner");
        fs::create_dir_all(&own).expect("made");
        let hierarchy = Hierarchy {
            version: Version::Two,
            kinds: Kind::ALL.to_vec(),
            top: top.path().to_owned(),
            own: own.clone(),
        };
        fs::write(own.join("memory.max"), "max\n").expect("written");
        assert_eq!(hierarchy.home(Kind::Memory), Ok(top.path()));
        fs::write(top.path().join("service/memory.max"), "1048576\n").expect("written");
        assert!(hierarchy.home(Kind::Memory).is_err());
        assert_eq!(hierarchy.home(Kind::Tasks), Ok(top.path()));
        let unlimited = Hierarchy { version: Version::One, ..hierarchy };
        fs::write(own.join("memory.limit_in_bytes"), "9223372036854771712\n").expect("written");
        assert_eq!(unlimited.home(Kind::Memory), Ok(top.path()));
    }
}
