//! The worker's table of config fields against the fields of diffusers and transformers; `-- --nocapture` prints it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use evocache_worker::files::config::Config;
use evocache_worker::files::fields::{CLASSES, Use, check};
use serde_json::{Map, Value, json};

/// Fields that classes accept but do not list.
const UNNAMED: [&str; 5] =
    ["quantization_config", "padding_side", "truncation_side", "split_special_tokens", "fast_tokenizer_files"];

fn recorded() -> Map<String, Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/fields.json");
    // Python writes infinities, which are not valid JSON.
    let text = std::fs::read_to_string(path).unwrap().replace("-Infinity", "\"-Infinity\"");
    let mut record: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(record["diffusers"], "0.42.1");
    match record["classes"].take() {
        Value::Object(classes) => classes,
        other => Map::from_iter([("none".into(), other)]),
    }
}

fn with(field: &str, value: &Value) -> Config {
    Config::parse(Path::new("config.json"), &json!({ field: value }).to_string()).unwrap()
}

#[test]
fn every_field_of_every_class_has_a_use() {
    let recorded = recorded();
    for (class, known) in &recorded {
        // The old common class of PixArt and DiT: its fields are theirs, or ignored.
        if class == "Transformer2DModel" {
            continue;
        }
        let (_, fields) = CLASSES.iter().find(|(name, _)| name == class).unwrap();
        for (field, default) in known.as_object().unwrap() {
            let used = fields.iter().find(|(name, _)| name == field).map(|(_, used)| *used);
            println!("{class:<32} {field:<32} {used:?}");
            let used = used.unwrap_or_else(|| unreachable!("{class} has a field '{field}' that the table has not"));
            let fits = match used {
                Use::Read => !default.is_null(),
                Use::ReadOrNull | Use::NoEffect => true,
                Use::Flag => default.is_boolean(),
                // The default of a class is never refused.
                Use::Only(_) => check(&with(field, default), class).is_ok(),
            };
            assert!(fits, "{class}.{field} is {used:?}, its default {default}");
        }
        for (field, _) in *fields {
            assert!(known.get(*field).is_some() || UNNAMED.contains(field), "{class} has no field '{field}'");
        }
    }
    assert_eq!(CLASSES.len() + 1, recorded.len());
}

#[test]
fn an_unsupported_value_is_refused_with_the_name_of_its_field() {
    let mut refused = 0;
    for (class, fields) in CLASSES {
        for (field, used) in *fields {
            let error = |value: Value| check(&with(field, &value), class).err().map(|e| e.to_string());
            match used {
                Use::Only(values) => {
                    for value in [json!("something else"), json!(17), json!(true), json!([0.5]), json!({"bits": 4})] {
                        let text = error(value.clone()).unwrap_or_default();
                        assert!(
                            text.contains(&format!("'config.json', field '{field}': '")),
                            "{class}: {value}: {text}"
                        );
                        assert!(text.contains("is not supported, supported: "), "{text}");
                        refused += 1;
                    }
                    for value in *values {
                        assert_eq!(error(serde_json::from_str(value).unwrap()), None, "{class}.{field}");
                    }
                }
                Use::Read => {
                    assert!(error(Value::Null).unwrap().contains(&format!("field '{field}': expected a value")));
                }
                Use::ReadOrNull | Use::Flag | Use::NoEffect => assert_eq!(error(Value::Null), None, "{class}.{field}"),
            }
        }
    }
    assert!(refused > 150);
}
