//! What an edited configuration would change, in words: for `apply --dry-run` and for the log.

use pressroom_model::config::{Config, Site};
use pressroom_model::snapshot::Network;

/// One change and its consequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What will be done.
    pub action: String,
    /// Why: the value before and after.
    pub because: String,
}

fn change(action: impl Into<String>, because: impl Into<String>) -> Change {
    Change { action: action.into(), because: because.into() }
}

/// Everything that differs between two configurations, in the order in which it is done.
pub fn changes(before: &Config, after: &Config) -> Vec<Change> {
    let mut changes = Vec::new();
    for site in &after.sites {
        match before.sites.iter().find(|old| old.name == site.name) {
            None => changes.push(change(
                format!(
                    "add site `{}`: user, database, code, {} instance(s)",
                    site.name, site.php.instances.min
                ),
                format!("it is new, for {}", site.domains.join(", ")),
            )),
            Some(old) => site_changes(old, site, &mut changes),
        }
    }
    for site in
        before.sites.iter().filter(|old| after.sites.iter().all(|site| site.name != old.name))
    {
        changes.push(change(
            format!("stop serving site `{}` (its data stays)", site.name),
            "it is not in the configuration any more",
        ));
    }
    if before.database != after.database {
        changes.push(change(
            "restart MariaDB",
            "[database] changed; requests wait for about a second",
        ));
    }
    if before.cache != after.cache {
        changes.push(change("restart the Redis servers", "[cache] changed; sessions are on disk"));
    }
    if before.edge.http != after.edge.http || before.edge.https != after.edge.https {
        let list = |edge: &pressroom_model::config::Edge| {
            edge.http
                .iter()
                .chain(&edge.https)
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", ")
        };
        changes.push(change(
            "move the listening sockets, replace the edge, and replace the instances of all sites (their addresses follow)",
            format!("[edge] http and https were {} and become {}", list(&before.edge), list(&after.edge)),
        ));
    } else if before.edge != after.edge {
        changes.push(change("publish a new view to the edge", "[edge] changed"));
    }
    if before.templates != after.templates {
        let what = match &after.templates {
            Some(templates) => {
                format!("keep files as the templates in {} say", templates.confdir.display())
            }
            None => "leave the files that templates said something of as they are".to_owned(),
        };
        changes.push(change(what, "[templates] changed"));
    }
    if before.console != after.console {
        changes.push(change(
            format!("move the console to {}", after.console.listen),
            format!("it was {}", before.console.listen),
        ));
    }
    changes
}

fn site_changes(old: &Site, new: &Site, changes: &mut Vec<Change>) {
    let name = &new.name;
    if old.wordpress != new.wordpress {
        changes.push(change(
            format!("build a release of `{name}` and replace its instances"),
            "its source changed",
        ));
    }
    if old.network != new.network {
        let kind = |site: &Site| site.network.map_or("no network", Network::word);
        changes.push(change(
            format!(
                "make `{name}` a network: tables in its database, new configuration and instances"
            ),
            format!("its network was {} and becomes {}", kind(old), kind(new)),
        ));
    }
    if old.domains != new.domains {
        changes.push(change(
            format!("certificate, configuration and instances of `{name}`: replaced beside the running ones"),
            format!("its domains were {} and become {}", old.domains.join(", "), new.domains.join(", ")),
        ));
    }
    if old.php != new.php || old.upload_limit != new.upload_limit {
        changes.push(change(
            format!("replace the instances of `{name}`, new ones first"),
            "its PHP settings or limits changed",
        ));
    }
    if old.page_cache != new.page_cache {
        changes.push(change(
            format!("new page cache rules for `{name}`"),
            "[site.page_cache] changed",
        ));
    }
    if old.certificate != new.certificate {
        changes.push(change(
            format!("load another certificate for `{name}`"),
            "its certificate setting changed",
        ));
    }
}
