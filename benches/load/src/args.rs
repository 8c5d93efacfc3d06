//! `--name value` pairs, and a command after `--`.

use std::{collections::HashMap, str::FromStr, time::Duration};

use crate::Failure;

pub struct Args {
    named: HashMap<String, String>,
    /// What stood after `--`.
    pub command: Vec<String>,
}

impl Args {
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut args = Self { named: HashMap::new(), command: Vec::new() };
        while let Some(word) = words.next() {
            if word == "--" {
                args.command = words.collect();
                break;
            }
            let name = word.strip_prefix("--").ok_or_else(|| format!("not an option: {word}"))?;
            let value = words.next().ok_or_else(|| format!("--{name} wants a value"))?;
            args.named.insert(name.to_owned(), value);
        }
        Ok(args)
    }

    pub fn text<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.named.get(name).map_or(default, String::as_str)
    }

    pub fn number<T: FromStr>(&self, name: &str, default: T) -> Result<T, Failure> {
        match self.named.get(name) {
            None => Ok(default),
            Some(value) => value.parse().map_err(|_| format!("--{name} {value}: expected a number").into()),
        }
    }

    pub fn seconds(&self, name: &str, default: f64) -> Result<Duration, Failure> {
        Ok(Duration::try_from_secs_f64(self.number(name, default)?)?)
    }

    pub fn port(&self) -> Result<u16, Failure> {
        match self.number("port", 0)? {
            0 => Err("--port is missing".into()),
            port => Ok(port),
        }
    }

    pub fn pid(&self) -> Result<Option<u32>, Failure> {
        Ok(match self.number("pid", 0)? {
            0 => None,
            pid => Some(pid),
        })
    }
}
