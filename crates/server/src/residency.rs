//! Whether the weights are in memory, as whoever mapped them sees it.

/// What was seen at a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Residency {
    /// Bytes of weights.
    pub weight_bytes: u64,
    /// Those in memory.
    pub resident_bytes: u64,
    /// Bytes of the process that are locked in memory.
    pub locked_bytes: u64,
    /// Bytes of the process in swap.
    pub swap_bytes: u64,
    /// Times the process waited for a page to come from a disk, since it began.
    pub major_faults: u64,
    /// Looks, this one too.
    pub checks: u64,
}

impl Residency {
    /// Its lines among the metrics: name, kind, help and value.
    pub(crate) const fn rows(&self) -> [(&'static str, &'static str, &'static str, u64); 6] {
        [
            (
                "redline_weight_bytes",
                "gauge",
                "Bytes of weights.",
                self.weight_bytes,
            ),
            (
                "redline_resident_weight_bytes",
                "gauge",
                "Those in memory at the last look.",
                self.resident_bytes,
            ),
            (
                "redline_locked_bytes",
                "gauge",
                "Bytes of the process locked in memory.",
                self.locked_bytes,
            ),
            (
                "redline_swap_bytes",
                "gauge",
                "Bytes of the process in swap.",
                self.swap_bytes,
            ),
            (
                "redline_major_faults_total",
                "counter",
                "Times the process waited for a page to come from a disk, until the last look.",
                self.major_faults,
            ),
            (
                "redline_residency_checks_total",
                "counter",
                "Looks at what is in memory.",
                self.checks,
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use redline_engine::Snapshot;

    use super::*;
    use crate::metrics::{Metrics, render};

    #[test]
    fn weights_are_told_of_as_they_were_seen_last_or_not_at_all() {
        let metrics = Metrics::default();
        let page = || render(&metrics, "m", &Snapshot::default());
        assert!(!page().contains("weight_bytes"), "{}", page());
        for checks in [1, 2] {
            metrics.tell_residency(Residency {
                weight_bytes: 100,
                resident_bytes: 90,
                locked_bytes: 80,
                swap_bytes: 70,
                major_faults: 60,
                checks,
            });
        }
        for line in [
            "redline_weight_bytes{model_name=\"m\"} 100",
            "redline_resident_weight_bytes{model_name=\"m\"} 90",
            "redline_locked_bytes{model_name=\"m\"} 80",
            "redline_swap_bytes{model_name=\"m\"} 70",
            "# TYPE redline_major_faults_total counter",
            "redline_major_faults_total{model_name=\"m\"} 60",
            "redline_residency_checks_total{model_name=\"m\"} 2",
        ] {
            assert!(page().lines().any(|found| found == line), "{line}");
        }
    }
}
