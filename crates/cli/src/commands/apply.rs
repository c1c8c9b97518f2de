//! `pressroom apply`: makes it as the file says, or shows what that would take.

use super::{Context, Done, wish};
use crate::args::Apply;
use crate::load;

pub(super) fn run(context: &Context<'_>, apply: &Apply) -> Done {
    let config = load::config(context)?;
    if apply.dry_run {
        let actions = context.ask(context.client.plan(&wish(config)))?;
        if apply.json {
            context.talk.json(&actions);
        } else if actions.is_empty() {
            context.talk.say("Everything is as the file says.");
        } else {
            let lines: Vec<_> = actions
                .iter()
                .map(|planned| format!("{}  because {}", planned.action, planned.because))
                .collect();
            context.talk.data(lines.join("\n"));
        }
        return Ok(0);
    }
    context.install_missing(&config, apply.yes)?;
    let (wish, progress) = (wish(config), context.talk.progress());
    let actions = context.ask(context.client.plan(&wish))?;
    for planned in &actions {
        context.talk.say(format!("  {}  because {}", planned.action, planned.because));
    }
    context.ask(context.client.apply(&wish, &progress))?;
    super::site::show_passwords(context, &wish.config)?;
    context.talk.say(if actions.is_empty() { "Everything is as the file says." } else { "Done." });
    Ok(0)
}
