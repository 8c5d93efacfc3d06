//! The table against the sources of what it describes: whoever adds an event, a field or a path there is sent here.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde_json::Value;

use super::{
    asyncapi, openapi, schema,
    table::{Auth, COMMANDS, ENDPOINTS, EVENTS, Endpoint, Field, SHAPES, Type},
    typescript,
};
use crate::{
    api::{Options, PREFIX, Page, rest::Resource},
    chat::Code,
};

/// Options with which everything is there.
const EVERYTHING: Options = Options { index: true, metrics: true, docs: true, demo: true, service: true };

/// Further names of fields of events, for older clients.
const TOLERATED_IN_EVENTS: [&str; 2] = ["message", "room"];
/// Further names of an update's fields, which are read but not recommended.
const TOLERATED_IN_UPDATES: [&str; 11] = [
    "action",
    "event",
    "event_type",
    "meeting",
    "meetingId",
    "payload",
    "room",
    "timestamp",
    "update",
    "user_id",
    "user_ids",
];

type Names = BTreeSet<String>;

#[test]
fn every_event_that_is_taken_is_described_and_no_other() {
    let registered: Names = literals_after(&compact(&source("chat/service.rs")), &[".on("]).collect();
    assert!(registered.len() > 10, "{registered:?}");
    assert_eq!(names(COMMANDS.iter().map(|command| command.name)), registered);
}

#[test]
fn every_event_that_is_sent_is_described_and_no_other() {
    let ways = [".emit(", ".emit_binary(", "event_frame(NAMESPACE,", "event_frame_json(NAMESPACE,"];
    let mut sent = Names::new();
    let mut otherwise = Vec::new();
    for (name, source) in sources("chat") {
        let source = compact(&source);
        sent.extend(literals_after(&source, &ways));
        let by_name = |way: &&str| arguments_after(&source, way).filter(|rest| !rest.starts_with('"')).count();
        otherwise.extend(ways.iter().filter(|way| by_name(way) > 0).map(|way| format!("{name}: {way}")));
    }
    // Some have no literal name: those that other servers emit, those of the log, by their kind, and those that a service
    // publishes.
    let files = ["emits.rs", "meeting.rs", "publishing.rs"];
    assert_eq!(otherwise, files.map(|file| format!("{file}: event_frame(NAMESPACE,")));
    sent.extend(schema::logged().map(|event| event.name.to_owned()));
    assert_eq!(names(EVENTS.iter().map(|event| event.name)), sent);

    let kinds = between(&source("store/mod.rs"), "pub const fn as_str(self) -> &'static str {", "\n    }\n");
    assert_eq!(names(schema::logged().map(|event| event.name)), strings(&kinds).collect::<Names>());
    let reserved = between(&source("chat/service_command.rs"), "const SERVER_EVENTS:", "];");
    assert_eq!(names(EVENTS.iter().map(|event| event.name)), strings(&reserved).collect::<Names>());
}

#[test]
fn every_field_that_is_read_is_described_and_no_other() {
    let mut described = Names::new();
    COMMANDS.iter().for_each(|command| collect_fields(command.payload, &mut described));
    for shape in ["ConnectAuth", "Position"] {
        collect_fields(Type::Named(shape), &mut described);
    }
    described.extend(TOLERATED_IN_EVENTS.map(Into::into));
    assert_eq!(described, declared_fields("chat/command/mod.rs", "fields::fields! { Fields:"));

    let bodies = |paths: &[&str]| {
        let mut fields = Names::new();
        for endpoint in ENDPOINTS.iter().filter(|endpoint| paths.contains(&endpoint.path)) {
            collect_fields(endpoint.body.unwrap(), &mut fields);
        }
        fields
    };
    let services = bodies(&["/publish", "/disconnect", "/revoke"]);
    assert_eq!(services, declared_fields("chat/service_command.rs", "\nfields! { Fields:"));
    let mut updates = bodies(&["/updates"]);
    updates.extend(TOLERATED_IN_UPDATES.map(Into::into));
    assert_eq!(updates, declared_fields("chat/update.rs", "\nfields! { Fields:"));
}

#[test]
fn every_path_and_its_methods_are_described_and_no_other() {
    let variants = |text: &str| -> Names {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
        lines.map(|line| line.split([' ', ',', '(']).next().unwrap().to_owned()).collect()
    };
    let resources = variants(&between(&source("api/rest.rs"), "pub(super) enum Resource {\n", "\n}"));
    let pages = variants(&between(&source("api/mod.rs"), "enum Page {\n", "\n}"));
    assert!(resources.len() > 10 && pages.len() > 5);

    let mut methods: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for Endpoint { method, path, .. } in ENDPOINTS {
        assert!(methods.entry(path).or_default().insert(method), "{method} {path} comes twice");
    }
    let (mut seen_resources, mut seen_pages) = (Names::new(), Names::from(["Index".to_owned(), "Rest".to_owned()]));
    for (path, methods) in methods {
        let page = Page::of(&format!("{PREFIX}{}", path.replace(['{', '}'], "")), EVERYTHING);
        let allowed = match &page {
            Some(Page::Rest(resource)) => {
                seen_resources.extend(variants(&format!("{resource:?}")));
                resource.allow()
            }
            Some(page) => {
                seen_pages.extend(variants(&format!("{page:?}")));
                crate::api::ALLOW
            }
            None => panic!("{path} is nowhere"),
        };
        let allowed = allowed.split(", ").filter(|method| !["HEAD", "OPTIONS"].contains(method));
        assert_eq!(methods, allowed.collect(), "{path}");
    }
    assert_eq!(seen_resources, resources);
    assert_eq!(seen_pages, pages);
    assert_eq!(Resource::of("/no-such"), None);
}

