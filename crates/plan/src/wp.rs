//! What wp-cli can do here, and what does the rest.

/// A command of wp-cli that cannot work here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// Which: `plugin install`.
    pub command: String,
    /// Why.
    pub because: &'static str,
    /// What does it instead.
    pub instead: &'static str,
}

const CODE: &str = "it changes code, which is read-only here: a change becomes a release";
const BRING: &str = "use the buttons of wp-admin, or `pressroom deploy SITE SOURCE`";
const FILE: &str = "it writes `wp-config.php`, which Pressroom writes";

/// Commands by their first words, why they cannot work, and what does.
const ELSEWHERE: [(&str, &[&str], &str, &str); 7] = [
    ("plugin", &["install", "update", "delete", "uninstall"], CODE, BRING),
    ("theme", &["install", "update", "delete"], CODE, BRING),
    (
        "core",
        &["download", "update"],
        CODE,
        "update it in wp-admin, or deploy another WordPress: `pressroom deploy SITE SOURCE`",
    ),
    ("language", &["core", "plugin", "theme"], CODE, "update translations in wp-admin"),
    (
        "config",
        &["create", "set", "delete", "edit", "shuffle-salts"],
        FILE,
        "put constants into a must-use plugin, and PHP's settings into `[site.php]`",
    ),
    ("scaffold", &[], CODE, "scaffold in a checkout, and `pressroom deploy` it"),
    ("maintenance-mode", &["activate"], CODE, "a deploy needs no maintenance mode"),
];

/// Says of arguments for wp-cli whether they ask for something that only another way can do.
pub fn elsewhere(arguments: &[String]) -> Option<Elsewhere> {
    let mut words = arguments.iter().map(String::as_str).filter(|word| !word.starts_with('-'));
    let (first, second) = (words.next()?, words.next());
    let is_meant =
        |verbs: &[&str]| verbs.is_empty() || second.is_some_and(|second| verbs.contains(&second));
    let (_, verbs, because, instead) =
        ELSEWHERE.into_iter().find(|(command, verbs, ..)| *command == first && is_meant(verbs))?;
    // Of languages only a third word changes something.
    let changes = |word| matches!(word, "install" | "update" | "uninstall" | "activate");
    if first == "language" && !words.next().is_some_and(changes) {
        return None;
    }
    let second = second.filter(|_| !verbs.is_empty()).map(|second| format!(" {second}"));
    Some(Elsewhere { command: format!("{first}{}", second.unwrap_or_default()), because, instead })
}

/// What our own commands do of what people use wp-cli for.
pub const OWN: &str = "these need no wp-cli: code (`pressroom deploy`, wp-admin, `pressroom release rollback`), other addresses (`domains` in pressroom.toml, `apply`), \
    upgrades of the database and scheduled events (by themselves), `pressroom cache purge`, copies (`pressroom env create`)";

/// How somebody gets it.
pub const GET: &str = "get wp-cli.phar (github.com/wp-cli/wp-cli, Releases), then say where it is: `--phar FILE`, or `wp_cli = \"FILE\"` in `[wordpress]` of pressroom.toml";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_code_goes_another_way_and_everything_else_is_wp_clis() {
        let asked = |line: &str| {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            elsewhere(&words).map(|elsewhere| elsewhere.command)
        };
        for (line, expected) in [
            ("plugin install akismet --activate", "plugin install"),
            ("--url=https://a.example.com theme delete x", "theme delete"),
            ("core update", "core update"),
            ("language core install de_DE", "language core"),
            ("config set WP_DEBUG true", "config set"),
            ("scaffold plugin x", "scaffold"),
        ] {
            assert_eq!(asked(line).as_deref(), Some(expected), "{line}");
        }
        for line in [
            "",
            "plugin list",
            "plugin activate akismet",
            "option get siteurl",
            "core version",
            "language core list",
            "config get DB_NAME",
            "db query",
            "--info",
        ] {
            assert_eq!(asked(line), None, "{line}");
        }
    }
}
