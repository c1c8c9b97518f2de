//! What `/proc` says of a process: who its parent is, which group it belongs to, when it started.
//!
//! A process id alone names nobody for long; id and start time together do, within one boot.

use std::fs;

/// The few fields of `/proc/PID/stat` that the keeper needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) is_zombie: bool,
    pub(super) parent: i32,
    pub(super) group: i32,
    /// Field 22: clock ticks since boot at which it started.
    pub(super) ticks: u64,
}

/// Of this process, if there is one.
pub(super) fn read(pid: i32) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Whether it has nothing to say about a signal: neither a handler, nor does it ignore or hold it back.
pub(super) fn is_default(pid: i32, signal: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let has = |mask: &str| {
        let field = status.lines().find_map(|line| line.strip_prefix(mask));
        let bits = field.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
        bits.is_none_or(|bits| bits & (1 << (signal - 1)) != 0)
    };
    (1..=64).contains(&signal) && !["SigCgt:", "SigIgn:", "SigBlk:"].into_iter().any(has)
}

/// Every process that can be seen.
pub(super) fn all() -> impl Iterator<Item = (i32, Stat)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        Some((pid, read(pid)?))
    })
}

/// The program's short name, for messages.
pub(super) fn program(pid: i32) -> Option<String> {
    Some(fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim().to_owned())
}

/// This boot's id: process ids and ticks of another boot mean nothing.
pub(super) fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

/// The second field is the program's name in parentheses and may itself hold spaces and parentheses: count from the last one.
fn parse(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3);
    Some(Stat {
        is_zombie: matches!(*field(3)?, "Z" | "X"),
        parent: field(4)?.parse().ok()?,
        group: field(5)?.parse().ok()?,
        ticks: field(22)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_parentheses_does_not_shift_the_fields() {
        let text = "42 (a) b (c)) Z 7 41 40 0 -1 1 2 3 4 5 6 7 8 9 20 0 1 0 12345 0 0";
        assert_eq!(parse(text), Some(Stat { is_zombie: true, parent: 7, group: 41, ticks: 12345 }));
        assert_eq!(parse("42 (x) S 1"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn this_process_can_be_read() {
        let own = i32::try_from(std::process::id()).expect("a pid");
        let stat = read(own).expect("/proc is mounted");
        assert!(!stat.is_zombie && stat.ticks > 0);
        assert!(all().any(|(pid, _)| pid == own));
    }
}
