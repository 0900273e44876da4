"""What llama.cpp computes for a text, teacher-forced.

    python llama_cpp_logits.py MODEL.gguf TEXT.txt LOGITS.npy [--ubatch N] [--threads N]

LOGITS.npy gets [positions, vocabulary] F32, and beside it LOGITS.ids.json the token ids: those of
llama.cpp's own tokenizer for the whole text, BOS as the model says, special tokens not parsed.
With --ubatch 1 it computes them one by one, which gives other bits than together.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

import llama_cpp
import numpy as np

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


def load(path, ubatch, threads=None):
    plain_kernels()
    return llama_cpp.Llama(
        str(path), n_ctx=CONTEXT, n_batch=ubatch, n_ubatch=ubatch, logits_all=True,
        flash_attn=False, n_gpu_layers=0, n_threads=threads, n_threads_batch=threads, verbose=False,
    )


def logits_of(model, ids):
    assert len(ids) <= CONTEXT, f"{len(ids)} tokens, at most {CONTEXT}"
    model.reset()
    model.eval(ids)
    return np.array(model.scores[: len(ids)], dtype=np.float32)


def log_softmax(logits):
    wide = logits.astype(np.float64)
    wide -= wide.max()
    return wide - np.log(np.exp(wide).sum())


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("logits", type=Path)
    parser.add_argument("--ubatch", type=int, default=CONTEXT)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    model = load(args.model, args.ubatch, args.threads)
    ids = model.tokenize(args.text.read_bytes(), add_bos=True, special=False)
    logits = logits_of(model, ids)
    np.save(args.logits, logits)
    args.logits.with_suffix(".ids.json").write_text(json.dumps(ids) + "\n")
    print(f"{args.model.name}: {len(ids)} positions, {logits.shape[1]} ids", file=sys.stderr)


if __name__ == "__main__":
    main()
