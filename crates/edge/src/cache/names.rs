//! Sets of names in which an entry may be exact (`fbclid`) or a beginning (`utm_*`).

/// A set of names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    exact: Vec<Box<str>>,
    beginnings: Vec<Box<str>>,
}

impl Names {
    /// Reads a list as it stands in the configuration.
    pub fn new<'a>(list: impl IntoIterator<Item = &'a str>) -> Self {
        let mut names = Self::default();
        for name in list.into_iter().map(str::trim).filter(|name| !name.is_empty()) {
            match name.strip_suffix('*') {
                Some(beginning) => names.beginnings.push(beginning.into()),
                None => names.exact.push(name.into()),
            }
        }
        names.exact.sort_unstable();
        names.exact.dedup();
        names
    }

    /// Whether a name is in the set.
    pub fn contains(&self, name: &str) -> bool {
        self.exact.binary_search_by(|known| (**known).cmp(name)).is_ok()
            || self.beginnings.iter().any(|beginning| name.starts_with(&**beginning))
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.beginnings.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_at_the_end_means_any_ending() {
        let names = Names::new(["utm_*", "fbclid", " gclid ", ""]);
        for (name, within) in [
            ("utm_source", true),
            ("utm_", true),
            ("utm", false),
            ("fbclid", true),
            ("fbclid2", false),
            ("gclid", true),
            ("", false),
        ] {
            assert_eq!(names.contains(name), within, "{name}");
        }
        assert!(Names::new(["*"]).contains("anything"));
    }
}
