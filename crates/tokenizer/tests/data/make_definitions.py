#!/usr/bin/env python3
"""Makes a tokenizer.json of each vocabulary that registries carry in another form.

    make_definitions.py CACHE

CACHE/tokenizers holds the sources; what is made of them is put beside them, always the same bytes.
`cargo xtask fetch` runs this. Nothing but Python's own library is needed.
"""

import json
import pathlib
import sys

def added(content, number, **flags):
    known = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": number, "content": content, **known, **flags}


def template(before, after=()):
    """A post-processor that puts (text, id) tokens around a text."""
    token = lambda text: {"SpecialToken": {"id": text, "type_id": 0}}
    ids = {text: {"id": text, "ids": [number], "tokens": [text]} for text, number in [*before, *after]}
    sequence = [{"Sequence": {"id": "A", "type_id": 0}}]
    single = [token(text) for text, _ in before] + sequence + [token(text) for text, _ in after]
    return {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": ids}


def definition(model, **parts):
    order = ["truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder"]
    return {"version": "1.0", **{name: parts.get(name) for name in order}, "model": model}


def bert(folder):
    """bert-base-uncased: vocab.txt in the spelling of the word-start mark."""
    pieces = json.loads((folder / "bert.vocab.json").read_text())
    pieces[1] = "[unused0]"  # the package has the mark alone in its place

    def upstream(piece):
        if piece.startswith("▁"):
            return piece[1:]
        return piece if piece[0] == "[" and piece[-1] == "]" and len(piece) > 2 else "##" + piece

    vocab = {upstream(piece): number for number, piece in enumerate(pieces)}
    roles = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return definition(
        {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocab,
        },
        added_tokens=[added(role, vocab[role]) for role in roles],
        normalizer={
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        pre_tokenizer={"type": "BertPreTokenizer"},
        post_processor=template([("[CLS]", vocab["[CLS]"])], [("[SEP]", vocab["[SEP]"])]),
        decoder={"type": "WordPiece", "prefix": "##", "cleanup": True},
    )


MADE = {"bert.json": bert}


def main():
    folder = pathlib.Path(sys.argv[1]) / "tokenizers"
    for name, make in MADE.items():
        text = json.dumps(make(folder), ensure_ascii=False, separators=(",", ":"))
        (folder / name).write_text(text + "\n", encoding="utf-8")


main()
