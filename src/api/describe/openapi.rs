//! The paths as an OpenAPI document: <https://spec.openapis.org/oas/v3.1.0>.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    schema::{self, insert},
    table::{Auth, Content, ENDPOINTS, Endpoint, Field},
};
use crate::chat::Code;

/// What does not come from the table.
const DOCUMENT: &str = concat!(
    r##"{
        "openapi": "3.1.0",
        "info": {
            "title": ""##,
    env!("CARGO_PKG_NAME"),
    r##"",
            "version": ""##,
    env!("CARGO_PKG_VERSION"),
    r##"",
            "description": "The chat's other door: the same commands over HTTP, for users and for other services. Where GET is, HEAD is too.",
            "license": { "name": ""##,
    env!("CARGO_PKG_LICENSE"),
    r##"", "identifier": ""##,
    env!("CARGO_PKG_LICENSE"),
    r##"" }
        },
        "components": {
            "responses": {
                "HttpRefusal": {
                    "description": "HTTP itself refuses it. The same object, its code one of bad_request, method_not_allowed, request_timeout, uri_too_long, expectation_failed, headers_too_large, not_implemented and version_not_supported, or one that the chat has as well.",
                    "content": { "application/json": { "schema": { "$ref": "#/components/schemas/HttpRefusal" } } }
                }
            },
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "A user's token, the same as for the events. Not needed with AUTH_MODE=none."
                },
                "key": { "type": "apiKey", "in": "header", "name": "X-API-Key", "description": "CHAT_API_KEY." },
                "service": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "A token of the role `service`."
                }
            }
        }
    }"##
);
const REFUSAL: &str = r##"{
    "type": "object",
    "properties": { "error": { "$ref": "#/components/schemas/ErrorObject" } },
    "required": ["error"]
}"##;
/// Of what is refused before it reaches the chat.
const HTTP_REFUSAL: &str = r#"{
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "code": { "type": "string" },
                "message": { "type": "string" },
                "retry_after_ms": { "type": "integer" },
                "request_id": { "type": "string" }
            },
            "required": ["code", "message"]
        }
    },
    "required": ["error"]
}"#;
/// A body of another type than JSON.
const UNSUPPORTED: u16 = 415;

pub(super) fn document(prefix: &str) -> Value {
    let mut paths = Map::new();
    for endpoint in ENDPOINTS {
        let methods = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        if let Some(methods) = methods.as_object_mut() {
            methods.insert(endpoint.method.to_lowercase(), operation(endpoint));
        }
    }
    let refusal = schema::fixed(REFUSAL);
    let paths = Value::Object(paths);
    let mut schemas = schema::needed_by(&paths);
    schemas.append(&mut schema::needed_by(&refusal));
    schemas.insert("Refusal".into(), refusal);
    schemas.insert("HttpRefusal".into(), schema::fixed(HTTP_REFUSAL));
    let mut document = schema::fixed(DOCUMENT);
    insert(&mut document, "servers", json!([{ "url": prefix }]));
    insert(&mut document, "paths", paths);
    if let Some(components) = document.get_mut("components") {
        insert(components, "schemas", schemas.into());
    }
    document
}

fn operation(endpoint: &Endpoint) -> Value {
    let security = schema::fixed(match endpoint.auth {
        Auth::Nobody => "[]",
        Auth::User => r#"[{ "token": [] }]"#,
        Auth::Service => r#"[{ "key": [] }, { "service": [] }]"#,
    });
    let mut operation = json!({ "operationId": operation_id(endpoint), "summary": endpoint.about });
    insert(&mut operation, "security", security);
    insert(&mut operation, "responses", responses(endpoint));
    let parameters = parameters(endpoint);
    if !parameters.is_empty() {
        insert(&mut operation, "parameters", parameters.into());
    }
    if let Some(body) = endpoint.body {
        insert(&mut operation, "requestBody", json!({ "required": true, "content": json_content(&schema::of(body)) }));
    }
    operation
}

/// `GET /meetings/{meeting_id}/messages` as `get_meetings_messages`.
fn operation_id(endpoint: &Endpoint) -> String {
    let words = endpoint.path.split(['/', '.']).filter(|word| !word.is_empty() && !word.starts_with('{'));
    words.fold(endpoint.method.to_lowercase(), |id, word| id + "_" + word)
}

fn parameters(endpoint: &Endpoint) -> Vec<Value> {
    let mut parameters = Vec::new();
    for name in endpoint.path.split('/').filter_map(|word| word.strip_prefix('{')?.strip_suffix('}')) {
        let kind = match name {
            "meeting_id" => "MeetingId",
            "user_id" => "UserId",
            _ => "MessageId",
        };
        parameters.push(json!({ "name": name, "in": "path", "required": true, "schema": schema::reference(kind) }));
    }
    for Field { name, kind, is_required, about } in endpoint.query {
        let (schema, required) = (schema::of(*kind), is_required);
        parameters
            .push(json!({ "name": name, "in": "query", "required": required, "description": about, "schema": schema }));
    }
    if endpoint.has_key {
        parameters.push(json!({
            "name": "Idempotency-Key",
            "in": "header",
            "description": "Goes before the body's `client_id`.",
            "schema": schema::reference("ClientId"),
        }));
    }
    parameters
}

fn responses(endpoint: &Endpoint) -> Value {
    let mut responses = Map::new();
    for (status, content) in endpoint.answers {
        let response = match content {
            Content::Empty => json!({ "description": "Done." }),
            Content::Json(kind) => json!({ "description": "The answer.", "content": json_content(&schema::of(*kind)) }),
            Content::Other(media_type) => {
                json!({ "description": "The answer.", "content": { *media_type: { "schema": { "type": "string" } } } })
            }
        };
        responses.insert(status.to_string(), response);
    }
    let mut refusals: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    for code in endpoint.auth.errors().iter().chain(endpoint.errors) {
        let codes = refusals.entry(code.status()).or_default();
        if !codes.contains(&code.as_str()) {
            codes.push(code.as_str());
        }
    }
    if endpoint.body.is_some() {
        refusals.insert(UNSUPPORTED, vec![Code::InvalidPayload.as_str()]);
    }
    for (status, codes) in refusals {
        let refusal =
            json!({ "description": codes.join(", "), "content": json_content(&schema::reference("Refusal")) });
        responses.insert(status.to_string(), refusal);
    }
    responses.insert("default".into(), json!({ "$ref": "#/components/responses/HttpRefusal" }));
    responses.into()
}

fn json_content(schema: &Value) -> Value {
    json!({ "application/json": { "schema": schema } })
}
