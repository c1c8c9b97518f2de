//! Whether a tree is a WordPress, and which.

/// What every WordPress since 4.0 has.
const NEEDED: [&str; 7] = [
    "index.php",
    "wp-load.php",
    "wp-settings.php",
    "wp-login.php",
    "wp-admin/admin.php",
    "wp-includes/version.php",
    "wp-includes/functions.php",
];

/// What is missing for a WordPress; empty: it is one.
pub fn missing(has: impl Fn(&str) -> bool) -> Vec<&'static str> {
    NEEDED.into_iter().filter(|path| !has(path)).collect()
}

/// The version in `wp-includes/version.php`: `$wp_version = '6.1.9';`.
pub fn version(version_php: &str) -> Option<&str> {
    let line =
        version_php.lines().map(str::trim_start).find(|line| line.starts_with("$wp_version"))?;
    let (_, value) = line.split_once('=')?;
    let value = value.trim().strip_suffix(';')?.trim();
    let value = value
        .strip_prefix('\'')
        .and_then(|v| v.strip_suffix('\''))
        .or_else(|| value.strip_prefix('"')?.strip_suffix('"'))?;
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"._+-".contains(&b);
    (value.starts_with(|c: char| c.is_ascii_digit())
        && value.len() < 64
        && value.bytes().all(is_plain))
    .then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_as_wordpress_writes_it() {
        let check = |text: &str, expected| assert_eq!(version(text), expected, "{text}");
        check(
            "<?php\n * @global string $wp_version\n$wp_version = '6.1.9';\n$wp_db_version = 1;",
            Some("6.1.9"),
        );
        check("$wp_version = \"6.9-RC1\";", Some("6.9-RC1"));
        check("$wp_version = getenv('X');", None);
        check("$wp_version = '6.1\n9';", None);
        check("", None);
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(missing(|_| true).is_empty());
        assert_eq!(missing(|path| path != "wp-login.php"), ["wp-login.php"]);
    }
}
