#!/usr/bin/env python3
"""What the `tokenizers` library makes of many strings, for the differential test.

    differential.py CACHE [COUNT [FAMILY...]]     COUNT (10,000) strings of each family into CACHE/differential
    differential.py CACHE --sample                some hundred of them, hashed, into sample.json beside this file

The strings are random ones of many scripts, cuts of this repository's files, of the vectors' texts and of
white space, and all of these with the family's added tokens between them; a seed makes them the same again.
`cargo test -p redline-tokenizer --test differential -- --ignored` compares.
"""

import json
import pathlib
import random
import sys

import tokenizers
from tokenizers import Tokenizer

import make_vectors

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[3]
SAMPLE = 300

RANGES = [
    (0x20, 0x7E), (0x20, 0x7E), (0x61, 0x7A), (0x30, 0x39), (0xA0, 0x24F), (0x250, 0x2FF), (0x300, 0x36F),
    (0x370, 0x3FF), (0x400, 0x4FF), (0x590, 0x5FF), (0x600, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F),
    (0x1100, 0x11FF), (0x1E00, 0x1EFF), (0x2000, 0x206F), (0x20A0, 0x20CF), (0x2100, 0x218F),
    (0x2460, 0x24FF), (0x2500, 0x259F), (0x3000, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3),
    (0xE000, 0xE0FF), (0xF900, 0xFAFF), (0xFE00, 0xFE0F), (0xFF00, 0xFFEF), (0x1D400, 0x1D7FF),
    (0x1F1E6, 0x1F1FF), (0x1F300, 0x1F6FF), (0x1F900, 0x1F9FF), (0x20000, 0x2A6DF), (0xE0000, 0xE007F),
    (0x0, 0x10FFFF),
]  # fmt: skip

BLANKS = [" ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", "\u00a0", "\u2003", "\u3000", "\u200b", "\x0b", "\x85", "\u2028"]
PIECES = ["'s", "'LL", "'ſ", "’t", "don't", "▁", "▁▁", "##", "[", "]", "<", ">", "|", "Ġ", "://", "0x", "e\u0301"]


def characters(draw, most):
    """Characters of one or a few ranges."""
    ranges = draw.sample(RANGES, draw.randint(1, 4))
    text = []
    for _ in range(draw.randint(0, most)):
        point = draw.randint(*draw.choice(ranges))
        if not 0xD800 <= point < 0xE000:
            text.append(chr(point))
    return "".join(text)


def cut(draw, text, most):
    start = draw.randrange(max(len(text), 1))
    return text[start : start + draw.randint(0, most)]


def string(draw, texts, tokens):
    kinds = [
        lambda: characters(draw, 40),
        lambda: cut(draw, draw.choice(texts), 200),
        lambda: cut(draw, draw.choice(make_vectors.PLAIN), 40),
        lambda: "".join(draw.choice(BLANKS) for _ in range(draw.randint(1, 8))),
        lambda: draw.choice(PIECES),
        lambda: draw.choice(tokens) if tokens else "",
    ]
    weights = [4, 4, 3, 2, 2, 2]
    parts = draw.choices(kinds, weights, k=draw.choice([1, 1, 2, 3, 5, 8]))
    text = "".join(part() for part in parts)
    return text * draw.randint(20, 200) if draw.random() < 0.002 else text


def strings(seed, count, tokens):
    names = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("crates/*/src/*.rs"), *HERE.glob("*.py")]
    texts = [name.read_text() for name in sorted(names)]
    draw = random.Random(seed)
    return [string(draw, texts, tokens) for _ in range(count)]


def answers(tokenizer, text):
    tokenizer.encode_special_tokens = False
    parsed = tokenizer.encode(text, add_special_tokens=False).ids
    special = tokenizer.encode(text, add_special_tokens=True).ids
    decoded = tokenizer.decode(parsed, skip_special_tokens=False)
    tokenizer.encode_special_tokens = True
    plain = tokenizer.encode(text, add_special_tokens=False).ids
    return {"text": text, "ids": parsed, "special": special, "plain": plain, "decoded": decoded}


def families(cache):
    for family in json.loads((HERE / "families.json").read_text()):
        path = cache / family["vocabulary"]
        if path.suffix == ".gguf":
            yield family["family"], make_vectors.smollm_definition(path)
        else:
            yield family["family"], Tokenizer.from_file(str(path))


def added(tokenizer):
    return [token.content for _, token in sorted(tokenizer.get_added_tokens_decoder().items())][:64]


def sample(cache):
    texts = [text for text in strings("sample", 2 * SAMPLE, ["<s>", "<|im_end|>"]) if len(text) < 400][:SAMPLE]
    hashes = {}
    for name, tokenizer in families(cache):
        found = [answers(tokenizer, text) for text in texts]
        hashes[name] = "".join(make_vectors.fnv1a(each["plain"])[:8] for each in found)
        print(name, len(found))
    made_with = f"tokenizers {tokenizers.__version__}"
    result = {"made_with": made_with, "texts": texts, "fnv1a": hashes}
    (HERE / "sample.json").write_text(json.dumps(result, indent=0) + "\n")


def main():
    cache = pathlib.Path(sys.argv[1])
    if "--sample" in sys.argv:
        return sample(cache)
    count = int(sys.argv[2]) if sys.argv[2:] else 10_000
    folder = cache / "differential"
    folder.mkdir(exist_ok=True)
    for name, tokenizer in families(cache):
        if sys.argv[3:] and name not in sys.argv[3:]:
            continue
        with (folder / f"{name}.jsonl").open("w") as out:
            for text in strings(name, count, added(tokenizer)):
                out.write(json.dumps(answers(tokenizer, text)) + "\n")
        print(name, count, flush=True)


main()
