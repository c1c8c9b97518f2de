//! `config/site.php`: everything that WordPress must know and that differs between sites.

use std::collections::BTreeMap;
use std::path::Path;

use pressroom_model::config::{Site, SiteSecrets};
use pressroom_model::snapshot::Network;
use serde::Serialize;

use crate::template::fill;

/// Where things are for one site.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// The site's configuration.
    pub site: &'a Site,
    /// The home URL without a slash at its end.
    pub home: &'a str,
    /// Name of the database and of its user.
    pub database: &'a str,
    /// Secrets of the site.
    pub secrets: &'a SiteSecrets,
    /// Where writes go.
    pub writer: &'a Path,
    /// Where cacheable reads may go.
    pub reader: &'a Path,
    /// The object cache's socket.
    pub redis: &'a Path,
    /// The folder that catches an environment's mail.
    pub mailbox: &'a Path,
}

#[derive(Serialize)]
struct Fields<'a> {
    database: &'a str,
    database_password: &'a str,
    writer: &'a str,
    reader: &'a Path,
    salts: BTreeMap<&'a str, &'a str>,
    home: &'a str,
    network: Option<Blogs<'a>>,
    file_mods: bool,
    memory: String,
    redis: &'a Path,
    redis_user: String,
    redis_password: &'a str,
    prefix: String,
    cron: &'a str,
    environment: Option<Trial<'a>>,
}

/// What the WordPress of an environment must know of that.
#[derive(Serialize)]
struct Trial<'a> {
    name: &'a str,
    kind: &'static str,
    mailbox: &'a Path,
    cron: bool,
    payments: bool,
}

/// What a network's WordPress must know of its main blog.
#[derive(Serialize)]
struct Blogs<'a> {
    /// Whether blogs are told apart by their host.
    subdomains: bool,
    /// Host and port of the home URL, as the network's tables have them.
    authority: &'a str,
    /// The port alone with its colon; empty for the scheme's own.
    port: &'a str,
    /// The host that the blogs' hosts end in.
    base: &'a str,
}

