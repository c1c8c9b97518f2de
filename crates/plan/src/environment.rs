//! The sites that environments are: each follows from its parent in the configuration, so that it changes with it.
//!
//! Always: an environment has its own name, addresses, and a certificate of the local authority; of its parent it has
//! PHP settings, limits and rules. It runs one instance: it is for a few people.

use pressroom_model::config::{Config, Instances, Site};
use pressroom_model::environment::Environment;
use pressroom_model::id::SiteName;
use pressroom_model::snapshot::Network;

/// An environment needs no more workers than this.
const MOST_WORKERS: u16 = 4;

/// The configuration with the sites that the environments are, behind those that are written.
pub fn effective(written: &Config, environments: &[Environment]) -> Config {
    let mut config = written.clone();
    for environment in environments {
        let parent = written.sites.iter().find(|site| site.name == environment.of);
        if let (Some(parent), Ok(name)) = (parent, environment.site_name()) {
            config.sites.push(site(parent, environment, name));
        }
    }
    config
}

fn site(parent: &Site, environment: &Environment, name: SiteName) -> Site {
    let mut php = parent.php.clone();
    php.instances = Instances { min: 1, max: 1 };
    php.workers = php.workers.min(MOST_WORKERS);
    Site {
        domains: domains(parent, environment, &name),
        environment: Some(environment.clone()),
        certificate: None,
        php,
        name,
        ..parent.clone()
    }
}

/// `staging.shop.example.com`, and `staging.shop.localhost` for whoever sits at the machine.
fn domains(parent: &Site, environment: &Environment, name: &SiteName) -> Vec<String> {
    let first = parent.domains.first().map_or(name.as_str(), String::as_str);
    let base = first.trim_start_matches("*.");
    let base = base.strip_prefix("www.").unwrap_or(base);
    let own = format!("{}.{base}", environment.name);
    let local = format!("{}.{}.localhost", environment.name, environment.of);
    let mut domains = vec![own.clone()];
    if local != own {
        domains.push(local);
    }
    if parent.network == Some(Network::Subdomains) {
        domains.push(format!("*.{own}"));
    }
    domains
}

/// What stands against some environments beside a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The configuration does not have its parent.
    #[error(
        "`{of}` has an environment `{name}`, which would be left without its site: `pressroom env remove {of} {name}` comes first"
    )]
    Orphan {
        /// The parent.
        of: String,
        /// The environment.
        name: String,
    },
    /// A site of the configuration has its name.
    #[error(
        "environment `{name}` of `{of}` is the site `{site}`, and the configuration has one of that name"
    )]
    Name {
        /// The parent.
        of: String,
        /// The environment.
        name: String,
        /// The name.
        site: SiteName,
    },
    /// Another site has one of its addresses.
    #[error("environment `{name}` of `{of}` answers for `{domain}`, and so would `{other}`")]
    Domain {
        /// The parent.
        of: String,
        /// The environment.
        name: String,
        /// The address.
        domain: String,
        /// The other site.
        other: SiteName,
    },
}

/// The first thing that stands against these environments beside that configuration.
pub fn fault(written: &Config, environments: &[Environment]) -> Option<Fault> {
    let config = effective(written, environments);
    environments.iter().find_map(|environment| {
        let (of, name) = (environment.of.to_string(), environment.name.to_string());
        let is_it = |site: &&Site| site.environment.as_ref() == Some(environment);
        let Some(own) = config.sites.iter().find(is_it) else {
            return Some(Fault::Orphan { of, name });
        };
        let mut others = config.sites.iter().filter(|site| !is_it(site));
        others.find_map(|other| {
            let (of, name) = (of.clone(), name.clone());
            if other.name == own.name {
                return Some(Fault::Name { of, name, site: own.name.clone() });
            }
            let domain = own.domains.iter().find(|domain| other.domains.contains(domain))?;
            Some(Fault::Domain { of, name, domain: domain.clone(), other: other.name.clone() })
        })
    })
}

#[cfg(test)]
mod tests {
    use pressroom_model::file;

    use super::*;

    fn config(sites: &str) -> Config {
        let facts = file::Facts {
            hostname: "n1".into(),
            is_root: true,
            cores: 8,
            php_version: "8.2".into(),
            data: "/d".into(),
            folder: "/d".into(),
        };
        file::parse(sites, &facts).expect("a good file")
    }

    fn environment(of: &str, name: &str) -> Environment {
        Environment {
            of: of.parse().expect("a site"),
            name: name.parse().expect("a name"),
            password: "digest".into(),
            cron: false,
            payments: false,
            made_ms: 1,
            made_by: pressroom_model::environment::MadeBy::Command,
        }
    }

    fn domains_of(sites: &str, of: &str) -> Vec<String> {
        let effective = effective(&config(sites), &[environment(of, "staging")]);
        effective.sites.last().expect("the environment").domains.clone()
    }

    #[test]
    fn an_environment_is_below_its_sites_own_name() {
        let local = "staging.shop.localhost";
        for (sites, wanted) in [
            ("[[site]]\nname = \"shop\"", vec!["staging.localhost", local]),
            (
                "[[site]]\nname = \"shop\"\ndomains = [\"www.example.com\", \"example.com\"]",
                vec!["staging.example.com", local],
            ),
            (
                "[[site]]\nname = \"shop\"\ndomains = [\"shop.localhost\"]",
                vec!["staging.shop.localhost"],
            ),
            (
                "[[site]]\nname = \"shop\"\ndomains = [\"a.example.com\", \"*.a.example.com\"]\nnetwork = \"subdomains\"",
                vec!["staging.a.example.com", local, "*.staging.a.example.com"],
            ),
        ] {
            assert_eq!(domains_of(sites, "shop"), wanted, "{sites}");
        }
    }

    #[test]
    fn an_environment_is_smaller_than_its_site_and_has_its_settings() {
        let written = config(
            "[[site]]\nname = \"shop\"\nupload_limit = \"7 MiB\"\ncertificate = { chain = \"c\", key = \"k\" }\n[site.php]\nworkers = 9\ninstances = { min = 3, max = 9 }",
        );
        let effective = effective(&written, &[environment("shop", "staging")]);
        let [shop, staging] = effective.sites.as_slice() else { panic!("two sites") };
        assert_eq!(*shop, written.sites[0]);
        assert_eq!(staging.name.as_str(), "shop--staging");
        assert_eq!(staging.php.instances, Instances { min: 1, max: 1 });
        assert_eq!((staging.php.workers, staging.certificate.clone()), (4, None));
        assert_eq!(staging.upload_limit, shop.upload_limit);
    }

    #[test]
    fn an_environment_never_takes_the_place_of_another_site() {
        let (shop, staging) = ("[[site]]\nname = \"shop\"", [environment("shop", "staging")]);
        assert_eq!(fault(&config(shop), &staging), None);
        let with = |more: &str| fault(&config(&format!("{shop}\n{more}")), &staging);
        assert!(matches!(
            with("[[site]]\nname = \"staging\""),
            Some(Fault::Domain { domain, .. }) if domain == "staging.localhost"
        ));
        assert!(matches!(with("[[site]]\nname = \"shop--staging\""), Some(Fault::Name { .. })));
        assert!(matches!(
            fault(&config("[[site]]\nname = \"blog\""), &staging),
            Some(Fault::Orphan { .. })
        ));
    }
}
