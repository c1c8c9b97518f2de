//! The commands: what people type, and what they read. Only this crate prints.
//!
//! - [`machine`] the trait through which commands touch the machine; the binary implements it
//! - [`place`] where the data directory, the configuration and the sockets are
//! - `args` what may be typed; `commands` one file for each verb
//! - `edit` changes of `pressroom.toml` that keep comments; `load` what it says, and its faults
//! - `talk` standard output and standard error, colours, progress, questions
//!
//! Always: data goes to standard output, talk to standard error; the exit status is 0 done, 1 your mistake, 2 our
//! failure; what destroys asks first, and the default answer is No.

mod args;
mod commands;
mod edit;
mod load;
pub mod machine;
pub mod place;
mod talk;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::args::{Arguments, Command};
use crate::commands::Context;
use crate::machine::{Machine, Role};
use crate::talk::Talk;

/// Does what the arguments of this process say. What `main` calls.
pub fn run(machine: &dyn Machine) -> ExitCode {
    ExitCode::from(run_with(machine, std::env::args_os(), &Talk::of_process()))
}

fn run_with(
    machine: &dyn Machine,
    arguments: impl IntoIterator<Item = OsString>,
    talk: &Talk,
) -> u8 {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error)
            if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) =>
        {
            talk.data(error.render());
            return 0;
        }
        Err(error) => {
            talk.say(error.render().to_string().trim_end());
            return 1;
        }
    };
    let place = match place::find(&arguments.place, machine.is_root(), &place::environment) {
        Ok(place) => place,
        Err(failure) => return talk.failed(&failure),
    };
    let role = match arguments.command {
        Command::Keep => Some(Role::Keeper),
        Command::Agent => Some(Role::Agent),
        Command::Edge => Some(Role::Edge),
        Command::Sql => Some(Role::Sql),
        Command::Dns => Some(Role::Dns),
        _ => None,
    };
    let done = match role {
        Some(role) => machine.run(role, &place).map(|()| 0),
        None => Context::new(machine, place, talk.clone())
            .and_then(|context| commands::run(&context, arguments.command)),
    };
    done.unwrap_or_else(|failure| talk.failed(&failure))
}
