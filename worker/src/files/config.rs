//! Reads the JSON configs of diffusers and transformers, with errors that name the file and the field.
//!
//! Python writes `-Infinity`, `Infinity` and `NaN`, which are not valid JSON; they are read as numbers. A `null` field
//! counts as absent; a `null` flag is false.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::error::{ModelError, Result};
use super::text;

/// One JSON object of a config file, with typed access to its fields.
#[derive(Debug, Clone)]
pub struct Config {
    path: PathBuf,
    prefix: String,
    fields: Map<String, Value>,
}

impl Config {
    /// Reads a file whose top level is an object.
    pub fn read(path: &Path) -> Result<Self> {
        let text = text::read(path).map_err(|source| ModelError::Io { path: path.into(), source })?;
        Self::parse(path, &text)
    }

    /// Reads a config of diffusers without the fields listed in `_use_default_values`, for which diffusers uses the
    /// defaults of the class.
    pub fn read_diffusers(path: &Path) -> Result<Self> {
        let mut config = Self::read(path)?;
        if config.has("_use_default_values") {
            for field in config.texts("_use_default_values")? {
                config.fields.shift_remove(&field);
            }
        }
        Ok(config)
    }

    /// Parses `text`, the content of `path`.
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        let failed = |message: String| ModelError::Parse { path: path.into(), message };
        match serde_json::from_str(&quote_non_finite(text)).map_err(|e| failed(e.to_string()))? {
            Value::Object(fields) => Ok(Self { path: path.into(), prefix: String::new(), fields }),
            other => Err(failed(format!("expected an object, found {}", kind(&other)))),
        }
    }

    /// The config's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The error that a field has a wrong type or value.
    pub fn wrong(&self, field: &str, expected: impl Into<String>, found: impl Into<String>) -> ModelError {
        ModelError::Field {
            path: self.path.clone(),
            field: format!("{}{field}", self.prefix),
            expected: expected.into(),
            found: found.into(),
        }
    }

    /// The error that a field's value is not supported.
    pub fn unsupported(&self, field: &str, found: impl ToString, supported: &str) -> ModelError {
        ModelError::Unsupported {
            path: self.path.clone(),
            field: format!("{}{field}", self.prefix),
            found: found.to_string(),
            supported: supported.into(),
        }
    }

    /// The value of a field, or `None` if it is absent or null.
    pub fn value(&self, field: &str) -> Option<&Value> {
        self.get(field)
    }

    /// All fields, including null ones.
    pub fn fields(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.fields.iter()
    }

    fn get(&self, field: &str) -> Option<&Value> {
        self.fields.get(field).filter(|value| !value.is_null())
    }

    fn optional<T>(&self, field: &str, expected: &str, read: impl Fn(&Value) -> Option<T>) -> Result<Option<T>> {
        self.get(field).map(|value| read(value).ok_or_else(|| self.wrong(field, expected, shown(value)))).transpose()
    }

    fn required<T>(&self, field: &str, expected: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| self.wrong(field, expected, "nothing"))
    }

    /// Whether the field is present and not null.
    pub fn has(&self, field: &str) -> bool {
        self.get(field).is_some()
    }

    /// A positive integer, if the field is present.
    pub fn size_opt(&self, field: &str) -> Result<Option<usize>> {
        self.optional(field, "a positive integer", |v| {
            v.as_u64().filter(|&n| n > 0 && n <= 1 << 31).map(|n| n as usize)
        })
    }

    /// A positive integer.
    pub fn size(&self, field: &str) -> Result<usize> {
        let value = self.size_opt(field)?;
        self.required(field, "a positive integer", value)
    }

    /// A positive integer with a default.
    pub fn size_or(&self, field: &str, default: usize) -> Result<usize> {
        Ok(self.size_opt(field)?.unwrap_or(default))
    }

    /// An integer that may be zero or negative, with a default.
    pub fn integer_or(&self, field: &str, default: i64) -> Result<i64> {
        Ok(self.optional(field, "an integer", Value::as_i64)?.unwrap_or(default))
    }

    /// A number, possibly infinite or NaN, if the field is present.
    pub fn number_opt(&self, field: &str) -> Result<Option<f64>> {
        self.optional(field, "a number", number)
    }

    /// A number with a default.
    pub fn number_or(&self, field: &str, default: f64) -> Result<f64> {
        Ok(self.number_opt(field)?.unwrap_or(default))
    }

    /// A Boolean. Null means false, as in Python; the default applies only if the field is absent.
    pub fn flag_or(&self, field: &str, default: bool) -> Result<bool> {
        let default = default && !self.fields.contains_key(field);
        Ok(self.optional(field, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    /// A string, if the field is present.
    pub fn text_opt(&self, field: &str) -> Result<Option<&str>> {
        self.get(field).map(|v| v.as_str().ok_or_else(|| self.wrong(field, "a string", shown(v)))).transpose()
    }

    /// A string.
    pub fn text(&self, field: &str) -> Result<&str> {
        let value = self.text_opt(field)?;
        self.required(field, "a string", value)
    }

    /// A string with a default.
    pub fn text_or<'a>(&'a self, field: &str, default: &'a str) -> Result<&'a str> {
        Ok(self.text_opt(field)?.unwrap_or(default))
    }

    /// A list of positive integers.
    pub fn sizes(&self, field: &str) -> Result<Vec<usize>> {
        let expected = "a list of positive integers";
        let list = self.optional(field, expected, |v| {
            v.as_array()?.iter().map(|n| n.as_u64().filter(|&n| n > 0).map(|n| n as usize)).collect()
        })?;
        self.required(field, expected, list)
    }

    /// A list of strings.
    pub fn texts(&self, field: &str) -> Result<Vec<String>> {
        let expected = "a list of strings";
        let list =
            self.optional(field, expected, |v| v.as_array()?.iter().map(|s| s.as_str().map(str::to_owned)).collect())?;
        self.required(field, expected, list)
    }

    /// A list of numbers, if the field is present.
    pub fn numbers_opt(&self, field: &str) -> Result<Option<Vec<f64>>> {
        self.optional(field, "a list of numbers", |v| v.as_array()?.iter().map(number).collect())
    }

    /// A nested object, if the field is present.
    pub fn object_opt(&self, field: &str) -> Result<Option<Self>> {
        let fields = self.optional(field, "an object", |v| v.as_object().cloned())?;
        Ok(fields.map(|fields| Self { path: self.path.clone(), prefix: format!("{}{field}.", self.prefix), fields }))
    }

    /// A nested object.
    pub fn object(&self, field: &str) -> Result<Self> {
        let value = self.object_opt(field)?;
        self.required(field, "an object", value)
    }

    /// The values of this object's fields, which must all be strings.
    pub fn values(&self) -> Result<Vec<String>> {
        self.fields
            .iter()
            .map(|(field, v)| v.as_str().map(str::to_owned).ok_or_else(|| self.wrong(field, "a string", shown(v))))
            .collect()
    }

    /// The names and values of this object's fields, whose values must all be strings, in the order of the file.
    pub fn texts_by_name(&self) -> Result<Vec<(String, String)>> {
        let read = |(field, v): (&String, &Value)| match v.as_str() {
            Some(text) => Ok((field.clone(), text.to_owned())),
            None => Err(self.wrong(field, "a string", shown(v))),
        };
        self.fields.iter().map(read).collect()
    }

    /// Whether a field is absent, null, or a list of nulls, which diffusers writes for an optional part that a pipeline
    /// does not have.
    pub fn lacks(&self, field: &str) -> bool {
        self.get(field).is_none_or(|value| value.as_array().is_some_and(|list| list.iter().all(Value::is_null)))
    }

    /// The value of a string field, or the default; an error unless it is one of `supported`.
    pub fn choice<'a>(&'a self, field: &str, default: &'a str, supported: &[&str]) -> Result<&'a str> {
        let found = self.text_or(field, default)?;
        if supported.contains(&found) {
            return Ok(found);
        }
        Err(self.unsupported(field, found, &supported.join(", ")))
    }

    /// Fails if a flag is set.
    pub fn not_set(&self, field: &str) -> Result<()> {
        if self.flag_or(field, false)? { Err(self.unsupported(field, true, "false")) } else { Ok(()) }
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::String(text) => match text.as_str() {
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            "NaN" => Some(f64::NAN),
            _ => None,
        },
        other => other.as_f64(),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() > 60 { kind(value).into() } else { text }
}

/// Puts quotes around the words `Infinity`, `-Infinity` and `NaN` outside of strings.
fn quote_non_finite(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if c == '"' {
            let mut escaped = false;
            let end = rest[1..]
                .find(|c| {
                    let close = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    close
                })
                .map_or(rest.len(), |at| at + 2);
            out.push_str(&rest[..end]);
            rest = &rest[end..];
        } else if let Some(word) = ["-Infinity", "Infinity", "NaN"].into_iter().find(|word| rest.starts_with(word)) {
            out.extend(["\"", word, "\""]);
            rest = &rest[word.len()..];
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(Path::new("folder/config.json"), text).unwrap()
    }

    #[test]
    fn python_infinities_are_numbers_and_strings_stay_as_they_are() {
        let c = config(r#"{"a": -Infinity, "b": [Infinity, 1], "c": "NaN \" -Infinity", "d": NaN}"#);
        assert_eq!(c.number_opt("a").unwrap(), Some(f64::NEG_INFINITY));
        assert_eq!(c.numbers_opt("b").unwrap(), Some(vec![f64::INFINITY, 1.0]));
        assert_eq!(c.text("c").unwrap(), "NaN \" -Infinity");
        assert!(c.number_opt("d").unwrap().unwrap().is_nan());
    }

    #[test]
    fn errors_name_file_field_and_what_was_found() {
        let c = config(r#"{"layers": "two", "text_config": {"hidden_size": -1}, "kind": "unet", "none": null}"#);
        let nested = c.object("text_config").unwrap();
        for (error, wanted) in [
            (
                c.size("layers").unwrap_err(),
                r#"'folder/config.json', field 'layers': expected a positive integer, found "two""#,
            ),
            (
                c.size("none").unwrap_err(),
                "'folder/config.json', field 'none': expected a positive integer, found nothing",
            ),
            (
                nested.size("hidden_size").unwrap_err(),
                "'folder/config.json', field 'text_config.hidden_size': expected a positive integer, found -1",
            ),
            (
                c.choice("kind", "dit", &["dit", "sit"]).unwrap_err(),
                "'folder/config.json', field 'kind': 'unet' is not supported, supported: dit, sit",
            ),
        ] {
            assert_eq!(error.to_string(), wanted);
        }
        let error = Config::parse(Path::new("x.json"), "{").unwrap_err().to_string();
        assert!(error.starts_with("'x.json' cannot be parsed: "), "{error}");
    }
}
