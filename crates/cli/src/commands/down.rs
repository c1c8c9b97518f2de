//! `pressroom down`: drains the edge, stops the engines in reverse order, then the agent and the keeper.
//!
//! The agent does it in order; without one, the keeper does it by itself.

use pressroom_api::client::Error;

use super::{Context, Done};
use crate::machine::Stopped;

pub(super) fn run(context: &Context<'_>) -> Done {
    stop(context)
}

pub(super) fn stop(context: &Context<'_>) -> Done {
    let progress = context.talk.progress();
    match context.wait(context.client.down(&progress)) {
        Ok(()) => {}
        Err(Error::Away { error, .. }) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Err(Error::Away { socket: context.place.agent_socket(), error }.into());
        }
        Err(Error::Away { .. }) => {}
        Err(Error::Failed(failure)) => {
            progress
                .note(format!("the agent could not stop everything in order: {}", failure.what));
        }
    }
    match context.machine.stop_keeper(&context.place, &progress)? {
        Stopped::Now => context.talk.say("Stopped."),
        Stopped::Already => context.talk.say("Nothing was running here."),
    }
    Ok(0)
}
