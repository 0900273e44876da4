#!/usr/bin/env python3
"""Makes a tokenizer.json of each vocabulary that registries carry in another form.

    make_definitions.py CACHE

CACHE/tokenizers holds the sources; what is made of them is put beside them, always the same bytes.
`cargo xtask fetch` runs this. Nothing but Python's own library is needed.
"""

import json
import pathlib
import struct
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


def spaces(kind):
    """Llama's normalizer and decoder: a space in front, all spaces as marks, and back."""
    replace = lambda old, new: {"type": "Replace", "pattern": {"String": old}, "content": new}
    if kind == "normalizer":
        return {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace(" ", "▁")]}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    return {"type": "Sequence", "decoders": [replace("▁", " "), {"type": "ByteFallback"}, {"type": "Fuse"}, strip]}


def bpe(vocab, merges):
    model = {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None}
    model.update({"end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True})
    return {**model, "vocab": vocab, "merges": merges}


def phi3(folder):
    """Phi-3: Llama 2's pieces, and added tokens that take the white space after them along.

    The tokens are those of `added_tokens_decoder` in Phi-3-mini-4k-instruct's tokenizer_config.json.
    """
    llama = json.loads((folder / "llama2.json").read_text())
    names = ["endoftext", "assistant", "placeholder1", "placeholder2", "placeholder3", "placeholder4"]
    names += ["system", "end", "placeholder5", "placeholder6", "user"]
    tokens = [added("<unk>", 0), added("<s>", 1), added("</s>", 2, rstrip=True, special=False)]
    for number, name in enumerate(names, 32000):
        tokens.append(added(f"<|{name}|>", number, rstrip=name != "endoftext"))
    return {**llama, "added_tokens": tokens, "post_processor": template([])}


def codellama(folder):
    """CodeLlama 7B and 13B: Llama 2's pieces, and sixteen more for infilling.

    The pieces are those that https://github.com/microsoft/aici lists (`llama16`), ranked after all others.
    """
    llama = json.loads((folder / "llama2.json").read_text())
    pieces = ["▁<SU", "▁<SUF", "▁<PRE", "▁<M", "▁<MID", "▁<E", "▁<EOT", "▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"]
    pieces += ["▁" + "<EOT>" * times for times in range(2, 7)]
    vocab = llama["model"]["vocab"]
    vocab.update({piece: number for number, piece in enumerate(pieces, 32000)})
    llama["model"]["merges"] += [f"{left} {right}" for left, right in splits(pieces, vocab)]
    llama["added_tokens"] += [added(piece, vocab[piece]) for piece in pieces[7:11]]
    return llama


def splits(pieces, vocab):
    """Every way to cut the pieces into two others; of one piece, the longest left part first."""
    for piece in pieces:
        for at in range(len(piece) - 1, 0, -1):
            if piece[:at] in vocab and piece[at:] in vocab:
                yield piece[:at], piece[at:]


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def fields(data):
    """Numbers and values of a protocol buffer's fields."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
        else:
            length, at = varint(data, at) if key & 7 == 2 else ({1: 8, 5: 4}[key & 7], at)
            value, at = data[at : at + length], at + length
        yield key >> 3, value


def mistral(version):
    """Mistral's SentencePiece models: merges from scores, in the order of transformers' converter."""

    def make(folder):
        pieces = []  # text, score, type
        for number, value in fields((folder / f"mistral-{version}.model").read_bytes()):
            if number == 1:
                piece = dict(fields(value))
                score = struct.unpack("<f", piece.get(2, bytes(4)))[0]
                pieces.append((piece[1].decode(), score, piece.get(3, 1)))
        vocab = {text: number for number, (text, _, _) in enumerate(pieces)}
        scored = ((score, pair) for text, score, _ in pieces for pair in splits([text], vocab))
        best = sorted(scored, key=lambda each: (each[0], len(each[1][0]), len(each[1][1])), reverse=True)
        special = [text for text, _, kind in pieces if kind in (2, 3)]
        return definition(
            bpe(vocab, [list(pair) for _, pair in best]),
            added_tokens=[added(text, vocab[text]) for text in special],
            normalizer=spaces("normalizer"),
            post_processor=template([("<s>", vocab["<s>"])]),
            decoder=spaces("decoder"),
        )

    return make


MADE = {"bert.json": bert, "phi3.json": phi3, "codellama.json": codellama}
MADE.update({f"mistral-{version}.json": mistral(version) for version in ("v1", "v2", "v3")})


def main():
    folder = pathlib.Path(sys.argv[1]) / "tokenizers"
    for name, make in MADE.items():
        text = json.dumps(make(folder), ensure_ascii=False, separators=(",", ":"))
        (folder / name).write_text(text + "\n", encoding="utf-8")


main()
