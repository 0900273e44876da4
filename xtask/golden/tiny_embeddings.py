"""Embeddings of tiny models by Hugging Face transformers, pooled in every way.

    python tiny_embeddings.py OUT.json

The models are golden ones of `tiny_models.py`; the ids are those that their files' vocabulary has for the
texts. Pooled is the last hidden state, after the last norm: its mean, its first and its last row, each
then scaled to length 1. In F32, eager attention, one thread.
"""

import hashlib
import json
import sys
from pathlib import Path

import tiny_models
import torch
import transformers

MODELS = ("gemma3-pattern", "gemma3-linear", "qwen3-gqa", "bert-odd", "nomic-bert-odd")
# The last is longer than the models' windows.
TEXTS = {
    "hello the": [129, 108, 108, 111, 128, 129],
    "in the hat, the rain": [130, 128, 129, 32, 104, 97, 116, 44, 128, 129, 32, 114, 97, 130],
    "Embeddings of words, and of lines": [ord(letter) for letter in "Embedd"] + [130]
    + [ord(letter) for letter in "gs of words, and of l"]
    + [130, ord("e"), ord("s")],
}


@torch.no_grad()
def pooled(name):
    _, cls, config_cls, seed, shape = tiny_models.VARIANTS[name]
    _, model, _ = tiny_models.build(cls, config_cls, seed, shape)
    decoder = getattr(model, "model", model)
    out = {"mean": [], "cls": [], "last": []}
    for ids in TEXTS.values():
        rows = decoder(input_ids=torch.tensor([ids])).last_hidden_state[0]
        for pooling, row in (("mean", rows.mean(dim=0)), ("cls", rows[0]), ("last", rows[-1])):
            row = torch.nn.functional.normalize(row, dim=0)
            out[pooling].append([float(f"{x:.8g}") for x in row.tolist()])
    return out


def main():
    torch.set_num_threads(1)
    Path(sys.argv[1]).write_text(json.dumps({
        "reference": "Hugging Face transformers, CPU: the last hidden state pooled, length 1",
        "arithmetic": "F32, eager attention, one thread",
        "versions": {
            "python": sys.version.split()[0],
            "torch": torch.__version__.split("+")[0],
            "transformers": transformers.__version__,
        },
        "script": "xtask/golden/tiny_embeddings.py",
        "script_sha256": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
        "texts": list(TEXTS),
        "ids": list(TEXTS.values()),
        "models": {name: pooled(name) for name in MODELS},
    }).replace(', "', ',\n"') + "\n")


if __name__ == "__main__":
    main()
