//! `pressroom why URL`: one request, explained.

use pressroom_api::operator::Why;

use super::{Context, Done};
use crate::args;

pub(super) fn run(context: &Context<'_>, arguments: &args::Why) -> Done {
    let why = context.ask(context.client.why(&arguments.url))?;
    if arguments.json {
        context.talk.json(&why);
    } else {
        context.talk.data(page(&why));
    }
    Ok(0)
}

fn page(why: &Why) -> String {
    let mut rows = vec![("url", why.url.clone())];
    rows.push((
        "site",
        why.site
            .as_ref()
            .map_or_else(|| "none answers for this host".to_owned(), ToString::to_string),
    ));
    rows.push(("status", why.status.to_string()));
    rows.push(("cache", format!("{}: {}", why.cache, why.because)));
    if let Some(age) = why.age {
        rows.push(("age", format!("{age} s")));
    }
    match why.fresh_for {
        Some(left) if left >= 0 => rows.push(("fresh", format!("for {left} s more"))),
        Some(past) => rows.push(("fresh", format!("no longer, since {} s", past.unsigned_abs()))),
        None => {}
    }
    if let Some(key) = &why.key {
        rows.push(("key", key.clone()));
    }
    if !why.tags.is_empty() {
        rows.push(("tags", why.tags.join(" ")));
    }
    if let Some(instance) = &why.instance {
        rows.push(("instance", instance.to_string()));
    }
    if let Some(id) = &why.request_id {
        rows.push(("request", id.clone()));
    }
    let steps: Vec<_> = why
        .steps
        .iter()
        .map(|step| format!("{} {:.2} ms", step.step, step.us as f64 / 1000.0))
        .collect();
    if !steps.is_empty() {
        rows.push(("time", steps.join(", ")));
    }
    rows.extend(why.notes.iter().map(|note| ("note", note.clone())));
    rows.iter().map(|(name, text)| format!("{name:<10}{text}")).collect::<Vec<_>>().join("\n")
}
