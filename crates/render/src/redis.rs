//! The two Redis servers: one may forget (object cache), the other may not (sessions); and who may do what in them.
//!
//! Every user starts from nothing. A site gets single commands on its own prefix: nothing that lists keys, empties
//! databases or changes settings. On the sessions server php-redis unlocks sessions by a script; Redis checks the
//! caller's rules for every key and command inside of a script as well, so it cannot leave the prefix
//! (<https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/>).

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
}

// What `wordpress/README.md` lists.
const CACHE_COMMANDS: &str =
    "+auth +echo +exec +get +getrange +hello +mget +multi +ping +set +unwatch +watch";

const SESSION_COMMANDS: &str = "+get +set +del +unlink +exists +expire +setex +setnx +getex +echo +ping +auth +hello +select \
    +client|setname +eval +evalsha";

/// The ACL file: our own user, and one per site.
pub fn users(purpose: Purpose, operator_sha256: &str, sites: &[SiteUser<'_>]) -> String {
    let commands = match purpose {
        Purpose::Cache => CACHE_COMMANDS,
        Purpose::Sessions => SESSION_COMMANDS,
    };
    let mut text = format!(
        "user default off resetkeys resetchannels -@all\nuser pressroom on #{operator_sha256} ~* &* +@all\n"
    );
    for SiteUser { site, password_sha256 } in sites {
        text.push_str(&format!(
            "user site-{site} on #{password_sha256} resetkeys ~{site}:* resetchannels -@all {commands}\n"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_may_not_list_empty_or_configure() {
        let site: SiteName = "blog".parse().expect("a good name");
        for purpose in [Purpose::Cache, Purpose::Sessions] {
            let user = SiteUser { site: &site, password_sha256: "ab".repeat(32) };
            let text = users(purpose, &"cd".repeat(32), &[user]);
            let line = text.lines().last().expect("the site's line");
            assert!(line.contains("~blog:* resetchannels -@all"), "{line}");
            for never in
                ["+@", "scan", "keys ", "flush", "config", "dbsize", "randomkey", "allkeys"]
            {
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
