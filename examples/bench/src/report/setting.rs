//! How, where and with what everything was measured.

use std::fmt;
use std::fs;
use std::thread::available_parallelism;

/// What has to be known to read the numbers.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Setting {
    /// The command line.
    pub(crate) command: String,
    /// Processor, its cores, and the kernel.
    machine: String,
    /// Processes that wanted to run when it began, on average of a minute: above the number of cores there is no measuring.
    load: Option<f64>,
    /// Server and generator each have a core of their own.
    pub(crate) is_pinned: bool,
    /// Whether the programs were built with optimisation, without which times mean nothing.
    is_optimised: bool,
}

impl Setting {
    /// As things are now.
    pub(crate) fn now(is_pinned: bool) -> Self {
        Self {
            command: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
            machine: machine(),
            load: load(),
            is_pinned,
            is_optimised: !cfg!(debug_assertions),
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            command, machine, ..
        } = self;
        write!(f, "`bench {command}`, {machine}")?;
        if let Some(load) = self.load {
            write!(f, ", load {load:.1}")?;
        }
        if !self.is_pinned {
            f.write_str(", not pinned to cores")?;
        }
        if !self.is_optimised {
            f.write_str(", not optimised")?;
        }
        Ok(())
    }
}

fn machine() -> String {
    let processor = fs::read_to_string("/proc/cpuinfo").ok();
    let processor = processor.as_deref().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    let processor = processor.unwrap_or_else(|| "an unknown processor".to_owned());
    // What this process may use is one core by now; the machine has more.
    let cores = fs::read_to_string("/proc/stat").ok().map_or_else(
        || available_parallelism().map_or(1, usize::from),
        |stat| {
            let is_core = |line: &&str| {
                line.strip_prefix("cpu")
                    .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
            };
            stat.lines().filter(is_core).count()
        },
    );
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = if cores == 1 {
        "1 core".to_owned()
    } else {
        format!("{cores} cores")
    };
    format!("{processor}, {cores}, Linux {}", kernel.trim())
}

fn load() -> Option<f64> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split(' ').next()?.parse().ok()
}
