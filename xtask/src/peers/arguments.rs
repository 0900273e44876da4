//! What to compare: the command line of `peers`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

use super::engines::Engine;
use super::suite::{self, Plan};
use super::{Test, build};

pub(crate) const USAGE: &str = "\
usage: cargo xtask peers [FLAGS]

  --suite issue         all models and tests of the kernels' acceptance list, instead of -m, -p, -n, -d, -b
  -m, --model MODEL     a GGUF file, smollm2-135m, gemma3-270m or synth:SHAPE:TYPE; repeatable
                        [default: synth:qwen2.5-0.5b:q4_k_m]
  -p, --n-prompt N,…    prompt lengths; 0: none [default: 512]
  -n, --n-gen N,…       decode steps; 0: none [default: 128]
  -d, --n-depth N,…     tokens in the cache before decode [default: 0]
  -b, --batch N,…       sequences that decode together, 32 steps after 64-token prompts [default: none]
  -t, --threads N       [default: all cores]
  -r, --rounds N        [default: 5]
  --isa ISA             instruction set of Redline
  --peer NAME           llama.cpp, or llama.cpp-no-amx: the same without AMX instructions, which crash on
                        some machines; both are built on first use. Repeatable [default: llama.cpp]
  --peer NAME=CMD       any command that takes llama-bench's flags and its -o json, run by sh; tests of
                        several sequences need llama-bench in CMD, and llama-batched-bench beside it
  --peer-args ARGS      more arguments for every peer, such as '--repack 0'
  --batch-args ARGS     more arguments for llama-batched-bench, such as '--no-repack'
  --peers-dir DIR       where peers are built [default: redline-peers beside the cache]
  --redline FILE        a built redline [default: build it]
  -o md|json            form of the result [default: md]
  --output FILE         where the result goes [default: stdout, after the progress]
";

/// Everything the command line says.
#[derive(Debug)]
pub(super) struct Arguments {
    pub(super) suite: bool,
    models: Vec<String>,
    prompts: Vec<usize>,
    generations: Vec<usize>,
    depths: Vec<usize>,
    batches: Vec<usize>,
    pub(super) threads: usize,
    pub(super) rounds: usize,
    pub(super) isa: Option<String>,
    peers: Vec<String>,
    peer_args: String,
    batch_args: String,
    peers_dir: Option<PathBuf>,
    pub(super) redline: Option<PathBuf>,
    pub(super) json: bool,
    pub(super) output: Option<PathBuf>,
}

impl Default for Arguments {
    fn default() -> Self {
        Self {
            suite: false,
            models: Vec::new(),
            prompts: vec![512],
            generations: vec![128],
            depths: vec![0],
            batches: Vec::new(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            rounds: 5,
            isa: None,
            peers: Vec::new(),
            peer_args: String::new(),
            batch_args: String::new(),
            peers_dir: None,
            redline: None,
            json: false,
            output: None,
        }
    }
}

impl Arguments {
    pub(super) fn parse(words: &[&str]) -> Result<Self> {
        let mut arguments = Self::default();
        let mut words = words.iter();
        while let Some(flag) = words.next() {
            if matches!(*flag, "-h" | "--help") {
                bail!("{USAGE}");
            }
            let value = *words
                .next()
                .with_context(|| format!("{flag} needs a value, or is no flag\n{USAGE}"))?;
            arguments
                .set(flag, value)
                .with_context(|| format!("{flag} {value}"))?;
        }
        Ok(arguments)
    }

    fn set(&mut self, flag: &str, value: &str) -> Result<()> {
        match flag {
            "--suite" => {
                ensure!(value == "issue", "expected issue");
                self.suite = true;
            }
            "-m" | "--model" => self.models.push(value.to_owned()),
            "-p" | "--n-prompt" => self.prompts = numbers(value)?,
            "-n" | "--n-gen" => self.generations = numbers(value)?,
            "-d" | "--n-depth" => self.depths = numbers(value)?,
            "-b" | "--batch" => self.batches = numbers(value)?,
            "-t" | "--threads" => self.threads = positive(value)?,
            "-r" | "--rounds" => self.rounds = positive(value)?,
            "--isa" => self.isa = Some(value.to_owned()),
            "--peer" => self.peers.push(value.to_owned()),
            "--peer-args" => self.peer_args = value.to_owned(),
            "--batch-args" => self.batch_args = value.to_owned(),
            "--peers-dir" => self.peers_dir = Some(value.into()),
            "--redline" => self.redline = Some(value.into()),
            "-o" => {
                ensure!(["md", "json"].contains(&value), "expected md or json");
                self.json = value == "json";
            }
            "--output" => self.output = Some(value.into()),
            _ => bail!("no such flag\n{USAGE}"),
        }
        Ok(())
    }