#[test]
fn who_may_use_a_path_is_described() {
    let text = between(&source("api/rest.rs"), "const fn is_for_services", "\n    }\n");
    for Endpoint { path, auth, .. } in ENDPOINTS {
        if let Some(resource) = Resource::of(&path.replace(['{', '}'], "")) {
            let name = format!("{resource:?}");
            let name = name.split(' ').next().unwrap();
            let is_named = text.split("Self::").skip(1).any(|rest| rest.split([' ', '\n', ')']).next() == Some(name));
            assert_eq!(*auth, if is_named { Auth::Service } else { Auth::User }, "{path}");
        } else {
            assert_eq!(*auth, Auth::Nobody, "{path}");
        }
    }
}

#[test]
fn every_error_code_is_described() {
    let codes = Code::ALL.map(Code::as_str);
    for document in [asyncapi::document(), openapi::document(PREFIX)] {
        assert_eq!(document.pointer("/components/schemas/ErrorCode/enum"), Some(&codes.as_slice().into()));
    }
    let types = typescript::declarations();
    let union = between(&types, "export type ErrorCode =", ";");
    assert_eq!(strings(&union).collect::<Vec<_>>(), codes);
}

#[test]
fn every_reference_leads_somewhere_and_every_schema_is_needed() {
    for document in [asyncapi::document(), openapi::document(PREFIX)] {
        let mut references = Vec::new();
        collect_references(&document, &mut references);
        assert!(references.len() > 50);
        for reference in &references {
            assert!(document.pointer(reference.strip_prefix('#').unwrap()).is_some(), "{reference}");
        }
        for name in document.pointer("/components/schemas").unwrap().as_object().unwrap().keys() {
            assert!(references.contains(&format!("#/components/schemas/{name}")), "{name} is not needed");
        }
    }
}

#[test]
fn the_documents_say_what_they_are() {
    let asyncapi = asyncapi::document();
    assert_eq!(
        (&asyncapi["asyncapi"], &asyncapi["info"]["version"]),
        (&"3.0.0".into(), &env!("CARGO_PKG_VERSION").into())
    );
    let openapi = openapi::document(PREFIX);
    assert_eq!(
        (&openapi["openapi"], &openapi["info"]["version"]),
        (&"3.1.0".into(), &env!("CARGO_PKG_VERSION").into())
    );
    assert_eq!(openapi["servers"][0]["url"], PREFIX);

    // An operation for each event, and its messages are those of the channel.
    let operations = asyncapi["operations"].as_object().unwrap();
    assert_eq!(operations.len(), COMMANDS.len() + EVENTS.len() + 1);
    for (name, operation) in operations {
        let messages = operation["messages"].as_array().unwrap().iter();
        for message in messages.chain(operation.pointer("/reply/messages/0")) {
            assert!(message["$ref"].as_str().unwrap().starts_with("#/channels/namespace/messages/"), "{name}");
        }
        assert_eq!(operation["action"] == "receive", operation.get("reply").is_some(), "{name}");
    }
    let mut ids = Names::new();
    for path in openapi["paths"].as_object().unwrap().values() {
        for operation in path.as_object().unwrap().values() {
            assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{operation}");
        }
    }
    assert_eq!(ids.len(), ENDPOINTS.len());
}

#[test]
fn every_name_is_given_once() {
    let mut given = Names::new();
    for definition in super::definitions() {
        assert!(given.insert(definition.name.clone()), "{} comes twice", definition.name);
    }
    let types = typescript::declarations();
    for name in &given {
        let forms = ["interface", "type"].map(|form| types.matches(&format!("export {form} {name} ")).count());
        assert_eq!(forms.iter().sum::<usize>(), 1, "{name}");
    }
}

#[test]
fn pages_are_there_only_with_their_options() {
    let nothing = Options { index: false, metrics: false, docs: false, demo: false, service: false };
    let cases = [
        ("/", Options { index: true, ..nothing }),
        ("/demo", Options { demo: true, ..nothing }),
        ("/api/v1/chat/demo", Options { demo: true, ..nothing }),
        ("/api/v1/chat/asyncapi.json", Options { docs: true, ..nothing }),
        ("/api/v1/chat/openapi.json", Options { docs: true, ..nothing }),
        ("/api/v1/chat/events.d.ts", Options { docs: true, ..nothing }),
        ("/metrics", Options { metrics: true, ..nothing }),
        ("/api/v1/chat/health", Options { service: true, ..nothing }),
    ];
    for (path, with) in cases {
        assert!(Page::of(path, with).is_some(), "{path}");
        assert_eq!(Page::of(path, nothing), None, "{path}");
        let Options { index, metrics, docs, demo, service } = with;
        let others = Options { index: !index, metrics: !metrics, docs: !docs, demo: !demo, service: !service };
        assert_eq!(Page::of(path, others), None, "{path}");
    }
}

