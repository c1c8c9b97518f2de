//! Other programs' configuration files: what may be typed behind `config render`, `watch` and `examples`.

use std::path::PathBuf;

use clap::Args;

/// confd's folder, and where values come from.
#[derive(Debug, Clone, Args)]
pub(crate) struct Templates {
    /// The folder with `conf.d` and `templates` in it
    #[arg(long, value_name = "DIR", default_value = "/etc/confd")]
    pub(crate) confdir: PathBuf,
    /// Where values come from [default: file with --file, etcd with --node, else pressroom: this cluster's etcd]
    #[arg(long, value_name = "BACKEND", value_parser = ["pressroom", "etcd", "env", "file"])]
    pub(crate) backend: Option<String>,
    /// Where etcd answers (may be repeated; several with commas between) [default: http://127.0.0.1:2379]
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub(crate) node: Vec<String>,
    /// Certificates of the authorities that etcd's certificate may be of, PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) client_ca_keys: Option<PathBuf>,
    /// Our certificate for etcd, PEM
    #[arg(long, value_name = "FILE", requires = "client_key")]
    pub(crate) client_cert: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    pub(crate) client_key: Option<PathBuf>,
    /// A YAML or JSON file with values, or a folder of them (may be repeated)
    #[arg(long, value_name = "PATH")]
    pub(crate) file: Vec<PathBuf>,
    /// Before all keys, instead of what the resources say
    #[arg(long, value_name = "KEY")]
    pub(crate) prefix: Option<String>,
    /// Change nothing: say what would be
    #[arg(long)]
    pub(crate) noop: bool,
    /// Run neither check nor reload commands
    #[arg(long)]
    pub(crate) sync_only: bool,
    /// Keep rendered files that did not pass their check
    #[arg(long)]
    pub(crate) keep_stage_file: bool,
    /// Accepted for confd's sake: `render` is that
    #[arg(long, hide = true)]
    pub(crate) onetime: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Watch {
    #[command(flatten)]
    pub(crate) templates: Templates,
    /// Read everything anew so often, whatever was heard, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) interval: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Examples {
    /// Which: haproxy, nginx or varnish [default: list them]
    #[arg(requires = "to")]
    pub(crate) program: Option<String>,
    /// The folder that gets `conf.d` and `templates`; files that are there stay
    #[arg(long, value_name = "DIR", requires = "program")]
    pub(crate) to: Option<PathBuf>,
}