impl<'a> Blogs<'a> {
    fn of(network: Network, home: &'a str) -> Self {
        let authority = home.split_once("://").map_or(home, |(_, authority)| authority);
        let (host, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
        Self {
            subdomains: network == Network::Subdomains,
            authority,
            port,
            base: host.strip_prefix("www.").unwrap_or(host),
        }
    }
}

/// The file's contents.
pub fn site_config(facts: &Facts<'_>) -> String {
    let name = &facts.site.name;
    fill(
        include_str!("../templates/site.php.j2"),
        Fields {
            database: facts.database,
            database_password: facts.secrets.database.reveal(),
            writer: &facts.writer.to_string_lossy(),
            reader: facts.reader,
            salts: facts.secrets.salts.iter().map(|(k, v)| (k.as_str(), v.reveal())).collect(),
            home: facts.home,
            network: facts.site.network.map(|network| Blogs::of(network, facts.home)),
            file_mods: facts.site.file_mods,
            memory: format!("{}M", facts.site.php.memory.whole_mib().max(1)),
            redis: facts.redis,
            redis_user: format!("site-{name}"),
            redis_password: facts.secrets.redis.reveal(),
            prefix: format!("{name}:"),
            cron: facts.secrets.cron.reveal(),
            environment: facts.site.environment.as_ref().map(|environment| Trial {
                name: environment.name.as_str(),
                kind: environment.kind(),
                mailbox: facts.mailbox,
                cron: environment.cron,
                payments: environment.payments,
            }),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{mariadb, php};

    // Facts of the kind that an operator may write, with the characters that break careless templates.
    fn site() -> Site {
        use pressroom_model::config::{Admin, Instances, PageCache, Php, Source};
        use pressroom_model::unit::{ByteSize, Span};
        Site {
            name: "blog".parse().expect("a good name"),
            environment: None,
            domains: vec!["blog.example.com".into()],
            network: None,
            file_mods: false,
            title: "It's".into(),
            wordpress: Source::Debian,
            admin: Admin { user: "admin".into(), email: "admin@example.com".into() },
            php: Php {
                version: "8.2".into(),
                runtime: pressroom_model::config::Runtime::Process,
                image: None,
                workers: 4,
                instances: Instances { min: 1, max: 8 },
                memory: ByteSize::mib(256),
                time: Span::seconds(60),
                slow: Span::seconds(5),
                max_age: Span::seconds(0),
                limits: Default::default(),
                ini: BTreeMap::from([("assert.active".into(), "0".into())]),
            },
            upload_limit: ByteSize::mib(1024),
            certificate: None,
            deploy: Default::default(),
            cron: Default::default(),
            placement: Default::default(),
            page_cache: PageCache {
                enabled: true,
                ttl_max: Span::seconds(3600),
                stale_while_revalidate: Span::seconds(60),
                stale_if_error: Span::seconds(60),
                ignored_parameters: vec![],
                bypass_cookies: vec![],
                vary_cookies: vec![],
            },
        }
    }

    fn rendered(network: Option<Network>, home: &str) -> String {
        use pressroom_model::secret::Secret;
        let secrets = SiteSecrets {
            database: Secret::new("d"),
            redis: Secret::new("r"),
            salts: BTreeMap::new(),
            cron: Secret::new("c"),
        };
        let path = Path::new("/run/x.sock");
        site_config(&Facts {
            site: &Site { network, ..site() },
            home,
            database: "wp_blog",
            secrets: &secrets,
            writer: path,
            reader: path,
            redis: path,
            mailbox: path,
        })
    }

    const BLOGS: &str = r"if ( isset( $_SERVER['HTTP_HOST'] ) ) {
	$_SERVER['HTTP_HOST'] = preg_replace( '/:[0-9]*$/D', '', $_SERVER['HTTP_HOST'] ) . ':8443';
}
defined( 'MULTISITE' ) || define( 'MULTISITE', true );
define( 'SUBDOMAIN_INSTALL', KIND );
define( 'DOMAIN_CURRENT_SITE', 'www.example.com:8443' );
define( 'PATH_CURRENT_SITE', '/' );
define( 'SITE_ID_CURRENT_SITE', 1 );
define( 'BLOG_ID_CURRENT_SITE', 1 );
define( 'PRESSROOM_HOME', 'https://www.example.com:8443' );
";
    const COOKIES: &str = r"// One login for all blogs below the main one's domain. A cookie cannot have a port, nor be set for them by a blog elsewhere.
define( 'COOKIE_DOMAIN', preg_match( '/(^|\.)' . preg_quote( 'example.com', '/' ) . '(:|$)/Di', $_SERVER['HTTP_HOST'] ?? '' ) ? '.example.com' : false );
";

    #[test]
    fn a_networks_blogs_have_their_addresses_in_the_database() {
        let single = rendered(None, "https://www.example.com:8443");
        assert!(single.contains("define( 'WP_HOME', 'https://www.example.com:8443' );"));
        assert!(!single.contains("MULTISITE") && !single.contains("HTTP_HOST"), "{single}");
        for (network, kind, cookies) in
            [(Network::Subdirectories, "false", ""), (Network::Subdomains, "true", COOKIES)]
        {
            let text = rendered(Some(network), "https://www.example.com:8443");
            let start = text.find("if ( isset( $_SERVER").expect("its part");
            let end = text.find("define( 'WP_CACHE_KEY_SALT'").expect("what follows");
            assert_eq!(text[start..end], BLOGS.replace("KIND", kind) + cookies);
            assert!(!text.contains("'WP_HOME'") && !text.contains("'WP_SITEURL'"), "{text}");
        }
        let text = rendered(Some(Network::Subdirectories), "https://example.com");
        assert!(text.contains("define( 'DOMAIN_CURRENT_SITE', 'example.com' );"), "{text}");
    }

    #[test]
    fn a_salt_with_quotes_stays_inside_its_string() {
        use pressroom_model::secret::Secret;
        let secrets = SiteSecrets {
            database: Secret::new("d'b"),
            redis: Secret::new("r"),
            salts: BTreeMap::from([("AUTH_KEY".to_owned(), Secret::new(r"a'b\"))]),
            cron: Secret::new("c"),
        };
        let path = Path::new("/run/x.sock");
        let text = site_config(&Facts {
            site: &site(),
            home: "https://blog.example.com",
            database: "wp_blog",
            secrets: &secrets,
            writer: path,
            reader: path,
            redis: path,
            mailbox: path,
        });
        assert!(text.contains(r"define( 'AUTH_KEY', 'a\'b\\' );"), "{text}");
        assert!(text.contains("define( 'DB_HOST', 'localhost:/run/x.sock' );"), "{text}");
    }

    #[test]
    fn pool_ini_and_option_file_are_whole() {
        let site = site();
        let path = Path::new("/d");
        let id = pressroom_model::id::InstanceId::of(&site.name, 1);
        let pool = php::pool(&php::Facts {
            author: None,
            site: &site,
            id: &id,
            root: path,
            socket: path,
            status_socket: path,
            slow_log: path,
            tmp: path,
            affirm: path,
            config: path,
        });
        assert!(pool.contains("pm.max_children = 4"), "{pool}");
        let ini = php::ini(&php::IniFacts {
            is_author: false,
            site: &site,
            tmp: path,
            sessions_socket: path,
            sessions_user: "site-blog",
            sessions_password: "p",
            mailbox: path,
            confined_to: Some(&[path]),
        });
        assert!(ini.contains("upload_max_filesize = 1073741824"), "{ini}");
        assert!(
            ini.contains("assert.active = 0") && ini.contains("open_basedir = \"/d\""),
            "{ini}"
        );
        let options = mariadb::options(&mariadb::Facts {
            data: path,
            tmp: path,
            socket: path,
            pid_file: path,
            memory: pressroom_model::unit::ByteSize::mib(128),
            workers: 1,
        });
        assert!(options.ends_with('\n'));
    }
}
