//! Changes of `pressroom.toml` that keep its comments, its order and everything that is not changed.
//!
//! An edit that says what is already there leaves the text byte for byte as it is.

use std::net::SocketAddr;

use pressroom_api::failure::Failure;
use pressroom_model::id::SiteName;
use toml_edit::{
    Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, TableLike, Value, value,
};

use crate::args::NewSite;

/// The head of a new file.
const HEAD: &str = "\
# The configuration of Pressroom.
# `pressroom config reference` explains every key, `pressroom config show` prints this with all defaults.
# After a change: `pressroom apply --dry-run` says what would be done, `pressroom apply` does it.

";

/// A text under edit.
#[derive(Debug)]
pub(crate) struct Edit {
    head: &'static str,
    document: DocumentMut,
}

impl Edit {
    /// Begins with the text of a file; an empty one gets a head that explains it.
    pub(crate) fn of(text: &str) -> Result<Self, Failure> {
        let head = if text.trim().is_empty() { HEAD } else { "" };
        let document = text.parse().map_err(|error: toml_edit::TomlError| {
            Failure::yours("the configuration cannot be changed, since it cannot be read")
                .cause(error.message())
                .hint("`pressroom config check` says everything that is wrong")
        })?;
        Ok(Self { head, document })
    }

    /// The text now.
    pub(crate) fn text(&self) -> String {
        format!("{}{}", self.head, self.document)
    }

    /// Sets the listeners of `edge.NAME`; none given: leaves them.
    pub(crate) fn listeners(
        &mut self,
        name: &str,
        addresses: &[SocketAddr],
    ) -> Result<(), Failure> {
        if addresses.is_empty() {
            return Ok(());
        }
        let list: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
        set_list(self.table("edge")?, name, &list);
        Ok(())
    }

    /// Sets where the console listens.
    pub(crate) fn console(&mut self, address: SocketAddr) -> Result<(), Failure> {
        set_text(self.table("console")?, "listen", &address.to_string());
        Ok(())
    }

