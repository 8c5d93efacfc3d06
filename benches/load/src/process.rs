//! What `/proc` says about a process: CPU seconds and resident memory.

use std::{fs, time::Instant};

use crate::Failure;

/// User plus system time of all threads so far, in seconds. Resolution: one clock tick, 10 ms.
pub fn cpu_seconds(pid: u32) -> Result<f64, Failure> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The command name is in parentheses and may hold spaces; the state (field 3) follows it.
    let (_, fields) = stat.rsplit_once(") ").ok_or("stat without a command name")?;
    let ticks = |field: usize| -> Result<u64, Failure> {
        Ok(fields.split(' ').nth(field - 3).ok_or("stat is too short")?.parse()?)
    };
    Ok((ticks(14)? + ticks(15)?) as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Resident set in kB, now.
pub fn rss_kb(pid: u32) -> Result<u64, Failure> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// CPU time used by the server and by this generator since the meter was started.
pub struct Meter {
    pid: Option<u32>,
    since: Instant,
    server_s: f64,
    generator_s: f64,
}

pub struct Usage {
    pub wall_s: f64,
    /// `None` if no `--pid` was given.
    pub server_s: Option<f64>,
    pub generator_s: f64,
}

impl Meter {
    pub fn start(pid: Option<u32>) -> Result<Self, Failure> {
        Ok(Self {
            pid,
            since: Instant::now(),
            server_s: pid.map_or(Ok(0.0), cpu_seconds)?,
            generator_s: cpu_seconds(std::process::id())?,
        })
    }

    pub fn read(&self) -> Result<Usage, Failure> {
        Ok(Usage {
            wall_s: self.since.elapsed().as_secs_f64(),
            server_s: self.pid.map(cpu_seconds).transpose()?.map(|now| now - self.server_s),
            generator_s: cpu_seconds(std::process::id())? - self.generator_s,
        })
    }
}
