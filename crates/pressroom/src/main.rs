//! The key: composes the rooms into one program.
//!
//! - [`machine`] what commands need of this machine, done with the agent's hands
//! - [`roles`] our own long-running processes: keeper, agent, edge
//! - [`operator`] what operators may ask of a running agent
//! - [`deliver`] bringing code and going back; [`push`] and [`branch`] what came by git; [`look`] what is in a release
//! - [`templates`] other programs' configuration files
//! - [`cron`] the cron loop's way to the sites; [`visit`] one request as a visitor; [`why`] one request explained; [`wp`] wp-cli for a site

mod branch;
mod cron;
mod deliver;
mod environments;
mod lab;
mod look;
mod machine;
mod node;
mod nodes;
mod operator;
mod push;
mod restore;
mod roles;
mod templates;
mod visit;
mod why;
mod wp;

use std::process::ExitCode;

use pressroom_agent::container::entrance;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    // In a container there is nothing else of ours.
    if words.next().is_some_and(|word| word == entrance::WORD) {
        return entrance::run(words);
    }
    pressroom_cli::run(&machine::ThisMachine)
}
