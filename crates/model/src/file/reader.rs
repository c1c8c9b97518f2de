//! Reads the values of one table of a file, with the defaults of the table of keys.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::check::number_of;
use super::key::{self, Absent, Kind};
use crate::unit::ByteSize;

/// One table of a file, which may be absent; an absent key is read from the table of keys.
pub(super) struct Reader<'a> {
    table: Option<&'a DeTable<'a>>,
    path: &'static str,
    span: Range<usize>,
}

impl<'a> Reader<'a> {
    /// The whole file.
    pub(super) fn of(document: &'a DeTable<'a>) -> Self {
        Self { table: Some(document), path: "", span: 0..0 }
    }

    fn key(&self, name: &str) -> &'static key::Key {
        let path =
            if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        key::find(&path).expect("only keys of the table are asked for")
    }

    fn given(&self, name: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table?.iter().find(|(key, _)| key.get_ref() == name).map(|(_, value)| value)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.given(name).is_some()
    }

    /// The value given, else the default of the table of keys.
    fn value(&self, name: &str) -> Option<DeValue<'a>> {
        if let Some(value) = self.given(name) {
            return Some(value.get_ref().clone());
        }
        match self.key(name).default {
            Absent::Is(text) => {
                Some(DeValue::parse(text).expect("defaults are good values").into_inner())
            }
            _ => None,
        }
    }

    /// The string, if there is one and it is good.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let DeValue::String(text) = self.value(name)? else { return None };
        let is_good = match &self.key(name).kind {
            Kind::Text(_, check) => check(&text).is_ok(),
            _ => true,
        };
        is_good.then(|| text.into_owned())
    }

    /// The good strings of a list.
    pub(super) fn texts(&self, name: &str) -> Vec<String> {
        let Some(DeValue::Array(list)) = self.value(name) else { return Vec::new() };
        let Kind::Texts(_, check) = &self.key(name).kind else { return Vec::new() };
        let texts = list.iter().filter_map(|item| item.get_ref().as_str());
        texts.filter(|text| check(text).is_ok()).map(str::to_owned).collect()
    }

    pub(super) fn list(&self, name: &str) -> Option<&'a toml::de::DeArray<'a>> {
        self.given(name)?.get_ref().as_array()
    }

    /// The good addresses of a list, if the list is there.
    pub(super) fn addresses(&self, name: &str) -> Option<Vec<SocketAddr>> {
        self.list(name)?;
        Some(self.texts(name).iter().filter_map(|text| text.parse().ok()).collect())
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.value(name).and_then(|value| value.as_bool()).unwrap_or_default()
    }

    pub(super) fn number(&self, name: &str) -> Option<u16> {
        let value = self.value(name)?;
        u16::try_from(number_of(value.as_integer()?)?).ok()
    }

    pub(super) fn size(&self, name: &str) -> Option<ByteSize> {
        self.text(name)?.parse().ok()
    }

    /// A string that is parsed; a bad one counts as its default, since it was found before.
    pub(super) fn parsed<T: FromStr>(&self, name: &str) -> T {
        let default = Reader { table: None, path: self.path, span: 0..0 };
        let good = |reader: &Reader<'_>| reader.text(name).and_then(|text| text.parse().ok());
        good(self).or_else(|| good(&default)).expect("every parsed key has a good default")
    }

    pub(super) fn pairs(&self) -> BTreeMap<String, String> {
        let text = |value: &DeValue<'_>| match value {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) => number_of(number).unwrap_or_default().to_string(),
            DeValue::Float(number) => number.to_string(),
            DeValue::Boolean(flag) => if *flag { "1" } else { "0" }.to_owned(),
            _ => String::new(),
        };
        let pairs = self.table.iter().flat_map(|table| table.iter());
        pairs.map(|(name, value)| (name.get_ref().to_string(), text(value.get_ref()))).collect()
    }

    pub(super) fn within(&self, name: &str) -> Reader<'a> {
        let given = self.given(name);
        Reader {
            table: given.and_then(|value| value.get_ref().as_table()),
            path: self.key(name).path,
            span: given.map_or(self.span.clone(), Spanned::span),
        }
    }

    pub(super) fn tables(&self, name: &str) -> Vec<Reader<'a>> {
        let path = self.key(name).path;
        let list = self.list(name).into_iter().flat_map(|list| list.iter());
        list.filter_map(|item| {
            Some(Reader { table: Some(item.get_ref().as_table()?), path, span: item.span() })
        })
        .collect()
    }

    /// Where a value is; where its table is, if it is absent.
    pub(super) fn span_of(&self, name: &str) -> Range<usize> {
        self.given(name).map_or(self.span.clone(), Spanned::span)
    }

    /// Where an item of a list is; where the list or its table is, if the list has no such item.
    pub(super) fn span_of_item(&self, name: &str, n: usize) -> Range<usize> {
        let item = self.list(name).and_then(|list| list.get(n));
        item.map_or_else(|| self.span_of(name), Spanned::span)
    }
}
