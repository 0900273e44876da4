//! The machine a measurement was made on, as the system describes it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Serialize;

/// What a figure depends on besides the program. What the system does not tell is `"unknown"`,
/// never left out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Environment {
    /// Model name of the processor.
    pub(crate) cpu: String,
    /// `family-model-stepping`.
    pub(crate) cpu_signature: String,
    /// Microcode revision.
    pub(crate) microcode: String,
    /// The processor's features that kernels could use, sorted.
    pub(crate) cpu_flags: Vec<String>,
    /// Processors this process may use.
    pub(crate) cores: usize,
    /// Whether processors share cores: `on`, `off`, `notsupported`, …
    pub(crate) smt: String,
    /// Caches of processor 0, by name: `L1 data`, `L3 unified`; bytes.
    pub(crate) cache_bytes: BTreeMap<String, u64>,
    /// Memory of the machine in bytes.
    pub(crate) memory_bytes: Option<u64>,
    /// Memory a new process could use, in bytes.
    pub(crate) available_memory_bytes: Option<u64>,
    /// Transparent huge pages: `always`, `madvise` or `never`.
    pub(crate) huge_pages: String,
    /// Frequency governor of processor 0.
    pub(crate) governor: String,
    /// `hypervisor` or `none seen`.
    pub(crate) virtualization: String,
    /// Operating system and kernel release.
    pub(crate) kernel: String,
    /// Running and waiting tasks, averaged over the minute before.
    pub(crate) load_average_1m: Option<f64>,
    /// Version of the program.
    pub(crate) redline: &'static str,
    /// Version of the canonical arithmetic.
    pub(crate) arithmetic: u32,
}

impl Environment {
    /// Asks the system now.
    pub(crate) fn detect() -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let meminfo = read("/proc/meminfo");
        let flags = field(&cpuinfo, "flags").unwrap_or_default();
        let load = read("/proc/loadavg");
        Self {
            cpu: field(&cpuinfo, "model name").unwrap_or_else(unknown),
            cpu_signature: signature(&cpuinfo).unwrap_or_else(unknown),
            microcode: field(&cpuinfo, "microcode").unwrap_or_else(unknown),
            cpu_flags: vector_flags(&flags),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            smt: line("/sys/devices/system/cpu/smt/control"),
            cache_bytes: caches(Path::new("/sys/devices/system/cpu/cpu0/cache")),
            memory_bytes: kib(&meminfo, "MemTotal"),
            available_memory_bytes: kib(&meminfo, "MemAvailable"),
            huge_pages: chosen(&read("/sys/kernel/mm/transparent_hugepage/enabled")),
            governor: line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            virtualization: virtualization(&flags).to_owned(),
            kernel: format!(
                "{} {}",
                std::env::consts::OS,
                line("/proc/sys/kernel/osrelease")
            ),
            load_average_1m: load
                .split_whitespace()
                .next()
                .and_then(|text| text.parse().ok()),
            redline: env!("CARGO_PKG_VERSION"),
            arithmetic: redline_compute::ARITHMETIC_VERSION,
        }
    }
}

fn unknown() -> String {
    "unknown".to_owned()
}

/// A small system file, empty where there is none.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn line(path: &str) -> String {
    match read(path).trim() {
        "" => unknown(),
        text => text.to_owned(),
    }
}

/// The first `name : value` of `/proc/cpuinfo`.
fn field(cpuinfo: &str, name: &str) -> Option<String> {
    let mut pairs = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = pairs.find(|(key, _)| key.trim() == name)?;
    Some(value.trim().to_owned())
}

fn signature(cpuinfo: &str) -> Option<String> {
    let part = |name| field(cpuinfo, name);
    Some(format!(
        "{}-{}-{}",
        part("cpu family")?,
        part("model")?,
        part("stepping")?
    ))
}

/// `name: value kB` of `/proc/meminfo`, in bytes.
fn kib(meminfo: &str, name: &str) -> Option<u64> {
    let value = field(meminfo, name)?;
    value
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

fn vector_flags(flags: &str) -> Vec<String> {
    const FAMILIES: [&str; 7] = ["avx", "amx", "sse", "ssse", "fma", "f16c", "bmi"];
    let wanted = |flag: &&str| FAMILIES.iter().any(|family| flag.starts_with(family));
    let mut found: Vec<String> = flags
        .split_whitespace()
        .filter(wanted)
        .map(str::to_owned)
        .collect();
    found.sort_unstable();
    found
}

fn virtualization(flags: &str) -> &'static str {
    match flags {
        "" => "unknown",
        flags if flags.split_whitespace().any(|flag| flag == "hypervisor") => "hypervisor",
        _ => "none seen",
    }
}

/// The bracketed word of `always [madvise] never`.
fn chosen(choices: &str) -> String {
    let word = choices
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'));
    word.map_or_else(unknown, |(word, _)| word.to_owned())
}

fn caches(folder: &Path) -> BTreeMap<String, u64> {
    let Ok(entries) = fs::read_dir(folder) else {
        return BTreeMap::new();
    };
    entries
        .filter_map(|entry| cache(&entry.ok()?.path()))
        .collect()
}

fn cache(folder: &Path) -> Option<(String, u64)> {
    let text = |name| {
        Some(
            fs::read_to_string(folder.join(name))
                .ok()?
                .trim()
                .to_owned(),
        )
    };
    let kib: u64 = text("size")?.strip_suffix('K')?.parse().ok()?;
    let name = format!("L{} {}", text("level")?, text("type")?.to_lowercase());
    Some((name, kib.checked_mul(1024)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPUINFO: &str = "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 17\n\
        model name\t: Example 9000\nstepping\t: 1\n\
        flags\t\t: fpu sse2 avx512f hypervisor amx_tile avx2 fma\n";

    #[test]
    fn fields_are_found_by_their_whole_name() {
        assert_eq!(
            field(CPUINFO, "model name").as_deref(),
            Some("Example 9000")
        );
        assert_eq!(signature(CPUINFO).as_deref(), Some("25-17-1"));
        assert_eq!(field(CPUINFO, "microcode"), None);
        assert_eq!(kib("MemTotal:       24 kB\n", "MemTotal"), Some(24 << 10));
        assert_eq!(kib("MemTotal: many kB\n", "MemTotal"), None);
    }

    #[test]
    fn flags_and_choices_are_picked_out() {
        let flags = field(CPUINFO, "flags").unwrap();
        assert_eq!(
            vector_flags(&flags),
            ["amx_tile", "avx2", "avx512f", "fma", "sse2"]
        );
        assert_eq!(virtualization(&flags), "hypervisor");
        assert_eq!(virtualization("fpu sse2"), "none seen");
        assert_eq!(chosen("always [madvise] never\n"), "madvise");
        assert_eq!(chosen(""), "unknown");
    }

    #[test]
    fn what_the_system_does_not_tell_is_unknown() {
        assert_eq!(line("/nonexistent/file"), "unknown");
        assert!(caches(Path::new("/nonexistent")).is_empty());
        let printed = serde_json::to_value(Environment::detect()).unwrap();
        for key in ["cpu", "kernel", "governor", "load_average_1m", "cores"] {
            assert!(printed.get(key).is_some(), "{key} is missing");
        }
    }
}
