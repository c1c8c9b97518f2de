//! From what a file says to what it means: defaults filled in, and what keys say together looked at.
//!
//! Values that `check` has already found fault with are passed over here, so that nothing is reported twice.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::reader::Reader;
use super::{Facts, Faults};
use crate::config::{
    Admin, Cache, CertificateFiles, Cluster, Config, Console, Cron, Database, Dns, Edge, Hooks,
    Instances, Interrupted, Limits, Media, MediaStore, Node, PageCache, Php, Registrar, Runtime,
    Site, Source, Templates, WordPress,
};
use crate::floating::Floating;
use crate::id::{NodeName, SiteName};
use crate::placement::{NodeRule, Rules};
use crate::snapshot::{HealthRules, LogFormat, Network};
use crate::unit::ByteSize;

/// What the file means. With faults found (here or before) the value is good for nothing but to go on looking.
pub(super) fn read(
    document: &DeTable<'_>,
    facts: &Facts,
    faults: &mut Faults,
    is_broken: bool,
) -> Config {
    let file = Reader::of(document);
    let edge = edge(&file.within("edge"), facts, faults);
    let console = Console { listen: file.within("console").parsed("listen") };
    let dns = dns(&file.within("dns"), faults);
    ports(&file, &edge, &console, &dns, faults);
    let cluster = cluster(&file.within("cluster"), &edge, faults);
    let node = file.within("node");
    let name = node.text("name").or_else(|| Some(facts.hostname.clone()));
    Config {
        node: Node {
            name: name.and_then(|name| name.parse().ok()).unwrap_or_else(unnamed_node),
            zone: node.text("zone").unwrap_or_default(),
            data: node.text("data").map_or_else(|| facts.data.clone(), PathBuf::from),
            docker: node.text("docker").map(PathBuf::from),
        },
        edge,
        console,
        dns,
        cluster,
        database: Database::Managed { memory: file.within("database").size("memory") },
        cache: Cache::Managed { memory: file.within("cache").size("memory") },
        media: media(&file.within("media"), facts, faults),
        wordpress: WordPress {
            wp_cli: file.within("wordpress").text("wp_cli").map(|path| facts.folder.join(path)),
            mirror: file
                .within("wordpress")
                .text("mirror")
                .map(|mirror| mirror.trim_end_matches('/').to_owned()),
        },
        templates: file.within("templates").text("confdir").map(|confdir| Templates {
            confdir: confdir.into(),
            prefix: file.within("templates").text("prefix"),
        }),
        sites: sites(&file, facts, faults, is_broken),
    }
}

fn media(media: &Reader<'_>, facts: &Facts, faults: &mut Faults) -> Media {
    if !media.has("store") {
        for name in ["endpoint", "key_file"].into_iter().filter(|name| media.has(name)) {
            faults.add_with_hint(
                media.span_of(name),
                format!("`media.{name}` without an object store"),
                "say which in `media.store`",
            );
        }
        return Media::default();
    }
    if !media.has("key_file") {
        let hint = "say which file has the store's key in `media.key_file`";
        faults.add_with_hint(media.span_of("store"), "`media.store` without its key", hint);
    }
    let place = media.text("store").and_then(|url| MediaStore::place(&url));
    Media {
        store: place.map(|(bucket, prefix)| MediaStore {
            bucket,
            prefix,
            endpoint: media.text("endpoint").map(|it| it.trim_end_matches('/').to_owned()),
            region: media.text("region").unwrap_or_default(),
            key_file: facts.folder.join(media.text("key_file").unwrap_or_default()),
        }),
    }
}

/// The name of a machine whose host name is not one.
fn unnamed_node() -> NodeName {
    "node".parse().expect("a good name")
}

