//! The words of `pressroom cache`.

use clap::Subcommand;
use pressroom_model::id::SiteName;

use super::Json;

#[derive(Debug, Subcommand)]
pub(crate) enum Cache {
    /// Make stored pages of a site stale
    Purge {
        /// The site
        site: SiteName,
        /// Pages with this tag, as `post-12` (may be repeated)
        #[arg(long, value_name = "TAG")]
        tag: Vec<String>,
        /// The page at this URL or path (may be repeated)
        #[arg(long, value_name = "URL")]
        url: Vec<String>,
        /// All pages
        #[arg(long, conflicts_with_all = ["tag", "url"])]
        all: bool,
        #[command(flatten)]
        json: Json,
    },
}
