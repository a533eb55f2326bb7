//! A validator for the keywords of JSON Schema (draft 2020-12) that the schema of the configuration uses.

use serde_json::{Map, Value};

/// Whether a value fits a schema, at a path. Another keyword than those used by ours is a panic.
pub(crate) fn fits(value: &Value, schema: &Value, at: &str) -> Result<(), String> {
    let must = |holds: bool, keyword: &str| match holds {
        true => Ok(()),
        false => Err(format!("{at}: {keyword} does not hold for {value}")),
    };
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let members = value.as_object().map_or(0, Map::len) as f64;
    let object = value.as_object().into_iter().flatten();
    for (keyword, wanted) in schema.as_object().unwrap() {
        match keyword.as_str() {
            "$schema" | "title" | "description" => (),
            "type" => must(has_type(value, wanted.as_str().unwrap()), keyword)?,
            "enum" => must(wanted.as_array().unwrap().contains(value), keyword)?,
            "minimum" => must(!value.is_number() || number(wanted) <= number(value), keyword)?,
            "maximum" => must(!value.is_number() || number(value) <= number(wanted), keyword)?,
            "minProperties" => must(!value.is_object() || number(wanted) <= members, keyword)?,
            "maxProperties" => must(!value.is_object() || members <= number(wanted), keyword)?,
            "pattern" => {
                let pattern = regex_lite::Regex::new(wanted.as_str().unwrap()).unwrap();
                must(value.as_str().is_none_or(|it| pattern.is_match(it)), keyword)?;
            }
            "anyOf" => {
                let mut forms = wanted.as_array().unwrap().iter();
                must(forms.any(|form| fits(value, form, at).is_ok()), keyword)?;
            }
            "items" => {
                for item in value.as_array().into_iter().flatten() {
                    fits(item, wanted, at)?;
                }
            }
            "required" => {
                for name in wanted.as_array().unwrap().iter().filter_map(|it| it.as_str()) {
                    must(value.get(name).is_some(), &format!("required {name}"))?;
                }
            }
            "properties" | "propertyNames" => (),
            "additionalProperties" => {
                for (name, member) in object.clone() {
                    let at = format!("{at}/{name}");
                    let named = schema.get("properties").and_then(|it| it.get(name));
                    match named.unwrap_or(wanted) {
                        Value::Bool(false) => return Err(format!("{at} is not known")),
                        form => fits(member, form, &at)?,
                    }
                    if let Some(form) = schema.get("propertyNames") {
                        fits(&Value::from(name.as_str()), form, &at)?;
                    }
                }
            }
            other => panic!("{at}: a validator for {other}"),
        }
    }
    Ok(())
}

fn has_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        other => panic!("type {other}"),
    }
}