fn edge(edge: &Reader<'_>, facts: &Facts, faults: &mut Faults) -> Edge {
    let or_default = |name: &str, root: ([u8; 4], u16), other: u16| {
        edge.addresses(name).unwrap_or_else(|| {
            vec![if facts.is_root {
                SocketAddr::from(root)
            } else {
                SocketAddr::from(([127, 0, 0, 1], other))
            }]
        })
    };
    let https = or_default("https", ([0, 0, 0, 0], 443), 8443);
    if https.is_empty() && edge.list("https").is_some_and(|list| list.is_empty()) {
        faults.add(
            edge.span_of("https"),
            "`edge.https` must have at least one address: sites are served over HTTPS",
        );
    }
    let proxies = edge.texts("trusted_proxies");
    let proxy_protocol = edge.flag("proxy_protocol");
    if proxy_protocol && edge.list("trusted_proxies").is_none_or(|list| list.is_empty()) {
        let hint = "name the proxies that speak it in `edge.trusted_proxies`";
        faults.add_with_hint(
            edge.span_of("proxy_protocol"),
            "`edge.proxy_protocol` without trusted proxies",
            hint,
        );
    }
    Edge {
        http: or_default("http", ([0, 0, 0, 0], 80), 8080),
        https,
        trusted_proxies: proxies.iter().map(|one| block(one)).collect(),
        proxy_protocol,
        cache_size: edge.size("cache_size").unwrap_or(ByteSize::bytes(0)),
        access_log: match edge.text("access_log").as_deref() {
            Some("json") => Some(LogFormat::Json),
            Some("combined") => Some(LogFormat::Combined),
            _ => None,
        },
        redirect_to_https: edge.flag("redirect_to_https"),
        health: health(&edge.within("health")),
    }
}

fn health(health: &Reader<'_>) -> HealthRules {
    let number = |name| health.number(name).map_or(1, u32::from);
    HealthRules {
        interval: health.parsed("interval"),
        timeout: health.parsed("timeout"),
        failures: number("failures"),
        successes: number("successes"),
    }
}

/// An address as a block of one.
fn block(network: &str) -> String {
    match network.contains('/') {
        true => network.to_owned(),
        false => format!("{network}/{}", if network.contains(':') { 128 } else { 32 }),
    }
}

fn dns(dns: &Reader<'_>, faults: &mut Faults) -> Dns {
    let listen = dns.addresses("listen").unwrap_or_default();
    let forward = dns.addresses("forward").unwrap_or_default();
    for (n, resolver) in forward.iter().enumerate() {
        if listen.iter().any(|own| collide(*own, *resolver)) {
            let what = format!("`{resolver}` is where names are answered: it would ask itself");
            faults.add(dns.span_of_item("forward", n), what);
        }
    }
    Dns {
        listen,
        domain: dns.text("domain").unwrap_or_default().to_ascii_lowercase(),
        register: dns.has("register").then(|| dns.flag("register")),
        registrar: match dns.text("registrar").as_deref() {
            Some("published") => Registrar::Published,
            Some("internal") => Registrar::Internal,
            _ => Registrar::Off,
        },
        forward,
    }
}

/// Floating addresses come to nodes that run already: only who listens at every address answers there.
fn cluster(cluster: &Reader<'_>, edge: &Edge, faults: &mut Faults) -> Cluster {
    let mut addresses: Vec<Floating> = Vec::new();
    for (n, text) in cluster.texts("addresses").iter().enumerate() {
        let Ok(floating) = text.parse::<Floating>() else { continue };
        let span = cluster.span_of_item("addresses", n);
        if addresses.iter().any(|other| other.address == floating.address) {
            faults.add(span.clone(), format!("`{}` is there twice", floating.address));
        }
        let every = |it: &SocketAddr| {
            it.ip().is_unspecified() && it.is_ipv4() == floating.address.is_ipv4()
        };
        if !edge.https.iter().any(every) {
            let all = if floating.address.is_ipv4() { "0.0.0.0:443" } else { "[::]:443" };
            faults.add_with_hint(
                span,
                format!("nobody would listen at `{}`", floating.address),
                format!("add `\"{all}\"` to `edge.https`: the address comes and goes"),
            );
        }
        addresses.push(floating);
    }
    Cluster { addresses }
}

/// No two listeners may want the same port of the same address.
fn ports(file: &Reader<'_>, edge: &Edge, console: &Console, dns: &Dns, faults: &mut Faults) {
    let (table, page, names) = (file.within("edge"), file.within("console"), file.within("dns"));
    let mut all: Vec<(&str, SocketAddr, Range<usize>)> = Vec::new();
    for (name, list) in [("http", &edge.http), ("https", &edge.https)] {
        for (n, address) in list.iter().enumerate() {
            all.push((name, *address, table.span_of_item(name, n)));
        }
    }
    all.push(("console", console.listen, page.span_of("listen")));
    for (n, address) in dns.listen.iter().enumerate() {
        all.push(("names", *address, names.span_of_item("listen", n)));
    }
    for (n, (name, address, span)) in all.iter().enumerate() {
        if let Some((other, taken, _)) =
            all[..n].iter().find(|(_, other, _)| collide(*other, *address))
        {
            faults.add(
                span.clone(),
                format!("`{address}` for {name} is taken by `{taken}` for {other}"),
            );
        }
    }
}

fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let covers =
        |a: SocketAddr, b: SocketAddr| a.ip().is_unspecified() && (a.is_ipv4() == b.is_ipv4());
    a.port() == b.port() && (a.ip() == b.ip() || covers(a, b) || covers(b, a))
}

fn sites(file: &Reader<'_>, facts: &Facts, faults: &mut Faults, is_broken: bool) -> Vec<Site> {
    let mut sites: Vec<Site> = Vec::new();
    for (n, table) in file.tables("site").into_iter().enumerate() {
        let Some(name) = table.text("name").and_then(|name| name.parse::<SiteName>().ok()) else {
            continue;
        };
        if sites.iter().any(|site| site.name == name) {
            faults.add(table.span_of("name"), format!("there is already a site `{name}`"));
        }
        let site = site(&table, name, n == 0, facts, faults, is_broken);
        for (d, domain) in site.domains.iter().enumerate() {
            if let Some(other) =
                sites.iter().find(|other| other.name != site.name && other.domains.contains(domain))
            {
                let what = format!("site `{}` already answers for `{domain}`", other.name);
                faults.add(table.span_of_item("domains", d), what);
            }
        }
        sites.push(site);
    }
    for table in file.tables("site") {
        let name = table.text("name");
        if let Some(site) = sites.iter().find(|site| Some(site.name.as_str()) == name.as_deref()) {
            company(&table.within("placement"), site, &sites, faults);
        }
    }
    sites
}

/// What a site says of others must be about some, and must not be against itself.
fn company(table: &Reader<'_>, site: &Site, sites: &[Site], faults: &mut Faults) {
    let own = &site.name;
    for (word, says) in [("beside", "runs beside"), ("conflicts", "conflicts with")] {
        let named = table.texts(word);
        for (n, name) in named.iter().enumerate() {
            let span = table.span_of_item(word, n);
            let other = sites.iter().find(|other| other.name.as_str() == name);
            let Some(other) = other else {
                let known: Vec<String> = sites
                    .iter()
                    .filter(|other| other.name != *own)
                    .map(|other| format!("`{}`", other.name))
                    .collect();
                let hint = match known.is_empty() {
                    true => "there is no other site in this file".to_owned(),
                    false => format!("other sites here are {}", known.join(", ")),
                };
                faults.add_with_hint(span, format!("there is no site `{name}`"), hint);
                continue;
            };
            if named[..n].contains(name) {
                faults.add(span.clone(), format!("`{name}` is there twice"));
            }
            let is_kin =
                site.placement.beside.contains(&other.name) || other.placement.beside.contains(own);
            if other.name == *own {
                faults.add(span, format!("no site {says} itself"));
            } else if word == "conflicts" && is_kin {
                let fault =
                    format!("`{own}` and `{name}` cannot be beside each other and conflict");
                faults.add_with_hint(span, fault, "leave one of the two out");
            }
        }
    }
}

fn placement(table: &Reader<'_>, faults: &mut Faults) -> Rules {
    let mut nodes: Vec<NodeRule> = Vec::new();
    for (n, text) in table.texts("nodes").iter().enumerate() {
        let Ok(rule) = text.parse::<NodeRule>() else { continue };
        let is_against = |other: &&NodeRule| {
            other.key == rule.key
                && match (other.is_not, rule.is_not) {
                    (false, false) => other.value != rule.value,
                    (true, true) => false,
                    _ => other.value == rule.value,
                }
        };
        if let Some(other) = nodes.iter().find(is_against) {
            let fault = format!("no node is as `{other}` and `{rule}` say: all of the list counts");
            faults.add(table.span_of_item("nodes", n), fault);
        }
        nodes.push(rule);
    }
    let sites = |word| table.texts(word).iter().filter_map(|name| name.parse().ok()).collect();
    Rules { nodes, beside: sites("beside"), conflicts: sites("conflicts") }
}

