//! What the system says about caches and memory.

use std::fs;
use std::path::Path;

/// Bytes of the largest cache of processor 0, where the system tells (Linux).
#[must_use]
pub fn last_level_cache_bytes() -> Option<usize> {
    let caches = fs::read_dir("/sys/devices/system/cpu/cpu0/cache").ok()?;
    caches
        .filter_map(|entry| cache_bytes(&entry.ok()?.path()))
        .max()
}

fn cache_bytes(folder: &Path) -> Option<usize> {
    kib(fs::read_to_string(folder.join("size"))
        .ok()?
        .trim()
        .strip_suffix('K')?)
}

/// Bytes the system could give to a new process without swapping, where it tells (Linux).
#[must_use]
pub fn available_memory_bytes() -> Option<usize> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    kib(line.trim().strip_suffix("kB")?.trim())
}

fn kib(digits: &str) -> Option<usize> {
    digits.parse::<usize>().ok()?.checked_mul(1024)
}
