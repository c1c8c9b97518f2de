//! Writes of a site's PHP that were refused: what is worth telling of them, and what to do.

use std::collections::HashMap;

use pressroom_model::text::plain;
use pressroom_model::writes::{Class, Refusal, Written, known};

/// So many refused writes are told.
const MOST: usize = 200;

/// The refused writes of a site from its own lines, the last one first; each path once for each who.
pub fn refused(lines: impl IntoIterator<Item = Refusal>, root: &str) -> Vec<Written> {
    let mut all: Vec<Written> = Vec::new();
    let mut places: HashMap<(String, Option<String>), usize> = HashMap::new();
    for line in lines {
        let path = plain(&line.path);
        let path =
            path.strip_prefix(root).map_or(path.as_str(), |rest| rest.trim_start_matches('/'));
        let by = Some(plain(&line.by)).filter(|by| !by.is_empty());
        let at_ms = Some(line.at.saturating_mul(1000));
        if let Some(place) = places.get(&(path.to_owned(), by.clone())) {
            let there = &mut all[*place];
            there.files += 1;
            there.at_ms = there.at_ms.max(at_ms);
            continue;
        }
        let because = format!("{}: {}; {}", plain(&line.tried), plain(&line.said), advice(path));
        let path = path.to_owned();
        places.insert((path.clone(), by.clone()), all.len());
        all.push(Written { class: Class::Refused, path, by, files: 1, bytes: 0, at_ms, because });
    }
    all.sort_by_key(|one| std::cmp::Reverse(one.at_ms));
    all.truncate(MOST);
    all
}

/// What somebody can do who wants such a write to work.
fn advice(path: &str) -> &'static str {
    let name = path.rsplit('/').next().unwrap_or(path);
    match path {
        ".htaccess" | "wp-content/.htaccess" => "no web server here reads it; nothing is missing",
        "wp-config.php" => "constants belong into a must-use plugin, secrets into Pressroom",
        "robots.txt" => "WordPress answers it by itself; deploy the file to have another one",
        _ if path.starts_with('/') => "it is outside of the site",
        _ if path.starts_with("wp-content/languages/") => {
            "languages are code: update translations in wp-admin, or deploy them"
        }
        _ if is_drop_in(path) => "a drop-in is code: deploy it",
        _ if name.ends_with(".log") => {
            "let the plugin log below wp-content/uploads, or to PHP's log"
        }
        _ if path.starts_with("wp-content/plugins/") || path.starts_with("wp-content/themes/") => {
            "code cannot change itself; let it write below wp-content/uploads"
        }
        _ => "let it write below wp-content/uploads, or deploy the file",
    }
}

/// Whether WordPress loads a file of `wp-content` by its name.
pub fn is_drop_in(path: &str) -> bool {
    let name = path.strip_prefix("wp-content/").filter(|name| !name.contains('/'));
    name.is_some_and(|name| name.ends_with(".php") && name != "index.php")
}

/// Who keeps a folder: what is known of its name, or a plugin or theme of that name.
pub fn keeper<'a>(
    path: &str,
    names: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Option<String> {
    if let Some(by) = known(path) {
        return Some(by.to_owned());
    }
    let name = path.rsplit('/').next()?;
    let mut names = names.into_iter();
    names.find(|(folder, _)| *folder == name).map(|(_, title)| title.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_is_told_once_for_each_who_and_nothing_of_the_sites_is_believed() {
        let line = |at, path: &str, by: &str| Refusal {
            at,
            path: path.into(),
            tried: "fopen".into(),
            by: by.into(),
            said: "Read-only file system".into(),
        };
        let lines = [
            line(5, "/srv/site/wp-content/plugins/a/x.log", "plugins/a"),
            line(9, "/srv/site/wp-content/plugins/a/x.log", "plugins/a"),
            line(u64::MAX, "/srv/site/.htaccess", "\u{1b}[2Jplugins/b"),
        ];
        let told = refused(lines, "/srv/site");
        let short: Vec<_> =
            told.iter().map(|one| (&*one.path, one.by.as_deref(), one.files)).collect();
        assert_eq!(
            short,
            [
                (".htaccess", Some("[2Jplugins/b"), 1),
                ("wp-content/plugins/a/x.log", Some("plugins/a"), 2)
            ]
        );
        assert_eq!(told[1].at_ms, Some(9000));
        assert!(told[1].because.starts_with("fopen: Read-only file system; "), "{:?}", told[1]);
    }

    #[test]
    fn a_folder_is_a_plugins_by_its_name() {
        let names = [("forms", "The Forms"), ("other", "Other")];
        let who = |path: &str| keeper(path, names);
        assert_eq!(who("wp-content/uploads/forms").as_deref(), Some("The Forms"));
        assert_eq!(who("wp-content/cache/min").as_deref(), Some("WP Rocket"));
        assert_eq!(who("wp-content/uploads/2026"), None);
    }
}
