"""What llama.cpp computes for a text, teacher-forced.

    python llama_cpp_logits.py MODEL.gguf TEXT.txt LOGITS.npy [--compact REFERENCE.gguf] [--ubatch N]

LOGITS.npy gets [positions, vocabulary] F32, and beside it LOGITS.ids.json the token ids: those of
llama.cpp's own tokenizer for the whole text, BOS as the model says, special tokens not parsed.
With --compact, REFERENCE.gguf gets what a test can carry about with it:

    tokens    I32 [positions]       the ids
    top_ids   I32 [positions, 32]   the likeliest next ids, best first
    top_logp  F32 [positions, 32]   their natural log-probabilities
    rest_logp F32 [positions]       log of the probability of all other ids together

and REFERENCE.json the provenance, with how far llama.cpp is from itself when it computes the same
tokens one by one: two engines with 8-bit activations cannot be expected to agree better.
"""

import argparse
import hashlib
import json
import sys
from importlib.metadata import version
from pathlib import Path

import gguf
import llama_cpp
import numpy as np

TOP = 32
CONTEXT = 1024


def plain_kernels():
    """Keeps llama.cpp off its repacked and AMX weights, whose kernels crash on some virtual machines.

    `Llama` offers no parameter for it, so the defaults it starts from are changed.
    """
    low_level = llama_cpp.llama_cpp
    defaults = low_level.llama_model_default_params

    def without_extra_buffers():
        params = defaults()
        params.use_extra_bufts = False
        return params

    low_level.llama_model_default_params = without_extra_buffers


def logits_of(model_path, text, ubatch):
    plain_kernels()
    model = llama_cpp.Llama(
        str(model_path), n_ctx=CONTEXT, n_batch=ubatch, n_ubatch=ubatch, logits_all=True,
        flash_attn=False, n_gpu_layers=0, verbose=False,
    )
    ids = model.tokenize(text.encode(), add_bos=True, special=False)
    assert len(ids) <= CONTEXT, f"{len(ids)} tokens, at most {CONTEXT}"
    model.eval(ids)
    return ids, np.array(model.scores[: len(ids)], dtype=np.float32)


def log_softmax(logits):
    wide = logits.astype(np.float64)
    wide -= wide.max()
    return wide - np.log(np.exp(wide).sum())


def compact(ids, logits):
    top_ids, top_logp, rest = [], [], []
    for row in logits:
        logp = log_softmax(row)
        order = np.lexsort((np.arange(len(logp)), -logp))[:TOP]
        top_ids.append(order)
        top_logp.append(logp[order])
        # Summed, not 1 - top: the difference would lose a small rest.
        others = np.delete(logp, order)
        rest.append(np.log(np.exp(others).sum()))
    return {
        "tokens": np.array(ids, dtype=np.int32),
        "top_ids": np.array(top_ids, dtype=np.int32),
        "top_logp": np.array(top_logp, dtype=np.float32),
        "rest_logp": np.array(rest, dtype=np.float32),
    }


def own_noise(logits, one_by_one):
    kl, same = [], 0
    for p_row, q_row in zip(logits, one_by_one):
        p, q = log_softmax(p_row), log_softmax(q_row)
        kl.append((np.exp(p) * (p - q)).sum())
        same += int(p.argmax() == q.argmax())
    return {
        "top1_agreement": round(same / len(kl), 4),
        "kl_mean": round(float(np.mean(kl)), 5),
    }


def write_compact(path, tensors):
    writer = gguf.GGUFWriter(path, "reference")
    for name, data in tensors.items():
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("logits", type=Path)
    parser.add_argument("--compact", type=Path)
    parser.add_argument("--ubatch", type=int, default=CONTEXT)
    args = parser.parse_args()
    text = args.text.read_text()
    ids, logits = logits_of(args.model, text, args.ubatch)
    np.save(args.logits, logits)
    args.logits.with_suffix(".ids.json").write_text(json.dumps(ids) + "\n")
    print(f"{args.model.name}: {len(ids)} positions, {logits.shape[1]} ids", file=sys.stderr)
    if not args.compact:
        return
    write_compact(args.compact, compact(ids, logits))
    provenance = {
        "reference": "llama.cpp on CPU, through llama-cpp-python",
        "arithmetic": "weights as stored, activations quantised by llama.cpp's kernels, F16 keys and "
        f"values, no flash attention, no repacked weights, batches of up to {args.ubatch} tokens",
        "model": args.model.name,
        "model_sha256": sha256(args.model),
        "text": args.text.name,
        "text_sha256": sha256(args.text),
        "positions": len(ids),
        "batch_against_one_by_one": own_noise(logits, logits_of(args.model, text, 1)[1]),
        "versions": {
            "python": sys.version.split()[0],
            "llama_cpp_python": llama_cpp.__version__,
            "numpy": np.__version__,
            "gguf": version("gguf"),
        },
        "llama_cpp_system_info": llama_cpp.llama_print_system_info().decode().strip(),
        "script": "xtask/golden/llama_cpp_logits.py",
        "script_sha256": sha256(__file__),
    }
    args.compact.with_suffix(".json").write_text(json.dumps(provenance, indent=2) + "\n")


if __name__ == "__main__":
    main()
