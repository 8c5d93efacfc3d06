//! The events as an AsyncAPI document: <https://www.asyncapi.com/docs/reference/specification/v3.0.0>.
//!
//! What it has no words for (acks) is said by its own means: the reply to an operation.

use serde_json::{Map, Value, json};

use super::{
    pascal_case,
    schema::{self, insert},
    table::{Auth, COMMANDS, Command, Delivery, EVENTS},
};
use crate::chat::Code;

/// What does not come from the table.
const DOCUMENT: &str = concat!(
    r##"{
        "asyncapi": "3.0.0",
        "info": {
            "title": ""##,
    env!("CARGO_PKG_NAME"),
    r##"",
            "version": ""##,
    env!("CARGO_PKG_VERSION"),
    r##"",
            "description": "Real-time chat and notifications for meetings, over Socket.IO 5 (Engine.IO 4), by WebSocket or long-polling. Every event has one argument. Every event of a client may ask for an ack; one that is refused without having asked is answered by `chat_error`. Pages have to show texts as text, never as HTML.",
            "license": { "name": ""##,
    env!("CARGO_PKG_LICENSE"),
    r##"" }
        },
        "defaultContentType": "application/json",
        "servers": {
            "service": {
                "host": "{host}",
                "pathname": "/socket.io/",
                "protocol": "socket.io",
                "protocolVersion": "5",
                "variables": { "host": { "default": "localhost:5003" } },
                "security": [{ "$ref": "#/components/securitySchemes/token" }]
            }
        },
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "In the CONNECT's payload, or in the header Authorization. Not with AUTH_MODE=none."
                }
            }
        }
    }"##
);

pub(super) fn document() -> Value {
    let mut messages = Map::new();
    let mut operations = Map::new();
    let mut add = |name: &str, message: Value| _ = messages.insert(name.into(), message);

    add("CONNECT", message("CONNECT", "The packet that joins the namespace.", &schema::reference("ConnectAuth")));
    add(
        "CONNECT_ERROR",
        message("CONNECT_ERROR", "The packet that refuses a CONNECT.", &schema::reference("ConnectRefusal")),
    );
    let mut connect = operation("receive", "Joins the namespace; `ready` is the first event.", "CONNECT");
    add_reply(&mut connect, "CONNECT_ERROR");
    add_errors(&mut connect, &[Code::LimitReached]);
    add_more_errors(&mut connect);
    operations.insert("receive_CONNECT".into(), connect);

    for command in COMMANDS {
        let name = pascal_case(command.name);
        let (sent, ack) = (format!("{}.request", command.name), format!("{}.ack", command.name));
        add(&sent, message(command.name, command.about, &schema::reference(&format!("{name}Payload"))));
        add(&ack, message(&ack, "The ack.", &schema::reference(&format!("{name}Ack"))));
        operations.insert(format!("receive_{}", command.name), receive(command, &sent, &ack));
    }
    for event in EVENTS {
        let schema = schema::reference(&format!("{}Event", pascal_case(event.name)));
        add(event.name, message(event.name, event.about, &schema));
        let mut operation = operation("send", event.about, event.name);
        let delivery = match event.delivery {
            Delivery::Logged => "logged",
            Delivery::Live => "live",
            Delivery::Volatile => "volatile",
        };
        insert(&mut operation, "x-delivery", delivery.into());
        operations.insert(format!("send_{}", event.name), operation);
    }
    let references: Map<_, _> = messages
        .keys()
        .map(|name| (name.clone(), json!({ "$ref": format!("#/components/messages/{name}") })))
        .collect();
    let schemas = schema::needed_by(&Value::Object(messages.clone()));
    let mut document = schema::fixed(DOCUMENT);
    insert(
        &mut document,
        "channels",
        json!({ "namespace": { "address": "/", "title": "The only namespace.", "messages": references } }),
    );
    insert(&mut document, "operations", operations.into());
    if let Some(components) = document.get_mut("components") {
        insert(components, "messages", messages.into());
        insert(components, "schemas", schemas.into());
    }
    document
}

fn message(name: &str, about: &str, payload: &Value) -> Value {
    json!({ "name": name, "summary": about, "payload": payload })
}

fn receive(command: &Command, sent: &str, ack: &str) -> Value {
    let mut operation = operation("receive", command.about, sent);
    add_reply(&mut operation, ack);
    add_errors(&mut operation, command.errors);
    operation
}

fn operation(action: &str, about: &str, message: &str) -> Value {
    json!({
        "action": action,
        "summary": about,
        "channel": { "$ref": "#/channels/namespace" },
        "messages": [{ "$ref": format!("#/channels/namespace/messages/{message}") }],
    })
}

fn add_reply(operation: &mut Value, message: &str) {
    let reply = json!({
        "channel": { "$ref": "#/channels/namespace" },
        "messages": [{ "$ref": format!("#/channels/namespace/messages/{message}") }],
    });
    insert(operation, "reply", reply);
}

fn add_errors(operation: &mut Value, errors: &[Code]) {
    insert(operation, "x-errors", errors.iter().map(|code| code.as_str()).collect());
}

/// What any token may be refused with.
fn add_more_errors(operation: &mut Value) {
    let more = Auth::User.errors().iter().map(|code| Value::from(code.as_str()));
    if let Some(errors) = operation.get_mut("x-errors").and_then(Value::as_array_mut) {
        errors.extend(more);
    }
}
