//! What runs first in a container, and becomes php-fpm: two things that Docker has no switch for.
//!
//! Of what a site can write nothing may be executed, and nothing else may be opened for writing (the memory of a process of the same user
//! in `/proc`, for one): said to the kernel by Landlock, after which it holds for everything that is started from here. A kernel
//! without Landlock goes without; the rest of the walls is the same. And the mask for permissions of new files.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use landlock::{
    AccessFs, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, path_beneath_rules,
};
use pressroom_model::confinement::{Access, Confinement, Place};
use rustix::fs::Mode;

use crate::confinement::SYSTEM;

/// The word by which our program is called for this.
pub const WORD: &str = "enclose";
/// Where our program is seen in a container.
pub(super) const PROGRAM: &str = "/run/pressroom-entrance";

/// How it is called.
pub(super) fn arguments(confinement: &Confinement, umask: u32, command: &[String]) -> Vec<String> {
    let mut words = vec![WORD.to_owned(), format!("{umask:o}")];
    words.extend(SYSTEM.iter().map(|path| format!("run={path}")));
    words.push("write=/dev".into());
    for place in confinement.view.iter().flat_map(|view| &view.places) {
        let to = place.to().display();
        match place {
            Place::Bind { access: Access::Run, .. } => words.push(format!("run={to}")),
            Place::Bind { access: Access::Write, .. } | Place::Memory { .. } => {
                words.push(format!("write={to}"));
            }
            _ => {}
        }
    }
    words.push("--".into());
    words.extend(command.iter().cloned());
    words
}

/// Encloses this process and becomes the program; returns only when that cannot be done.
pub fn run(words: impl Iterator<Item = OsString>) -> ExitCode {
    let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    let failed = enclose(&words);
    #[expect(clippy::print_stderr, reason = "there is no log in a container but this")]
    {
        eprintln!("pressroom: cannot begin in this container: {failed}");
    }
    ExitCode::from(125)
}

fn enclose(words: &[String]) -> io::Error {
    let at = words.iter().position(|word| word == "--").unwrap_or(words.len());
    let (said, command) = words.split_at(at);
    let [_, program, arguments @ ..] = command else {
        return io::Error::other("there is no program");
    };
    let umask = said.first().and_then(|mask| u32::from_str_radix(mask, 8).ok()).unwrap_or(0o027);
    rustix::process::umask(Mode::from_raw_mode(umask));
    let paths = |kind: &str| -> Vec<PathBuf> {
        said.iter().filter_map(|word| word.strip_prefix(kind)).map(PathBuf::from).collect()
    };
    if let Err(error) = restrict(&paths("run="), &paths("write=")) {
        return io::Error::other(error);
    }
    Command::new(program).args(arguments).exec()
}

/// As far as the kernel knows how.
fn restrict(run: &[PathBuf], write: &[PathBuf]) -> Result<(), RulesetError> {
    let (executed, written) = (AccessFs::Execute, AccessFs::WriteFile);
    Ruleset::default()
        .handle_access(executed | written)?
        .create()?
        .add_rules(path_beneath_rules(run, executed))?
        .add_rules(path_beneath_rules(write, written))?
        .restrict_self()
        .map(drop)
}