#[test]
fn the_demo_has_a_new_nonce_each_time_and_nothing_from_elsewhere() {
    let pages = [crate::api::demo(), crate::api::demo()];
    assert_ne!(pages[0].body, pages[1].body);
    for page in pages {
        let header = |wanted: &str| page.headers.iter().find(|(name, _)| *name == wanted).unwrap().1.to_string();
        let (policy, text) = (header("Content-Security-Policy"), String::from_utf8_lossy(page.body.as_bytes()));
        let nonce = between(&policy, "script-src 'nonce-", "'");
        assert_eq!(nonce.len(), 22);
        assert!(!policy.contains("unsafe"), "{policy}");
        for tag in ["script", "style"] {
            assert_eq!(text.matches(&format!("<{tag}")).count(), 1);
            assert!(text.contains(&format!("<{tag} nonce=\"{nonce}\">")));
        }
        for forbidden in
            ["{{", "http:", "https:", "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("]
        {
            assert!(!text.contains(forbidden), "{forbidden}");
        }
    }
}

/// The reader above must see what it is meant to see, or all of this proves nothing.
#[test]
fn the_reader_of_sources_finds_every_form() {
    let text =
        compact("x.on(\"a\", f).on(\n    \"b\",\n f).on_any(f); event_frame(\n  NAMESPACE,\n \"c\"); y.on(name)");
    assert_eq!(literals_after(&text, &[".on("]).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(arguments_after(&text, ".on(").count(), 3);
    assert_eq!(literals_after(&text, &["event_frame(NAMESPACE,"]).collect::<Vec<_>>(), ["c"]);
    assert_eq!(strings("a \"b\" c \"d\"").collect::<Vec<_>>(), ["b", "d"]);
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> Names {
    names.map(ToOwned::to_owned).collect()
}

fn collect_fields(kind: Type, found: &mut Names) {
    match kind {
        Type::Fields(fields) => found.extend(fields.iter().map(|field: &Field| field.name.to_owned())),
        Type::Either(kinds) => kinds.iter().for_each(|kind| collect_fields(*kind, found)),
        Type::Named(name) => {
            let shape = SHAPES.iter().find(|shape| shape.name == name);
            shape.into_iter().for_each(|shape| collect_fields(shape.kind, found));
        }
        _ => {}
    }
}

fn collect_references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").map(|to| to.as_str().unwrap().to_owned()));
            members.values().for_each(|member| collect_references(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, found)),
        _ => {}
    }
}

/// The fields that a reader declares, by their names on the wire: `meeting_id`, or `kind = "type"`.
fn declared_fields(file: &str, start: &str) -> Names {
    let declaration = between(&source(file), start, "}").replace(" = ", "=");
    declaration
        .split_whitespace()
        .map(|field| field.split_once('=').map_or(field, |(_, name)| name.trim_matches('"')).to_owned())
        .collect()
}

/// A source without spaces and line ends, as which a call has one form only.
fn compact(source: &str) -> String {
    source.split_whitespace().collect()
}

/// What follows each `call` in a compact source, from its argument on.
fn arguments_after<'a>(source: &'a str, call: &'a str) -> impl Iterator<Item = &'a str> {
    source.match_indices(call).map(move |(at, _)| &source[at + call.len()..])
}

/// The literals that are the arguments of these calls.
fn literals_after<'a>(source: &'a str, calls: &'a [&str]) -> impl Iterator<Item = String> + 'a {
    calls
        .iter()
        .flat_map(|call| arguments_after(source, call))
        .filter_map(|rest| Some(rest.strip_prefix('"')?.split_once('"')?.0.to_owned()))
}

fn strings(text: &str) -> impl Iterator<Item = String> {
    text.split('"').skip(1).step_by(2).map(ToOwned::to_owned)
}

fn between(text: &str, start: &str, end: &str) -> String {
    let (_, rest) = text.split_once(start).unwrap_or_else(|| panic!("no {start:?}"));
    rest.split_once(end).unwrap_or_else(|| panic!("no {end:?} after {start:?}")).0.to_owned()
}

/// A file of `src` without its tests.
fn source(file: &str) -> String {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file)).unwrap();
    text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned()
}

/// The files of a folder of `src` and of those in it, by name, without tests.
fn sources(folder: &str) -> BTreeMap<String, String> {
    let mut sources = BTreeMap::new();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(folder)).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let path = format!("{folder}/{name}");
        if name.ends_with(".rs") && name != "tests.rs" {
            sources.insert(name, source(&path));
        } else if !name.contains('.') {
            sources.extend(self::sources(&path));
        }
    }
    assert!(!sources.is_empty());
    sources
}