fn site(
    table: &Reader<'_>,
    name: SiteName,
    is_first: bool,
    facts: &Facts,
    faults: &mut Faults,
    is_broken: bool,
) -> Site {
    let domains = domains(table, &name, is_first, faults);
    let network = network(table, &name, &domains, faults);
    Site {
        environment: None,
        network,
        file_mods: table.flag("file_mods"),
        title: table.text("title").unwrap_or_else(|| name.to_string()),
        wordpress: source(&table.within("wordpress"), facts, faults, is_broken),
        admin: admin(&table.within("admin"), &domains),
        php: php(&table.within("php"), facts, faults),
        upload_limit: table.size("upload_limit").unwrap_or(ByteSize::bytes(0)),
        certificate: certificate(&table.within("certificate"), &facts.folder),
        page_cache: page_cache(&table.within("page_cache")),
        deploy: hooks(&table.within("deploy")),
        cron: Cron {
            interrupted: match table.within("cron").text("interrupted").as_deref() {
                Some("report") => Interrupted::Report,
                _ => Interrupted::Again,
            },
        },
        placement: placement(&table.within("placement"), faults),
        domains,
        name,
    }
}

fn domains(
    table: &Reader<'_>,
    name: &SiteName,
    is_first: bool,
    faults: &mut Faults,
) -> Vec<String> {
    let mut domains: Vec<String> = Vec::new();
    for (n, domain) in table.texts("domains").into_iter().enumerate() {
        let domain = domain.to_ascii_lowercase();
        if domains.contains(&domain) {
            faults.add(table.span_of_item("domains", n), format!("`{domain}` is there twice"));
        }
        if n == 0 && domain.starts_with("*.") {
            let hint = "the first one is in the site's URLs; put a whole name there";
            faults.add_with_hint(
                table.span_of_item("domains", n),
                format!("`{domain}` cannot be first"),
                hint,
            );
        }
        domains.push(domain);
    }
    if domains.is_empty() && is_first {
        domains.push("localhost".to_owned());
    }
    let own = format!("{name}.localhost");
    if !domains.contains(&own) {
        domains.push(own);
    }
    domains
}

/// A network of sub-domains needs a name that new blogs get theirs below, and a wildcard that reaches them.
fn network(
    table: &Reader<'_>,
    name: &SiteName,
    domains: &[String],
    faults: &mut Faults,
) -> Option<Network> {
    let network = Network::of(&table.text("network")?)?;
    let first = domains.first().map_or("", String::as_str);
    let base = base_of(first);
    let is_good = base.contains('.') && domains.contains(&format!("*.{base}"));
    if network == Network::Subdomains && !is_good && !first.starts_with("*.") {
        let (what, hint) = if base.contains('.') {
            (
                format!(
                    "a network of sub-domains, and no domain stands for new blogs of `{first}`"
                ),
                format!("add `\"*.{base}\"` to `domains`"),
            )
        } else {
            (
                format!(
                    "`{first}` cannot have a network of sub-domains: browsers share no cookies below it"
                ),
                format!(
                    "write `domains = [\"{name}.localhost\", \"*.{name}.localhost\"]`, or domains of your own"
                ),
            )
        };
        faults.add_with_hint(table.span_of("network"), what, hint);
    }
    Some(network)
}

/// The name that new blogs of a network get theirs below: WordPress leaves `www.` out.
fn base_of(domain: &str) -> &str {
    domain.strip_prefix("www.").unwrap_or(domain)
}

