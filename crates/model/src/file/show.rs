//! A configuration as a file that means the same, with every default written out.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::Path;

use crate::config::{
    Cache, Config, Database, Dns, Limits, Registrar, Site, Source, Templates, WordPress,
};
use crate::id::SiteName;
use crate::placement::Rules;
use crate::snapshot::{HealthRules, LogFormat};
use crate::unit::ByteSize;

/// The file. What follows from the machine (memory of engines) is left out, as it was.
pub fn show(config: &Config) -> String {
    let mut page = Page::default();
    page.head("[node]");
    page.text("name", &config.node.name);
    page.text("zone", &config.node.zone);
    page.text("data", config.node.data.display());
    if let Some(docker) = &config.node.docker {
        page.text("docker", docker.display());
    }
    page.head("[edge]");
    page.texts("http", &addresses(&config.edge.http));
    page.texts("https", &addresses(&config.edge.https));
    page.plain("redirect_to_https", config.edge.redirect_to_https);
    page.texts("trusted_proxies", &config.edge.trusted_proxies);
    page.plain("proxy_protocol", config.edge.proxy_protocol);
    page.text("cache_size", config.edge.cache_size);
    page.text(
        "access_log",
        match config.edge.access_log {
            Some(LogFormat::Json) => "json",
            Some(LogFormat::Combined) => "combined",
            None => "off",
        },
    );
    let health = &config.edge.health;
    if *health != HealthRules::default() {
        page.head("[edge.health]");
        page.text("interval", health.interval);
        page.text("timeout", health.timeout);
        page.plain("failures", health.failures);
        page.plain("successes", health.successes);
    }
    page.head("[console]");
    page.text("listen", config.console.listen);
    page.dns(&config.dns);
    if !config.cluster.addresses.is_empty() {
        page.head("[cluster]");
        let addresses = config.cluster.addresses.iter().map(ToString::to_string);
        page.texts("addresses", &addresses.collect::<Vec<_>>());
    }
    let Database::Managed { memory } = &config.database;
    page.engine("[database]", *memory);
    let Cache::Managed { memory } = &config.cache;
    page.engine("[cache]", *memory);
    if let Some(store) = &config.media.store {
        page.head("[media]");
        page.text("store", store.url());
        if let Some(endpoint) = &store.endpoint {
            page.text("endpoint", endpoint);
        }
        page.text("region", &store.region);
        page.text("key_file", store.key_file.display());
    }
    let WordPress { wp_cli, mirror } = &config.wordpress;
    if wp_cli.is_some() || mirror.is_some() {
        page.head("[wordpress]");
    }
    if let Some(phar) = wp_cli {
        page.text("wp_cli", phar.display());
    }
    if let Some(mirror) = mirror {
        page.text("mirror", mirror);
    }
    if let Some(Templates { confdir, prefix }) = &config.templates {
        page.head("[templates]");
        page.text("confdir", confdir.display());
        if let Some(prefix) = prefix {
            page.text("prefix", prefix);
        }
    }
    for site in &config.sites {
        page.site(site);
    }
    page.0
}

