//! One file for each verb, and what they share.

mod apply;
mod cache;
mod cluster;
mod config;
mod console;
mod deploy;
mod doctor;
mod down;
mod env;
mod git;
mod git_receive;
mod install;
mod lab;
mod logs;
mod node;
mod release;
mod site;
mod status;
mod tls;
mod up;
mod why;
mod wp;

use std::collections::BTreeMap;
use std::future::Future;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use pressroom_api::client::{Client, Error};
use pressroom_api::failure::Failure;
use pressroom_api::operator::{InitialAdmin, Wish};
use pressroom_model::affirmation::Purge;
use pressroom_model::config::Config;
use pressroom_model::id::SiteName;
use pressroom_model::secret::Secret;

use crate::args::{self, Command};
use crate::machine::{Machine, Package};
use crate::place::{self, Place};
use crate::talk::Talk;

/// What a verb gives: its exit status, or a failure that is shown.
pub(crate) type Done = Result<u8, Failure>;

/// What every verb has at hand.
pub(crate) struct Context<'a> {
    pub(crate) machine: &'a dyn Machine,
    pub(crate) place: Place,
    pub(crate) talk: Talk,
    pub(crate) client: Client,
    runtime: tokio::runtime::Runtime,
}

impl<'a> Context<'a> {
    pub(crate) fn new(machine: &'a dyn Machine, place: Place, talk: Talk) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::ours("the command cannot start").cause(error))?;
        let client = Client::new(place.agent_socket());
        Ok(Self { machine, place, talk, client, runtime })
    }

