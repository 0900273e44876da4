//! `bench`, small.

use crate::support::{finish, program, redline, shared_cache};

const SMALL: [&str; 8] = [
    "bench",
    "synth:tiny-llama",
    "-p",
    "16,0",
    "-n",
    "8",
    "-r",
    "2",
];

#[test]
fn every_figure_has_its_context() {
    let json = redline(&[&SMALL as &[&str], &["-t", "1", "-o", "json"]].concat()).json();
    assert_eq!(
        (&json["correct"], &json["launches"]),
        (&true.into(), &2.into())
    );
    assert_eq!(
        (&json["model"]["weights"], &json["threads"]),
        (&"synthetic".into(), &1.into())
    );
    assert_eq!(json["load_ms"].as_array().unwrap().len(), 2);
    for name in ["cpu", "kernel", "cores", "cpu_flags", "load_average_1m"] {
        assert!(json["environment"].get(name).is_some(), "{name}");
    }
    let results = json["results"].as_array().unwrap();
    let tests: Vec<_> = results
        .iter()
        .map(|row| row["test"].as_str().unwrap())
        .collect();
    assert_eq!(tests, ["pp16", "tg8"]);
    for row in results {
        assert_eq!(row["samples_ts"].as_array().unwrap().len(), 2, "{row}");
        assert!(row["avg_ts"].as_f64().unwrap() > 0.0, "{row}");
        assert_eq!(row["output_hash"].as_str().unwrap().len(), 16, "{row}");
        let percent = &row["pct_of_limit"];
        assert!(
            percent.is_null() || percent.as_f64().unwrap() > 0.0,
            "{row}"
        );
    }
    assert_eq!(
        (&results[0]["n_prompt"], &results[0]["n_gen"]),
        (&16.into(), &0.into())
    );
    assert_eq!(
        (&results[1]["n_prompt"], &results[1]["n_gen"]),
        (&0.into(), &8.into())
    );
    assert!(results[1]["bytes_per_step"].as_f64().unwrap() > 0.0);
}

/// The outputs' hashes of one launch on the small model.
fn hashes(flags: &[&str]) -> Vec<String> {
    let path = redline(&["synth", "tiny-llama"]).stdout;
    let mut worker = program(shared_cache());
    let outcome = finish(worker.arg("bench-worker").args(flags).arg(path.trim()));
    let last = outcome.stdout.lines().last().unwrap();
    let json: serde_json::Value = serde_json::from_str(last).unwrap();
    let runs = json["Launch"]["runs"].as_array().unwrap().iter();
    runs.map(|run| run["rounds"][0]["hash"].to_string())
        .collect()
}

#[test]
fn what_is_at_a_depth_is_the_end_of_a_longer_prompt() {
    let [whole, _, short, prompt, step, deep] = &*hashes(&["-p", "71,1", "-n", "1", "-d", "0,70"])
    else {
        panic!("six tests");
    };
    assert_eq!((prompt, deep), (whole, whole));
    assert_eq!(short, step);
    assert_ne!(short, whole);
}

#[test]
fn the_hash_is_that_of_the_model_and_not_of_the_way() {
    let tests = ["-p", "16", "-n", "8", "-d", "0,70", "-b", "3"];
    let hashes = |how: &[&str]| hashes(&[&tests, how].concat());
    let plain = hashes(&[]);
    let distinct: std::collections::BTreeSet<_> = plain.iter().collect();
    assert_eq!((plain.len(), distinct.len()), (5, 5));
    for how in [["--isa", "scalar"], ["--threads", "1"], ["--chunk", "3"]] {
        assert_eq!(hashes(&how), plain, "{how:?}");
    }
}

