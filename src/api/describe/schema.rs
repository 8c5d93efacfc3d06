//! The table's types as JSON Schema: in OpenAPI 3.1 that is draft 2020-12, in AsyncAPI 3.0 a superset of draft 07. What
//! is used here means the same in both; where it would not, beside a `$ref`, there is nothing.

use serde_json::{Map, Value, json};

use super::{
    Definition, What, definitions, pascal_case,
    table::{Delivery, EVENTS, Event, Field, Type},
};
use crate::chat::Code;

const INTEGER_MAX: u64 = (1 << 53) - 1;
const SCHEMAS: &str = "#/components/schemas/";

/// A part of a document that is the same every time. Written as text: code that builds it would be many times as long.
pub(super) fn fixed(json: &str) -> Value {
    // A test reads them all.
    serde_json::from_str(json).unwrap_or_default()
}

/// Puts a member into an object.
pub(super) fn insert(object: &mut Value, name: &str, value: Value) {
    if let Some(members) = object.as_object_mut() {
        members.insert(name.into(), value);
    }
}

/// What a value may be.
pub(super) fn of(kind: Type) -> Value {
    match kind {
        Type::Any => json!({}),
        Type::Null => json!({ "type": "null" }),
        Type::Flag => json!({ "type": "boolean" }),
        Type::True => json!({ "const": true }),
        Type::Integer => json!({ "type": "integer", "minimum": 0, "maximum": INTEGER_MAX }),
        Type::AnyInteger => json!({ "type": "integer" }),
        Type::Text => json!({ "type": "string" }),
        Type::Chars(min, max) => json!({ "type": "string", "minLength": min, "maxLength": max }),
        Type::Matching(pattern) => json!({ "type": "string", "pattern": format!("^{pattern}$") }),
        Type::Names(names) => json!({ "type": "string", "enum": names }),
        Type::Object => json!({ "type": "object" }),
        Type::Fields(fields) => object(fields),
        Type::List(item) => json!({ "type": "array", "items": of(*item) }),
        Type::Map(value) => json!({ "type": "object", "additionalProperties": of(*value) }),
        Type::Either(kinds) => json!({ "anyOf": kinds.iter().copied().map(of).collect::<Vec<_>>() }),
        Type::Named(name) => reference(name),
        Type::AnyLogged => {
            let items = logged().map(|event| {
                let name = json!({ "type": "object", "properties": { "event": { "const": event.name } }, "required": ["event"] });
                json!({ "allOf": [name, reference(&format!("{}Event", pascal_case(event.name)))] })
            });
            json!({ "oneOf": items.collect::<Vec<_>>() })
        }
    }
}

/// What a field may be, and what it means.
pub(super) fn of_field(field: &Field) -> Value {
    let schema = of(field.kind);
    if field.about.is_empty() {
        return schema;
    }
    match schema {
        Value::Object(mut members) if !members.contains_key("$ref") => {
            members.insert("description".into(), field.about.into());
            Value::Object(members)
        }
        schema => json!({ "allOf": [schema], "description": field.about }),
    }
}

pub(super) fn reference(name: &str) -> Value {
    json!({ "$ref": format!("{SCHEMAS}{name}") })
}

pub(super) fn logged() -> impl Iterator<Item = &'static Event> {
    EVENTS.iter().filter(|event| event.delivery == Delivery::Logged)
}

/// The schemas that `document` refers to, and those that these refer to.
pub(super) fn needed_by(document: &Value) -> Map<String, Value> {
    let mut needed = Map::new();
    let mut wanted = Vec::new();
    find_references(document, &mut wanted);
    while let Some(name) = wanted.pop() {
        if needed.contains_key(&name) {
            continue;
        }
        // A name that nothing has stays a reference to nowhere, which a test finds.
        if let Some(definition) = definitions().find(|definition| definition.name == name) {
            let schema = define(&definition);
            find_references(&schema, &mut wanted);
            needed.insert(name, schema);
        }
    }
    needed
}

fn find_references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            if let Some(name) = members.get("$ref").and_then(Value::as_str).and_then(|to| to.strip_prefix(SCHEMAS)) {
                found.push(name.to_owned());
            }
            members.values().for_each(|member| find_references(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| find_references(item, found)),
        _ => {}
    }
}

fn define(definition: &Definition) -> Value {
    let schema = match definition.what {
        What::Type(kind) => of(kind),
        What::Codes => json!({ "type": "string", "enum": Code::ALL.map(Code::as_str) }),
        What::LoggedNames => json!({ "type": "string", "enum": logged().map(|event| event.name).collect::<Vec<_>>() }),
        What::Ack(command) => {
            let ok =
                |ok: bool| json!({ "type": "object", "properties": { "ok": { "const": ok } }, "required": ["ok"] });
            let error =
                json!({ "type": "object", "properties": { "error": reference("ErrorObject") }, "required": ["error"] });
            let answer = reference(&format!("{}Answer", pascal_case(command.name)));
            json!({ "oneOf": [{ "allOf": [ok(true), answer] }, { "allOf": [ok(false), error] }] })
        }
    };
    match schema {
        Value::Object(mut members) if !definition.about.is_empty() && !members.contains_key("$ref") => {
            members.insert("description".into(), definition.about.into());
            Value::Object(members)
        }
        schema => schema,
    }
}

fn object(fields: &[Field]) -> Value {
    let properties: Map<_, _> = fields.iter().map(|field| (field.name.to_owned(), of_field(field))).collect();
    let required: Vec<_> = fields.iter().filter(|field| field.is_required).map(|field| field.name).collect();
    let mut object = Map::from_iter([("type".to_owned(), "object".into()), ("properties".into(), properties.into())]);
    // Draft 04 and its tools take no empty list.
    if !required.is_empty() {
        object.insert("required".into(), required.into());
    }
    object.into()
}
