//! `pressroom console`: a way into the console that lets the browser change things.

use pressroom_api::access::Visitor;

use super::{Context, Done, deploy};
use crate::args::Json;

pub(super) fn run(context: &Context<'_>, json: &Json) -> Done {
    let visitor = Visitor { author: deploy::author() };
    let ticket = context.ask(context.client.console(&visitor))?;
    if json.json {
        context.talk.json(&ticket);
        return Ok(0);
    }
    // `http://ADDRESS:PORT/#…`
    let address = ticket.url.reveal().split('/').nth(2).unwrap_or_default();
    let port = address.rsplit(':').next().unwrap_or_default();
    context.talk.data(ticket.url.reveal());
    context.talk.say(format!(
        "Open it in a browser on this machine: it works once, within {} minutes.\nfrom elsewhere, first:\n  ssh -L {port}:{address} HOST",
        ticket.seconds / 60,
    ));
    Ok(0)
}