#[test]
fn tests_have_a_depth_and_several_sequences() {
    let flags = ["-p", "8", "-n", "4", "-d", "0,100", "-b", "5", "-r", "1"];
    let json = redline(
        &[
            &["bench", "synth:tiny-llama"] as &[&str],
            &flags,
            &["-o", "json"],
        ]
        .concat(),
    )
    .json();
    let results = json["results"].as_array().unwrap();
    let figures: Vec<_> = results
        .iter()
        .map(|row| {
            let name = row["test"].as_str().unwrap();
            (name, row["n_depth"].as_u64(), row["sequences"].as_u64())
        })
        .collect();
    let expected = [
        ("pp8", Some(0), Some(1)),
        ("pp8 @ d100", Some(100), Some(1)),
        ("tg4", Some(0), Some(1)),
        ("tg4 @ d100", Some(100), Some(1)),
        ("tg32 @ d64 b5", Some(64), Some(5)),
    ];
    assert_eq!(figures, expected);
    // Caches of 100 positions are read too.
    let bytes = |row: usize| results[row]["bytes_per_step"].as_f64().unwrap();
    assert!(bytes(3) > bytes(2), "{json}");
    let refused = redline(&["bench", "synth:tiny-llama", "-d", "400"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(
        refused.stderr.contains("pp512 @ d400: 912 tokens"),
        "{refused:?}"
    );
    let nothing = redline(&["bench", "synth:tiny-llama", "-p", "0", "-n", "0"]);
    assert_eq!(nothing.code, Some(2), "{nothing:?}");
    assert!(nothing.stderr.contains("nothing to measure"), "{nothing:?}");
}

#[test]
fn the_table_flags_synthetic_weights() {
    let outcome = redline(&["bench", "synth:tiny-llama", "-p", "8", "-n", "4", "-r", "1"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(
        outcome
            .stdout
            .starts_with("## synth:tiny-llama (synthetic weights)"),
        "{outcome:?}"
    );
    assert!(
        outcome.stdout.contains("| pp8 |") && outcome.stdout.contains("| tg4 |"),
        "{outcome:?}"
    );
    assert!(outcome.stderr.contains("launch 1 of 1: tg4"), "{outcome:?}");
}

#[test]
fn every_kind_of_kernel_is_checked_and_timed() {
    let filter = "matmul q5_0 896x4864 m32,attention f16 14/2 heads of 64 m1 d128,\
        norm rms f32 3072 m1,append_kv f16 3072 m1,gated silu f32 3072 m1,rope neox f32 3072 m1,\
        embed q8_0 3072 m1";
    let flags = ["bench", "--suite", "kernels", "-t", "1", "--filter"];
    let json = redline(&[&flags as &[&str], &[filter, "-o", "json"]].concat()).json();
    assert_eq!(json["correct"], true);
    let entries = json["entries"].as_array().unwrap();
    let verbs: std::collections::BTreeSet<&str> = entries
        .iter()
        .map(|entry| entry["verb"].as_str().unwrap())
        .collect();
    assert_eq!(verbs.len(), 7, "{verbs:?}");
    for entry in entries {
        assert!(
            entry["gigabytes_per_second"].as_f64().unwrap() > 0.0,
            "{entry}"
        );
        assert!(
            entry["samples_ns"].as_array().unwrap().len() == 5,
            "{entry}"
        );
        assert_eq!(entry["output_hash"].as_str().unwrap().len(), 16, "{entry}");
    }
    let none = redline(&["bench", "--suite", "kernels", "--filter", "matmul q9"]);
    assert!(none.stderr.contains("\"matmul q9\""), "{none:?}");
    let lost = redline(&["bench", "synth:tiny-llama", "--filter", "norm"]);
    assert_eq!(lost.code, Some(2), "{lost:?}");
    for ignored in [["synth:tiny-llama", "-ojson"], ["-p", "32"], ["-r", "1"]] {
        let lost = redline(&[&["bench", "--suite", "kernels"] as &[&str], &ignored].concat());
        assert_eq!(lost.code, Some(2), "{lost:?}");
    }
}

#[test]
fn one_probe_of_the_read_bandwidth() {
    let json = redline(&["limits", "--read", "1048576", "-t", "1", "--json"]).json();
    assert_eq!(json["working_set_bytes"], 1 << 20);
    assert!(json["bytes_per_second"].as_f64().unwrap() > 1e6, "{json}");
}