fn source(table: &Reader<'_>, facts: &Facts, faults: &mut Faults, is_broken: bool) -> Source {
    let given: Vec<_> = ["source", "version", "path", "archive", "git"]
        .into_iter()
        .filter(|name| table.has(name))
        .collect();
    if given.len() > 1 {
        let all: Vec<_> = given.iter().map(|name| format!("`{name}`")).collect();
        faults.add(
            table.span_of(given[1]),
            format!("a site's code comes from one place, not from {}", all.join(" and ")),
        );
    }
    if table.has("sha256") != table.has("archive") && !is_broken {
        let (there, missing) =
            if table.has("archive") { ("archive", "sha256") } else { ("sha256", "archive") };
        faults.add(table.span_of(there), format!("`{there}` needs `{missing}` beside it"));
    }
    if table.has("ref") && !table.has("git") && !is_broken {
        faults.add(table.span_of("ref"), "`ref` needs `git` beside it");
    }
    if let Some(url) = table.text("git") {
        let is_address =
            url.contains("://") || url.split('/').next().is_some_and(|host| host.contains(':'));
        let url = if is_address { url } else { facts.folder.join(url).display().to_string() };
        let reference = table.text("ref").unwrap_or_else(|| "HEAD".to_owned());
        return Source::Git { url, reference };
    }
    if let Some(Ok(version)) = table.text("version").as_deref().map(Source::published) {
        return version;
    }
    if let Some(path) = table.text("path") {
        return Source::Path(facts.folder.join(path));
    }
    match (table.text("archive"), table.text("sha256")) {
        (Some(path), Some(sha256)) => {
            Source::Archive { path: facts.folder.join(path), sha256: sha256.to_ascii_lowercase() }
        }
        _ => Source::Debian,
    }
}

fn admin(table: &Reader<'_>, domains: &[String]) -> Admin {
    let user = table.text("user").unwrap_or_default();
    let host = match domains.first() {
        Some(first) if first != "localhost" && !first.ends_with(".localhost") => first.as_str(),
        _ => "example.com",
    };
    let email = table.text("email").unwrap_or_else(|| match user.split_once('@') {
        Some(_) => user.replace(' ', "."),
        None => format!("{}@{host}", user.replace(' ', ".")),
    });
    Admin { user, email }
}

fn php(table: &Reader<'_>, facts: &Facts, faults: &mut Faults) -> Php {
    let bounds = table.within("instances");
    let min = bounds.number("min").unwrap_or(1);
    let max = bounds.number("max").unwrap_or_else(|| min.max(8));
    if min > max {
        faults.add(bounds.span_of("min"), format!("`min` is {min}, above `max`, which is {max}"));
    }
    let php = Php {
        version: table.text("version").unwrap_or_else(|| facts.php_version.clone()),
        runtime: match table.text("runtime").as_deref() {
            Some("docker") => Runtime::Docker,
            _ => Runtime::Process,
        },
        image: table.text("image"),
        workers: table
            .number("workers")
            .unwrap_or_else(|| facts.cores.saturating_mul(2).clamp(2, 16)),
        instances: Instances { min, max },
        memory: table.size("memory").unwrap_or(ByteSize::bytes(0)),
        time: table.parsed("time"),
        slow: table.parsed("slow"),
        max_age: table.parsed("max_age"),
        limits: Limits::default(),
        ini: table.within("ini").pairs(),
    };
    Php { limits: limits(&table.within("limits"), &php, faults), ..php }
}

fn limits(table: &Reader<'_>, php: &Php, faults: &mut Faults) -> Limits {
    let memory = table.size("memory");
    if let Some(all) = memory.filter(|all| *all < php.memory) {
        let fault = format!(
            "`memory` is {all}, less than one worker may take (`memory` in `[site.php]` is {})",
            php.memory
        );
        faults.add(table.span_of("memory"), fault);
    }
    let processes = table.number("processes");
    // One more is php-fpm itself, and one is for a program that a worker starts.
    if let Some(most) = processes.filter(|most| *most < php.workers.saturating_add(2)) {
        let fault = format!("`processes` is {most}, too few for {} workers", php.workers);
        faults.add(table.span_of("processes"), fault);
    }
    Limits { memory, processes, cpu: table.number("cpu") }
}

fn certificate(table: &Reader<'_>, folder: &Path) -> Option<CertificateFiles> {
    Some(CertificateFiles {
        chain: folder.join(table.text("chain")?),
        key: folder.join(table.text("key")?),
    })
}

fn hooks(table: &Reader<'_>) -> Hooks {
    Hooks { before: table.texts("before"), after: table.texts("after") }
}

fn page_cache(table: &Reader<'_>) -> PageCache {
    PageCache {
        enabled: table.flag("enabled"),
        ttl_max: table.parsed("ttl_max"),
        stale_while_revalidate: table.parsed("stale_while_revalidate"),
        stale_if_error: table.parsed("stale_if_error"),
        ignored_parameters: table.texts("ignored_parameters"),
        bypass_cookies: table.texts("bypass_cookies"),
        vary_cookies: table.texts("vary_cookies"),
    }
}
