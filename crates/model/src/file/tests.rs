//! What files mean, and what is wrong with them, case by case.

use super::*;
use crate::config::Source;
use crate::unit::{ByteSize, Span};

fn facts() -> Facts {
    Facts {
        hostname: "n1".to_owned(),
        is_root: false,
        cores: 2,
        php_version: "8.2".to_owned(),
        data: PathBuf::from("/data"),
        folder: PathBuf::from("/etc/press"),
    }
}

fn good(text: &str) -> Config {
    parse(text, &facts()).unwrap_or_else(|faults| panic!("{faults:#?}"))
}

/// Each fault begins with `LINE:COLUMN: `.
#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let faults = match parse(text, &facts()) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.iter().map(Fault::to_string).collect(),
    };
    assert_eq!(faults, expected, "{text}");
}

#[test]
fn an_empty_file_is_a_machine_without_sites() {
    let config = good("");
    assert_eq!(config.node.name.as_str(), "n1");
    assert_eq!(config.node.data, PathBuf::from("/data"));
    assert_eq!(config.edge.http, ["127.0.0.1:8080".parse().expect("address")]);
    assert_eq!(config.edge.https, ["127.0.0.1:8443".parse().expect("address")]);
    assert_eq!(config.console.listen, "127.0.0.1:7070".parse().expect("address"));
    assert!(config.edge.redirect_to_https);
    assert!(config.sites.is_empty());
}

#[test]
fn root_serves_on_the_usual_ports() {
    let config = parse("", &Facts { is_root: true, ..facts() }).expect("good");
    assert_eq!(config.edge.http, ["0.0.0.0:80".parse().expect("address")]);
    assert_eq!(config.edge.https, ["0.0.0.0:443".parse().expect("address")]);
}

#[test]
fn the_first_site_is_localhost_and_every_site_its_name() {
    let config = good(
        "[[site]]\nname = 'blog'\n[[site]]\nname = 'shop'\n[[site]]\nname = 'news'\ndomains = ['News.example.com']",
    );
    let domains: Vec<_> = config.sites.iter().map(|site| site.domains.join(" ")).collect();
    assert_eq!(
        domains,
        ["localhost blog.localhost", "shop.localhost", "news.example.com news.localhost"]
    );
    assert_eq!(config.sites[0].admin.email, "admin@example.com");
    assert_eq!(config.sites[2].admin.email, "admin@news.example.com");
}

#[test]
fn a_site_is_complete_without_a_word_said() {
    let site = &good("[[site]]\nname = 'blog'").sites[0];
    assert_eq!((site.title.as_str(), &site.wordpress), ("blog", &Source::Debian));
    assert_eq!(site.upload_limit, ByteSize::mib(1024));
    assert_eq!((site.php.version.as_str(), site.php.workers), ("8.2", 4));
    assert_eq!((site.php.instances.min, site.php.instances.max), (1, 8));
    assert_eq!(
        (site.php.memory, site.php.time, site.php.slow),
        (ByteSize::mib(256), Span::seconds(60), Span::seconds(5))
    );
    assert!(site.page_cache.enabled);
    assert!(site.page_cache.ignored_parameters.iter().any(|name| name == "utm_*"));
    assert!(site.page_cache.bypass_cookies.iter().any(|name| name == "wordpress_logged_in_*"));
}

