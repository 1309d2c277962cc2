//! Holds what `--json` prints against `deploy/schema/evocache.schema.json`: each field is there, is described, and is what
//! it is said to be. Knows as much of JSON Schema as that file uses.

use serde_json::Value;

/// The schema.
fn schema() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/schema/evocache.schema.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Whether the schema says what a verb prints.
pub(crate) fn describes(verb: &str) -> bool {
    schema()["outputs"][verb].is_object()
}

/// Checks that a verb's output is as the schema says.
#[track_caller]
pub(crate) fn holds(verb: &str, output: &Value) {
    let schema = schema();
    let shape = &schema["outputs"][verb];
    assert!(shape.is_object(), "the schema does not say what `{verb}` prints");
    if let Err(problem) = check(&schema, shape, output, verb) {
        panic!("{problem}");
    }
}

fn check(schema: &Value, shape: &Value, value: &Value, path: &str) -> Result<(), String> {
    if let Some(name) = shape["$ref"].as_str() {
        let name = name.strip_prefix("#/$defs/").ok_or(format!("{path}: reference {name}"))?;
        let shape = schema["$defs"].get(name).ok_or(format!("{path}: no definition of {name}"))?;
        return check(schema, shape, value, path);
    }
    if let Some(shapes) = shape["anyOf"].as_array() {
        let problems: Vec<String> = shapes.iter().filter_map(|shape| check(schema, shape, value, path).err()).collect();
        return if problems.len() < shapes.len() { Ok(()) } else { Err(problems.join("; or ")) };
    }
    if let Some(values) = shape["enum"].as_array() {
        return if values.contains(value) { Ok(()) } else { Err(format!("{path}: {value} is none of {values:?}")) };
    }
    let is = |name: &str| match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        _ => false,
    };
    let fits = match &shape["type"] {
        Value::String(name) => is(name),
        Value::Array(names) => names.iter().filter_map(Value::as_str).any(is),
        other => return Err(format!("{path}: type {other} in the schema")),
    };
    if !fits {
        return Err(format!("{path}: {value} is no {}", shape["type"]));
    }
    for (i, item) in value.as_array().into_iter().flatten().enumerate() {
        check(schema, &shape["items"], item, &format!("{path}[{i}]"))?;
    }
    let Some(fields) = value.as_object() else { return Ok(()) };
    for name in shape["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        fields.get(name).ok_or(format!("{path}: '{name}' is missing"))?;
    }
    for (name, field) in fields {
        let path = format!("{path}.{name}");
        match (shape["properties"].get(name), &shape["additionalProperties"]) {
            (Some(shape), _) | (None, shape @ Value::Object(_)) => check(schema, shape, field, &path)?,
            (None, Value::Bool(false)) => return Err(format!("{path} is not described")),
            (None, _) => {}
        }
    }
    Ok(())
}

#[test]
fn what_is_not_as_described_is_found() {
    let sampling = serde_json::json!({
        "steps": [4], "guidance_scale": 3.0, "height": null, "width": null, "negative_prompt": "", "grids": [],
    });
    let made_for = serde_json::json!({ "search_id": "s", "model": "m", "fingerprint": null, "sampling": sampling });
    let best = serde_json::json!({
        "made_for": made_for, "speedup": 2.0, "quality_metric": "x", "quality_ratio": null,
    });
    let (schema, shape) = (schema(), schema()["outputs"]["best"].clone());
    let check = |value: &Value| check(&schema, &shape, value, "best").unwrap_err();
    assert!(check(&best).contains("is missing"));
    let mut wrong = best;
    wrong["speedup"] = "2.0".into();
    wrong["reference_latencies"] = Value::Array(vec![]);
    wrong["evaluation"] = Value::Null;
    wrong["baseline"] = Value::Null;
    assert!(check(&wrong).contains("is no"), "{}", check(&wrong));
    let mut more = wrong;
    more["luck"] = 7.into();
    assert!(!check(&more).is_empty());
}
