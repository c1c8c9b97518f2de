//! The same functions in templates of Jinja's syntax; the fields of pairs and services are `key`, `value`, `target`, `port` ….

use std::collections::BTreeMap;
use std::sync::Arc;

use minijinja::value::{Rest, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior};
use pressroom_gotemplate::{Functions, Value};

use super::FillError;

/// Fills `source`; a name that is not there is a fault.
pub(super) fn fill(name: &str, source: &str, functions: Functions) -> Result<String, FillError> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    let names: Vec<String> = functions.names().map(str::to_owned).collect();
    let functions = Arc::new(functions);
    for function in names {
        let all = Arc::clone(&functions);
        let called = function.clone();
        environment.add_function(function, move |arguments: Rest<minijinja::Value>| {
            let arguments: Result<Vec<Value>, Error> = arguments.0.iter().map(taken).collect();
            match all.call(&called, &arguments?) {
                Some(Ok(value)) => Ok(given(&value)),
                Some(Err(refused)) => {
                    Err(Error::new(ErrorKind::InvalidOperation, format!("{called}: {refused}")))
                }
                None => Err(Error::new(ErrorKind::UnknownFunction, called.clone())),
            }
        });
    }
    let fault = |error: &Error| FillError::Jinja {
        template: name.to_owned(),
        line: error.line().unwrap_or(1),
        what: error.detail().map_or_else(|| error.kind().to_string(), str::to_owned),
    };
    let template = environment.template_from_named_str(name, source).map_err(|e| fault(&e))?;
    let mut text = template.render(()).map_err(|error| fault(&error))?;
    // Jinja takes the last line's end off a template.
    if source.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// A value of Jinja's as an argument.
fn taken(value: &minijinja::Value) -> Result<Value, Error> {
    let bad = || Error::new(ErrorKind::InvalidOperation, format!("cannot take a {}", value.kind()));
    Ok(match value.kind() {
        ValueKind::Undefined | ValueKind::None => Value::Nil,
        ValueKind::Bool => value.is_true().into(),
        ValueKind::Number => match i64::try_from(value.clone()) {
            Ok(whole) => Value::Int(whole),
            Err(_) => Value::Float(f64::try_from(value.clone()).map_err(|_| bad())?),
        },
        ValueKind::String => value.as_str().unwrap_or_default().into(),
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Result<Vec<Value>, Error> =
                value.try_iter()?.map(|item| taken(&item)).collect();
            Value::list(items?)
        }
        ValueKind::Map => {
            let mut pairs = Vec::new();
            for key in value.try_iter()? {
                pairs.push((key.to_string(), taken(&value.get_item(&key)?)?));
            }
            Value::map(pairs)
        }
        _ => return Err(bad()),
    })
}

/// An answer as a value of Jinja's.
fn given(value: &Value) -> minijinja::Value {
    match value {
        Value::Absent | Value::Nil => minijinja::Value::from(()),
        Value::Bool(it) => (*it).into(),
        Value::Int(it) => (*it).into(),
        #[expect(clippy::cast_possible_truncation, reason = "it is whole, and far below 2^63")]
        Value::Float(it) if it.fract() == 0.0 && it.abs() < 9e15 => (*it as i64).into(),
        Value::Float(it) => (*it).into(),
        Value::String(it) => it.as_ref().into(),
        Value::List(it) => it.iter().map(given).collect(),
        Value::Map(it) => map(it.iter().map(|(key, value)| (key.clone(), given(value)))),
        Value::Object(it) => {
            let fields = it.fields();
            if fields.is_empty() {
                return it.text().into();
            }
            map(fields.into_iter().map(|(name, value)| (name.to_lowercase(), given(&value))))
        }
    }
}

fn map(pairs: impl Iterator<Item = (String, minijinja::Value)>) -> minijinja::Value {
    minijinja::Value::from(pairs.collect::<BTreeMap<String, minijinja::Value>>())
}
