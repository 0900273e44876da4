"""What the conformance tests of `crates/redline` hold a real model against.

    python conformance.py MODEL.gguf REFERENCE.gguf TEXT.txt... --long TEXT.txt [--threads N]

The first 512 ids of each text (llama.cpp's tokenizer, BOS as the model says), teacher-forced three
times: by transformers in F32 on the dequantised weights, by llama.cpp in one batch, and by llama.cpp
token by token. The first is the truth, the second what a good engine makes of the same file, the
third shows how far that engine is from itself. For each TEXT, REFERENCE.gguf gets

    TEXT.tokens      I32 [positions]      the ids
    TEXT.top_ids     I32 [positions, 8]   the ids that F32 finds likeliest, best first
    TEXT.exact_logp  F32 [positions, 8]   their natural log-probabilities in F32,
    TEXT.exact_rest  F32 [positions]      and that of all other ids together
    TEXT.llama_logp  F32 [positions, 8]   the same of llama.cpp in one batch
    TEXT.llama_rest  F32 [positions]
    TEXT.llama_best  I32 [positions]      the id that llama.cpp finds likeliest

and REFERENCE.json the provenance and how the three compare over the whole vocabulary. Of the long
text, 1024 ids, it gets what F32 computes at every sixteenth position: 15, 31 and so on.
"""

import argparse
import json
import sys
from importlib.metadata import version
from pathlib import Path

import gguf
import llama_cpp
import numpy as np

from llama_cpp_logits import load, log_softmax, logits_of, sha256
from transformers_logits import exact_logits

POSITIONS = 512
LONG = 1024
STRIDE = 16
TOP = 8


def likeliest(logp):
    """Ids by falling probability, equal ones by rising id."""
    some = np.flatnonzero(logp >= np.partition(logp, -TOP)[-TOP])
    return some[np.lexsort((some, -logp[some]))][:TOP]


def kept(name, logp, top):
    # Summed, not 1 - top: the difference would lose a small rest.
    rest = np.log(np.exp(np.delete(logp, top)).sum())
    return {f"{name}_logp": logp[top], f"{name}_rest": rest}


def stacked(rows):
    """A column for each name; log-probabilities are F32, ids I32."""
    return {name: np.array([row[name] for row in rows],
                           dtype=np.float32 if name.endswith(("logp", "rest")) else np.int32)
            for name in rows[0]}


def reduce(exact, llama, one_by_one):
    """A text's columns but for the ids, and how far each pair is apart."""
    rows = []
    apart = {"llama_from_exact": [], "one_by_one_from_exact": [], "one_by_one_from_llama": []}
    for logits in zip(exact, llama, one_by_one):
        p, q, r = (log_softmax(row) for row in logits)
        top = likeliest(p)
        rows.append({"top_ids": top} | kept("exact", p, top) | kept("llama", q, top)
                    | {"llama_best": q.argmax()})
        for name, truth, other in zip(apart, (p, p, q), (q, r, r)):
            kl = (np.exp(truth) * (truth - other)).sum()
            apart[name].append((truth.argmax() == other.argmax(), kl))
    means = {name: np.mean(values, axis=0) for name, values in apart.items()}
    return stacked(rows), {name: {"top1_agreement": round(same, 4), "kl_mean": round(kl, 6)}
                           for name, (same, kl) in means.items()}


def ids_of(model, text, count):
    ids = model.tokenize(text.read_bytes(), add_bos=True, special=False)[:count]
    assert len(ids) == count, f"{text}: {len(ids)} ids"
    return ids


def write(path, tensors):
    writer = gguf.GGUFWriter(path, "reference")
    for name, data in tensors.items():
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("reference", type=Path)
    parser.add_argument("texts", type=Path, nargs="+")
    parser.add_argument("--long", type=Path, required=True)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    tensors, apart = {}, {}

    def keep(text, ids, columns):
        columns = {"tokens": np.array(ids, dtype=np.int32)} | columns
        tensors.update({f"{text.stem}.{name}": data for name, data in columns.items()})

    batch = load(args.model, POSITIONS, args.threads)
    step_by_step = load(args.model, 1, args.threads)
    for text in args.texts:
        ids = ids_of(batch, text, POSITIONS)
        exact = exact_logits(args.model, ids)
        columns, apart[text.stem] = reduce(
            exact, logits_of(batch, ids), logits_of(step_by_step, ids))
        keep(text, ids, columns)
    ids = ids_of(batch, args.long, LONG)
    rows = [log_softmax(row) for row in exact_logits(args.model, ids, STRIDE)]
    tops = [likeliest(row) for row in rows]
    keep(args.long, ids, stacked(
        [{"top_ids": top} | kept("exact", row, top) for row, top in zip(rows, tops)]))
    write(args.reference, tensors)
    provenance = {
        "exact": "transformers on CPU in F32, weights dequantised from the model file",
        "llama": "llama.cpp on CPU, through llama-cpp-python: weights as stored, F16 keys and values, "
        f"no flash attention, no repacked weights, one batch of {POSITIONS} tokens",
        "model": args.model.name,
        "model_sha256": sha256(args.model),
        "texts_sha256": {text.name: sha256(text) for text in [*args.texts, args.long]},
        "whole_vocabulary": apart,
        "versions": {
            "python": sys.version.split()[0],
            "numpy": np.__version__,
        } | {name: version(name) for name in ("torch", "transformers", "llama_cpp_python", "gguf")},
        "llama_cpp_system_info": llama_cpp.llama_print_system_info().decode().strip(),
        "script": "xtask/golden/conformance.py",
        "script_sha256": sha256(__file__),
    }
    args.reference.with_suffix(".json").write_text(json.dumps(provenance, indent=2) + "\n")


if __name__ == "__main__":
    main()
