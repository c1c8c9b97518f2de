//! `pressroom cache purge`: makes stored pages stale.

use pressroom_api::failure::Failure;
use pressroom_model::affirmation::Purge;
use pressroom_model::id::SiteName;

use super::{Context, Done};

pub(super) fn purge(context: &Context<'_>, site: &SiteName, purge: &Purge, json: bool) -> Done {
    if purge.tags.is_empty() && purge.urls.is_empty() && !purge.all {
        return Err(Failure::yours("nothing was said to purge")
            .hint("give `--tag TAG`, `--url URL` or `--all`"));
    }
    let receipt = context.ask(context.client.purge(site, purge))?;
    if !receipt.ok {
        return Err(Failure::ours(format!("the edge did not confirm the purge of `{site}`"))
            .hint(format!("look at `{}`", context.command("logs edge"))));
    }
    if json {
        let receipt = serde_json::to_string_pretty(&receipt);
        context.talk.data(receipt.expect("our values have string keys"));
        return Ok(0);
    }
    for node in &receipt.nodes {
        let name = node.node.as_str();
        context.talk.say(match node.ok {
            true => format!("{name:<12} confirmed in {} ms, {}", node.ms, pages(node.pages)),
            false => {
                format!(
                    "{name:<12} has not confirmed yet; it gets the purge before it is heard again"
                )
            }
        });
    }
    let place = if receipt.nodes.is_empty() { "" } else { " here" };
    context.talk.say(match receipt.pages {
        0 => format!("Nothing fresh was stored{place}."),
        1 => format!("1 page is stale{place} now: its next request refreshes it."),
        more => {
            format!("{more} pages are stale{place} now: the next request of each refreshes it.")
        }
    });
    Ok(0)
}

fn pages(count: u64) -> String {
    match count {
        1 => "1 page".to_owned(),
        more => format!("{more} pages"),
    }
}