    /// Which tests of which models.
    pub(super) fn plans(&self) -> Result<Vec<Plan>> {
        if self.suite {
            ensure!(
                self.models.is_empty(),
                "--suite names its models: leave out --model"
            );
            return Ok(suite::issue());
        }
        let above_zero = |numbers: &[usize]| -> Vec<usize> {
            numbers.iter().copied().filter(|n| *n > 0).collect()
        };
        let mut tests: Vec<Test> = above_zero(&self.prompts)
            .into_iter()
            .map(Test::Prompt)
            .collect();
        for tokens in above_zero(&self.generations) {
            let at = |depth: &usize| Test::Generate {
                tokens,
                depth: *depth,
            };
            tests.extend(self.depths.iter().map(at));
        }
        tests.extend(above_zero(&self.batches).into_iter().map(Test::Batch));
        ensure!(
            !tests.is_empty(),
            "nothing to measure: -p, -n and -b are all 0"
        );
        let models = if self.models.is_empty() {
            vec!["synth:qwen2.5-0.5b:q4_k_m".to_owned()]
        } else {
            self.models.clone()
        };
        let plan = |model| Plan {
            model,
            tests: tests.clone(),
            extras: false,
        };
        Ok(models.into_iter().map(plan).collect())
    }

    /// The peers, built where that is ours to do.
    pub(super) fn engines(&self) -> Result<Vec<Engine>> {
        let named: Vec<&str> = if !self.peers.is_empty() {
            self.peers.iter().map(String::as_str).collect()
        } else if self.suite && build::has_amx() {
            vec!["llama.cpp", "llama.cpp-no-amx"]
        } else {
            vec!["llama.cpp"]
        };
        let engine = |peer: &str| -> Result<Engine> {
            let (name, bench) = match peer.split_once('=') {
                Some((name, bench)) => (name, bench.to_owned()),
                None => (peer, build::peer(peer, self.peers_dir.as_deref())?),
            };
            Ok(Engine {
                name: name.to_owned(),
                bench,
                bench_arguments: self.peer_args.clone(),
                batch_arguments: self.batch_args.clone(),
            })
        };
        named.into_iter().map(engine).collect()
    }
}

fn numbers(list: &str) -> Result<Vec<usize>> {
    let number = |word: &str| {
        word.parse()
            .with_context(|| format!("{word:?} is no number"))
    };
    list.split(',').map(number).collect()
}

fn positive(word: &str) -> Result<usize> {
    let number = word
        .parse()
        .with_context(|| format!("{word:?} is no number"))?;
    ensure!(number > 0, "must be at least 1");
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_those_of_the_flags() {
        let words = [
            "-m", "a", "-p", "0,32", "-n", "64", "-d", "0,4096", "-b", "8",
        ];
        let plans = Arguments::parse(&words).unwrap().plans().unwrap();
        let names: Vec<String> = plans[0].tests.iter().map(|test| test.name()).collect();
        assert_eq!((plans.len(), plans[0].model.as_str()), (1, "a"));
        assert_eq!(names, ["pp32", "tg64", "tg64 @ d4096", "tg32 @ d64 b8"]);
        let nothing = Arguments::parse(&["-p", "0", "-n", "0"]).unwrap();
        assert!(nothing.plans().is_err());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (words, expected) in [
            (vec!["--rounds", "0"], "at least 1"),
            (vec!["-p", "5,x"], "\"x\" is no number"),
            (vec!["--peers", "x"], "no such flag"),
            (vec!["--model"], "needs a value"),
            (vec!["-o", "csv"], "md or json"),
        ] {
            let error = Arguments::parse(&words).map(drop).unwrap_err();
            assert!(format!("{error:#}").contains(expected), "{error:#}");
        }
    }

    #[test]
    fn a_peer_of_any_name_is_a_command() {
        let arguments = Arguments::parse(&["--peer", "x=A=1 bench", "--peer-args", "-k"]).unwrap();
        let engines = arguments.engines().unwrap();
        assert_eq!(
            (engines[0].name.as_str(), engines[0].bench.as_str()),
            ("x", "A=1 bench")
        );
    }
}
