//! Memory this process may still take, and what it has.

use std::path::{Path, PathBuf};

use anyhow::bail;

use crate::units;

/// Refuses `what`, of so many bytes, if the machine has no room for it.
///
/// # Errors
/// If it takes more than is available. What cannot be found out refuses nothing.
pub(crate) fn check_bytes(what: &str, required: u64) -> anyhow::Result<()> {
    match available_bytes() {
        Some(available) if required > available => bail!(
            "not enough memory: {what} take {required} bytes ({}), available {available} bytes ({})",
            units::bytes(required),
            units::bytes(available)
        ),
        _ => Ok(()),
    }
}

/// The lesser of what the machine has left and what this process's control groups allow.
pub(crate) fn available_bytes() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok();
    let machine = meminfo
        .as_deref()
        .and_then(|text| meminfo_bytes(text, "MemAvailable"));
    let group = std::fs::read_to_string("/proc/self/cgroup")
        .ok()
        .and_then(|text| group_bytes(&text, Path::new("/sys/fs/cgroup")));
    machine.into_iter().chain(group).min()
}

/// A line `Name:  1234 kB` of `/proc/meminfo` (proc_meminfo(5)).
pub(crate) fn meminfo_bytes(text: &str, name: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// A line `Name:  1234 kB` of this process's `/proc/self/status` (proc_pid_status(5)).
pub(crate) fn status_bytes(name: &str) -> Option<u64> {
    meminfo_bytes(&std::fs::read_to_string("/proc/self/status").ok()?, name)
}

/// Times this process waited for a page to come from a disk.
pub(crate) fn major_faults() -> Option<u64> {
    stat_major_faults(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

/// Field 12 of `/proc/self/stat` (proc_pid_stat(5)); the second is in brackets, which may be in it too.
fn stat_major_faults(stat: &str) -> Option<u64> {
    let (_, from_third) = stat.rsplit_once(')')?;
    from_third.split_whitespace().nth(12 - 3)?.parse().ok()
}

/// What this process may lock in memory; `u64::MAX`: all.
pub(crate) fn lockable_bytes() -> Option<u64> {
    soft_limit(&std::fs::read_to_string("/proc/self/limits").ok()?)
}

/// The soft limit of `/proc/self/limits` (proc_pid_limits(5)).
fn soft_limit(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max locked memory"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        bytes => bytes.parse().ok(),
    }
}

/// What the version 2 control groups from the process's own up to the root leave: limit minus use,
/// where cached file pages count as free.
/// Source: <https://docs.kernel.org/admin-guide/cgroup-v2.html>, "Memory".
fn group_bytes(groups: &str, root: &Path) -> Option<u64> {
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let own: PathBuf = root.join(own);
    let left = |folder: &Path| {
        let number = |file: &str| -> Option<u64> {
            std::fs::read_to_string(folder.join(file))
                .ok()?
                .trim()
                .parse()
                .ok()
        };
        // "max", or no file at the root: no limit here.
        let limit = number("memory.max")?;
        let stat = std::fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        let cached: u64 = ["inactive_file ", "active_file "]
            .iter()
            .filter_map(|name| {
                stat.lines()
                    .find_map(|line| line.strip_prefix(name))?
                    .parse::<u64>()
                    .ok()
            })
            .sum();
        Some(limit.saturating_sub(number("memory.current")?.saturating_sub(cached)))
    };
    own.ancestors()
        .take_while(|folder| folder.starts_with(root))
        .filter_map(left)
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_bytes_than_there_are_is_refused_by_name() {
        check_bytes("weights", 0).unwrap();
        let error = check_bytes("weights", u64::MAX).unwrap_err().to_string();
        assert!(
            error.contains("weights take 18446744073709551615 bytes"),
            "{error}"
        );
    }

    #[test]
    fn meminfo_is_in_kibibytes() {
        let text = "MemTotal:       24576 kB\nMemAvailable:    1024 kB\n";
        assert_eq!(meminfo_bytes(text, "MemAvailable"), Some(1 << 20));
        assert_eq!(meminfo_bytes(text, "Mem"), None);
    }

    #[test]
    fn a_process_is_read_as_the_system_writes_it() {
        let stat = "77 (red) line) x) S 1 77 77 0 -1 4194560 9001 0 42 0 12 3 0 0 20 0 9";
        assert_eq!(stat_major_faults(stat), Some(42));
        assert_eq!(stat_major_faults("77 (redline"), None);
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max locked memory         8388608              unlimited            bytes\n";
        assert_eq!(soft_limit(limits), Some(8 << 20));
        let limits = "Max locked memory         unlimited            unlimited            bytes";
        assert_eq!(soft_limit(limits), Some(u64::MAX));
        assert_eq!(soft_limit("Max open files 1 2 files"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_these_numbers() {
        assert!(status_bytes("VmRSS").unwrap() > 0);
        assert!(status_bytes("VmSwap").is_some() && status_bytes("VmLck").is_some());
        assert!(major_faults().is_some() && lockable_bytes().is_some());
    }

    #[test]
    fn the_tightest_group_counts_and_cached_files_are_free() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let own = root.join("a/b");
        std::fs::create_dir_all(&own).unwrap();
        let write = |path: &str, text: &str| std::fs::write(root.join(path), text).unwrap();
        write("a/memory.max", "1000\n");
        write("a/memory.current", "900\n");
        write(
            "a/memory.stat",
            "anon 200\ninactive_file 400\nactive_file 300\n",
        );
        write("a/b/memory.max", "max\n");
        write("a/b/memory.current", "500\n");
        assert_eq!(group_bytes("0::/a/b\n", root), Some(800));
        assert_eq!(group_bytes("0::/\n", root), None);
        assert_eq!(group_bytes("1:memory:/a\n", root), None);
    }
}