    /// Waits for the agent's answer, as the commands see failures.
    pub(crate) fn ask<T>(
        &self,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Failure> {
        self.wait(answer).map_err(|error| self.failure(error))
    }

    /// Why the agent's answer is missing. One that is away while its keeper runs is our fault, and soon back.
    pub(crate) fn failure(&self, error: Error) -> Failure {
        let is_away = match &error {
            Error::Away { error, .. } => error.kind() != std::io::ErrorKind::PermissionDenied,
            Error::Failed(_) => false,
        };
        match self.machine.keeper(&self.place) {
            Some(pid) if is_away => Failure::ours("the agent does not answer")
                .cause(&error)
                .state(format!(
                    "the keeper (process {pid}) runs, and sites are served without the agent"
                ))
                .hint(format!(
                    "the keeper starts it again by itself: try again soon, or read `{}`",
                    self.command("logs agent")
                )),
            _ => error.into(),
        }
    }

    /// Waits for a future.
    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Rests for a while.
    pub(crate) fn rest(&self, time: Duration) {
        self.wait(async { tokio::time::sleep(time).await });
    }

    /// A command for people to copy: with `--data` where it is needed to mean this place.
    pub(crate) fn command(&self, verb: &str) -> String {
        let usual = place::find(
            &args::PlaceArguments::default(),
            self.machine.is_root(),
            &place::environment,
        );
        let mut command = "pressroom".to_owned();
        if !usual.is_ok_and(|usual| usual.data == self.place.data) {
            command += &format!(" --data {}", self.place.data.display());
        }
        if self.place.config != self.place.data.join("pressroom.toml") {
            command += &format!(" --config {}", self.place.config.display());
        }
        format!("{command} {verb}")
    }

    /// Installs what `config` needs and is not here: at once, after asking, or not at all with the command to type.
    pub(crate) fn install_missing(&self, config: &Config, is_agreed: bool) -> Result<(), Failure> {
        self.install_these(&self.machine.missing(config)?, is_agreed)
    }

    /// The same of what a node needs besides.
    pub(crate) fn install_for_cluster(
        &self,
        is_voter: bool,
        is_agreed: bool,
    ) -> Result<(), Failure> {
        self.install_these(&self.machine.missing_in_cluster(is_voter)?, is_agreed)
    }

    /// The same for a lab.
    pub(crate) fn install_for_lab(&self, is_agreed: bool) -> Result<(), Failure> {
        self.install_these(&self.machine.missing_in_lab()?, is_agreed)
    }

    fn install_these(&self, missing: &[Package], is_agreed: bool) -> Result<(), Failure> {
        if missing.is_empty() {
            return Ok(());
        }
        let command = self.machine.install_command(missing);
        let list: Vec<_> = missing
            .iter()
            .map(|package| format!("{} ({})", package.name, package.because))
            .collect();
        let failure = Failure::yours(format!("{} packages are missing", missing.len()))
            .cause(list.join("\n"))
            .state("nothing was started");
        if !self.machine.is_root() {
            return Err(failure.hint(format!("install them as root, then try again: {command}")));
        }
        if !is_agreed {
            self.talk.say(format!("missing:\n  {}\n{command}", list.join("\n  ")));
            if self.talk.ask("Run this now?", true) != Some(true) {
                return Err(failure.hint(format!("run `{command}`, or give `--yes`")));
            }
        }
        self.machine.install(missing, &self.talk.progress())
    }

    /// Takes the passwords that were made and never shown, of these sites.
    pub(crate) fn initial_admins(
        &self,
        config: &Config,
    ) -> Result<Vec<(SiteName, InitialAdmin)>, Failure> {
        let mut admins = Vec::new();
        for site in &config.sites {
            if let Some(admin) = self.ask(self.client.take_initial_admin(&site.name))? {
                admins.push((site.name.clone(), admin));
            }
        }
        Ok(admins)
    }
}

/// A wish without secrets.
pub(crate) fn wish(config: Config) -> Wish {
    Wish { config, admin_passwords: BTreeMap::new() }
}

/// Standard input, where a file is meant.
const STANDARD_INPUT: &str = "-";

/// Reads a password: the first line of a file, or of standard input.
pub(crate) fn read_password(path: &Path) -> Result<Secret, Failure> {
    let failed = |error: std::io::Error| {
        Failure::yours(format!("cannot read the password from `{}`", path.display())).cause(error)
    };
    let line = match path == Path::new(STANDARD_INPUT) {
        true => first_line(std::io::stdin(), 1024),
        false => std::fs::File::open(path).and_then(|file| first_line(file, 1024)),
    };
    line.map_err(failed)?.ok_or_else(|| {
        Failure::yours(format!("`{}` has no good password", path.display()))
            .hint("write it in the first line, as UTF-8, at most 1024 bytes")
    })
}

/// Reads a join token from standard input. It is longer than any password.
pub(crate) fn read_token() -> Result<Secret, Failure> {
    let what = "there is no join token on standard input";
    let line = first_line(std::io::stdin(), 16 << 10);
    line.map_err(|error| Failure::yours(what).cause(error))?.ok_or_else(|| {
        Failure::yours(what)
            .hint("give the line that `pressroom node token` printed, or name it instead of `-`")
    })
}

/// The first line, if it has between one and so many bytes of UTF-8.
fn first_line(from: impl Read, most: usize) -> std::io::Result<Option<Secret>> {
    let mut bytes = Vec::new();
    from.take(most as u64 + 1).read_to_end(&mut bytes)?;
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let is_good = (1..=most).contains(&line.len());
    Ok(std::str::from_utf8(line).ok().filter(|_| is_good).map(Secret::new))
}

/// Does what was typed.
pub(crate) fn run(context: &Context<'_>, command: Command) -> Done {
    match command {
        Command::Up(up) => up::run(context, &up),
        Command::Down => down::run(context),
        Command::Apply(apply) => apply::run(context, &apply),
        Command::Status(status) => status::run(context, &status),
        Command::Console(json) => console::run(context, &json),
        Command::Doctor(json) => doctor::run(context, &json),
        Command::Logs(logs) => logs::run(context, &logs),
        Command::Why(why) => why::run(context, &why),
        Command::Deploy(arguments) => deploy::run(context, &arguments),
        Command::Release(verb) => release::run(context, verb),
        Command::Cluster(verb) => cluster::run(context, verb),
        Command::Node(verb) => node::run(context, verb),
        Command::Env(verb) => env::run(context, verb),
        Command::Git(verb) => git::run(context, verb),
        Command::GitReceive { site } => git_receive::run(context, &site),
        Command::Site(site) => site::run(context, site),
        Command::Wp(arguments) => wp::run(context, arguments),
        Command::Cache(args::cache::Cache::Purge { site, tag, url, all, json }) => {
            let purge = Purge { tags: tag, urls: url, all };
            cache::purge(context, &site, &purge, json.json)
        }
        Command::Config(config) => config::run(context, &config),
        Command::Tls(args::Tls::Trust) => tls::trust(context),
        Command::Lab(verb) => lab::run(context, verb),
        Command::Install(install) => install::run(context, &install),
        Command::Keep | Command::Agent | Command::Edge | Command::Sql | Command::Dns => Ok(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_counts_whatever_is_behind_it() {
        let check = |text: &[u8], expected: Option<&str>| {
            let line = first_line(text, 8).expect("read");
            assert_eq!(line.as_ref().map(Secret::reveal), expected, "{text:?}");
        };
        check(b"hunter2", Some("hunter2"));
        check(b"hunter2\r\nno more\xff", Some("hunter2"));
        // Cut in the middle of a letter, behind the line.
        check("abcde\nxx\u{e4}".as_bytes(), Some("abcde"));
        check(b"hunter2!", Some("hunter2!"));
        check(b"hunter2!!\n", None);
        check(b"\nhunter2", None);
        check(b"\xff\n", None);
        check(b"", None);
    }
}
