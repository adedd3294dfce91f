//! The CPU time and memory that this process has used.

use anyhow::Context;
use std::fs;

/// CPU time of this process and of those of its children that have ended, in milliseconds.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn cpu_ms() -> anyhow::Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat").context("cannot read /proc/self/stat")?;
    // Field 3 follows the name, which is in parentheses. Fields 14 to 17 are the times in user and
    // in system mode, of the process and of its children.
    let fields = stat
        .rsplit_once(')')
        .context("/proc/self/stat has no name")?
        .1
        .split_whitespace();
    let ticks: u64 = fields
        .skip(11)
        .take(4)
        .map(str::parse::<u64>)
        .sum::<Result<_, _>>()?;
    Ok(ticks as f64 * 1e3 / rustix::param::clock_ticks_per_second() as f64)
}

/// Peak memory of this process, in bytes.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn peak_memory_bytes() -> anyhow::Result<u64> {
    let status =
        fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .context("/proc/self/status has no VmHWM")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib << 10)
}
