//! The one table of keys: what `pressroom.toml` may say, what each key means, and what holds when it is absent.
//!
//! Reading, checking, the nearest-key hints and the printed reference all use it; nothing else knows a key.

use std::net::{IpAddr, SocketAddr};

use super::domain;
use crate::config::{MediaStore, Source};
use crate::floating::Floating;
use crate::id::{NodeName, SiteName};
use crate::placement::NodeRule;

/// One key.
#[derive(Debug)]
pub struct Key {
    /// Where it is: `edge.http`, `site.php.workers`.
    pub path: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// What holds when it is absent.
    pub default: Absent,
    /// What it means, a sentence or two of Markdown.
    pub meaning: &'static str,
}

/// What a key holds.
#[derive(Debug)]
pub enum Kind {
    /// A table of further keys.
    Table,
    /// Any number of tables, as `[[site]]`.
    Tables,
    /// A string, which `check` must like; `of` says of what.
    Text(&'static str, Check),
    /// A list of strings, each of which `check` must like.
    Texts(&'static str, Check),
    /// `true` or `false`.
    Flag,
    /// A whole number between these bounds.
    Number(u16, u16),
    /// A size, at least so many bytes.
    Size(u64),
    /// A length of time, at least so many milliseconds.
    Span(u64),
    /// One of these strings.
    Choice(&'static [&'static str]),
    /// `"managed"`; a table with `external` is understood and refused.
    Engine,
    /// Any names with strings, numbers or flags: `php.ini` values.
    Pairs,
}

/// Judges one string.
pub type Check = fn(&str) -> Result<(), String>;

/// What holds when a key is absent.
#[derive(Debug)]
pub enum Absent {
    /// This value, in the file's own syntax.
    Is(&'static str),
    /// Something that depends on the machine or on other keys, in words.
    Follows(&'static str),
    /// Nothing: the feature is not used.
    Nothing,
    /// It must not be absent.
    Never,
}

use Absent::{Follows, Is, Never, Nothing};

const MIB: u64 = 1 << 20;
const SECOND: u64 = 1000;

macro_rules! keys {
    ($($path:literal, $kind:expr, $default:expr, $meaning:literal;)*) => {
        &[$(Key { path: $path, kind: $kind, default: $default, meaning: $meaning },)*]
    };
}

/// Every key, tables before what is in them.
pub const KEYS: &[Key] = keys! {
    "node", Kind::Table, Nothing, "This machine.";
    "node.name", Kind::Text("name", node_name), Follows("the host name"), "The machine's name, in `status`, logs and `Cache-Status`. A node of a cluster keeps the one with which it joined.";
    "node.zone", Kind::Text("name", node_name), Is(r#""a""#), "The failure domain that the machine is in. A node of a cluster keeps the one with which it joined.";
    "node.data", Kind::Text("path", absolute), Follows("`--data`, else `/var/lib/pressroom` as root, else `pressroom` in `$XDG_DATA_HOME` or `~/.local/share`"), "Where Pressroom keeps everything. Read only with `--config FILE`.";
    "node.docker", Kind::Text("path", absolute), Follows("the machine's daemon, at `/run/docker.sock`; where there is none, one that Pressroom runs"), "The socket of Docker's daemon, for sites with `runtime = \"docker\"`.";

    "edge", Kind::Table, Nothing, "The HTTP edge: where visitors arrive.";
    "edge.http", Kind::Texts("address:port", address), Follows(r#"`["0.0.0.0:80"]` as root, else `["127.0.0.1:8080"]`"#), "Where plain HTTP is served.";
    "edge.https", Kind::Texts("address:port", address), Follows(r#"`["0.0.0.0:443"]` as root, else `["127.0.0.1:8443"]`"#), "Where HTTPS is served, HTTP/1.1 and HTTP/2. The port of the first one is in the sites' URLs.";
    "edge.redirect_to_https", Kind::Flag, Is("true"), "Whether plain HTTP is answered by a redirect to HTTPS.";
    "edge.trusted_proxies", Kind::Texts("address or CIDR block", network), Is("[]"), "Whose `X-Forwarded-*` and `Forwarded` headers are believed. Everybody else's are dropped.";
    "edge.proxy_protocol", Kind::Flag, Is("false"), "Whether trusted proxies begin each connection with a PROXY protocol header (v1 or v2).";
    "edge.cache_size", Kind::Size(MIB), Is(r#""256 MiB""#), "Memory for stored pages of all sites.";
    "edge.access_log", Kind::Choice(&["json", "combined", "off"]), Is(r#""json""#), "How a line of `logs/edge/access.log` looks.";

    "edge.health", Kind::Table, Nothing, "How the edge judges those of other nodes, in a cluster. Whoever does not accept a connection is asked no more at once.";
    "edge.health.interval", Kind::Span(100), Is(r#""2 s""#), "From one probe of another edge to the next.";
    "edge.health.timeout", Kind::Span(10), Is(r#""1 s""#), "Longest wait for the answer to a probe.";
    "edge.health.failures", Kind::Number(1, 1000), Is("2"), "After so many failures in a row another edge is asked no more; requests and probes are counted apart.";
    "edge.health.successes", Kind::Number(1, 1000), Is("2"), "After so many answers in a row to probes it is asked again, at first with few requests.";

    "console", Kind::Table, Nothing, "The page that shows how things are.";
    "console.listen", Kind::Text("address:port", loopback), Is(r#""127.0.0.1:7070""#), "Where the console listens. It speaks plain HTTP and shows how things are to anybody, so only loopback is allowed; come from elsewhere through `ssh -L`.";

    "dns", Kind::Table, Nothing, "Names for what runs: `php.blog.pressroom.local`.";
    "dns.listen", Kind::Texts("address:port", address), Is("[]"), "Where names are answered, by UDP and TCP; nowhere by default. `0.0.0.0` stands for loopback and the machine's own address, and no other one.";
    "dns.domain", Kind::Text("domain", dns_domain), Is(r#""pressroom.local""#), "The domain of names of ours.";
    "dns.register", Kind::Flag, Follows("`true` in a cluster and with `listen`"), "Whether what runs here is registered: instances, edges, engines.";
    "dns.registrar", Kind::Choice(&["off", "published", "internal"]), Is(r#""off""#), "Containers that Pressroom did not start: `published` registers the ports that they publish on this machine, `internal` their own addresses and the ports that they expose. Needs Docker's daemon (`node.docker`).";
    "dns.forward", Kind::Texts("address:port", address), Is("[]"), "Resolvers that are asked for all other names. Without them such questions are refused.";

    "cluster", Kind::Table, Nothing, "What the nodes of a cluster have in common.";
    "cluster.addresses", Kind::Texts("address/length", floating), Is("[]"), "Floating addresses: each is on one node with the role `edge` at a time, and moves to another one when that is lost or drained. Write the length of the network that the address is in. Needs the package `keepalived` on these nodes.";

    "database", Kind::Table, Nothing, "MariaDB.";
    "database.engine", Kind::Engine, Is(r#""managed""#), "Who runs it.";
    "database.memory", Kind::Size(64 * MIB), Follows("an eighth of the machine's, between 128 MiB and 4 GiB"), "Memory for it.";

    "cache", Kind::Table, Nothing, "The two Redis servers: object cache, and sessions.";
    "cache.engine", Kind::Engine, Is(r#""managed""#), "Who runs them.";
    "cache.memory", Kind::Size(16 * MIB), Follows("a sixteenth of the machine's, between 64 MiB and 1 GiB"), "Memory of the object cache.";

    "state", Kind::Table, Nothing, "Where intent and observation are kept.";
    "state.engine", Kind::Engine, Is(r#""managed""#), "Who runs it. Managed is a store inside the agent; in a cluster etcd, on nodes that are chosen. An etcd of your own is named when the cluster is founded: `pressroom cluster init --etcd URL`.";

    "media", Kind::Table, Nothing, "Uploaded files.";
    "media.engine", Kind::Engine, Is(r#""managed""#), "Who keeps them. Managed is the local disk, of all nodes in a cluster.";
    "media.store", Kind::Text("address", bucket), Nothing, "An object store that gets a copy of every upload, `s3://BUCKET/PREFIX`: any that speaks S3. Uploads do not wait for it; what it has not yet is kept and sent when it answers.";
    "media.endpoint", Kind::Text("address", endpoint), Follows("AWS's, of the region"), "Where the store answers: `https://s3.example.com`. With `http` everybody on the way can read what is uploaded.";
    "media.region", Kind::Text("name", region), Is(r#""us-east-1""#), "The region that the store is in, or says it is in (Garage: `garage`).";
    "media.key_file", Kind::Text("path", path), Nothing, "The file with the store's key, needed with `store`: lines `aws_access_key_id = …` and `aws_secret_access_key = …`, as AWS's own tools write them. It may be readable to its owner alone. In a cluster the node that leads needs it; the others get it sealed.";

    "wordpress", Kind::Table, Nothing, "What all sites need of WordPress's own world.";
    "wordpress.wp_cli", Kind::Text("path", path), Follows("`wp` in `PATH`"), "The phar of wp-cli, for `pressroom wp`. Everybody must be able to read it.";
    "wordpress.mirror", Kind::Text("address", mirror), Follows("wordpress.org"), "Where versions of WordPress are had: below it are `wordpress-VERSION.tar.gz`, the same with `.sha1` behind it, and, where it has them, the digests of all files at `core/checksums/1.0/?version=VERSION&locale=en_US`. Whoever can change what it answers can change your code: use `https`, or a network that you trust.";

    "templates", Kind::Table, Nothing, "Configuration files of other programs, kept as templates in confd's form say, from what Pressroom's store has. Only as root.";
    "templates.confdir", Kind::Text("path", absolute), Never, "The folder with `conf.d` and `templates` in it. Its commands run as the agent does, so nobody else may be able to write there.";
    "templates.prefix", Kind::Text("key", path), Nothing, "What is before all keys, instead of what the resources say.";

    "site", Kind::Tables, Nothing, "One WordPress each. A multisite network is one site.";
    "site.name", Kind::Text("name", site_name), Never, "Its name: at most 24 lower-case letters, digits and `-`. Part of its system user, database and folders, so it cannot change.";
    "site.domains", Kind::Texts("host name", domain::check), Follows("`localhost` for the first site"), "Host names that it answers for; the first is in its URLs. `*.example.com` stands for one label. Every site also answers for `NAME.localhost`.";
    "site.network", Kind::Choice(&["subdirectories", "subdomains"]), Nothing, "Makes it a multisite network: blogs at `example.com/two/` or at `two.example.com`. A site can become a network; a network cannot become a site again, nor one of the other kind.";
    "site.file_mods", Kind::Flag, Is("true"), "Whether administrators may install, update, edit and delete plugins, themes and WordPress itself in wp-admin. Each change becomes a release.";
    "site.title", Kind::Text("text", title), Follows("the name"), "The title given at installation; change it in WordPress later.";
    "site.upload_limit", Kind::Size(MIB), Is(r#""1 GiB""#), "Largest upload: one setting for the edge and PHP.";

    "site.wordpress", Kind::Table, Nothing, "Where the code comes from: one of `source`, `version`, `path`, `archive` and `git`.";
    "site.wordpress.source", Kind::Choice(&["debian"]), Is(r#""debian""#), "`debian`: the distribution's `wordpress` package.";
    "site.wordpress.path", Kind::Text("path", path), Nothing, "A folder with a whole WordPress tree. It is copied; later changes count at the next `apply`.";
    "site.wordpress.archive", Kind::Text("path", path), Nothing, "A `.tar.gz` or `.zip` file with a whole WordPress tree.";
    "site.wordpress.sha256", Kind::Text("64 hexadecimal digits", sha256), Nothing, "The archive's digest; needed with `archive`.";
    "site.wordpress.version", Kind::Text("version", wordpress_version), Nothing, "A version that wordpress.org publishes: `6.5.2`. It is downloaded once, and believed by the digests that are published for it.";
    "site.wordpress.git", Kind::Text("path or address", repository), Nothing, "A git repository with a whole WordPress tree, or a Bedrock project. It is fetched at each `apply` and `deploy`.";
    "site.wordpress.ref", Kind::Text("ref", reference), Follows("what the repository calls `HEAD`"), "A branch, tag or commit; with `git`.";

    "site.admin", Kind::Table, Nothing, "The administrator made at installation; change it in WordPress later.";
    "site.admin.user", Kind::Text("login name", login), Is(r#""admin""#), "Login name.";
    "site.admin.email", Kind::Text("e-mail address", email), Follows("`USER@` and the first domain (`USER@example.com` for `localhost`)"), "E-mail address.";

    "site.certificate", Kind::Table, Nothing, "The operator's own certificate. Without it the local authority makes one.";
    "site.certificate.chain", Kind::Text("path", path), Never, "PEM file: the certificate, then its issuers.";
    "site.certificate.key", Kind::Text("path", path), Never, "PEM file: the private key.";

    "site.php", Kind::Table, Nothing, "PHP.";
    "site.php.version", Kind::Text("version", php_version), Follows("the distribution's"), "As in the package's name: `8.2`.";
    "site.php.runtime", Kind::Choice(&["process", "docker"]), Is(r#""process""#), "What confines its instances: the kernel, asked by Pressroom itself, or a container of Docker's. The view and the limits are the same. `docker` needs root and a Docker daemon; our scripts of the site (cron, installation) run as with `process`.";
    "site.php.image", Kind::Text("image", image), Follows("one that is made of this machine's packages"), "The image of its containers, with `runtime = \"docker\"`: PHP of that `version` at Debian's paths. It must be there; nothing is pulled.";
    "site.php.workers", Kind::Number(1, 512), Follows("two for each processor, at least 2, at most 16"), "PHP processes per instance.";
    "site.php.instances", Kind::Table, Nothing, "How many php-fpm run, each with its own workers and bytecode cache.";
    "site.php.instances.min", Kind::Number(1, 64), Is("1"), "Fewest; in a cluster of all nodes together.";
    "site.php.instances.max", Kind::Number(1, 64), Follows("8, or `min` if that is more"), "Most; in a cluster of all nodes together.";
    "site.php.memory", Kind::Size(32 * MIB), Is(r#""256 MiB""#), "Memory limit of a worker.";
    "site.php.time", Kind::Span(SECOND), Is(r#""1 m""#), "Longest run of one request.";
    "site.php.slow", Kind::Span(SECOND), Is(r#""5 s""#), "Requests slower than this are written to the slow log, with a backtrace.";
    "site.php.max_age", Kind::Span(0), Is(r#""1 d""#), "An instance is replaced after about this time, without an outage; \"0 s\": never.";
    "site.php.limits", Kind::Table, Nothing, "The most that an instance may take of the machine, with everything that it starts. Our scripts of the site (cron) share the same once more. As root only; what the machine cannot limit is said in its notices.";
    "site.php.limits.memory", Kind::Size(64 * MIB), Follows("`workers` times (`memory` of `[site.php]` and 64 MiB), and 512 MiB"), "Memory. Beyond it the kernel ends one of its processes, usually the largest worker; nobody else's.";
    "site.php.limits.processes", Kind::Number(8, 32767), Follows("32 for each worker, and 64"), "Processes and threads. Beyond it no further one starts.";
    "site.php.limits.cpu", Kind::Number(5, 25600), Nothing, "Percent of one processor: `150` is one and a half. Beyond it all its processes wait for the next tenth of a second.";
    "site.php.ini", Kind::Pairs, Nothing, "Further `php.ini` values: `name = value`. What another key here sets is refused.";

    "site.deploy", Kind::Table, Nothing, "Commands around a deploy (`deploy`, `git push`), for `sh`: as the site's user, in the folder of the new code, for five minutes at most.";
    "site.deploy.before", Kind::Texts("command", command), Is("[]"), "Run before any instance gets the new code. One that fails ends the deploy, and nothing has changed.";
    "site.deploy.after", Kind::Texts("command", command), Is("[]"), "Run when every new request runs the new code. One that fails is reported.";

    "site.cron", Kind::Table, Nothing, "Scheduled events.";
    "site.cron.interrupted", Kind::Choice(&["again", "report"]), Is(r#""again""#), "What becomes of an event whose runner died inside it (its machine was lost, its memory was taken): `again`: it is run once more, so what it did before may be done twice; `report`: it is only told of.";

    "site.placement", Kind::Table, Nothing, "Where it runs in a cluster. None of this leaves a site without PHP: where it cannot be so, it is otherwise for that time, and `status` says why.";
    "site.placement.nodes", Kind::Texts("label", node_rule), Is("[]"), "Labels (`pressroom node label`) that its nodes have, as `disk=ssd`, or do not have, as `!rack=7`.";
    "site.placement.beside", Kind::Texts("site", site_name), Is("[]"), "Sites on whose nodes it runs, where memory and zones allow it (affinity). It is enough that one of two sites says it.";
    "site.placement.conflicts", Kind::Texts("site", site_name), Is("[]"), "Sites with which it shares no node while there are nodes enough (anti-affinity): they divide the nodes between them. It is enough that one of two sites says it.";

    "site.page_cache", Kind::Table, Nothing, "The page cache. Names below are exact, or end in `*`.";
    "site.page_cache.enabled", Kind::Flag, Is("true"), "Whether pages are stored.";
    "site.page_cache.ttl_max", Kind::Span(SECOND), Is(r#""1 d""#), "Upper bound of the time for which a page counts as fresh. Changes purge it at once, whatever this says.";
    "site.page_cache.stale_while_revalidate", Kind::Span(0), Is(r#""1 m""#), "How long after that it may be served while one request refreshes it.";
    "site.page_cache.stale_if_error", Kind::Span(0), Is(r#""1 d""#), "How long after that it may be served when PHP fails or is overloaded.";
    "site.page_cache.ignored_parameters", Kind::Texts("name", pattern), Is(IGNORED_PARAMETERS), "Query parameters that make no difference to the page: no part of the key, not given to PHP. Visitors' scripts still see them.";
    "site.page_cache.bypass_cookies", Kind::Texts("name", pattern), Is(BYPASS_COOKIES), "A request with such a cookie is answered by PHP and not stored. So is one with any cookie that the site ever set.";
    "site.page_cache.vary_cookies", Kind::Texts("name", pattern), Is("[]"), "Cookies of which each value has its own page; PHP sees them.";
};

/// Marketing and analytics: unique to a visitor, without meaning for the page.
const IGNORED_PARAMETERS: &str = r#"["utm_*", "fbclid", "gclid", "gclsrc", "gbraid", "wbraid", "dclid", "gad_source", "gad_campaignid", "srsltid", "msclkid", "ttclid", "twclid", "li_fat_id", "igshid", "igsh", "yclid", "ysclid", "rb_clickid", "s_cid", "mc_cid", "mc_eid", "_ga", "_gl", "_gac", "_ke", "_kx", "_hsenc", "_hsmi", "__hssc", "__hstc", "__hsfp", "hsCtaTracking", "mkt_tok", "vero_id", "vero_conv", "oly_anon_id", "oly_enc_id", "epik", "pk_*", "mtm_*", "matomo_*", "piwik_*", "wickedid", "trk_*"]"#;

/// Cookies that say the answer is somebody's own.
const BYPASS_COOKIES: &str = r#"["wordpress_logged_in_*", "wordpress_sec_*", "wordpress_no_cache", "wp-postpass_*", "comment_author_*", "wp_woocommerce_session_*", "woocommerce_items_in_cart", "woocommerce_cart_hash", "edd_items_in_cart", "edd_wp_session", "wp_session_*", "wp-session_*", "bp-message*", "bp-activity-*", "it_exchange_session_*", "PHPSESSID", "SESS*"]"#;

/// The key at `path`.
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// The names of the keys directly in the table at `path` (`""`: the whole file).
pub fn within(path: &str) -> impl Iterator<Item = &'static str> + use<'_> {
    KEYS.iter().filter_map(move |key| {
        let (table, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
        (table == path).then_some(name)
    })
}

/// What somebody who wrote `name` in the table at `path` may have meant.
pub fn nearest(path: &str, name: &str) -> Option<String> {
    let close =
        |known: &str| strsim::damerau_levenshtein(known, &name.to_lowercase().replace('-', "_"));
    let (known, distance) =
        within(path).map(|known| (known, close(known))).min_by_key(|(_, d)| *d)?;
    if distance <= (known.len() / 3).max(1) {
        return Some(known.to_owned());
    }
    let elsewhere = KEYS.iter().find(|key| key.path.rsplit('.').next() == Some(name))?;
    Some(elsewhere.path.to_owned())
}

/// `php.ini` names that other keys, or our own rules, decide.
pub fn ini_owner(name: &str) -> Option<&'static str> {
    Some(match name {
        "memory_limit" => "`memory` in `[site.php]` sets it",
        "max_execution_time" | "request_terminate_timeout" => "`time` in `[site.php]` sets it",
        "upload_max_filesize" | "post_max_size" => "`upload_limit` of the site sets it",
        "session.save_handler" | "session.save_path" => "sessions live in the managed Redis",
        "open_basedir"
        | "opcache.validate_timestamps"
        | "opcache.restrict_api"
        | "extension"
        | "zend_extension" => "Pressroom sets it",
        "auto_prepend_file" | "auto_append_file" | "error_log" | "log_errors"
        | "display_errors" => "Pressroom sets it",
        _ => return None,
    })
}

fn node_name(value: &str) -> Result<(), String> {
    value.parse::<NodeName>().map(drop).map_err(|bad| bad.why.to_owned())
}

fn image(value: &str) -> Result<(), String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    let is_name =
        value.starts_with(|c: char| c.is_ascii_alphanumeric()) && value.chars().all(is_plain);
    require(is_name, "write it as Docker does: `registry.example.com/php:8.2`")
}

fn node_rule(value: &str) -> Result<(), String> {
    value.parse::<NodeRule>().map(drop).map_err(|bad| bad.to_string())
}

fn site_name(value: &str) -> Result<(), String> {
    value.parse::<SiteName>().map(drop).map_err(|bad| bad.why.to_owned())
}

fn require(is_good: bool, rule: &str) -> Result<(), String> {
    if is_good { Ok(()) } else { Err(rule.to_owned()) }
}

fn address(value: &str) -> Result<(), String> {
    let rule = "write a numeric address and a port, as `127.0.0.1:8080` or `[::1]:8080`";
    let address: SocketAddr = value.parse().map_err(|_| rule.to_owned())?;
    require(address.port() != 0, "port 0 would be another one at every start")
}

fn dns_domain(value: &str) -> Result<(), String> {
    domain::check(value)?;
    require(!value.starts_with('*'), "write the domain alone, as `pressroom.local`")?;
    require(value.contains('.'), "write a domain of two labels at least, as `pressroom.local`")
}

fn loopback(value: &str) -> Result<(), String> {
    address(value)?;
    let is_loopback = value.parse::<SocketAddr>().is_ok_and(|a| a.ip().is_loopback());
    require(
        is_loopback,
        "the console speaks plain HTTP and shows how things are to anybody, so it listens on loopback only; reach it through `ssh -L`",
    )
}

fn network(value: &str) -> Result<(), String> {
    let rule = "write an address or a block, as `10.0.0.0/8` or `::1`";
    let (ip, bits) = match value.split_once('/') {
        Some((ip, bits)) => (ip, Some(bits)),
        None => (value, None),
    };
    let ip: IpAddr = ip.parse().map_err(|_| rule.to_owned())?;
    let most = if ip.is_ipv4() { 32 } else { 128 };
    require(bits.is_none_or(|bits| bits.parse::<u8>().is_ok_and(|bits| bits <= most)), rule)
}

fn floating(value: &str) -> Result<(), String> {
    value.parse::<Floating>().map(drop).map_err(|bad| bad.to_string())
}

fn path(value: &str) -> Result<(), String> {
    require(!value.is_empty() && !value.contains('\0'), "it must not be empty")
}

fn absolute(value: &str) -> Result<(), String> {
    require(value.starts_with('/') && !value.contains('\0'), "write an absolute path")
}

fn sha256(value: &str) -> Result<(), String> {
    let is_good = value.len() == 64 && value.bytes().all(|b| b.is_ascii_hexdigit());
    require(is_good, "it has 64 hexadecimal digits; `sha256sum FILE` prints it")
}

fn command(value: &str) -> Result<(), String> {
    require(!value.trim().is_empty() && !value.contains('\0'), "it must not be empty")
}

fn repository(value: &str) -> Result<(), String> {
    let is_plain =
        !value.is_empty() && !value.starts_with('-') && !value.chars().any(char::is_control);
    require(is_plain, "write a path, or an address that git takes")?;
    let after = value.split_once("://").and_then(|(_, rest)| rest.split('/').next());
    let has_password =
        after.and_then(|host| host.split_once('@')).is_some_and(|(user, _)| user.contains(':'));
    require(
        !has_password,
        "leave the password out: this file is no place for secrets; use ssh with a key",
    )
}

fn wordpress_version(value: &str) -> Result<(), String> {
    Source::published(value).map(drop).map_err(str::to_owned)
}

fn mirror(value: &str) -> Result<(), String> {
    let rest = value.strip_prefix("https://").or_else(|| value.strip_prefix("http://"));
    let is_plain = |c: char| c.is_ascii_graphic() && !"@?#\"'\\".contains(c);
    require(
        rest.is_some_and(|rest| !rest.is_empty() && rest.chars().all(is_plain)),
        "write an address as `https://mirror.example.com/wordpress`, without a password",
    )
}

fn bucket(value: &str) -> Result<(), String> {
    require(
        MediaStore::place(value).is_some(),
        "write it as `s3://BUCKET/PREFIX`, in plain letters",
    )
}

fn endpoint(value: &str) -> Result<(), String> {
    mirror(value).map_err(|_| "write an address as `https://s3.example.com`".to_owned())
}

fn region(value: &str) -> Result<(), String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    require(
        !value.is_empty() && value.chars().all(is_plain),
        "write a region's name, as `eu-central-1`",
    )
}

fn reference(value: &str) -> Result<(), String> {
    let is_bad = |c: char| c.is_whitespace() || c.is_control() || ":^~?*[\\".contains(c);
    let is_good = !value.is_empty() && !value.starts_with(['-', '+']) && !value.contains(is_bad);
    require(is_good, "write a branch, a tag or a whole commit id")
}

fn title(value: &str) -> Result<(), String> {
    require(
        !value.trim().is_empty() && !value.chars().any(char::is_control),
        "it must be one line of text",
    )
}

fn login(value: &str) -> Result<(), String> {
    let is_good = |c: char| c.is_ascii_alphanumeric() || " _.-@".contains(c);
    let fits =
        (1..=60).contains(&value.len()) && value.trim() == value && value.chars().all(is_good);
    require(fits, "WordPress allows 1 to 60 letters, digits, spaces and `_.-@`")
}

fn email(value: &str) -> Result<(), String> {
    let is_good = value.split_once('@').is_some_and(|(user, host)| {
        !user.is_empty()
            && !host.contains('@')
            && domain::check(host).is_ok()
            && !host.contains('*')
    });
    require(
        is_good && !value.chars().any(|c| c.is_whitespace() || c.is_control()),
        "write it as `name@example.com`",
    )
}

fn php_version(value: &str) -> Result<(), String> {
    let is_number =
        |part: &str| (1..=2).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    let is_good =
        value.split_once('.').is_some_and(|(major, minor)| is_number(major) && is_number(minor));
    require(is_good, "write it as in the package's name: `8.2`")
}

fn pattern(value: &str) -> Result<(), String> {
    let (name, _) = value.split_at(value.len() - usize::from(value.ends_with('*')));
    let is_good = |c: char| c.is_ascii_graphic() && !"*;,=&\"".contains(c);
    require(
        !value.is_empty() && name.chars().all(is_good),
        "write a name, or its beginning and `*`",
    )
}
