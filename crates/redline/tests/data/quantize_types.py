#!/usr/bin/env python3
"""Writes quantize_types.json: the type that llama.cpp gives each matrix of some models, in each mix.

Provenance: `llama-quantize --dry-run --allow-requantize` of llama.cpp (its build number is in
the data) on directories alone:
files with the metadata that it asks for and matrices of zeros, with the names and row lengths of
SmolLM2 135M, Gemma 3 270M, Qwen2.5 0.5B and Phi-3-mini, of a model of 80 layers, and of one with
experts.

    python quantize_types.py LLAMA_QUANTIZE BUILD [OUT]    # a Python with the package gguf 0.19.0

For each model what a mix may ask, the row lengths of its matrices by name without layer, and for
each mix and name the type of most layers, and the layers of each other type.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile

import gguf
import numpy as np

MIXES = [
    "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K", "IQ4_NL",
    "IQ4_XS", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "F16", "BF16", "MXFP4_MOE",
]


def llama_like(hidden, values, down):
    """Row lengths; matrices are as short as can be."""
    names = {name: hidden for name in ("attn_q", "attn_k", "attn_v", "ffn_gate", "ffn_up")}
    return names | {"attn_output": values, "ffn_down": down}


MODELS = {
    "smollm2-135m": ("llama", 30, 9, 3, 0, True, llama_like(576, 576, 1536)),
    "gemma3-270m": ("gemma3", 18, 4, 1, 0, True, llama_like(640, 1024, 2048)),
    "qwen2.5-0.5b": ("qwen2", 24, 14, 2, 0, True, llama_like(896, 896, 4864)),
    "phi3-mini": ("phi3", 32, 32, 32, 0, False,
                  {"attn_qkv": 3072, "attn_output": 3072, "ffn_up": 3072, "ffn_down": 8192}),
    "80-layers": ("llama", 80, 16, 2, 0, False, llama_like(512, 512, 768)),
    "8-experts": ("llama", 16, 8, 2, 8, False, {
        "attn_q": 512, "attn_k": 512, "attn_v": 512, "attn_output": 512, "ffn_gate_inp": 512,
        "ffn_gate_exps": 512, "ffn_up_exps": 512, "ffn_down_exps": 768,
    }),
    "odd-rows": ("llama", 4, 2, 2, 0, False, llama_like(48, 48, 96)),
}


def directory(path, model):
    arch, layers, heads, keys, experts, tied, names = model
    writer = gguf.GGUFWriter(path, arch)
    hidden = names.get("attn_q", names.get("attn_qkv"))
    writer.add_block_count(layers)
    writer.add_context_length(2048)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(names.get("ffn_down", names.get("ffn_down_exps")))
    writer.add_head_count(heads)
    writer.add_head_count_kv(keys)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(2)
    writer.add_sliding_window(512)
    writer.add_rope_dimension_count(hidden // heads)
    writer.add_rope_scaling_orig_ctx_len(2048)
    if experts:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(2)
    matrix = lambda name, *shape: writer.add_tensor(name, np.zeros(shape, dtype=np.float32))
    matrix("token_embd.weight", 2, hidden)
    matrix("output_norm.weight", hidden)
    if not tied:
        matrix("output.weight", 2, hidden)
    for layer in range(layers):
        for name, cols in names.items():
            shape = (experts, 2, cols) if name.endswith("_exps") else (2, cols)
            matrix(f"blk.{layer}.{name}.weight", *shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def types(program, path, mix):
    run = [program, "--dry-run", "--allow-requantize", path, mix]
    said = subprocess.run(run, capture_output=True, text=True)
    lines = re.findall(
        r"^\[ *\d+/ *\d+\] (\S+) .*type = +(\w+), size = [^>]*?(?:-> [^(]*\((\w+)\))?$",
        said.stdout + said.stderr, re.M)
    assert lines and said.returncode == 0, said.stderr[-2000:]
    found = {}
    for name, old, new in lines:
        layered = re.fullmatch(r"blk\.(\d+)\.(.*)", name)
        layer, name = (int(layered[1]), layered[2]) if layered else (-1, name)
        if not name.endswith("_norm.weight"):
            found.setdefault(name, {}).setdefault((new or old).upper(), []).append(layer)
    return {name: exceptions(kinds) for name, kinds in sorted(found.items())}


def exceptions(kinds):
    """The commonest type, and the layers of each other."""
    most = max(kinds, key=lambda kind: len(kinds[kind]))
    others = {kind: sorted(layers) for kind, layers in sorted(kinds.items()) if kind != most}
    return [most, others] if others else [most]


def main(program, build, out):
    models = {}
    with tempfile.TemporaryDirectory() as folder:
        for title, model in MODELS.items():
            path = f"{folder}/{title}.gguf"
            directory(path, model)
            arch, layers, heads, keys, experts, tied, names = model
            rows = {f"{name}.weight": cols for name, cols in names.items()}
            rows["token_embd.weight"] = names.get("attn_q", names.get("attn_qkv"))
            if not tied:
                rows["output.weight"] = rows["token_embd.weight"]
            models[title] = {
                "layers": layers, "heads": heads, "key_heads": keys, "experts": experts,
                "cols": rows, "mixes": {mix: types(program, path, mix) for mix in MIXES},
            }
    text = json.dumps({"llama.cpp": build, "models": models}, separators=(",", ":"))
    pathlib.Path(out).write_text(text.replace('"mixes":', '\n"mixes":').replace('}},"', '}},\n"') + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:3], sys.argv[3] if len(sys.argv) > 3 else pathlib.Path(__file__).with_suffix(".json"))