const EVERYTHING: &str = r#"
        [node]
        name = "web-1"
        zone = "b"
        data = "/srv/press"
        [edge]
        http = []
        https = ["[::1]:8443"]
        trusted_proxies = ["10.0.0.0/8", "192.0.2.1", "::1"]
        proxy_protocol = true
        cache_size = "1 GiB"
        access_log = "off"
        redirect_to_https = false
        [database]
        engine = "managed"
        memory = "512 MiB"
        [[site]]
        name = "shop"
        domains = ["shop.example.com", "*.shop.example.com"]
        title = "The shop"
        network = "subdomains"
        upload_limit = "64 MiB"
        wordpress = { archive = "wp.tar.gz", sha256 = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" }
        admin = { user = "eve", email = "eve@example.com" }
        certificate = { chain = "c.pem", key = "/k.pem" }
        [site.php]
        instances = { min = 9 }
        time = "2 m"
        limits = { memory = "3 GiB", processes = 200, cpu = 150 }
        ini = { "opcache.jit" = "off", max_input_vars = 5_000, short_open_tag = false }
        [site.deploy]
        before = ["php lint.php", "echo 'a b'"]
        [site.placement]
        nodes = ["disk=ssd"]
        [site.page_cache]
        enabled = false
        vary_cookies = ["currency"]
        "#;

#[test]
fn everything_said_is_meant() {
    let config = good(EVERYTHING);
    assert_eq!(config.edge.trusted_proxies, ["10.0.0.0/8", "192.0.2.1/32", "::1/128"]);
    assert!(
        config.edge.http.is_empty()
            && config.edge.access_log.is_none()
            && config.edge.proxy_protocol
    );
    assert_eq!(config.node.data, PathBuf::from("/srv/press"));
    let site = &config.sites[0];
    let archive = Source::Archive { path: "/etc/press/wp.tar.gz".into(), sha256: "a".repeat(64) };
    assert_eq!(site.wordpress, archive);
    assert_eq!((site.deploy.before.len(), site.deploy.after.len()), (2, 0));
    assert_eq!((site.php.instances.min, site.php.instances.max), (9, 9));
    let ini: Vec<_> = site.php.ini.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(ini, ["max_input_vars=5000", "opcache.jit=off", "short_open_tag=0"]);
    let certificate = site.certificate.as_ref().expect("given");
    assert_eq!(certificate.chain, PathBuf::from("/etc/press/c.pem"));
    assert_eq!(certificate.key, PathBuf::from("/k.pem"));
}

#[test]
fn a_network_of_subdomains_needs_a_wildcard_for_its_blogs() {
    let site = |domains: &str, network: &str| {
        format!("[[site]]\nname = 'net'\ndomains = [{domains}]\nnetwork = '{network}'")
    };
    for (domains, network) in [
        ("", "subdirectories"),
        ("'example.com', 'mapped.org'", "subdirectories"),
        ("'example.com', '*.example.com', 'mapped.org'", "subdomains"),
        ("'www.example.com', '*.example.com'", "subdomains"),
        ("'net.localhost', '*.net.localhost'", "subdomains"),
    ] {
        check(&site(domains, network), &[]);
    }
    let no_wildcard = "4:11: a network of sub-domains, and no domain stands for new blogs of";
    check(
        &site("'example.com', '*.other.com'", "subdomains"),
        &[&format!("{no_wildcard} `example.com` (add `\"*.example.com\"` to `domains`)")],
    );
    check(
        &site("'www.example.com', '*.www.example.com'", "subdomains"),
        &[&format!("{no_wildcard} `www.example.com` (add `\"*.example.com\"` to `domains`)")],
    );
    check(
        &site("", "subdomains"),
        &[
            "4:11: `localhost` cannot have a network of sub-domains: browsers share no cookies below it \
           (write `domains = [\"net.localhost\", \"*.net.localhost\"]`, or domains of your own)",
        ],
    );
    check(
        &site("'example.com'", "folders"),
        &["4:11: `site.network` cannot be `folders` (write `subdirectories` or `subdomains`)"],
    );
}

#[test]
fn what_is_shown_means_the_same() {
    let (quotes, minimal) = (
        "[[site]]\nname = 'a'\ntitle = 'a \"b\" \\ c'",
        "[[site]]\nname = 'a'\n[[site]]\nname = 'b'",
    );
    for text in ["", minimal, quotes, EVERYTHING] {
        let config = good(text);
        assert_eq!(good(&show(&config)), config, "{}", show(&config));
    }
}

#[test]
fn an_unknown_key_names_the_nearest_known_one() {
    check("[edg]\n", &["1:2: unknown key `edg` (did you mean `edge`?)"]);
    check("[edge]\nhtpps = []", &["2:1: unknown key `htpps` in `[edge]` (did you mean `https`?)"]);
    check(
        "[edge]\ncache-size = 1",
        &["2:1: unknown key `cache-size` in `[edge]` (did you mean `cache_size`?)"],
    );
    check(
        "[[site]]\nname = 'a'\nworkers = 3",
        &["3:1: unknown key `workers` in `[[site]]` (did you mean `site.php.workers`?)"],
    );
    check(
        "[console]\nzebra = 1",
        &["2:1: unknown key `zebra` in `[console]` (known here: `listen`)"],
    );
}

#[test]
fn every_fault_of_a_file_is_reported_at_once() {
    check(
        "[edge]\nhttp = '0.0.0.0:80'\ncache_size = 256\nproxy_protocol = 'yes'\n\n[[site]]\nname = 'Blog'\ndomians = []\n[site.php]\nworkers = 0\ninstances = { min = 5, max = 2 }\n",
        &[
            "2:8: `edge.http` must be a list of strings (address:port), not a string (put it in `[` and `]`)",
            "3:14: `edge.cache_size` must be a size, at least 1 MiB, not a number (with its unit and in quotes: `\"256 MiB\"`)",
            "4:18: `edge.proxy_protocol` must be true or false, not a string",
            "7:8: `site.name` cannot be `Blog` (use lower-case letters, digits and `-`)",
            "8:1: unknown key `domians` in `[[site]]` (did you mean `domains`?)",
            "10:11: `site.php.workers` must be between 1 and 512, not 0",
        ],
    );
}

#[test]
fn a_syntax_error_does_not_hide_what_else_is_wrong() {
    let faults =
        parse("[edge\nhttp = [\n[node]\nnam = 'x'\nname = 'y'\n", &facts()).expect_err("bad");
    assert_eq!(faults[0].line, 1, "{faults:?}");
    let faults = parse("[node]\nname = \nzon = 'b'\n[edge]\nhttps = 1", &facts()).expect_err("bad");
    let lines: Vec<_> = faults.iter().map(|fault| fault.line).collect();
    assert_eq!(lines, [2, 3, 5], "{faults:?}");
}

#[test]
fn a_key_given_twice_is_refused() {
    let faults = parse("[node]\nname = 'a'\nname = 'b'", &facts()).expect_err("bad");
    assert_eq!((faults.len(), faults[0].line), (1, 3), "{faults:?}");
}

#[test]
fn columns_count_characters() {
    check(
        "[[site]]\nname = 'a'\nadmin = { user = 'é', email = 'x' }",
        &[
            "3:18: `site.admin.user` cannot be `é` (WordPress allows 1 to 60 letters, digits, spaces and `_.-@`)",
            "3:31: `site.admin.email` cannot be `x` (write it as `name@example.com`)",
        ],
    );
}

#[test]
fn names_and_domains_are_nobody_elses() {
    check("[[site]]\nname = 'a'\n[[site]]\nname = 'a'", &["4:8: there is already a site `a`"]);
    check(
        "[[site]]\nname = 'a'\ndomains = ['x.de', 'X.de']\n[[site]]\nname = 'b'\ndomains = ['y.de', 'x.de', 'a.localhost']",
        &[
            "3:20: `x.de` is there twice",
            "6:20: site `a` already answers for `x.de`",
            "6:28: site `a` already answers for `a.localhost`",
        ],
    );
    check(
        "[[site]]\nname = 'a'\n[[site]]\nname = 'b'\ndomains = ['localhost']",
        &["5:12: site `a` already answers for `localhost`"],
    );
    check(
        "[[site]]\nname = 'a'\ndomains = ['*.x.de']",
        &[
            "3:12: `*.x.de` cannot be first (the first one is in the site's URLs; put a whole name there)",
        ],
    );
}

#[test]
fn a_port_is_taken_once() {
    check(
        "[edge]\nhttp = ['127.0.0.1:80', '0.0.0.0:80']\nhttps = ['127.0.0.1:7070']",
        &[
            "1:1: `127.0.0.1:7070` for console is taken by `127.0.0.1:7070` for https",
            "2:25: `0.0.0.0:80` for http is taken by `127.0.0.1:80` for http",
        ],
    );
    check(
        "[edge]\nhttp = ['127.0.0.1:0']",
        &["2:9: `edge.http` cannot be `127.0.0.1:0` (port 0 would be another one at every start)"],
    );
    check(
        "[edge]\nhttps = []",
        &["2:9: `edge.https` must have at least one address: sites are served over HTTPS"],
    );
}

#[test]
fn names_are_off_until_somebody_says_where() {
    let dns = good("").dns;
    assert!(dns.listen.is_empty() && dns.register.is_none() && dns.domain == "pressroom.local");
    let dns = "[dns]\nlisten = ['127.0.0.1:53']\ndomain = 'X.Local'\nregister = false\nregistrar = 'internal'";
    let config = good(dns);
    assert_eq!((config.dns.domain.as_str(), config.dns.register), ("x.local", Some(false)));
    assert_eq!(good(&show(&config)), config);
    check(
        "[dns]\nlisten = ['0.0.0.0:53']\ndomain = 'local'\nforward = ['127.0.0.1:53']",
        &[
            "3:10: `dns.domain` cannot be `local` (write a domain of two labels at least, as `pressroom.local`)",
            "4:12: `127.0.0.1:53` is where names are answered: it would ask itself",
        ],
    );
    check(
        "[dns]\nlisten = ['127.0.0.1:7070']",
        &["2:11: `127.0.0.1:7070` for names is taken by `127.0.0.1:7070` for console"],
    );
}

#[test]
fn an_object_store_has_a_key_in_a_file_and_nothing_speaks_of_none() {
    assert_eq!(good("").media.store, None);
    let text = "[media]\nstore = 's3://up.loads/a/b/'\nendpoint = 'https://s3.example.com/'\nregion = 'garage'\nkey_file = 'k'";
    let config = good(text);
    let store = config.media.store.as_ref().expect("one");
    assert_eq!((store.bucket.as_str(), store.prefix.as_str()), ("up.loads", "a/b"));
    assert_eq!(store.endpoint.as_deref(), Some("https://s3.example.com"));
    assert_eq!(store.key_file, facts().folder.join("k"));
    assert_eq!(good(&show(&config)), config);
    check(
        "[media]\nstore = 's3://abc'",
        &[
            "2:9: `media.store` without its key (say which file has the store's key in `media.key_file`)",
        ],
    );
    check(
        "[media]\nkey_file = 'x'",
        &["2:12: `media.key_file` without an object store (say which in `media.store`)"],
    );
    for bad in ["s3://", "s3://ab", "s3://ABC", "https://abc/", "s3://abc/..", "s3://abc//d"] {
        assert!(crate::config::MediaStore::place(bad).is_none(), "{bad}");
    }
}

#[test]
fn the_console_stays_on_loopback() {
    let fault = &parse("[console]\nlisten = '0.0.0.0:7070'", &facts()).expect_err("bad")[0];
    assert!(fault.to_string().contains("loopback"), "{fault}");
}

#[test]
fn bounds_and_pairs_must_agree() {
    check(
        "[[site]]\nname = 'a'\n[site.php.instances]\nmin = 5\nmax = 2",
        &["4:7: `min` is 5, above `max`, which is 2"],
    );
    check(
        "[edge]\nproxy_protocol = true",
        &[
            "2:18: `edge.proxy_protocol` without trusted proxies (name the proxies that speak it in `edge.trusted_proxies`)",
        ],
    );
    check(
        "[[site]]\nname = 'a'\ncertificate = { chain = 'x' }",
        &["3:15: `key` is missing in `site.certificate`"],
    );
    check("[[site]]\ntitle = 'x'", &["1:1: `name` is missing in `site`"]);
}

#[test]
fn sites_run_beside_and_apart_from_others_and_never_both() {
    let text = "[[site]]\nname = 'a'\n[[site]]\nname = 'b'\n[site.placement]\nnodes = ['disk=ssd', '!rack=7', '!rack=8']\nbeside = ['a']\n[[site]]\nname = 'c'\nplacement = { conflicts = ['a', 'b'] }";
    let config = good(text);
    let rules = &config.sites[1].placement;
    let allows = |labels: &[(&str, &str)]| {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        rules.allow(&labels.collect())
    };
    assert!(allows(&[("disk", "ssd"), ("rack", "1")]) && allows(&[("disk", "ssd")]));
    assert!(!allows(&[("disk", "ssd"), ("rack", "8")]) && !allows(&[]));
    assert_eq!(config.sites[2].placement.conflicts.len(), 2);
    assert_eq!(good(&show(&config)), config);
    let site = |rules: &str| {
        format!("[[site]]\nname = 'a'\nplacement = {{ {rules} }}\n[[site]]\nname = 'b'\n")
    };
    check(
        &site("beside = ['c', 'a'], conflicts = ['a', 'b', 'b']"),
        &[
            "3:25: there is no site `c` (other sites here are `b`)",
            "3:30: no site runs beside itself",
            "3:49: no site conflicts with itself",
            "3:59: `b` is there twice",
        ],
    );
    let both = "`a` and `b` cannot be beside each other and conflict (leave one of the two out)";
    check(&site("beside = ['b'], conflicts = ['b']"), &[&format!("3:44: {both}")]);
    check(
        &format!("{}placement = {{ beside = ['a'] }}", site("conflicts = ['b']")),
        &[&format!("3:28: {both}")],
    );
    check(
        &site("nodes = ['ssd']"),
        &[
            "3:24: `site.placement.nodes` cannot be `ssd` (write a label of nodes as `KEY=VALUE`, or `!KEY=VALUE` for nodes without it)",
        ],
    );
    check(
        &site("nodes = ['rack=1', 'rack=2']"),
        &["3:34: no node is as `rack=1` and `rack=2` say: all of the list counts"],
    );
}

#[test]
fn code_comes_from_one_place_and_an_archive_has_a_digest() {
    let site = |source: &str| format!("[[site]]\nname = 'a'\nwordpress = {{ {source} }}");
    check(
        &site("path = 'a', source = 'debian'"),
        &["3:22: a site's code comes from one place, not from `source` and `path`"],
    );
    check(&site("archive = 'x.zip'"), &["3:25: `archive` needs `sha256` beside it"]);
    check(&site("ref = 'x'"), &["3:21: `ref` needs `git` beside it"]);
    check(
        &site("git = 'https://eve:secret@example.com/x.git'"),
        &[
            "3:21: `site.wordpress.git` cannot be `https://eve:secret@example.com/x.git` (leave the password out: this file is no place for secrets; use ssh with a key)",
        ],
    );
    let source = |text: &str| good(&site(text)).sites[0].wordpress.clone();
    let git =
        |url: &str, reference: &str| Source::Git { url: url.into(), reference: reference.into() };
    assert_eq!(source("git = 'shop.git'"), git("/etc/press/shop.git", "HEAD"));
    let address = "git@example.com:shop/site.git";
    assert_eq!(source(&format!("git = '{address}', ref = 'v1'")), git(address, "v1"));
    check(
        &site("source = 'ubuntu'"),
        &["3:24: `site.wordpress.source` cannot be `ubuntu` (write `debian`)"],
    );
}

#[test]
fn an_external_engine_is_for_later() {
    for engine in ["'external'", "{ external = 'mysql://x' }"] {
        check(
            &format!("[database]\nengine = {engine}"),
            &[
                "2:10: an external `[database]` is not in this version, which runs its own (write `engine = \"managed\"` in `[database]`, or leave it out)",
            ],
        );
    }
    check(
        "[state]\nengine = { external = 'https://etcd:2379' }",
        &[
            "2:10: an external `[state]` is not named here, because nodes have to know it before they can read this (name your etcd when you found the cluster: `pressroom cluster init --etcd URL`)",
        ],
    );
    good("[state]\nengine = 'managed'\n[media]\nengine = 'managed'");
}

#[test]
fn php_values_that_we_set_are_refused() {
    check(
        "[[site]]\nname = 'a'\n[site.php.ini]\nmemory_limit = '1G'\nopcache.jit = 'off'\n'a b' = 1",
        &[
            "4:1: `memory_limit` cannot be set in `[site.php.ini]` (`memory` in `[site.php]` sets it)",
            "5:1: `opcache` is not a value (quote names that have dots: `\"opcache.jit\" = \"off\"`)",
            "6:1: `a b` is not a name of a `php.ini` value",
        ],
    );
}

#[test]
fn what_an_instance_may_take_follows_from_its_workers_and_is_never_too_little_for_them() {
    let php = |said: &str| {
        let site = "[[site]]\nname = 'a'\n[site.php]\nworkers = 4\nmemory = '256 MiB'\n";
        good(&format!("{site}{said}")).sites.remove(0).php
    };
    let most = php("").most();
    assert_eq!((most.memory, most.tasks), (Some(1792 << 20), Some(192)));
    assert_eq!(most.cpu_percent, None);
    let most = php("limits = { memory = '1 GiB', processes = 20, cpu = 150 }").most();
    assert_eq!((most.memory, most.tasks), (Some(1 << 30), Some(20)));
    assert_eq!(most.cpu_percent, Some(150));
    check(
        "[[site]]\nname = 'a'\n[site.php]\nworkers = 8\n[site.php.limits]\nmemory = '128 MiB'\nprocesses = 9",
        &[
            "6:10: `memory` is 128 MiB, less than one worker may take (`memory` in `[site.php]` is 256 MiB)",
            "7:13: `processes` is 9, too few for 8 workers",
        ],
    );
}

#[test]
fn one_site_written_as_a_table_is_explained() {
    check("[site]\nname = 'a'", &["1:1: `[site]` is a list of tables: write `[[site]]`"]);
}

#[test]
fn every_default_is_a_good_value_of_its_key() {
    for key in key::KEYS {
        let key::Absent::Is(default) = key.default else { continue };
        let (mut table, name) = key.path.rsplit_once('.').expect("defaults are in tables");
        let mut head = String::new();
        if let Some(rest) = table.strip_prefix("site") {
            head = "[[site]]\nname = 'a'\n".to_owned();
            table = if rest.is_empty() { "" } else { table };
        }
        let table = if table.is_empty() { String::new() } else { format!("[{table}]\n") };
        good(&format!("{head}{table}{name} = {default}"));
    }
}

#[test]
fn the_reference_has_every_key_once() {
    let page = reference();
    for key in key::KEYS {
        let name = key.path.rsplit('.').next().expect("a name");
        let mark = match key.kind {
            key::Kind::Table => format!("\n## `[{}]`\n", key.path),
            key::Kind::Tables => format!("\n## `[[{}]]`\n", key.path),
            _ => format!("\n| `{name}` | "),
        };
        assert!(page.contains(&mark), "{mark}");
        assert_eq!(
            key::KEYS.iter().filter(|other| other.path == key.path).count(),
            1,
            "{}",
            key.path
        );
    }
}

#[test]
fn nothing_that_a_file_says_makes_us_panic() {
    let values = [
        "1",
        "-1",
        "1.5",
        "''",
        "'x'",
        "[]",
        "['']",
        "[1]",
        "[[1]]",
        "{}",
        "{ a = 1 }",
        "true",
        "1979-05-27",
        "99999999999999999999999",
    ];
    for key in key::KEYS {
        for value in values {
            let text = match key.path.strip_prefix("site.") {
                Some(rest) => format!("[[site]]\nname = 'a'\n{rest} = {value}"),
                None => format!("{} = {value}", key.path),
            };
            let _ = parse(&text, &facts());
            let _ = parse(&text[..text.len() - 1], &facts());
        }
    }
}
