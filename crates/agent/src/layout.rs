//! Where everything is below the data directory. The one place that spells these paths.

use std::path::{Path, PathBuf};

use pressroom_model::id::{InstanceId, ReleaseId, SiteName};

/// The version of the layout that this program writes, kept in `layout.json`.
pub const VERSION: u32 = 1;

/// The data directory and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    data: PathBuf,
}

impl Layout {
    /// The layout of a data directory (an absolute path).
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self { data: data.into() }
    }

    /// The data directory itself.
    pub fn data(&self) -> &Path {
        &self.data
    }

    fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.data.join(path)
    }

    /// The layout's version.
    pub fn version(&self) -> PathBuf {
        self.at("layout.json")
    }
    /// The embedded store.
    pub fn store(&self) -> PathBuf {
        self.at("store/state.redb")
    }
    /// Secrets, 0700.
    pub fn secrets(&self) -> PathBuf {
        self.at("secrets")
    }
    /// What a node of a cluster knows of it and keeps for it, 0700.
    pub fn cluster(&self) -> PathBuf {
        self.at("cluster")
    }
    /// Immutable release trees.
    pub fn releases(&self) -> PathBuf {
        self.at("releases")
    }
    /// Compiled code of releases.
    pub fn bytecode(&self) -> PathBuf {
        self.at("bytecode")
    }
    /// Folder of all sites.
    pub fn sites(&self) -> PathBuf {
        self.at("sites")
    }
    /// Folder of one site.
    pub fn site(&self, site: &SiteName) -> PathBuf {
        self.sites().join(site.as_str())
    }
    /// The tree that a site's PHP runs.
    pub fn site_root(&self, site: &SiteName, release: &ReleaseId) -> PathBuf {
        self.site(site).join("releases").join(release.as_str())
    }
    /// A site's media.
    pub fn uploads(&self, site: &SiteName) -> PathBuf {
        self.site(site).join("uploads")
    }
    /// The mail that an environment wanted to send.
    pub fn mailbox(&self, site: &SiteName) -> PathBuf {
        self.site(site).join("mail")
    }
    /// What plugins keep for themselves, by release.
    pub fn scratch(&self, site: &SiteName, release: &ReleaseId) -> PathBuf {
        self.site(site).join("scratch").join(release.as_str())
    }
    /// Writes that were refused, as the site tells them.
    pub fn refusals(&self, site: &SiteName) -> PathBuf {
        self.site_logs(site).join("refused.jsonl")
    }
    /// A site's temporary files.
    pub fn tmp(&self, site: &SiteName) -> PathBuf {
        self.site(site).join("tmp")
    }
    /// A site's secrets and addresses for PHP.
    pub fn site_config(&self, site: &SiteName) -> PathBuf {
        self.site(site).join("config/site.php")
    }
    /// What a site's PHP sees as `/etc`.
    pub fn site_etc(&self, site: &SiteName) -> PathBuf {
        self.site(site).join("etc")
    }
    /// Folder of a site's logs.
    pub fn site_logs(&self, site: &SiteName) -> PathBuf {
        self.site(site).join("logs")
    }
    /// A site's slow log.
    pub fn slow_log(&self, site: &SiteName) -> PathBuf {
        self.site_logs(site).join("slow.log")
    }
    /// The password of an environment's administrator, which is also the one in front of it.
    pub fn environment_password(&self, site: &SiteName) -> PathBuf {
        self.secrets().join(format!("environment-{site}"))
    }
    /// The local authority's certificate.
    pub fn authority(&self) -> PathBuf {
        self.at("tls/ca.pem")
    }
    /// Certificates of the sites.
    pub fn certificates(&self) -> PathBuf {
        self.at("tls/sites")
    }
    /// All files of a site's certificates: ours, the copy of the operator's, and what is remembered of ours.
    pub fn certificate_files(&self, site: &SiteName) -> [PathBuf; 5] {
        let file = |ending| self.certificates().join(format!("{site}.{ending}"));
        let record = self.secrets().join(format!("certificate-{site}.json"));
        [file("pem"), file("key"), file("own.pem"), file("own.key"), record]
    }
    /// Folder of all engines.
    pub fn engines(&self) -> PathBuf {
        self.at("engines")
    }
    /// Configuration and data of an engine or instance.
    pub fn engine(&self, name: &str) -> PathBuf {
        self.engines().join(name)
    }
    /// A site's `php.ini` values, which its instances and its command line PHP read. The ending keeps it apart from
    /// the folders of instances: instance 1 of `blog` and the site `blog-1` would both be `php-blog-1`.
    pub fn php_ini(&self, site: &SiteName) -> PathBuf {
        self.engine(&format!("php-{site}-ini"))
    }
    /// What the edge keeps.
    pub fn edge(&self) -> PathBuf {
        self.at("edge")
    }
    /// What the edge keeps of one site: its pages, the journal of its purges, names of its cookies.
    pub fn edge_of(&self, site: &SiteName) -> [PathBuf; 3] {
        let journals = self.edge().join("journals");
        [
            self.edge().join("hot").join(site.as_str()),
            journals.join(format!("{site}.journal")),
            journals.join(format!("{site}.cookies")),
        ]
    }
    /// The edge's view.
    pub fn snapshot(&self) -> PathBuf {
        self.at("snapshot/edge.json")
    }
    /// Where the data is, for the process that carries its bytes.
    pub fn sql_view(&self) -> PathBuf {
        self.at("snapshot/sql.json")
    }
    /// All names, for the process that answers for them.
    pub fn dns_view(&self) -> PathBuf {
        self.at("snapshot/dns.json")
    }
    /// Output of processes.
    pub fn logs(&self) -> PathBuf {
        self.at("logs")
    }
    /// The output file of one process.
    pub fn output(&self, process: &str) -> PathBuf {
        self.logs().join(format!("{process}.log"))
    }
    /// The access log, in a folder of the edge's own.
    pub fn access_log(&self) -> PathBuf {
        self.logs().join("edge/access.log")
    }
    /// Dumps of a site's database before changes of its tables.
    pub fn dumps(&self, site: &SiteName) -> PathBuf {
        self.at("dumps").join(site.as_str())
    }
    /// Folder of all author instances' trees.
    pub fn authors(&self) -> PathBuf {
        self.at("authors")
    }
    /// Folder of a site's author instance: only that instance gets in.
    pub fn author(&self, site: &SiteName) -> PathBuf {
        self.authors().join(site.as_str())
    }
    /// The tree that a site's author instance runs and writes.
    pub fn author_root(&self, site: &SiteName) -> PathBuf {
        self.author(site).join("tree")
    }
    /// Where a site's author instance says what it has changed.
    pub fn author_desk(&self, site: &SiteName) -> PathBuf {
        self.author(site).join("desk.sock")
    }
    /// Where the edge brings requests for a site's author instance: those that change code.
    pub fn author_change(&self, site: &SiteName) -> PathBuf {
        self.run().join("author").join(format!("{site}.change"))
    }
    /// The same for requests that those make to their own site.
    pub fn author_loopback(&self, site: &SiteName) -> PathBuf {
        self.run().join("author").join(format!("{site}.loopback"))
    }
    /// What was found in a site's folders and had no business there.
    pub fn evidence(&self, site: &SiteName) -> PathBuf {
        self.at("evidence").join(site.as_str())
    }
    /// Copies of the cluster's state.
    pub fn state_backups(&self) -> PathBuf {
        self.at("backups/state")
    }
    /// Dumps of removed sites.
    pub fn removed(&self) -> PathBuf {
        self.at("removed")
    }
    /// The sites' git repositories, root's alone.
    pub fn histories(&self) -> PathBuf {
        self.at("git")
    }
    /// A site's bare git repository.
    pub fn history(&self, site: &SiteName) -> PathBuf {
        self.histories().join(format!("{site}.git"))
    }
    /// What a push changes, while a release is made of it.
    pub fn incoming(&self, site: &SiteName) -> PathBuf {
        self.histories().join(format!(".incoming-{site}"))
    }
    /// Published versions of WordPress that were downloaded.
    pub fn downloads(&self) -> PathBuf {
        self.at("downloads")
    }
    /// Folders of all checkouts.
    pub fn builds(&self) -> PathBuf {
        self.at("build")
    }
    /// A checkout of a site's source, while a release is made of it.
    pub fn build(&self, site: &SiteName) -> PathBuf {
        self.builds().join(site.as_str())
    }
    /// Sockets.
    pub fn run(&self) -> PathBuf {
        self.at("run")
    }
    /// The keeper's socket.
    pub fn keeper_socket(&self) -> PathBuf {
        self.run().join("keeper.sock")
    }
    /// The operator's socket.
    pub fn agent_socket(&self) -> PathBuf {
        self.run().join("agent.sock")
    }
    /// The edge's control socket, in a folder of its own.
    pub fn edge_socket(&self) -> PathBuf {
        self.run().join("edge/control.sock")
    }
    /// Where the edge passes git's requests on to, in a folder that only it may enter.
    pub fn git_socket(&self) -> PathBuf {
        self.run().join("git/http.sock")
    }
    /// Where the edge asks whether an upload is on another node, in a folder that only it may enter.
    pub fn media_socket(&self) -> PathBuf {
        self.run().join("media/commit.sock")
    }
    /// Where writes to the database go.
    pub fn writer(&self) -> PathBuf {
        self.run().join("mariadb/writer.sock")
    }
    /// Where cacheable reads may go.
    pub fn reader(&self) -> PathBuf {
        self.run().join("mariadb/reader.sock")
    }
    /// The socket of one of the Redis servers.
    pub fn redis(&self, name: &str) -> PathBuf {
        self.run().join(name).join("redis.sock")
    }
    /// The socket of our own Docker daemon.
    pub fn docker(&self) -> PathBuf {
        self.run().join("docker/docker.sock")
    }
    /// Where the view of a confined process is put together; empty for everybody else.
    pub fn stage(&self) -> PathBuf {
        self.run().join("stage")
    }
    /// Folder of an instance's sockets.
    pub fn instance_run(&self, id: &InstanceId) -> PathBuf {
        self.run().join("php").join(id.as_str())
    }
    /// An instance's FastCGI socket.
    pub fn instance_socket(&self, id: &InstanceId) -> PathBuf {
        self.instance_run(id).join("fpm.sock")
    }
    /// An instance's status socket.
    pub fn instance_status(&self, id: &InstanceId) -> PathBuf {
        self.instance_run(id).join("status.sock")
    }
    /// A site's affirmation socket.
    pub fn affirm(&self, site: &SiteName) -> PathBuf {
        self.run().join("affirm").join(site.as_str()).join("edge.sock")
    }
    /// An affirmation socket that no site was given yet. No site has such a name.
    pub fn spare_affirm(&self, number: u16) -> PathBuf {
        self.run().join("affirm").join(format!("{number}.spare"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_named_like_an_instance_has_folders_of_its_own() {
        let layout = Layout::new("/d");
        let (blog, other): (SiteName, SiteName) =
            ("blog".parse().expect("a good name"), "blog-1".parse().expect("a good name"));
        let instance = layout.engine(&format!("php-{}", InstanceId::of(&blog, 1)));
        assert_ne!(layout.php_ini(&other), instance);
        assert_ne!(layout.php_ini(&other), layout.php_ini(&blog));
    }
}
