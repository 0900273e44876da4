"""Checks the tiny golden models with others' code before Redline's own runs them.

    python verify_tiny.py FOLDER [VARIANT...]

Reads FOLDER/<variant>/*.gguf with the `gguf` package, checks that the model has the tensors its
configuration calls for, and compares the logits llama.cpp computes from model.gguf (F32 keys and
values) with the reference. What llama.cpp cannot compute is named, and so is its absence.
"""

import json
import sys
from pathlib import Path

import gguf
import numpy as np

# Worst row of logits, relative to its norm.
TOLERANCE = 1e-5
# llama.cpp looks GELU up in a table of F16: with that imitated in transformers the median row is
# within 1e-5, and without within 1e-3.
GELU_TOLERANCE = 2e-3
BEYOND_LLAMA_CPP = {
    "gpt-oss-yarn": "blends YaRN's frequencies between whole pairs",
    "gpt-oss-odd": "blends YaRN's frequencies between whole pairs",
    "llama-window": "reads no sliding window in llama files",
    "llama-window-gqa": "reads no sliding window in llama files",
    "llama-window-wide": "reads no sliding window in llama files",
    "phi3-window": "ignores the window of phi3 files",
    "qwen2-untied": "wants heads * head_dim = hidden in qwen2 files",
}


def tensors(path):
    return {tensor.name: tensor.data for tensor in gguf.GGUFReader(path).tensors}


def check_shapes(name, config, model, reference):
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads", heads)
    hidden = config["hidden_size"]
    head = config.get("head_dim", hidden // heads)
    width = config.get("intermediate_size") or config["n_inner"]
    layers, vocabulary = config["num_hidden_layers"], config["vocab_size"]
    expected = {
        "token_embd.weight": (vocabulary, hidden),
        f"blk.{layers - 1}.attn_output.weight": (hidden, heads * head),
    }
    encoder = "logits" not in reference
    if encoder:
        expected["blk.0.layer_output_norm.bias"] = (hidden,)
    else:
        expected["output_norm.weight"] = (hidden,)
    if name.startswith(("gpt2", "bert")):
        expected["position_embd.weight"] = (config["max_position_embeddings"], hidden)
    experts = config.get("num_local_experts")
    if experts:
        expected["blk.0.ffn_gate_exps.weight"] = (experts, width, hidden)
        expected[f"blk.{layers - 1}.ffn_down_exps.weight"] = (experts, hidden, width)
    else:
        expected[f"blk.{layers - 1}.ffn_down.weight"] = (hidden, width)
    if name.startswith("phi3"):
        expected["blk.0.attn_qkv.weight"] = ((heads + 2 * kv_heads) * head, hidden)
        expected["blk.0.ffn_up.weight"] = (2 * width, hidden)
    elif name.startswith(("gpt2", "nomic-bert")):
        expected["blk.0.attn_qkv.weight"] = (3 * hidden, hidden)
    else:
        expected["blk.0.attn_q.weight"] = (heads * head, hidden)
        expected["blk.0.attn_k.weight"] = (kv_heads * head, hidden)
    for tensor, shape in expected.items():
        assert model[tensor].shape == shape, f"{name}: {tensor} {model[tensor].shape}, not {shape}"
    tied = encoder or config["tie_word_embeddings"]
    assert ("output.weight" in model) != tied, f"{name}: output.weight"
    positions = len(reference["tokens"])
    for part in ["embedding", *range(layers), "final_norm"]:
        assert reference[f"hidden.{part}"].shape == (positions, hidden), f"{name}: hidden.{part}"
    if not encoder:
        assert reference["logits"].shape == (positions, vocabulary), f"{name}: logits"
        count = len(reference["greedy"])
        assert reference["greedy_logits"].shape == (count, vocabulary), f"{name}: greedy_logits"
    return encoder


def llama_cpp_logits(path, ids):
    import llama_cpp

    model = llama_cpp.Llama(
        str(path), n_ctx=256, n_batch=256, logits_all=True, flash_attn=False, verbose=False,
        # It looks for the tokens of Phi-3 in files of such a name.
        kv_overrides={"general.name": "tiny"},
        type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32,
    )
    model.eval(ids)
    return np.array(model.scores[: len(ids)])


def main():
    folder = Path(sys.argv[1])
    names = sys.argv[2:] or sorted(path.name for path in folder.iterdir() if path.is_dir())
    for name in names:
        config = json.loads((folder / name / "provenance.json").read_text())["config"]
        path = folder / name / "model.gguf"
        model, reference = tensors(path), tensors(folder / name / "reference.gguf")
        if check_shapes(name, config, model, reference):
            print(f"{name}: shapes agree; an encoder has no logits to compare with llama.cpp's")
            continue
        if name in BEYOND_LLAMA_CPP:
            print(f"{name}: shapes agree; llama.cpp {BEYOND_LLAMA_CPP[name]}")
            continue
        try:
            theirs = llama_cpp_logits(path, reference["tokens"].tolist())
        except ImportError:
            print(f"{name}: shapes agree; llama-cpp-python is not installed: logits not compared")
            continue
        apart = np.linalg.norm(theirs - reference["logits"], axis=1)
        worst = float((apart / np.linalg.norm(reference["logits"], axis=1)).max())
        print(f"{name}: shapes agree; llama.cpp's logits within {worst:.1e} of transformers'")
        allowed = GELU_TOLERANCE if name.startswith(("gemma3", "gpt2")) else TOLERANCE
        assert worst <= allowed, f"{name}: {worst:.1e} is more than {allowed:.0e}"


if __name__ == "__main__":
    main()
