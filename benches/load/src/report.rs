//! One line of JSON, written by hand: all values are numbers or booleans.

use std::fmt::{self, Display};

use crate::process::Usage;

#[derive(Default)]
pub struct Report(String);

impl Report {
    pub fn add(&mut self, name: &str, value: impl Display) -> &mut Self {
        let comma = if self.0.is_empty() { "" } else { "," };
        self.0.push_str(&format!("{comma}\"{name}\":{value}"));
        self
    }

    /// A fraction, rounded to what the measurement can carry.
    pub fn fraction(&mut self, name: &str, value: f64) -> &mut Self {
        self.add(name, format_args!("{value:.3}"))
    }

    /// The part that `echo` and `broadcast` share.
    pub fn throughput(&mut self, messages: u64, deliveries: u64, usage: &Usage) -> &mut Self {
        self.add("messages", messages)
            .add("deliveries", deliveries)
            .fraction("seconds", usage.wall_s)
            .fraction("messages_per_s", messages as f64 / usage.wall_s)
            .fraction("deliveries_per_s", deliveries as f64 / usage.wall_s);
        if let Some(server_s) = usage.server_s {
            self.fraction("server_cpu_s", server_s)
                .fraction("server_cpu_percent", 100.0 * server_s / usage.wall_s)
                .fraction("cpu_us_per_message", 1e6 * server_s / messages as f64)
                .fraction("cpu_us_per_delivery", 1e6 * server_s / deliveries as f64);
        }
        self.fraction("generator_cpu_percent", 100.0 * usage.generator_s / usage.wall_s)
    }

    pub fn memory(&mut self, before_kb: u64, after_kb: u64, connections: usize) -> &mut Self {
        let grown = after_kb as f64 - before_kb as f64;
        self.add("rss_before_kb", before_kb)
            .add("rss_after_kb", after_kb)
            .fraction("bytes_per_connection", 1024.0 * grown / connections as f64)
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{}}}", self.0)
    }
}
