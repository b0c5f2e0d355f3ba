//! The machine beside the figures, and the wait until it is idle.
//!
//! Invariant: a figure is never printed without the machine that it was measured on.

use std::fs;
use std::time::Duration;

/// A part of a second in which the machine must have been idle before a measurement starts.
const IDLE_WINDOW: Duration = Duration::from_millis(500);
const BUSY_SHARE: f64 = 0.05;
const PATIENCE: u32 = 120;

/// One line: processor, cores, clock.
pub fn describe() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let model = field("model name").unwrap_or_else(|| "unknown processor".into());
    let clock = field("cpu MHz").map_or_else(|| "unknown clock".into(), |mhz| format!("{mhz} MHz"));
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    format!("{model}, {cores} cores, {clock}")
}

/// Busy and total processor time of the machine, in ticks.
fn ticks() -> Option<(u64, u64)> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let fields: Vec<u64> = stat.lines().next()?.split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
    let total: u64 = fields.iter().sum();
    let idle = fields.get(3)? + fields.get(4)?;
    Some((total - idle, total))
}

/// Waits until the machine has been idle for a while; says so if it never is.
pub async fn wait_until_idle() {
    for attempt in 0..PATIENCE {
        let Some(before) = ticks() else { return };
        tokio::time::sleep(IDLE_WINDOW).await;
        let Some(after) = ticks() else { return };
        let share = (after.0 - before.0) as f64 / (after.1 - before.1).max(1) as f64;
        if share <= BUSY_SHARE {
            return;
        }
        if attempt % 20 == 0 {
            eprintln!("waiting for an idle machine ({:.0} % busy)", share * 100.0);
        }
    }
    eprintln!("the machine did not become idle; the figures below are of a busy one");
}

/// Resident memory and used processor time of a process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    pub resident_bytes: u64,
    pub cpu_seconds: f64,
}

/// Reads `/proc/PID`; zeros for a process that is gone.
pub fn usage_of(pid: u32) -> Usage {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let resident_kib: u64 = (status.lines().find_map(|line| line.strip_prefix("VmRSS:")))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in brackets may hold spaces; the fields after it do not.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let tick = |index: usize| fields.get(index).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    // utime and stime, proc(5); Linux counts 100 ticks a second for every program.
    Usage { resident_bytes: resident_kib << 10, cpu_seconds: (tick(11) + tick(12)) as f64 / 100.0 }
}
