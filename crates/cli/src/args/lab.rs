//! The words of `pressroom lab`.

use clap::Subcommand;
use pressroom_model::id::SiteName;

use super::Json;

#[derive(Debug, Subcommand)]
pub(crate) enum Lab {
    /// Make hosts, start Pressroom on them, and wait until all serve; with more nodes than are there, add hosts
    Up {
        /// How many hosts
        #[arg(long, value_name = "N", default_value_t = 3)]
        nodes: usize,
        /// Their zones, dealt in turn
        #[arg(long, value_name = "A,B,…", value_delimiter = ',', default_value = "a,b,c")]
        zones: Vec<String>,
        /// The site's name
        #[arg(long, value_name = "NAME", default_value = "blog")]
        site: SiteName,
        /// Each host a Pressroom of its own, instead of one cluster
        #[arg(long)]
        standalone: bool,
        /// How many floating addresses
        #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "standalone")]
        addresses: u8,
        /// Install missing packages without asking
        #[arg(long, short)]
        yes: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Cut a node off from all others, or a zone from other zones and visitors
    Cut {
        /// The node, or `zone:Z`
        whom: String,
    },
    /// End a cut, and slowness
    Heal {
        /// The node, or `zone:Z`
        whom: String,
    },
    /// Let it send slowly
    Slow {
        /// The node, or `zone:Z`
        whom: String,
        /// Kilobits a second
        #[arg(long, value_name = "KBIT", default_value_t = 1000)]
        rate: u64,
    },
    /// Kill every process of it at once
    Kill {
        /// The node, or `zone:Z`
        whom: String,
    },
    /// Start it again, as after a loss of power
    Start {
        /// The node, or `zone:Z`
        whom: String,
    },
    /// Stop its processes where they are
    Freeze {
        /// The node, or `zone:Z`
        whom: String,
        /// Only those of this name: edge, agent, sql, dns, etcd, mariadbd, php-fpm …
        #[arg(long, value_name = "NAME")]
        process: Option<String>,
    },
    /// Let them go on
    Thaw {
        /// The node, or `zone:Z`
        whom: String,
    },
    /// Run a command in a host, or where visitors are; exits as it does
    Exec {
        /// The node, or `client`
        whom: String,
        /// The command and its arguments, behind `--`
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<String>,
    },
    /// Show the hosts
    Status(Json),
    /// End it: nothing of it is left, nor of its hosts' data
    Down,
    #[command(hide = true)]
    Host { name: String },
}
