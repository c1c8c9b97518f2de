//! The two Redis servers: one may forget (object cache), the other may not (sessions); and who may do what in them.
//!
//! Every user starts from nothing. A site gets single commands on its own prefix: nothing that lists keys, empties
//! databases or changes settings, and nothing that makes everybody else wait: one endless script would stop the sessions
//! of all sites, so ours are unlocked without one (`docs/decisions/0008-sessions-without-scripts.md`). A site that holds
//! too much of the sessions server may read and remove, but make nothing.

use std::path::Path;

use pressroom_model::id::SiteName;
use pressroom_model::unit::ByteSize;
use serde::Serialize;

use crate::template::fill;

/// Which of the two servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The object cache.
    Cache,
    /// PHP sessions.
    Sessions,
}

/// Where things are, and how large it may be.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// Which of the two.
    pub purpose: Purpose,
    /// The data directory.
    pub data: &'a Path,
    /// The socket.
    pub socket: &'a Path,
    /// The ACL file.
    pub acl: &'a Path,
    /// The most memory for keys and values.
    pub memory: ByteSize,
}

#[derive(Serialize)]
struct Fields<'a> {
    data: &'a Path,
    socket: &'a Path,
    acl: &'a Path,
    memory_mib: u64,
    durable: bool,
}

/// The configuration file.
pub fn configuration(facts: &Facts<'_>) -> String {
    fill(
        include_str!("../templates/redis.conf.j2"),
        Fields {
            data: facts.data,
            socket: facts.socket,
            acl: facts.acl,
            memory_mib: facts.memory.whole_mib().max(16),
            durable: facts.purpose == Purpose::Sessions,
        },
    )
}

/// A user of a Redis server; the password is given as its SHA-256 in hexadecimal digits.
#[derive(Debug, Clone)]
pub struct SiteUser<'a> {
    /// The site.
    pub site: &'a SiteName,
    /// SHA-256 of the password.
    pub password_sha256: String,
    /// What it may do.
    pub rights: Rights,
}

/// What a site may do with its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// Everything that WordPress needs.
    All,
    /// Everything but making values: what there is can be read, removed and expire.
    NothingNew,
}

// Both as `wordpress/README.md` lists them.
const CACHE_COMMANDS: &str = "+auth +echo +exec +get +getrange +mget +multi +set +unwatch +watch";

const SESSION_COMMANDS: &str =
    "+auth +del +echo +exec +exists +expire +get +multi +ping +set +setex +unwatch +watch";

/// The commands that make values, in either list.
const MAKING: [&str; 2] = ["+set", "+setex"];

/// The ACL file: our own user, and one per site.
pub fn users(purpose: Purpose, operator_sha256: &str, sites: &[SiteUser<'_>]) -> String {
    let commands = match purpose {
        Purpose::Cache => CACHE_COMMANDS,
        Purpose::Sessions => SESSION_COMMANDS,
    };
    let mut text = format!(
        "user default off resetkeys resetchannels -@all\nuser pressroom on #{operator_sha256} ~* &* +@all\n"
    );
    for SiteUser { site, password_sha256, rights } in sites {
        let commands = match rights {
            Rights::All => commands.to_owned(),
            Rights::NothingNew => {
                let kept = commands.split(' ').filter(|command| !MAKING.contains(command));
                kept.collect::<Vec<_>>().join(" ")
            }
        };
        text.push_str(&format!(
            "user site-{site} on #{password_sha256} resetkeys ~{site}:* resetchannels -@all {commands}\n"
        ));
    }
    text
}

/// The sites that an ACL file leaves without the right to make values.
pub fn held_back(users: &str) -> Vec<SiteName> {
    users
        .lines()
        .filter_map(|line| {
            let mut words = line.strip_prefix("user site-")?.split(' ');
            let site = words.next()?.parse().ok()?;
            words.all(|word| !MAKING.contains(&word)).then_some(site)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(site: &SiteName, rights: Rights) -> SiteUser<'_> {
        SiteUser { site, password_sha256: "ab".repeat(32), rights }
    }

    /// WordPress's own tests run with the commands that its page lists: they must be those that we give.
    #[test]
    fn the_commands_are_those_that_wordpress_was_tested_with() {
        let page = include_str!("../../../wordpress/README.md");
        let check = |name: &str, given: &str| {
            let begin = format!("<!-- {name} commands -->");
            let list =
                page.split_once(&begin).and_then(|(_, rest)| rest.split_once("<!-- end -->"));
            let listed: Vec<&str> = list.expect("a list").0.split_whitespace().collect();
            let given: Vec<&str> = given.split(' ').collect();
            assert_eq!(given, listed, "{name}");
        };
        check("redis", CACHE_COMMANDS);
        check("sessions", SESSION_COMMANDS);
    }

    #[test]
    fn who_is_held_back_reads_and_removes_but_makes_nothing_and_the_file_tells_who() {
        let (blog, shop): (SiteName, SiteName) =
            ("blog".parse().expect("a good name"), "shop".parse().expect("a good name"));
        let both = [user(&blog, Rights::NothingNew), user(&shop, Rights::All)];
        let text = users(Purpose::Sessions, &"cd".repeat(32), &both);
        let line = text.lines().find(|line| line.starts_with("user site-blog ")).expect("its line");
        assert!(!line.contains("+set") && line.ends_with("+ping +unwatch +watch"), "{line}");
        for kept in ["+get", "+del", "+expire", "+exists"] {
            assert!(line.split(' ').any(|word| word == kept), "{kept} in {line}");
        }
        assert_eq!(held_back(&text), [blog]);
    }

    #[test]
    fn a_site_may_not_list_empty_or_configure() {
        let site: SiteName = "blog".parse().expect("a good name");
        for purpose in [Purpose::Cache, Purpose::Sessions] {
            let text = users(purpose, &"cd".repeat(32), &[user(&site, Rights::All)]);
            let line = text.lines().last().expect("the site's line");
            assert!(line.contains("~blog:* resetchannels -@all"), "{line}");
            for never in [
                "+@",
                "scan",
                "keys ",
                "flush",
                "config",
                "dbsize",
                "randomkey",
                "allkeys",
                "eval",
                "script",
                "fcall",
                "subscribe",
                "blpop",
            ] {
                let after = line.split_once("-@all").expect("starts from nothing").1;
                assert!(!after.contains(never), "{never} in {line}");
            }
        }
    }

    #[test]
    fn only_the_cache_may_forget() {
        let facts = |purpose| Facts {
            purpose,
            data: Path::new("/d"),
            socket: Path::new("/s"),
            acl: Path::new("/a"),
            memory: ByteSize::mib(64),
        };
        let cache = configuration(&facts(Purpose::Cache));
        let sessions = configuration(&facts(Purpose::Sessions));
        assert!(cache.contains("allkeys-lfu") && cache.contains("appendonly no"), "{cache}");
        assert!(
            sessions.contains("noeviction") && sessions.contains("appendonly yes"),
            "{sessions}"
        );
    }
}
