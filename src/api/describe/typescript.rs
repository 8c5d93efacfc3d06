//! The events as types for socket.io-client: `Socket<ServerToClientEvents, ClientToServerEvents>`.

use std::fmt::Write as _;

use super::{
    What, definitions, pascal_case, schema,
    table::{COMMANDS, Delivery, EVENTS, Field, Type},
};
use crate::chat::Code;

const HEAD: &str = concat!(
    "// The events of ",
    env!("CARGO_PKG_NAME"),
    " ",
    env!("CARGO_PKG_VERSION"),
    ", for socket.io-client:
//
//   import { io, type Socket } from \"socket.io-client\";
//   import type { ClientToServerEvents, ServerToClientEvents } from \"./events\";
//
//   const socket: Socket<ServerToClientEvents, ClientToServerEvents> = io(url, { auth: { token } });
//
// Made by the service; do not edit.

/** Any JSON; in `message` also binary data. */
export type Json = unknown;

/** What a command is acked with. */
export type Ack<Answer> = ({ ok: true } & Answer) | { ok: false; error: ErrorObject };

/**
 * The same events with acks that may be left out: `Socket<ServerToClientEvents, OptionalAcks<ClientToServerEvents>>`. The
 * price is that `emitWithAck` then checks nothing.
 */
export type OptionalAcks<Events> = {
  [Name in keyof Events]: Events[Name] extends (payload: infer Payload, ack: infer Answer) => void
    ? (payload: Payload, ack?: Answer) => void
    : never;
};
"
);

pub(super) fn declarations() -> String {
    let mut out = HEAD.to_owned();
    for definition in definitions() {
        let name = &definition.name;
        let declaration = match definition.what {
            What::Type(Type::Fields(fields)) => format!("interface {name} {}", object(fields, 0)),
            What::Type(kind) => format!("type {name} = {};", of(kind, 0)).replace("= \n", "=\n"),
            What::Codes => format!("type {name} =\n  | {};", quoted(Code::ALL.map(Code::as_str), "\n  | ")),
            What::LoggedNames => format!("type {name} = {};", quoted(schema::logged().map(|event| event.name), " | ")),
            What::Ack(command) => format!("type {name} = Ack<{}Answer>;", pascal_case(command.name)),
        };
        out.push('\n');
        comment(&mut out, definition.about, "");
        line(&mut out, &format!("export {declaration}"));
    }
    out.push_str("\n/** What the server sends. */\nexport interface ServerToClientEvents {\n");
    for event in EVENTS {
        let more = match event.delivery {
            Delivery::Logged => " Logged: it has its place in the meeting's order, and is recovered.",
            Delivery::Live => "",
            Delivery::Volatile => " Volatile: dropped for clients that read slowly.",
        };
        comment(&mut out, &format!("{}{more}", event.about), "  ");
        line(&mut out, &format!("  {}: (event: {}Event) => void;", event.name, pascal_case(event.name)));
    }
    out.push_str("}\n\n/** What clients may send. */\nexport interface ClientToServerEvents {\n");
    for command in COMMANDS {
        let errors = command.errors.iter().map(|code| code.as_str()).collect::<Vec<_>>().join(", ");
        comment(&mut out, &format!("{} Errors: {errors}.", command.about), "  ");
        let (name, types) = (command.name, pascal_case(command.name));
        line(&mut out, &format!("  {name}: (payload: {types}Payload, ack: (answer: {types}Ack) => void) => void;"));
    }
    out.push_str("}\n");
    out
}

fn of(kind: Type, depth: usize) -> String {
    match kind {
        Type::Any => "Json".into(),
        Type::Null => "null".into(),
        Type::Flag => "boolean".into(),
        Type::True => "true".into(),
        Type::Integer | Type::AnyInteger => "number".into(),
        Type::Text | Type::Chars(..) | Type::Matching(_) => "string".into(),
        Type::Names(names) => quoted(names.iter().copied(), " | "),
        Type::Object => "{ [name: string]: Json }".into(),
        Type::Fields(fields) => object(fields, depth),
        Type::List(item) => format!("Array<{}>", of(*item, depth)),
        Type::Map(value) => format!("{{ [id: string]: {} }}", of(*value, depth)),
        Type::Either(kinds) => kinds.iter().map(|kind| of(*kind, depth)).collect::<Vec<_>>().join(" | "),
        Type::Named(name) => name.into(),
        Type::AnyLogged => {
            let items = schema::logged()
                .map(|event| format!("({{ event: \"{}\" }} & {}Event)", event.name, pascal_case(event.name)));
            items.fold(String::new(), |list, item| list + "\n  | " + &item)
        }
    }
}

fn object(fields: &[Field], depth: usize) -> String {
    if fields.is_empty() {
        return "{}".into();
    }
    let indent = "  ".repeat(depth + 1);
    let mut out = "{\n".to_owned();
    for field in fields {
        comment(&mut out, field.about, &indent);
        let mark = if field.is_required { "" } else { "?" };
        line(&mut out, &format!("{indent}{}{mark}: {};", field.name, of(field.kind, depth + 1)));
    }
    out + &"  ".repeat(depth) + "}"
}

fn comment(out: &mut String, about: &str, indent: &str) {
    if !about.is_empty() {
        line(out, &format!("{indent}/** {about} */"));
    }
}

fn line(out: &mut String, text: &str) {
    // Writing into a `String` does not fail.
    let _ = writeln!(out, "{text}");
}

fn quoted(names: impl IntoIterator<Item = &'static str>, between: &str) -> String {
    names.into_iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(between)
}
