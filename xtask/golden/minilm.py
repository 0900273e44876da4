"""Embeddings of all-MiniLM-L6-v2 by Hugging Face transformers.

    python minilm.py FOLDER OUT.json

FOLDER is the model's own repository, as `cargo xtask fetch` leaves it in the cache. The embedding is
what its `modules.json` says, and what sentence-transformers computes: the mean of the last hidden
state over all tokens, of length 1. In F32, one thread.
"""

import hashlib
import json
import sys
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer
from transformers import BertModel

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


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    # The repository cuts and fills up texts to 128 tokens, sentence-transformers does neither here.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    model = BertModel.from_pretrained(folder, attn_implementation="eager").to(torch.float32).eval()
    ids, embeddings = [], []
    for text in TEXTS:
        tokens = tokenizer.encode(text).ids
        state = model(input_ids=torch.tensor([tokens])).last_hidden_state[0]
        mean = torch.nn.functional.normalize(state.mean(dim=0), dim=0)
        ids.append(tokens)
        embeddings.append([float(f"{x:.8g}") for x in mean.tolist()])
    weights = (folder / "model.safetensors").read_bytes()
    out.write_text(json.dumps({
        "reference": "Hugging Face transformers, BertModel, CPU: mean of the last hidden state, length 1",
        "arithmetic": "F32, eager attention, one thread",
        "model_sha256": hashlib.sha256(weights).hexdigest(),
        "versions": {
            "python": sys.version.split()[0],
            "torch": torch.__version__.split("+")[0],
            "transformers": transformers.__version__,
        },
        "script": "xtask/golden/minilm.py",
        "script_sha256": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
        "texts": TEXTS,
        "ids": ids,
        "embeddings": embeddings,
    }, ensure_ascii=False).replace(', "', ',\n"') + "\n")


if __name__ == "__main__":
    main()
