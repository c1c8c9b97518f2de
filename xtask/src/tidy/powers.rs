//! What only one crate may do, so that there is one place to look when it goes wrong.
//!
//! A power is a dependency or words in the source. Tests are free. The binary composes the whole and may do what its
//! parts may. Rules that the house has not reached yet are remarks.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Findings, Text};

struct Power {
    /// What it is about, for people.
    what: &'static str,
    /// Crates that bring it.
    dependencies: &'static [&'static str],
    /// Words that use it.
    words: &'static [&'static str],
    /// Who may.
    homes: &'static [&'static str],
    /// Whether breaking it fails.
    is_strict: bool,
}

const POWERS: [Power; 9] = [
    Power {
        what: "speaking to an object store",
        dependencies: &["object_store"],
        words: &[],
        homes: &["media"],
        is_strict: true,
    },
    Power {
        what: "starting processes",
        dependencies: &[],
        words: &["Command::new(", "process::Command"],
        homes: &["agent", "lab", "pressroom"],
        is_strict: true,
    },
    Power {
        what: "speaking to MariaDB",
        dependencies: &["mysql_async"],
        words: &[],
        homes: &["agent"],
        is_strict: true,
    },
    Power {
        what: "speaking to Redis",
        dependencies: &["redis"],
        words: &[],
        homes: &["agent"],
        is_strict: true,
    },
    Power {
        what: "the state file",
        dependencies: &["redb"],
        words: &[],
        homes: &["store"],
        is_strict: true,
    },
    Power {
        what: "the wall clock",
        dependencies: &["chrono", "jiff"],
        words: &["SystemTime::now"],
        homes: &["runtime"],
        is_strict: true,
    },
    Power {
        what: "printing",
        dependencies: &[],
        words: &["println!(", "print!(", "dbg!("],
        homes: &["cli"],
        is_strict: true,
    },
    Power {
        what: "TLS",
        dependencies: &["rustls", "tokio-rustls", "rcgen"],
        words: &[],
        homes: &["edge", "agent", "wire", "media", "pressroom"],
        is_strict: true,
    },
    Power {
        what: "loose tasks",
        dependencies: &[],
        words: &["tokio::spawn(", "spawn_local("],
        homes: &["runtime"],
        is_strict: false,
    },
];

pub(super) fn check(root: &Path, texts: &[Text], findings: &mut Findings) -> Result<()> {
    for power in &POWERS {
        for text in texts.iter().filter(|text| text.is_rust() && !text.is_test()) {
            let Some(room) = text.room().filter(|room| !power.homes.contains(room)) else {
                continue;
            };
            if let Some(word) = power.words.iter().find(|word| uses(text.product(), word)) {
                say(
                    power,
                    findings,
                    format!("`{}` uses `{word}`, but {}", text.path, rule(power, room)),
                );
            }
        }
        for (room, dependency) in brought(root, power)? {
            say(
                power,
                findings,
                format!(
                    "`crates/{room}/Cargo.toml` brings `{dependency}`, but {}",
                    rule(power, &room)
                ),
            );
        }
    }
    Ok(())
}

fn rule(power: &Power, room: &str) -> String {
    format!("{} belongs to {}, not to `{room}`", power.what, power.homes.join(", "))
}

fn say(power: &Power, findings: &mut Findings, text: String) {
    if power.is_strict { findings.complain(text) } else { findings.remark(text) }
}

/// Whether code (not a comment) has the word, and not as the end of a longer one.
fn uses(code: &str, word: &str) -> bool {
    code.lines().map(str::trim_start).filter(|line| !line.starts_with("//")).any(|line| {
        line.match_indices(word)
            .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_'))
    })
}

fn brought(root: &Path, power: &Power) -> Result<Vec<(String, &'static str)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root.join("crates")).context("cannot read `crates`")? {
        let entry = entry?;
        let room = entry.file_name().to_string_lossy().into_owned();
        let Ok(text) = fs::read_to_string(entry.path().join("Cargo.toml")) else { continue };
        let manifest: toml::Table =
            text.parse().with_context(|| format!("cannot read the Cargo.toml of `{room}`"))?;
        let has = |name: &str| manifest.get("dependencies").is_some_and(|d| d.get(name).is_some());
        let here = power
            .dependencies
            .iter()
            .filter(|name| has(name) && !power.homes.contains(&room.as_str()));
        found.extend(here.map(|name| (room.clone(), *name)));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_counts_only_as_a_whole_and_in_code() {
        assert!(uses("let x = SystemTime::now();", "SystemTime::now"));
        assert!(!uses("// SystemTime::now", "SystemTime::now"));
        assert!(!uses("eprintln!(\"x\")", "println!("));
    }
}