fn addresses(list: &[SocketAddr]) -> Vec<String> {
    list.iter().map(SocketAddr::to_string).collect()
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self, head: &str) {
        let gap = if self.0.is_empty() { "" } else { "\n" };
        self.0 += &format!("{gap}{head}\n");
    }

    fn plain(&mut self, key: &str, value: impl Display) {
        self.0 += &format!("{key} = {value}\n");
    }

    fn text(&mut self, key: &str, value: impl Display) {
        self.plain(key, quoted(value));
    }

    fn texts(&mut self, key: &str, list: &[String]) {
        let list: Vec<_> = list.iter().map(quoted).collect();
        self.plain(key, format!("[{}]", list.join(", ")));
    }

    /// Left out where names are not used at all.
    fn dns(&mut self, dns: &Dns) {
        if *dns == Dns::default() {
            return;
        }
        self.head("[dns]");
        self.texts("listen", &addresses(&dns.listen));
        self.text("domain", &dns.domain);
        if let Some(register) = dns.register {
            self.plain("register", register);
        }
        self.text(
            "registrar",
            match dns.registrar {
                Registrar::Off => "off",
                Registrar::Published => "published",
                Registrar::Internal => "internal",
            },
        );
        self.texts("forward", &addresses(&dns.forward));
    }

    fn engine(&mut self, head: &str, memory: Option<ByteSize>) {
        self.head(head);
        self.text("engine", "managed");
        if let Some(memory) = memory {
            self.text("memory", memory);
        }
    }

    fn site(&mut self, site: &Site) {
        let path = |path: &Path| quoted(path.display());
        self.head("[[site]]");
        self.text("name", &site.name);
        self.texts("domains", &site.domains);
        if let Some(network) = site.network {
            self.text("network", network.word());
        }
        self.plain("file_mods", site.file_mods);
        self.text("title", &site.title);
        self.text("upload_limit", site.upload_limit);
        self.plain(
            "wordpress",
            match &site.wordpress {
                Source::Debian => "{ source = \"debian\" }".to_owned(),
                Source::Version(version) => format!("{{ version = {} }}", quoted(version)),
                Source::Path(tree) => format!("{{ path = {} }}", path(tree)),
                Source::Git { url, reference } => {
                    format!("{{ git = {}, ref = {} }}", quoted(url), quoted(reference))
                }
                Source::Archive { path: file, sha256 } => {
                    format!("{{ archive = {}, sha256 = \"{sha256}\" }}", path(file))
                }
            },
        );
        let (user, email) = (quoted(&site.admin.user), quoted(&site.admin.email));
        self.plain("admin", format!("{{ user = {user}, email = {email} }}"));
        if let Some(files) = &site.certificate {
            self.plain(
                "certificate",
                format!("{{ chain = {}, key = {} }}", path(&files.chain), path(&files.key)),
            );
        }
        self.php(site);
        self.head("[site.deploy]");
        self.texts("before", &site.deploy.before);
        self.texts("after", &site.deploy.after);
        self.head("[site.cron]");
        self.text("interrupted", site.cron.interrupted.word());
        if site.placement != Rules::default() {
            let named =
                |sites: &[SiteName]| sites.iter().map(ToString::to_string).collect::<Vec<_>>();
            let nodes = site.placement.nodes.iter().map(ToString::to_string);
            self.head("[site.placement]");
            self.texts("nodes", &nodes.collect::<Vec<_>>());
            self.texts("beside", &named(&site.placement.beside));
            self.texts("conflicts", &named(&site.placement.conflicts));
        }
        self.page_cache(site);
    }

    fn php(&mut self, site: &Site) {
        let php = &site.php;
        self.head("[site.php]");
        self.text("version", &php.version);
        self.text("runtime", php.runtime.word());
        if let Some(image) = &php.image {
            self.text("image", image);
        }
        self.plain("workers", php.workers);
        self.plain(
            "instances",
            format!("{{ min = {}, max = {} }}", php.instances.min, php.instances.max),
        );
        self.text("memory", php.memory);
        self.text("time", php.time);
        self.text("slow", php.slow);
        self.text("max_age", php.max_age);
        self.limits(&php.limits);
        let pairs: Vec<_> = php
            .ini
            .iter()
            .map(|(name, value)| format!("{} = {}", quoted(name), quoted(value)))
            .collect();
        if !pairs.is_empty() {
            self.plain("ini", format!("{{ {} }}", pairs.join(", ")));
        }
    }

    fn limits(&mut self, limits: &Limits) {
        let said = [
            limits.memory.map(|memory| format!("memory = \"{memory}\"")),
            limits.processes.map(|most| format!("processes = {most}")),
            limits.cpu.map(|percent| format!("cpu = {percent}")),
        ];
        let said: Vec<_> = said.into_iter().flatten().collect();
        if !said.is_empty() {
            self.plain("limits", format!("{{ {} }}", said.join(", ")));
        }
    }

    fn page_cache(&mut self, site: &Site) {
        let cache = &site.page_cache;
        self.head("[site.page_cache]");
        self.plain("enabled", cache.enabled);
        self.text("ttl_max", cache.ttl_max);
        self.text("stale_while_revalidate", cache.stale_while_revalidate);
        self.text("stale_if_error", cache.stale_if_error);
        self.texts("ignored_parameters", &cache.ignored_parameters);
        self.texts("bypass_cookies", &cache.bypass_cookies);
        self.texts("vary_cookies", &cache.vary_cookies);
    }
}

/// A string as the file writes it.
fn quoted(text: impl Display) -> String {
    let mut quoted = String::from("\"");
    for c in text.to_string().chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted += &format!("\\u{:04X}", u32::from(c)),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}
