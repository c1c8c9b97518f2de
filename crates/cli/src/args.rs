//! What may be typed.

pub(crate) mod cache;
mod etcd;
mod lab;
pub(crate) mod templates;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use pressroom_model::cluster::{PORT, Role};
use pressroom_model::id::{EnvironmentName, NodeName, SiteName};
use pressroom_model::unit::Span;

pub(crate) use etcd::OwnEtcd;
pub(crate) use lab::Lab;

/// WordPress that stays up and keeps up.
///
/// Exit status: 0 done, 1 your mistake, 2 our failure.
#[derive(Debug, Parser)]
#[command(name = "pressroom", version, max_term_width = 100, infer_long_args = false)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) place: PlaceArguments,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which Pressroom on this machine.
#[derive(Debug, Default, Args)]
pub(crate) struct PlaceArguments {
    /// The data directory [default: /var/lib/pressroom as root, else ~/.local/share/pressroom]
    #[arg(long, global = true, value_name = "DIR", env = "PRESSROOM_DATA")]
    pub(crate) data: Option<PathBuf>,
    /// The configuration [default: pressroom.toml in the data directory]
    #[arg(long, global = true, value_name = "FILE", env = "PRESSROOM_CONFIG")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Install what is missing, start everything, and serve the sites
    Up(Up),
    /// Stop everything that `up` started
    Down,
    /// Make it as pressroom.toml says, without an outage
    Apply(Apply),
    /// Show how things are
    Status(Status),
    /// Print a way into the console that lets the browser change things: go back to a release, read an environment's mail
    Console(Json),
    /// Look for what is wrong, or will be
    Doctor(Json),
    /// Show what processes wrote
    Logs(Logs),
    /// Explain one request: site, cache, instance, time in each step
    Why(Why),
    /// Bring code to a site: every new request runs it, or nothing has changed
    Deploy(Deploy),
    /// Releases of a site: list, show, diff, verify, go back
    #[command(subcommand)]
    Release(Release),
    /// A site's git repository: its address, its token
    #[command(subcommand)]
    Git(Git),
    /// Many machines: make this one the first node of a cluster; copy the cluster's state, and go back to a copy
    #[command(subcommand)]
    Cluster(Cluster),
    /// The nodes of the cluster: token, join, list, show, drain, undrain, label, remove
    #[command(subcommand)]
    Node(Node),
    /// Environments: copies of a site for trying things
    #[command(subcommand)]
    Env(Env),
    /// Sites: add, list, show, writes, remove
    #[command(subcommand)]
    Site(Site),
    /// Run wp-cli for a site: as its user, within its walls, on the code that serves; exits as wp-cli does
    Wp(Wp),
    /// Stored pages: purge
    #[command(subcommand)]
    Cache(cache::Cache),
    /// The configuration: check, show, reference; other programs' configuration files: render, watch, examples
    #[command(subcommand)]
    Config(Config),
    /// Certificates
    #[command(subcommand)]
    Tls(Tls),
    /// A cluster on this machine, for trying and testing: hosts as network namespaces (root)
    #[command(subcommand)]
    Lab(Lab),
    /// Write a systemd unit, so that Pressroom starts with the machine
    Install(Install),
    #[command(hide = true)]
    GitReceive { site: SiteName },
    #[command(hide = true)]
    Keep,
    #[command(hide = true)]
    Agent,
    #[command(hide = true)]
    Edge,
    #[command(hide = true)]
    Sql,
    #[command(hide = true)]
    Dns,
}

#[derive(Debug, Default, Args)]
pub(crate) struct Up {
    /// Install missing packages without asking
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// Return once the first site answers, instead of staying until Ctrl-C
    #[arg(long, short)]
    pub(crate) detach: bool,
    /// Serve plain HTTP here (may be repeated); written to pressroom.toml
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) http: Vec<SocketAddr>,
    /// Serve HTTPS here (may be repeated); written to pressroom.toml
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) https: Vec<SocketAddr>,
    /// Show the console here; written to pressroom.toml
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) console: Option<SocketAddr>,
    /// The site: made if it is not there [default: the first, or `blog`]
    #[arg(long, value_name = "NAME")]
    pub(crate) site: Option<SiteName>,
    #[command(flatten)]
    pub(crate) new: NewSite,
}

