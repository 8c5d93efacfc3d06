//! The API described for machines: an AsyncAPI document and TypeScript types of the events, an OpenAPI document of the
//! paths. All three are printed from one [`table`], at the first request for them.
//!
//! Left to others: whether they are served at all, and `docs/PROTOCOL.md`, which says what no schema can.

mod asyncapi;
mod openapi;
mod schema;
mod table;
#[cfg(test)]
mod tests;
mod typescript;

use std::sync::OnceLock;

use self::table::{COMMANDS, Command, EVENTS, SHAPES, Type};

/// The events as an AsyncAPI 3.0.0 document.
pub(super) fn asyncapi() -> &'static str {
    static DOCUMENT: OnceLock<String> = OnceLock::new();
    DOCUMENT.get_or_init(|| asyncapi::document().to_string())
}

/// The paths as an OpenAPI 3.1.0 document. They are below `prefix`, which is the same every time.
pub(super) fn openapi(prefix: &str) -> &'static str {
    static DOCUMENT: OnceLock<String> = OnceLock::new();
    DOCUMENT.get_or_init(|| openapi::document(prefix).to_string())
}

/// The events as types for socket.io-client.
pub(super) fn typescript() -> &'static str {
    static TYPES: OnceLock<String> = OnceLock::new();
    TYPES.get_or_init(typescript::declarations)
}

/// Something with a name of its own, which the documents refer to.
struct Definition {
    name: String,
    about: &'static str,
    what: What,
}

enum What {
    Type(Type),
    /// The error codes.
    Codes,
    /// The names of the events that are logged.
    LoggedNames,
    /// What a command is acked with: its answer, or an error.
    Ack(&'static Command),
}

/// Everything that has a name, each name once.
fn definitions() -> impl Iterator<Item = Definition> {
    let shapes = SHAPES.iter().map(|shape| Definition {
        name: shape.name.into(),
        about: shape.about,
        what: What::Type(shape.kind),
    });
    let lists = [
        Definition {
            name: "ErrorCode".into(),
            about: "The kinds of refusal. Further ones may come.",
            what: What::Codes,
        },
        Definition { name: "LoggedName".into(), about: "The events that are logged.", what: What::LoggedNames },
    ];
    let commands = COMMANDS.iter().flat_map(|command| {
        let name = |suffix| format!("{}{suffix}", pascal_case(command.name));
        [
            Definition { name: name("Payload"), about: command.about, what: What::Type(command.payload) },
            Definition { name: name("Answer"), about: "", what: What::Type(Type::Fields(command.answer)) },
            Definition { name: name("Ack"), about: "", what: What::Ack(command) },
        ]
    });
    let events = EVENTS.iter().map(|event| Definition {
        name: format!("{}Event", pascal_case(event.name)),
        about: event.about,
        what: What::Type(Type::Fields(event.payload)),
    });
    shapes.chain(lists).chain(commands).chain(events)
}

/// `join_room` as `JoinRoom`.
fn pascal_case(name: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect::<String>()
    };
    name.split('_').map(word).collect()
}
