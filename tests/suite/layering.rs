//! Promise: imports point to the right only, only the shell reads a clock, and nothing outside gives up by panicking.
//!
//! The compiler refuses upward imports between crates; within one crate this file does. It reads the sources as text:
//! comments and string literals are blanked out, and so is everything that is compiled for tests only.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// A module, what it may import of this crate, and why. A module may always import itself.
#[rustfmt::skip] // a table: one row, one module
const MAY_IMPORT: &[(&str, &[&str], &str)] = &[
    ("types", &[], "The words that all layers share: a leaf, so that sharing them costs nothing."),
    ("outbox", &["types"], "What waits for one client; knows why a client is closed, and nothing of who fills it."),
    ("metrics", &["types"], "Counts by transport and close reason, and calls nobody."),
    ("http", &[], "HTTP/1 as bytes and values: could be a crate of its own."),
    ("engine", &["types", "outbox"], "Engine.IO as a state machine: frames go into the outbox, nothing of HTTP or Socket.IO is known."),
    ("socket", &["types", "outbox"], "Socket.IO as a state machine: works over any transport, and for any application."),
    ("rooms", &["types", "outbox"], "Membership and fan-out of finished frames: knows neither wire formats nor events."),
    ("limits", &[], "Token buckets, strikes, slots and places as numbers: knows neither who is limited nor a clock."),
    ("schedule", &[], "Jobs by the time at which they are due: runs nothing itself."),
    ("auth", &[], "Who somebody is, and what they may do: HTTP goes through its own trait, so it runs without a network."),
    ("fetch", &["auth"], "The HTTP client that `auth` asks for by its trait."),
    ("adapter", &[], "Formats of other Socket.IO servers as bytes and values: no connection, no sockets."),
    ("redis", &[], "Connections to a Redis: knows what a call is, and nothing of what it is for."),
    ("store", &["adapter", "limits", "redis", "types"], "What is kept, by its own words: knows neither who asks nor who is told."),
    ("cluster", &["adapter", "metrics", "redis", "store", "types"], "What comes and goes between instances: what it means is said by whoever implements its trait."),
    ("chat", &["adapter", "auth", "cluster", "limits", "metrics", "outbox", "rooms", "schedule", "socket", "store", "types"], "What events mean: meets clients only through sockets and rooms."),
    ("net", &["http", "engine", "socket", "outbox", "types", "metrics", "limits"], "Sockets, tasks and the clock: drives the layers, and knows the application only by its own traits."),
    ("api", &["auth", "chat", "http", "metrics", "net"], "The other door to the service: implements the trait by which `net` asks for pages."),
    ("config", &["auth", "http", "limits", "redis"], "Settings from the environment; what they mean is said by the modules they are for."),
    ("cli", &["config"], "Arguments and `--help`, which shows the table of settings."),
    ("logging", &["config"], "Where log records go; the format is a setting."),
    ("healthcheck", &[], "A client of our own port: must not depend on how the server is made."),
    ("shutdown", &[], "Signals as a future."),
    ("server", &["api", "auth", "chat", "cluster", "config", "engine", "fetch", "http", "limits", "metrics", "net", "redis", "socket", "store", "types"], "Builds the parts and puts them together."),
    ("lib", &[], "Names the modules."),
    ("main", &["cli", "config", "healthcheck", "logging", "server", "shutdown"], "The table of contents: starts what `server` has built."),
];

/// The only modules that may ask what time it is. All others are told `now`, which is why they run on a fake clock.
const MAY_READ_THE_CLOCK: &[&str] =
    &["net", "server", "main", "metrics", "api", "cluster", "fetch", "healthcheck", "logging", "redis"];

const CLOCKS: &[&str] = &["Instant::now", "SystemTime::now", ".elapsed()"];

/// What ends the thread instead of the connection.
const PANICS: &[&str] = &[
    ".unwrap()",
    ".unwrap_err()",
    ".expect(",
    ".expect_err(",
    "panic!",
    "todo!",
    "unimplemented!",
    "unreachable!",
    "assert!",
    "assert_eq!",
    "assert_ne!",
];