    /// The names of the sites, as they are written.
    pub(crate) fn sites(&self) -> Vec<String> {
        let name = |site: &dyn TableLike| Some(site.get("name")?.as_str()?.to_owned());
        match self.document.get("site") {
            Some(Item::ArrayOfTables(sites)) => {
                sites.iter().filter_map(|site| name(site)).collect()
            }
            Some(Item::Value(Value::Array(sites))) => {
                sites.iter().filter_map(|site| name(site.as_inline_table()?)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Makes a site at the end, if there is none of this name, and sets what is said of it.
    pub(crate) fn site(
        &mut self,
        name: &SiteName,
        title: Option<&str>,
        said: &NewSite,
    ) -> Result<(), Failure> {
        if !self.sites().iter().any(|there| there == name.as_str()) {
            let mut site = Table::new();
            site.insert("name", value(name.as_str()));
            if !self.document.iter().all(|(key, _)| key == "site") || !self.sites().is_empty() {
                site.decor_mut().set_prefix("\n");
            }
            self.array()?.push(site);
        }
        let sites = self.array()?;
        let Some(site) = sites
            .iter_mut()
            .find(|site| site.get("name").and_then(Item::as_str) == Some(name.as_str()))
        else {
            return Ok(());
        };
        if !said.domain.is_empty() {
            set_list(site, "domains", &said.domain);
        }
        if let Some(title) = title {
            set_text(site, "title", title);
        }
        for (key, text) in [("user", &said.admin_user), ("email", &said.admin_email)] {
            let Some(text) = text else { continue };
            let admin = site.entry("admin").or_insert_with(|| value(InlineTable::new()));
            let admin = admin.as_table_like_mut().ok_or_else(|| not_a_table("admin"))?;
            set_text(admin, key, text);
        }
        if let Some(runtime) = &said.runtime {
            let php = site.entry("php").or_insert_with(|| Item::Table(Table::new()));
            let php = php.as_table_like_mut().ok_or_else(|| not_a_table("php"))?;
            set_text(php, "runtime", runtime);
        }
        Ok(())
    }

    /// Takes a site out, with its comments.
    pub(crate) fn remove_site(&mut self, name: &SiteName) -> Result<(), Failure> {
        let sites = self.array()?;
        let found = sites
            .iter()
            .position(|site| site.get("name").and_then(Item::as_str) == Some(name.as_str()));
        let Some(found) = found else {
            let all =
                self.sites().iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            let failure = Failure::yours(format!("there is no site `{name}` in the configuration"));
            return Err(if all.is_empty() {
                failure
            } else {
                failure.hint(format!("there are {all}"))
            });
        };
        sites.remove(found);
        if sites.is_empty() {
            self.document.remove("site");
        }
        Ok(())
    }

    fn table(&mut self, name: &str) -> Result<&mut dyn TableLike, Failure> {
        let is_first = self.document.is_empty();
        let item = self.document.entry(name).or_insert_with(|| {
            let mut table = Table::new();
            if !is_first {
                table.decor_mut().set_prefix("\n");
            }
            Item::Table(table)
        });
        item.as_table_like_mut().ok_or_else(|| not_a_table(name))
    }

    fn array(&mut self) -> Result<&mut ArrayOfTables, Failure> {
        let item = self
            .document
            .entry("site")
            .or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
        item.as_array_of_tables_mut().ok_or_else(|| {
            Failure::yours("the sites are not written as `[[site]]` tables, so this command cannot change them")
                .state("nothing was changed")
                .hint("edit the file by hand, then `pressroom apply`")
        })
    }
}

fn not_a_table(name: &str) -> Failure {
    Failure::yours(format!("`{name}` in the configuration is not a table"))
        .hint("`pressroom config check` says everything that is wrong")
}

fn set_text(table: &mut dyn TableLike, key: &str, text: &str) {
    if table.get(key).and_then(Item::as_str) != Some(text) {
        replace(table, key, Value::from(text));
    }
}

fn set_list(table: &mut dyn TableLike, key: &str, list: &[String]) {
    let there = table.get(key).and_then(Item::as_array);
    let is_same = there.is_some_and(|there| {
        there.iter().map(Value::as_str).eq(list.iter().map(|s| Some(s.as_str())))
    });
    if !is_same {
        replace(table, key, Value::Array(list.iter().map(String::as_str).collect::<Array>()));
    }
}

/// Sets a value; a comment behind the old one stays.
fn replace(table: &mut dyn TableLike, key: &str, mut new: Value) {
    if let Some(old) = table.get(key).and_then(Item::as_value) {
        *new.decor_mut() = old.decor().clone();
    }
    table.insert(key, Item::Value(new));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(text: &str, change: impl FnOnce(&mut Edit) -> Result<(), Failure>) -> String {
        let mut edit = Edit::of(text).expect("readable");
        change(&mut edit).expect("editable");
        edit.text()
    }

    fn name(name: &str) -> SiteName {
        name.parse().expect("a good name")
    }

    const WRITTEN: &str = "\
# Mine.
[edge] # the door
https = [\"127.0.0.1:1\"]   # why

# The blog.
[[site]]
name = \"blog\" # old
[site.php]
workers = 3

# The shop.
[[site]]
name = \"shop\"
";

    #[test]
    fn a_new_file_explains_itself() {
        let text = edited("", |edit| {
            edit.listeners("https", &["127.0.0.1:2".parse().expect("address")])?;
            edit.site(&name("blog"), None, &NewSite::default())
        });
        assert_eq!(
            text,
            format!("{HEAD}[edge]\nhttps = [\"127.0.0.1:2\"]\n\n[[site]]\nname = \"blog\"\n")
        );
    }

    #[test]
    fn other_ports_change_one_value_and_keep_every_comment() {
        let text = edited(WRITTEN, |edit| {
            edit.listeners("https", &["127.0.0.1:2".parse().expect("address")])
        });
        assert_eq!(text, WRITTEN.replace("127.0.0.1:1", "127.0.0.1:2"));
    }

    #[test]
    fn saying_what_is_there_changes_nothing() {
        let text = edited(WRITTEN, |edit| {
            edit.listeners("https", &["127.0.0.1:1".parse().expect("address")])?;
            edit.listeners("http", &[])?;
            edit.site(&name("shop"), None, &NewSite::default())
        });
        assert_eq!(text, WRITTEN);
    }

    #[test]
    fn another_runtime_is_written_beside_what_is_said_of_php() {
        let said = NewSite { runtime: Some("docker".into()), ..NewSite::default() };
        let text = edited(WRITTEN, |edit| edit.site(&name("blog"), None, &said));
        assert_eq!(text, WRITTEN.replace("workers = 3\n", "workers = 3\nruntime = \"docker\"\n"));
        let text = edited("", |edit| edit.site(&name("blog"), None, &said));
        assert!(text.ends_with("[site.php]\nruntime = \"docker\"\n"), "{text}");
    }

    #[test]
    fn a_site_is_added_at_the_end_with_what_is_said_of_it() {
        let said = NewSite {
            domain: vec!["n.example.com".to_owned()],
            admin_user: Some("eve".to_owned()),
            ..NewSite::default()
        };
        let text = edited(WRITTEN, |edit| edit.site(&name("news"), Some("The \"news\""), &said));
        let added = "\n[[site]]\nname = \"news\"\ndomains = [\"n.example.com\"]\ntitle = 'The \"news\"'\nadmin = { user = \"eve\" }\n";
        assert_eq!(text, format!("{WRITTEN}{added}"));
    }

    #[test]
    fn a_removed_site_takes_its_tables_and_comments_with_it() {
        let text = edited(WRITTEN, |edit| edit.remove_site(&name("blog")));
        assert!(
            text.starts_with("# Mine.\n[edge] # the door\n")
                && text.ends_with("# The shop.\n[[site]]\nname = \"shop\"\n")
        );
        assert!(!text.contains("blog") && !text.contains("workers"), "{text}");
        let failure =
            Edit::of(WRITTEN).expect("readable").remove_site(&name("nope")).expect_err("unknown");
        assert_eq!(failure.hint.as_deref(), Some("there are `blog`, `shop`"));
    }
}
