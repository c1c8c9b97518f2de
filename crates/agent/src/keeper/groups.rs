//! Limits of memory, tasks and processor time, by the kernel's control groups of either version.
//!
//! Every limited process has a group of its own, `pressroom-DIGEST/NAME`, with DIGEST of the data directory; everything that it
//! starts is in it, too, and what is left in it when the process has ended is killed. Commands that are no children of the keeper
//! enter a group by themselves and leave it there, empty ([`Groups::doors`]). Nothing here can keep a process from
//! running: what cannot be limited is said.
//!
//! Where our groups are: below the group that a service manager has delegated to us; else at the top of what we see, beside
//! those of others, unless that would take the process out of a limit that somebody has set on us: then there is no limit of
//! our own. Groups of others are not touched, and nothing is mounted.

mod hierarchy;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use pressroom_model::confinement::Limits;
use rustix::process::{Pid, Signal, kill_process};

use hierarchy::{Hierarchy, Version};

/// The file of a group that lists its processes, and takes further ones.
const MEMBERS: &str = "cgroup.procs";
/// What names of groups begin with in which commands are.
const COMMANDS: &str = "commands-of-";
/// The period in which processor time is counted, in microseconds.
const PERIOD: u64 = 100_000;

/// What can be limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Memory,
    Tasks,
    Cpu,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Memory, Self::Tasks, Self::Cpu];

    /// As the kernel calls it.
    fn controller(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Tasks => "pids",
            Self::Cpu => "cpu",
        }
    }

    /// The files of a group that limit it, and what is to be in them; the first must be there.
    fn settings(self, version: Version, limits: Limits) -> Vec<(&'static str, String)> {
        let quota = limits.cpu_percent.map(|percent| u64::from(percent) * PERIOD / 100);
        match (self, version) {
            (Self::Memory, Version::One) => {
                let both = ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"];
                let setting = |bytes: u64| both.map(|file| (file, bytes.to_string()));
                limits.memory.map(setting).into_iter().flatten().collect()
            }
            (Self::Memory, Version::Two) => {
                let both = ["memory.max", "memory.swap.max"];
                let setting = |bytes: u64| both.map(|file| (file, bytes.to_string()));
                limits.memory.map(setting).into_iter().flatten().collect()
            }
            (Self::Tasks, _) => {
                limits.tasks.map(|most| ("pids.max", most.to_string())).into_iter().collect()
            }
            (Self::Cpu, Version::One) => {
                let setting = |quota: u64| ("cpu.cfs_quota_us", quota.to_string());
                quota.map(setting).into_iter().collect()
            }
            (Self::Cpu, Version::Two) => {
                let setting = |quota| ("cpu.max", format!("{quota} {PERIOD}"));
                quota.map(setting).into_iter().collect()
            }
        }
    }

    fn limit(self, group: &Path, version: Version, limits: Limits) -> Result<(), String> {
        if let (Self::Memory, Version::One) = (self, version) {
            // Never below the limit without swap, which may be about to rise.
            let counted = group.join("memory.memsw.limit_in_bytes");
            if counted.exists() {
                put(&counted, "-1")?;
            }
        }
        for (index, (file, value)) in self.settings(version, limits).into_iter().enumerate() {
            let path = group.join(file);
            // Counting swap is the kernel's own option.
            if index == 0 || path.exists() {
                put(&path, &value)?;
            }
        }
        Ok(())
    }

    fn is_wanted(self, limits: Limits) -> bool {
        !self.settings(Version::Two, limits).is_empty()
    }
}

/// Where groups can be.
pub(super) struct Groups {
    hierarchies: Vec<Hierarchy>,
    /// The folder that holds them, in each hierarchy.
    name: String,
}

impl Groups {
    /// Looks at what the machine has mounted.
    pub(super) fn of_machine(data: &Path) -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let found = hierarchy::find(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
        Self { hierarchies: found, name: super::name_of(data) }
    }

    /// Puts a process into a group with these limits; returns what could not be had.
    pub(super) fn enter(&self, process: &str, limits: Limits, pid: i32) -> Vec<String> {
        let (groups, mut lacks) = self.make(process, limits);
        for group in groups {
            let entered = put(&group.join(MEMBERS), &pid.to_string());
            lacks.extend(entered.err().map(|because| format!("no limit at all: {because}")));
        }
        lacks
    }

    /// The same for a process that enters by itself, by a zero through each of these files.
    pub(super) fn doors(&self, name: &str, limits: Limits) -> (Vec<File>, Vec<String>) {
        let (groups, mut lacks) = self.make(&format!("{COMMANDS}{name}"), limits);
        let mut doors = Vec::new();
        for path in groups.iter().map(|group| group.join(MEMBERS)) {
            match File::options().write(true).open(&path) {
                Ok(door) => doors.push(door),
                Err(error) => lacks.push(format!("no limit at all: {}", told(&path, &error))),
            }
        }
        (doors, lacks)
    }

