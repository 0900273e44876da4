//! Memory this process may still take, and the refusal of a model that needs more.

use std::path::{Path, PathBuf};

use anyhow::bail;
use redline_model::MemoryPlan;

use crate::units;

/// Refuses a plan the machine has no room for.
///
/// # Errors
/// If the plan needs more than is available. What cannot be found out refuses nothing.
pub(crate) fn check(plan: MemoryPlan) -> anyhow::Result<()> {
    let required = plan.total_bytes();
    match available_bytes() {
        Some(available) if required > available => bail!(
            "not enough memory: required {required} bytes ({}: weights {}, KV cache {}, scratch {}), \
             available {available} bytes ({}); a smaller --context needs less",
            units::bytes(required),
            units::bytes(plan.weight_bytes),
            units::bytes(plan.kv_bytes),
            units::bytes(plan.scratch_bytes),
            units::bytes(available)
        ),
        _ => Ok(()),
    }
}

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
    fn too_little_memory_is_refused_with_both_numbers() {
        let plan = |weight_bytes| MemoryPlan {
            weight_bytes,
            kv_bytes: 1,
            scratch_bytes: 1,
        };
        check(plan(1)).unwrap();
        let huge = 1_u64 << 60;
        let error = check(plan(huge)).unwrap_err().to_string();
        assert!(
            error.contains(&format!("required {} bytes", huge + 2)),
            "{error}"
        );
        assert!(error.contains("available "), "{error}");
    }

    #[test]
    fn meminfo_is_in_kibibytes() {
        let text = "MemTotal:       24576 kB\nMemAvailable:    1024 kB\n";
        assert_eq!(meminfo_bytes(text, "MemAvailable"), Some(1 << 20));
        assert_eq!(meminfo_bytes(text, "Mem"), None);
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
