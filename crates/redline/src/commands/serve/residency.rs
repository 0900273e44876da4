//! Whether the weights of a server stay in memory.

use std::time::{Duration, Instant};

use redline_model::MappedWeights;
use redline_server::Residency;

use crate::{memory, units};

/// Of a hundred bytes of weights, those in memory that are enough: below, every token waits for a disk.
const ENOUGH_PERCENT: u64 = 99;
/// Major faults between two looks that are worth a line. A few are the program's own pages, which are
/// read when they are first needed.
const MANY_FAULTS: u64 = 64;

/// Between two looks at most; the clock ends somewhere.
const LONGEST_S: u64 = 365 * 24 * 3600;

/// Looks at the weights from time to time.
#[derive(Debug)]
pub(super) struct Watch {
    weights: MappedWeights,
    every: Duration,
    next: Instant,
    checks: u64,
    notes: Notes,
}

impl Watch {
    /// Looks every so many seconds from now on; `None` if that is 0.
    pub(super) fn new(weights: MappedWeights, every_s: u64) -> Option<Self> {
        (every_s > 0).then(|| Self {
            weights,
            every: Duration::from_secs(every_s.min(LONGEST_S)),
            next: Instant::now(),
            checks: 0,
            notes: Notes::default(),
        })
    }

    /// What there is to see, if it is time to look, and what is worth a line. Where the system does not
    /// tell, there is nothing.
    pub(super) fn look(&mut self) -> Option<(Residency, Option<String>)> {
        let now = Instant::now();
        if now < self.next {
            return None;
        }
        self.next = now + self.every;
        self.checks += 1;
        let seen = Residency {
            weight_bytes: self.weights.bytes(),
            resident_bytes: self.weights.resident_bytes().ok()?,
            locked_bytes: memory::status_bytes("VmLck")?,
            swap_bytes: memory::status_bytes("VmSwap")?,
            major_faults: memory::major_faults()?,
            checks: self.checks,
        };
        Some((seen, self.notes.take(seen)))
    }
}

/// What was seen, and said.
#[derive(Debug, Default)]
struct Notes {
    /// What was seen the last time.
    before: Option<Residency>,
    /// What was told the last time, if something was wrong then.
    told: Option<Residency>,
}

impl Notes {
    /// What is worth telling of what is seen: what got worse since it was told, and that all is well
    /// again.
    fn take(&mut self, seen: Residency) -> Option<String> {
        let before = self.before.replace(seen);
        // Those until the first look read the model.
        let faults = before.map_or(0, |before| {
            seen.major_faults.saturating_sub(before.major_faults)
        });
        let is_missing = percent(&seen) < ENOUGH_PERCENT;
        let is_worse = match self.told {
            None => is_missing || seen.swap_bytes > 0,
            Some(told) => {
                is_missing && percent(&seen) < percent(&told) || seen.swap_bytes > told.swap_bytes
            }
        };
        if is_worse || faults >= MANY_FAULTS {
            self.told = Some(seen);
            return Some(warning(&seen, faults));
        }
        if !is_missing && seen.swap_bytes == 0 && self.told.take().is_some() {
            return Some(format!(
                "residency: the {} of weights are in memory again",
                units::bytes(seen.weight_bytes)
            ));
        }
        None
    }
}

/// Of a hundred bytes of weights, those that are in memory.
fn percent(seen: &Residency) -> u64 {
    (seen.resident_bytes.saturating_mul(100))
        .checked_div(seen.weight_bytes)
        .unwrap_or(100)
}

fn warning(seen: &Residency, faults: u64) -> String {
    let advice = match seen.locked_bytes >= seen.weight_bytes {
        true => "make room in memory",
        false => {
            "make room in memory, take less of it (--kv-memory, --context), or lock the weights (--mlock)"
        }
    };
    format!(
        "residency: {} of {} of weights ({} %) are in memory, {faults} major faults since the last look, \
         {} of this process in swap: answers wait for a disk; {advice}",
        units::bytes(seen.resident_bytes),
        units::bytes(seen.weight_bytes),
        percent(seen),
        units::bytes(seen.swap_bytes),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn seen(resident_mib: u64, major_faults: u64, swap_mib: u64) -> Residency {
        Residency {
            weight_bytes: 200 * MIB,
            resident_bytes: resident_mib * MIB,
            locked_bytes: 0,
            swap_bytes: swap_mib * MIB,
            major_faults,
            checks: 0,
        }
    }

    #[test]
    fn a_line_is_written_when_something_gets_worse_and_when_all_is_well_again() {
        let mut notes = Notes::default();
        // A load reads from the disk.
        assert_eq!(notes.take(seen(200, 9000, 0)), None);
        assert_eq!(notes.take(seen(198, 9000 + MANY_FAULTS - 1, 0)), None);
        let line = notes.take(seen(150, 9100, 3)).unwrap();
        for part in [
            "150.0 MiB of 200.0 MiB of weights (75 %)",
            "37 major faults",
            "3.0 MiB of this process in swap",
            "--mlock",
        ] {
            assert!(line.contains(part), "{line}");
        }
        // As bad as it was, which was said.
        assert_eq!(notes.take(seen(150, 9110, 3)), None);
        assert!(notes.take(seen(140, 9110, 3)).unwrap().contains("(70 %)"));
        assert!(notes.take(seen(140, 9110, 4)).unwrap().contains("4.0 MiB"));
        assert_eq!(notes.take(seen(200, 9110, 4)), None);
        let line = notes.take(seen(200, 9110, 0)).unwrap();
        assert!(line.contains("in memory again"), "{line}");
        assert_eq!(notes.take(seen(200, 9110, 0)), None);
        let line = notes.take(seen(200, 9110 + MANY_FAULTS, 0)).unwrap();
        assert!(line.contains("64 major faults"), "{line}");
    }

    #[test]
    fn who_has_locked_the_weights_is_not_told_to() {
        let locked = Residency {
            locked_bytes: 200 * MIB,
            ..seen(200, 0, 1)
        };
        let line = Notes::default().take(locked).unwrap();
        assert!(!line.contains("--mlock"), "{line}");
    }

    #[test]
    fn no_time_between_looks_is_no_look() {
        let file = redline_model::ModelFile::from_bytes(vec![
            redline_gguf::Writer::new()
                .start(Vec::new())
                .unwrap()
                .finish()
                .unwrap(),
        ]);
        let weights = MappedWeights::new(&file, &file.gguf().unwrap());
        assert!(Watch::new(weights.clone(), 0).is_none());
        let mut watch = Watch::new(weights, u64::MAX).unwrap();
        let first = watch.look().map(|(seen, line)| (seen.checks, line));
        assert!(matches!(first, None | Some((1, None))), "{first:?}");
        assert!(watch.look().is_none());
    }
}