/// File, what its line holds, and why that may stand there. Each row must still be needed.
#[rustfmt::skip] // a table: one row, one exception
const MAY_PANIC: &[(&str, &str, &str)] = &[
    ("config/settings.rs", ".expect(\"every variable is in SETTINGS\")", "Names are constants, and a unit test reads every variable."),
    ("config/reader.rs", ".expect(\"every default in SETTINGS parses\")", "Defaults are constants, and a unit test reads them all."),
    ("config/reader.rs", ".expect(\"a bound is a duration\")", "Bounds are constants, and a unit test reads them all."),
    ("net/stream.rs", "assert!(size_of_val(&serving)", "Known at compile time; a future's size cannot be asserted in a constant."),
    ("socket/registry.rs", "assert!(name.starts_with('/')", "Documented under `# Panics`: namespaces are registered once, at the start, by us."),
    ("socket/registry.rs", "assert!(self.list.iter().all(", "Documented under `# Panics`, as above."),
    ("socket/registry.rs", "assert!(!is_reserved_event(name)", "Documented under `# Panics`, as above."),
];

#[test]
fn modules_import_only_what_is_to_their_right() {
    let allowed: BTreeMap<_, _> = MAY_IMPORT.iter().map(|(module, allowed, why)| (*module, (*allowed, *why))).collect();
    let mut faults = Vec::new();
    for source in sources() {
        let Some((may_import, why)) = allowed.get(source.module.as_str()) else {
            faults.push(format!("src/{}: module `{}` has no row in MAY_IMPORT", source.name, source.module));
            continue;
        };
        for (line, import) in imports(&source) {
            if import == source.module {
                continue;
            }
            if !may_import.contains(&import.as_str()) {
                let module = &source.module;
                faults.push(format!("src/{}:{line}: `{module}` must not import `{import}`. {why}", source.name));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn the_table_has_no_cycle() {
    let allowed: BTreeMap<_, _> = MAY_IMPORT.iter().map(|(module, allowed, _)| (*module, *allowed)).collect();
    let mut placed: Vec<&str> = Vec::new();
    while placed.len() < allowed.len() {
        let next = allowed
            .iter()
            .find(|(module, allowed)| !placed.contains(module) && allowed.iter().all(|import| placed.contains(import)));
        let left = || allowed.keys().filter(|module| !placed.contains(module)).collect::<Vec<_>>();
        placed.push(next.unwrap_or_else(|| panic!("these import one another in a circle: {:?}", left())).0);
    }
}

#[test]
fn only_the_shell_reads_a_clock() {
    let mut faults = Vec::new();
    for source in sources().iter().filter(|source| !MAY_READ_THE_CLOCK.contains(&source.module.as_str())) {
        for (line, code, _) in source.lines() {
            for clock in CLOCKS.iter().filter(|clock| code.contains(**clock)) {
                let module = &source.module;
                faults.push(format!(
                    "src/{}:{line}: `{clock}`: `{module}` is told the time, and has no clock",
                    source.name
                ));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn nothing_but_a_test_gives_up_by_panicking() {
    let mut faults = Vec::new();
    let mut excused = vec![false; MAY_PANIC.len()];
    for source in sources() {
        for (line, code, text) in source.lines() {
            // A constant is evaluated by the compiler: it fails the build and never a connection.
            if code.trim_start().starts_with("const _: () = assert!(") {
                continue;
            }
            let Some(panic) = PANICS.iter().find(|panic| has_word(code, panic)) else { continue };
            let is_excused = |(file, what, _): &(&str, &str, &str)| *file == source.name && text.contains(what);
            match MAY_PANIC.iter().position(is_excused) {
                Some(row) => excused[row] = true,
                None => faults.push(format!("src/{}:{line}: `{panic}` outside tests: {}", source.name, text.trim())),
            }
        }
    }
    for (row, _) in MAY_PANIC.iter().zip(excused).filter(|(_, excused)| !excused) {
        faults.push(format!("MAY_PANIC: nothing in src/{} holds `{}` any more; take the row out", row.0, row.1));
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

/// The reader above must see what it is meant to see, or all of this proves nothing.
#[test]
fn the_reader_of_sources_finds_every_form() {
    let text = "//! use crate::net;\n\
        use crate::{\n    outbox::{Frame, Outbox}, // crate::api\n    types::RoomId,\n};\n\
        pub use crate::http;\n\
        fn f() -> crate::rooms::Room<u64> { \"crate::cli \\\" crate::cli\".len(); '\"'; r#\"crate::cli\"#; x.unwrap() }\n\
        /* crate::server /* nested */ */\n\
        fn g<'a>(a: &'a str) { crate::socket::encode(a); super::super::engine::f(); chat_service::chat::g() }\n\
        #[cfg(test)]\nmod tests {\n    use crate::config::Config;\n    fn t() { panic!(\"{{\") }\n}\n\
        fn after() { crate::metrics::count() }\n\
        #[cfg(test)]\nmod unit;\n\
        fn last() { todo!() }\n";
    let source = Source::new("a/b.rs".into(), text);
    let found = imports(&source);
    let expected = [
        (3, "outbox"),
        (4, "types"),
        (6, "http"),
        (7, "rooms"),
        (9, "socket"),
        (9, "engine"),
        (9, "chat"),
        (15, "metrics"),
    ];
    assert_eq!(found.iter().map(|(line, import)| (*line, import.as_str())).collect::<Vec<_>>(), expected);
    let panics: Vec<_> = source
        .lines()
        .filter(|(_, code, _)| PANICS.iter().any(|panic| has_word(code, panic)))
        .map(|(line, ..)| line)
        .collect();
    assert_eq!(panics, [7, 18]);
    assert!(!has_word("debug_assert!(a)", "assert!"));
}

/// A file of `src`, with everything that is not the product's code blanked out.
struct Source {
    /// Its path within `src`.
    name: String,
    /// The first part of its path in the crate.
    module: String,
    /// As long as `text`, line for line and byte for byte.
    code: String,
    text: String,
}

impl Source {
    fn new(name: String, text: &str) -> Self {
        let module = name.split('/').next().unwrap_or(&name).trim_end_matches(".rs").to_owned();
        Self { name, module, code: without_tests(&without_comments_and_strings(text)), text: text.to_owned() }
    }

    /// Number, code and text of each line.
    fn lines(&self) -> impl Iterator<Item = (usize, &str, &str)> {
        self.code.lines().zip(self.text.lines()).enumerate().map(|(index, (code, text))| (index + 1, code, text))
    }
}

/// All files of `src` but those that are compiled for tests only.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !is_test_module(&path) {
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                sources.push(Source::new(name, &fs::read_to_string(&path).unwrap()));
            }
        }
    }
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(sources.len() > 20, "only {} sources: is this the right folder?", sources.len());
    sources
}

/// Whether the parent says `#[cfg(test)] mod name;`.
fn is_test_module(path: &Path) -> bool {
    let name = path.file_stem().unwrap().to_str().unwrap();
    let parents = ["mod.rs", "lib.rs", "main.rs"].map(|parent| path.with_file_name(parent));
    let parents = parents.into_iter().chain(path.parent().map(|folder| folder.with_extension("rs")));
    let declaration = format!("#[cfg(test)]\nmod {name};");
    parents.into_iter().any(|parent| fs::read_to_string(parent).is_ok_and(|text| text.contains(&declaration)))
}

/// Every module of this crate that is named in the code, with its line: in `use` trees and in paths.
fn imports(source: &Source) -> Vec<(usize, String)> {
    let code = source.code.as_str();
    let mut found = Vec::new();
    // From here `super` is the crate's root.
    let is_top = !source.name.contains('/') || source.name.ends_with("/mod.rs");
    for root in ["crate::", "chat_service::", if is_top { "super::" } else { "super::super::" }] {
        for (at, _) in code.match_indices(root) {
            if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let rest = &code[at + root.len()..];
            let modules: Vec<(usize, String)> = match rest.strip_prefix('{') {
                Some(tree) => {
                    branches(tree).into_iter().map(|(offset, name)| (root.len() + 1 + offset, name)).collect()
                }
                None => vec![(0, first_name(rest))],
            };
            for (offset, module) in modules {
                found.push((at + offset, module));
            }
        }
    }
    found.sort();
    found.into_iter().map(|(at, module)| (code[..at].matches('\n').count() + 1, module)).collect()
}

/// The first name of each branch of a `use` tree, with its place, until the tree's closing brace.
fn branches(tree: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let (mut depth, mut begins) = (0, true);
    for (at, c) in tree.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            c if begins && (c.is_alphanumeric() || c == '_') => {
                begins = false;
                found.push((at, first_name(&tree[at..])));
            }
            _ => {}
        }
    }
    found
}

fn first_name(path: &str) -> String {
    path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// Whether `code` holds `what`, and not as the end of a longer name.
fn has_word(code: &str, what: &str) -> bool {
    code.match_indices(what)
        .any(|(at, _)| what.starts_with('.') || !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// Puts blanks in the place of comments and of what stands in string and character literals.
fn without_comments_and_strings(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut blank = |range: std::ops::Range<usize>| {
        out[range].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
    };
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let after_name = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
        let end = if rest.starts_with(b"//") {
            at + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            let (mut depth, mut end) = (0, at);
            loop {
                match &bytes[end..] {
                    [b'/', b'*', ..] => (depth, end) = (depth + 1, end + 2),
                    [b'*', b'/', ..] => (depth, end) = (depth - 1, end + 2),
                    [] => break,
                    _ => end += 1,
                }
                if depth == 0 {
                    break;
                }
            }
            end
        } else if let Some(hashes) = raw_string(rest).filter(|_| !after_name) {
            let close = format!("\"{}", "#".repeat(hashes));
            let start = at + 2 + hashes;
            text[start..].find(&close).map_or(bytes.len(), |length| start + length + close.len())
        } else if rest[0] == b'"' {
            let mut end = at + 1;
            while end < bytes.len() && bytes[end] != b'"' {
                end += if bytes[end] == b'\\' { 2 } else { 1 };
            }
            end + 1
        } else if rest.starts_with(b"'\\") || (rest[0] == b'\'' && is_char_literal(&text[at..])) {
            let skip = if rest[1] == b'\\' { 3 } else { 1 };
            at + skip + text[at + skip..].find('\'').unwrap_or(0) + 1
        } else {
            at += 1;
            continue;
        };
        blank(at..end.min(bytes.len()));
        at = end;
    }
    String::from_utf8(out).unwrap()
}

/// How many `#` a raw string at the start of `rest` has.
fn raw_string(rest: &[u8]) -> Option<usize> {
    let rest = rest.strip_prefix(b"r")?;
    let hashes = rest.iter().take_while(|byte| **byte == b'#').count();
    (rest.get(hashes) == Some(&b'"')).then_some(hashes)
}

/// `'x'` and not a lifetime.
fn is_char_literal(rest: &str) -> bool {
    rest.chars().nth(2) == Some('\'')
}

/// Puts blanks in the place of every item that has `#[cfg(test)]`.
fn without_tests(code: &str) -> String {
    let mut out = code.as_bytes().to_vec();
    for (at, attribute) in code.match_indices("#[cfg(test)]") {
        let body = at + attribute.len();
        let mut depth = 0;
        let length = code[body..].bytes().position(|byte| match byte {
            b'{' => {
                depth += 1;
                false
            }
            b'}' => {
                depth -= 1;
                depth == 0
            }
            b';' => depth == 0,
            _ => false,
        });
        let end = length.map_or(code.len(), |length| body + length + 1);
        out[at..end].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
    }
    String::from_utf8(out).unwrap()
}