    /// Kills who came through the doors of that name, and removes them.
    pub(super) fn close(&self, name: &str) {
        self.leave(&format!("{COMMANDS}{name}"));
    }

    /// Makes groups with these limits, one in each hierarchy that is needed.
    fn make(&self, process: &str, limits: Limits) -> (BTreeSet<PathBuf>, Vec<String>) {
        let (mut groups, mut lacks) = (BTreeSet::new(), Vec::new());
        for kind in Kind::ALL.into_iter().filter(|kind| kind.is_wanted(limits)) {
            let set = self.group_for(kind, process).and_then(|(hierarchy, group)| {
                // A limit that cannot be changed now still is one.
                groups.insert(group.clone());
                kind.limit(&group, hierarchy.version, limits)
            });
            if let Err(because) = set {
                lacks.push(format!("no limit of {}: {because}", kind.controller()));
            }
        }
        (groups, lacks)
    }

    fn group_for(&self, kind: Kind, process: &str) -> Result<(&Hierarchy, PathBuf), String> {
        let hierarchy = self
            .hierarchies
            .iter()
            .find(|hierarchy| hierarchy.kinds.contains(&kind))
            .ok_or("the machine has no control groups for it mounted")?;
        let home = hierarchy.home(kind)?.join(&self.name);
        let group = home.join(process);
        make(&home)?;
        hierarchy.hand_down(&home, kind)?;
        make(&group)?;
        Ok((hierarchy, group))
    }

    /// Kills what is left in a process's groups and removes them; what takes longer is for [`Groups::sweep`].
    pub(super) fn leave(&self, process: &str) {
        for home in self.homes() {
            remove(&home.join(process));
        }
    }

    /// Removes the groups of all processes that are gone. Those of commands stay: the keeper does not know who is in them.
    pub(super) fn sweep(&self, is_gone: impl Fn(&str) -> bool) {
        self.remove_those(|name| !name.starts_with(COMMANDS) && is_gone(name));
    }

    /// Removes all groups and kills who is in them.
    pub(super) fn end(&self) {
        self.remove_those(|_| true);
    }

    fn remove_those(&self, is_meant: impl Fn(&str) -> bool) {
        for home in self.homes() {
            let groups = fs::read_dir(&home).into_iter().flatten().flatten();
            for group in groups.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
                if group.file_name().to_str().is_some_and(&is_meant) {
                    remove(&group.path());
                }
            }
            let _ = fs::remove_dir(&home);
        }
    }

    fn homes(&self) -> Vec<PathBuf> {
        let places = self.hierarchies.iter().flat_map(Hierarchy::places);
        places.map(|place| place.join(&self.name)).filter(|home| home.is_dir()).collect()
    }
}

fn make(group: &Path) -> Result<(), String> {
    match fs::create_dir(group) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(told(group, &error)),
        _ => Ok(()),
    }
}

fn put(file: &Path, value: &str) -> Result<(), String> {
    fs::write(file, value).map_err(|error| told(file, &error))
}

fn told(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

/// A group is ours alone, so whatever is in it was started by the process that is gone.
fn remove(group: &Path) {
    if fs::remove_dir(group).is_ok() || !group.is_dir() {
        return;
    }
    if fs::write(group.join("cgroup.kill"), "1").is_err() {
        let pids = fs::read_to_string(group.join(MEMBERS)).unwrap_or_default();
        for pid in pids.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    let _ = fs::remove_dir(group);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_the_kernels_groups_are_told_the_same() {
        let limits = Limits { memory: Some(1 << 20), tasks: Some(7), cpu_percent: Some(150) };
        let told = |version| -> Vec<String> {
            let all = Kind::ALL.into_iter().flat_map(|kind| kind.settings(version, limits));
            all.map(|(file, value)| format!("{file}={value}")).collect()
        };
        assert_eq!(
            told(Version::One),
            [
                "memory.limit_in_bytes=1048576",
                "memory.memsw.limit_in_bytes=1048576",
                "pids.max=7",
                "cpu.cfs_quota_us=150000"
            ]
        );
        assert_eq!(
            told(Version::Two),
            [
                "memory.max=1048576",
                "memory.swap.max=1048576",
                "pids.max=7",
                "cpu.max=150000 100000"
            ]
        );
        assert!(Kind::ALL.into_iter().all(|kind| !kind.is_wanted(Limits::default())));
    }
}
