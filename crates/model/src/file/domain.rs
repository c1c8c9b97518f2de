//! Host names, as sites are reached by them.

/// Whether `name` can be a site's domain: host name syntax, optionally `*.` in front for one label.
pub fn check(name: &str) -> Result<(), String> {
    let rest = name.strip_prefix("*.").unwrap_or(name);
    let why = if name.contains("://") {
        "write the host name alone, without `https://`"
    } else if name.contains(':') {
        "write it without a port; ports are in `[edge]`"
    } else if name.contains('/') {
        "write the host name alone, without a path"
    } else if !name.is_ascii() {
        "write an international name in its ASCII form (`xn--…`)"
    } else if rest.is_empty() || rest.len() > 253 {
        "it must have between 1 and 253 characters"
    } else if rest.contains('*') {
        "`*` can only stand for the whole first label, as in `*.example.com`"
    } else if !rest.split('.').all(is_label) {
        "its labels have 1 to 63 letters, digits and `-`, and no `-` at an end"
    } else if rest.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit())) {
        "an address is no host name"
    } else {
        return Ok(());
    };
    Err(why.to_owned())
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_domain_is_a_host_name_and_nothing_more() {
        for good in [
            "localhost",
            "blog.example.com",
            "*.example.com",
            "xn--bcher-kva.example",
            "1a.de",
            "A.de",
        ] {
            assert_eq!(super::check(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "https://a.de",
            "a.de:8443",
            "a.de/x",
            "bücher.de",
            "a..b",
            "-a.de",
            "a-.de",
            "*",
            "a.*.de",
            "*.*.de",
            "10.0.0.1",
            "a b",
            "a_b.de",
            "a.de.",
            ".de",
        ] {
            assert!(super::check(bad).is_err(), "{bad}");
        }
    }
}
