//! The words for an etcd that operators keep.

use std::path::PathBuf;

use clap::Args;

/// How it is reached; without an endpoint there is none.
#[derive(Debug, Default, Args)]
pub(crate) struct OwnEtcd {
    /// An endpoint of an etcd that you keep (3.4 or newer), `https://HOST:2379` (may be repeated)
    #[arg(long = "etcd", value_name = "URL")]
    pub(crate) endpoints: Vec<String>,
    /// What is before all keys of this cluster there [default: /pressroom, or as before]
    #[arg(long = "etcd-prefix", value_name = "PREFIX", requires = "endpoints")]
    pub(crate) prefix: Option<String>,
    /// The authorities that its certificates may be of, PEM [default: those that the system trusts]
    #[arg(long = "etcd-ca", value_name = "FILE", requires = "endpoints")]
    pub(crate) authority: Option<PathBuf>,
    /// The certificate that nodes show there, PEM
    #[arg(long = "etcd-certificate", value_name = "FILE", requires = "key")]
    pub(crate) certificate: Option<PathBuf>,
    /// The key of that, PEM
    #[arg(long = "etcd-key", value_name = "FILE", requires = "certificate")]
    pub(crate) key: Option<PathBuf>,
    /// The user that nodes are there, if the certificate does not say it
    #[arg(long = "etcd-user", value_name = "NAME", requires = "password_file")]
    pub(crate) user: Option<String>,
    /// Read the user's password from this file (`-`: standard input)
    #[arg(long = "etcd-password-file", value_name = "FILE", requires = "user")]
    pub(crate) password_file: Option<PathBuf>,
}
