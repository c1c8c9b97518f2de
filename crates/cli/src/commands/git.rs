//! `pressroom git token|url SITE`: how a site's repository is reached.

use pressroom_api::git::{Access, TokenWish};

use super::{Context, Done};
use crate::args::Git;

pub(super) fn run(context: &Context<'_>, verb: Git) -> Done {
    let (site, wish, json) = match verb {
        Git::Token { site, revoke: true, json } => (site, TokenWish::Revoke, json),
        Git::Token { site, revoke: false, json } => (site, TokenWish::Make, json),
        Git::Url { site, json } => (site, TokenWish::Look, json),
    };
    let access = context.ask(context.client.git_access(&site, wish))?;
    if json {
        context.talk.json(&access);
        return Ok(0);
    }
    match (wish, &access.token) {
        (TokenWish::Revoke, _) => {
            context.talk.say(format!("Nobody can clone `{site}` or push to it any more."));
        }
        (_, Some(token)) => {
            context.talk.data(token.reveal());
            context.talk.say(format!(
                "This token is shown once. Git asks for it as the password; the user name may be anything.\nnext:\n  git clone {}",
                access.url
            ));
        }
        _ => {
            context.talk.data(&access.url);
            hint(context, site.as_str(), &access);
        }
    }
    Ok(0)
}

fn hint(context: &Context<'_>, site: &str, access: &Access) {
    if !access.has_token {
        let make = context.command(&format!("git token {site}"));
        context.talk.say(format!("next:\n  {make}  make the token that git will ask for"));
    }
    if let Some(authority) = context.machine.local_authority(&context.place) {
        context.talk.say(format!(
            "with the local authority's certificate:\n  git -c http.sslCAInfo={} clone {}",
            authority.display(),
            access.url
        ));
    }
}
