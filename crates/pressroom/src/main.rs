//! The key: composes the rooms into one program.
//!
//! - [`machine`] what commands need of this machine, done with the agent's hands
//! - [`roles`] our own long-running processes: keeper, agent, edge, sql, dns
//! - [`node`] which store counts here, and the door for other nodes; [`restore`] going back to a copy of the state
//! - [`operator`] what operators may ask of a running agent; [`nodes`] of the cluster; [`environments`] of copies of sites
//! - [`deliver`] bringing code and going back; [`push`] and [`branch`] what came by git; [`look`] what is in a release
//! - [`templates`] other programs' configuration files; [`lab`] hosts on this machine
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
use pressroom_agent::floating::fit;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    match words.next() {
        // In a container there is nothing else of ours.
        Some(word) if word == entrance::WORD => return entrance::run(words),
        // Each second, so nothing else is begun.
        Some(word) if word == fit::WORD => return fit::run(words),
        _ => {}
    }
    pressroom_cli::run(&machine::ThisMachine)
}
