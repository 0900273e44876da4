//! Files that are no model Redline can run: one line says what was expected and what was found.

use std::path::Path;

use crate::support::redline;

/// A small Qwen3 with `from` in its bytes replaced by `to`, of like length: offsets stay right.
struct Damaged(tempfile::NamedTempFile);

impl Damaged {
    fn new(from: &[u8], to: &[u8]) -> Self {
        assert_eq!(from.len(), to.len());
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden");
        let mut bytes = std::fs::read(golden.join("qwen3-gqa/model.gguf")).unwrap();
        let at = bytes.windows(from.len()).position(|part| part == from);
        let at = at.expect("the file has those bytes");
        bytes[at..at + to.len()].copy_from_slice(to);
        let file = tempfile::Builder::new().suffix(".gguf").tempfile().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        Self(file)
    }

    #[track_caller]
    fn fails(&self, expected: &[&str]) {
        let path = self.0.path().to_str().unwrap();
        for verb in [
            &["run", path, "hello", "--raw"][..],
            &["embed", path, "hello"],
        ] {
            redline(verb).fails(1, expected);
        }
    }
}

/// A tensor's name, count of dims, and dims, as the directory has them.
fn directory(name: &str, dims: [u64; 2]) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.extend(2_u32.to_le_bytes());
    bytes.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
    bytes
}

#[test]
fn an_unknown_architecture_is_named_with_the_known_ones() {
    Damaged::new(b"qwen3", b"qwenX").fails(&[
        "general.architecture",
        "unknown architecture \"qwenX\"",
        "llama, qwen2, gemma3, phi3, qwen3, gpt2, bert, nomic-bert",
    ]);
}

#[test]
fn a_missing_tensor_is_named_with_its_shape() {
    let damaged = Damaged::new(b"blk.1.ffn_up.weight", b"blk.1.ffn_xx.weight");
    damaged.fails(&["tensor blk.1.ffn_up.weight: missing, expected dims [40, 64]"]);
}

#[test]
fn a_wrong_shape_is_shown_beside_the_right_one() {
    let name = "blk.1.ffn_up.weight";
    let damaged = Damaged::new(&directory(name, [40, 64]), &directory(name, [64, 40]));
    damaged.fails(&["tensor blk.1.ffn_up.weight: expected dims [40, 64], found [64, 40]"]);
}

#[test]
fn a_missing_tokenizer_is_said() {
    let damaged = Damaged::new(b"tokenizer.ggml.model", b"tokenizer.ggml.mxdel");
    damaged.fails(&["cannot use the tokenizer of", "tokenizer.ggml.model"]);
}