/// What can be said of a site when it is made.
#[derive(Debug, Default, Clone, Args)]
pub(crate) struct NewSite {
    /// A host name of the site (may be repeated; the first is in its URLs) [default: NAME.localhost, the first site localhost]
    #[arg(long, value_name = "NAME")]
    pub(crate) domain: Vec<String>,
    /// The administrator's login name [default: admin]
    #[arg(long, value_name = "NAME")]
    pub(crate) admin_user: Option<String>,
    /// The administrator's e-mail address
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) admin_email: Option<String>,
    /// What confines the site's PHP: Pressroom itself, or Docker's containers [default: process]
    #[arg(long, value_name = "RUNTIME", value_parser = ["process", "docker"])]
    pub(crate) runtime: Option<String>,
    /// Read the administrator's password from this file (`-`: standard input) instead of making one
    #[arg(long, value_name = "FILE")]
    pub(crate) admin_password_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Cluster {
    /// Make this machine the first node: its state moves into etcd, and sites are served all the while
    Init(Init),
    /// Say anew how the etcd that you keep is reached: other endpoints, another password; all nodes follow
    Etcd(OwnEtcd),
    /// Copy the state now, as it is done each hour; prints where the copy is
    Backup(Json),
    /// Go back to a copy of the state, when the voters that had it are lost
    Restore(Restore),
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The copy [default: what etcd has on this node, if it votes]
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Also while the state works; what was changed since the copy is lost
    #[arg(long)]
    pub(crate) force: bool,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) etcd: OwnEtcd,
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// This machine's address, as the other nodes will reach it [default: the one that leads out]
    #[arg(long, value_name = "IP")]
    pub(crate) address: Option<IpAddr>,
    /// The first of eight ports for other nodes
    #[arg(long, value_name = "PORT", default_value_t = PORT)]
    pub(crate) port: u16,
    /// Install missing packages without asking
    #[arg(long, short)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) etcd: OwnEtcd,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Node {
    /// Print a token that lets one machine join, once
    Token {
        /// How long it is good
        #[arg(long, value_name = "TIME", default_value = "1 h")]
        valid: Span,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make this machine a node: it has the sites' code, then takes requests
    Join(Join),
    /// List the nodes
    List(Json),
    /// Show one node
    Show {
        /// Its name
        name: NodeName,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Let a node rest: its instances stop once others run, and it does not lead
    Drain {
        /// Its name
        name: NodeName,
    },
    /// Let it take part again
    Undrain {
        /// Its name
        name: NodeName,
    },
    /// Tell nodes apart by words of yours
    Label {
        /// Its name
        name: NodeName,
        /// `KEY=VALUE`, or `KEY` to take it away
        label: String,
    },
    /// Remove a node: it is refused everywhere at once
    Remove {
        /// Its name
        name: NodeName,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Join {
    /// The token that `pressroom node token` printed; `-`: read it from standard input
    pub(crate) token: String,
    /// Its name in the cluster [default: what it was before, else the host's]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<NodeName>,
    /// Its failure domain [default: what it was before, else a]
    #[arg(long, value_name = "ZONE")]
    pub(crate) zone: Option<String>,
    /// Its address, as the other nodes reach it [default: what it was before, else the one that leads to them]
    #[arg(long, value_name = "IP")]
    pub(crate) address: Option<IpAddr>,
    /// The first of eight ports for other nodes [default: what it was before, else 7400]
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// What it does: edge, app, voter, manager (may be repeated) [default: what it did before, else all]
    #[arg(long, value_name = "ROLE")]
    pub(crate) role: Vec<RoleName>,
    /// Install missing packages without asking
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// Return once it serves, which it does anyway: for scripts that say so to `up` as well
    #[arg(long, short)]
    pub(crate) detach: bool,
}

/// A role by its name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RoleName(pub(crate) Role);

impl std::str::FromStr for RoleName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let named = serde_json::from_value(serde_json::Value::from(text));
        named.map(Self).map_err(|_| "use one of edge, app, voter, manager".to_owned())
    }
}

#[derive(Debug, Default, Args)]
pub(crate) struct Apply {
    /// Only show what would be done, and why
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print the actions as JSON (with --dry-run)
    #[arg(long, requires = "dry_run")]
    pub(crate) json: bool,
    /// Install missing packages without asking
    #[arg(long, short)]
    pub(crate) yes: bool,
}

#[derive(Debug, Default, Args)]
pub(crate) struct Status {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Show it again each second
    #[arg(long, short)]
    pub(crate) watch: bool,
}

#[derive(Debug, Default, Args)]
pub(crate) struct Json {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// A site, an engine, or one of keeper, agent, edge, sql, dns, access [default: all]
    pub(crate) name: Option<String>,
    /// Go on as more is written
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Lines from the end of each file
    #[arg(long, short = 'n', default_value_t = 50, value_name = "N")]
    pub(crate) lines: usize,
}

#[derive(Debug, Args)]
pub(crate) struct Why {
    /// A whole URL, or a path of the first site
    pub(crate) url: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Site {
    /// Add a site
    Add {
        /// Its name: lower-case letters, digits and `-`
        name: SiteName,
        /// Its title
        #[arg(long)]
        title: Option<String>,
        #[command(flatten)]
        new: NewSite,
        /// Install missing packages without asking
        #[arg(long, short)]
        yes: bool,
    },
    /// List the sites
    List(Json),
    /// Show one site
    Show {
        /// Its name
        name: SiteName,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show who wrote what beside the database: media, caches, drop-ins, and what was refused
    Writes {
        /// Its name
        name: SiteName,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove a site: keeps a dump of its database and uploads, deletes the rest
    Remove {
        /// Its name
        name: SiteName,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Deploy {
    /// The site
    pub(crate) site: SiteName,
    /// A folder (a whole WordPress, or a wp-content alone), a .tar.gz or .zip, or `wordpress:VERSION` [default: the source in the configuration]
    pub(crate) source: Option<PathBuf>,
    /// What the archive must be: its SHA-256
    #[arg(long, value_name = "DIGITS", requires = "source")]
    pub(crate) sha256: Option<String>,
    /// What is done, for `release list` [default: where it comes from]
    #[arg(long, short, value_name = "TEXT")]
    pub(crate) message: Option<String>,
    /// Only show what would change in the code
    #[arg(long, conflicts_with = "wait")]
    pub(crate) dry_run: bool,
    /// Return when every new request runs it (it always does; for scripts that want to say so)
    #[arg(long)]
    pub(crate) wait: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Release {
    /// List the releases that served a site, the last one first
    List {
        /// The site
        site: SiteName,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one release: what is in it, what it changed, what becomes of it
    Show {
        /// The site
        site: SiteName,
        /// The release, or the beginning of its id [default: the one that serves]
        release: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show which files tell two releases apart
    Diff {
        /// The site
        site: SiteName,
        /// The earlier one, or the beginning of its id [default: the one that served before]
        from: Option<String>,
        /// The later one [default: the one that serves]
        to: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Hash every file of a release again
    Verify {
        /// The site
        site: SiteName,
        /// The release, or the beginning of its id [default: the one that serves]
        release: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Move a site back to a release that served it
    Rollback {
        /// The site
        site: SiteName,
        /// The release, or the beginning of its id [default: the one that served before]
        release: Option<String>,
        /// Put the tables back, too, as they were before WordPress changed them for a later release (they are dumped first)
        #[arg(long)]
        tables: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Env {
    /// Copy a site: its database, media and code, at an address of its own, with a password in front
    Create {
        /// The site
        site: SiteName,
        /// The name of the environment: the first label of its address, as `staging`
        name: EnvironmentName,
        /// What is copied
        #[arg(long, value_name = "WHAT", default_value = "production", value_parser = ["production"])]
        from: String,
        /// Let scheduled events run in it
        #[arg(long)]
        with_cron: bool,
        /// Let its shop offer ways to pay
        #[arg(long)]
        with_payments: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List environments
    List {
        /// Of this site alone
        site: Option<SiteName>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Say where an environment is, and how to get in
    Open(EnvName),
    /// List the mail that an environment wanted to send
    Mail(EnvName),
    /// Copy the site's database and media again; the environment's code stays
    Refresh {
        /// The site
        site: SiteName,
        /// The environment
        name: EnvironmentName,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Make an environment's code, or tables of it, the site's
    Promote {
        /// The site
        site: SiteName,
        /// The environment
        name: EnvironmentName,
        /// These tables instead of the code, as `posts,postmeta`; the site's are dumped before
        #[arg(long, value_name = "NAMES", value_delimiter = ',')]
        tables: Vec<String>,
        /// Do not ask (with --tables)
        #[arg(long, short)]
        yes: bool,
        /// Only show what would change
        #[arg(long)]
        dry_run: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Delete an environment: nothing of it is kept
    Remove {
        /// The site
        site: SiteName,
        /// The environment
        name: EnvironmentName,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// An environment of a site.
#[derive(Debug, Args)]
pub(crate) struct EnvName {
    /// The site
    pub(crate) site: SiteName,
    /// The environment
    pub(crate) name: EnvironmentName,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Git {
    /// Make the token that `git clone` and `git push` ask for; one from before opens nothing any more
    Token {
        /// The site
        site: SiteName,
        /// Make none: nobody can clone or push
        #[arg(long)]
        revoke: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the address for `git clone`
    Url {
        /// The site
        site: SiteName,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Wp {
    /// The site
    pub(crate) site: SiteName,
    /// In this environment of the site
    #[arg(long, value_name = "NAME")]
    pub(crate) env: Option<EnvironmentName>,
    /// The phar of wp-cli [default: `wp_cli` in `[wordpress]` of the configuration, else `wp` in PATH]
    #[arg(long, value_name = "FILE")]
    pub(crate) phar: Option<PathBuf>,
    /// What wp-cli is to do, behind `--`
    #[arg(last = true, required = true)]
    pub(crate) arguments: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Say everything that is wrong with the file
    Check,
    /// Show what the file means, with all defaults
    Show(ShowConfig),
    /// Print the reference of all keys, as Markdown
    Reference,
    /// Bring other programs' configuration files to what templates say, once (confd's folders as they are)
    Render(templates::Templates),
    /// Keep other programs' configuration files as templates say, until Ctrl-C
    Watch(templates::Watch),
    /// Templates that drive HAProxy, nginx or Varnish from what Pressroom discovers: list them, or copy them into a folder
    Examples(templates::Examples),
}

#[derive(Debug, Args)]
pub(crate) struct ShowConfig {
    /// What is applied, instead of the file: on any node of a cluster, what all of them have in common
    #[arg(long)]
    pub(crate) applied: bool,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Tls {
    /// Say how browsers and programs come to trust the local authority
    Trust,
}

#[derive(Debug, Default, Args)]
pub(crate) struct Install {
    /// Print the unit instead of installing it
    #[arg(long)]
    pub(crate) print: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_data_directory_is_named_before_or_after_the_verb() {
        for line in [
            "pressroom --data /d status --json",
            "pressroom status --json --data /d",
            "pressroom site --data /d list",
            "pressroom site list --data=/d",
        ] {
            assert_eq!(parse(line).expect(line).place.data, Some(PathBuf::from("/d")), "{line}");
        }
    }

    #[test]
    fn the_contracts_command_is_understood() {
        let line = "pressroom --data /d up --yes --detach --http 127.0.0.1:1 --https 127.0.0.1:2 --console 127.0.0.1:3 --site blog --admin-password-file /p";
        let Command::Up(up) = parse(line).expect(line).command else { panic!("it is `up`") };
        assert!(up.yes && up.detach);
        assert_eq!(up.https, ["127.0.0.1:2".parse().expect("address")]);
        assert_eq!(up.site.expect("given").as_str(), "blog");
    }

    #[test]
    fn every_verb_of_the_issue_is_there() {
        for line in [
            "up",
            "down",
            "apply --dry-run",
            "apply --dry-run --json",
            "status --json --watch",
            "doctor --json",
            "logs",
            "logs mariadb -f -n 5",
            "why /a?b=c",
            "cache purge blog --all",
            "cache purge blog --tag a --tag b",
            "up --runtime docker",
            "deploy blog",
            "deploy blog /code --wait --json",
            "deploy blog /code --dry-run",
            "deploy blog code.zip --sha256 ab -m text",
            "deploy blog wordpress:6.5.2",
            "release list blog --json",
            "release show blog",
            "release show blog ab --json",
            "release diff blog",
            "release diff blog ab cd",
            "release verify blog",
            "release rollback blog",
            "release rollback blog ab --json",
            "git token blog",
            "git token blog --revoke --json",
            "git url blog",
            "git-receive blog",
            "env create shop staging --json",
            "env create shop staging --from production --with-cron --with-payments",
            "env list",
            "env list shop --json",
            "env open shop staging",
            "env mail shop staging --json",
            "env refresh shop staging --yes",
            "env promote shop staging --dry-run --json",
            "env promote shop staging --tables posts,postmeta --yes",
            "env remove shop staging -y",
            "site add shop --domain shop.example.com --title Shop",
            "site list --json",
            "site show blog",
            "site writes blog --json",
            "site remove blog --yes",
            "wp blog -- option get siteurl --format=json",
            "wp blog --env staging --phar /opt/wp.phar -- --info",
            "config check",
            "config show",
            "config reference",
            "tls trust",
            "install",
            "install --print",
            "keep --data /d --config /f",
            "agent --data /d --config /f",
            "edge --data /d --config /f",
        ] {
            assert!(parse(&format!("pressroom {line}")).is_ok(), "{line}");
        }
        for line in [
            "",
            "nonsense",
            "up --http 80",
            "site add Bad_Name",
            "apply --json",
            "cache purge blog --all --tag a",
            "deploy",
            "deploy blog /code --dry-run --wait",
            "wp blog",
            "wp blog option get siteurl",
            "env create shop",
            "env create shop production",
            "env create shop staging --from elsewhere",
        ] {
            assert!(parse(&format!("pressroom {line}")).is_err(), "{line}");
        }
    }
}
