//! `pressroom config`: check, show, reference.

use pressroom_model::file;

use super::{Context, Done};
use crate::args::{Config, Json};
use crate::load;

pub(super) fn run(context: &Context<'_>, verb: &Config) -> Done {
    match verb {
        Config::Check => {
            let config = load::config(context)?;
            let sites = if config.sites.len() == 1 {
                "1 site".to_owned()
            } else {
                format!("{} sites", config.sites.len())
            };
            context.talk.say(format!("`{}` is good: {sites}.", context.place.config.display()));
        }
        Config::Show(Json { json: true }) => context.talk.json(&load::config(context)?),
        Config::Show(_) => context.talk.data(file::show(&load::config(context)?)),
        Config::Reference => context.talk.data(file::reference()),
    }
    Ok(0)
}
