"""Writes the hostile files of this folder, and expected.tsv: what the reader must say to each.

An empty error means that the file is harmless and loads. Standard library only; deterministic.
Usage: python make.py
"""

import pathlib
import struct

folder = pathlib.Path(__file__).parent
U8, U32, F32, BOOL, STRING, ARRAY, U64 = 0, 4, 6, 7, 8, 9, 10
MAX = 2**64 - 1


def u32(number):
    return struct.pack("<I", number)


def u64(number):
    return struct.pack("<Q", number)


def string(text):
    text = text if isinstance(text, bytes) else text.encode()
    return u64(len(text)) + text


def header(tensors, keys, magic=b"GGUF", version=3):
    return magic + u32(version) + u64(tensors) + u64(keys)


def entry(key, value_type, value):
    return string(key) + u32(value_type) + value


def array(element_type, count, elements=b""):
    return u32(element_type) + u64(count) + elements


def tensor(name, dims, tensor_type, offset, dim_count=None):
    count = len(dims) if dim_count is None else dim_count
    return string(name) + u32(count) + b"".join(map(u64, dims)) + u32(tensor_type) + u64(offset)


def with_data(directory, data, alignment=32):
    return directory + b"\0" * (-len(directory) % alignment) + data


def one_key(key, value_type, value):
    return header(0, 1) + entry(key, value_type, value)


def one_tensor(*arguments, data=b"\0" * 64, **named):
    return with_data(header(1, 0) + tensor(*arguments, **named), data)


def nested(depth):
    value = array(U8, 1, b"\7")
    for _ in range(depth - 1):
        value = array(ARRAY, 1, value)
    return value


ATTACKS = {
    # header
    "empty": (b"", "byte 0 of shard 0: the file ends within the magic number: expected 4 more bytes, found 0"),
    "magic-ggml": (header(0, 0, magic=b"lmgg"), 'byte 0 of shard 0: not a GGUF file: expected "GGUF", found "lmgg"'),
    "version-1": (header(0, 0, version=1), "byte 4 of shard 0: unsupported GGUF version: expected 2 or 3, found 1"),
    "version-4": (header(0, 0, version=4), "byte 4 of shard 0: unsupported GGUF version: expected 2 or 3, found 4"),
    "version-0": (header(0, 0, version=0), "byte 4 of shard 0: unsupported GGUF version: expected 2 or 3, found 0"),
    "big-endian": (
        b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
        "byte 4 of shard 0: the file is big-endian (version 3): expected little-endian",
    ),
    "nothing-in-it": (header(0, 0), ""),
    "version-2": (header(0, 0, version=2), ""),
    # counts
    "key-count-huge": (
        header(0, MAX) + b"\0" * 28,
        f"byte 16 of shard 0: the number of metadata keys is {MAX}: expected at most 2, as only 28 bytes follow",
    ),
    "key-count-one-too-many": (
        header(0, 2) + entry("a", U8, b"\1"),
        "byte 16 of shard 0: the number of metadata keys is 2: expected at most 1, as only 14 bytes follow",
    ),
    "tensor-count-huge": (
        header(2**40, 0) + b"\0" * 99,
        f"byte 8 of shard 0: the number of tensors is {2**40}: expected at most 3, as only 99 bytes follow",
    ),
    "array-length-huge": (
        one_key("a", ARRAY, array(F32, MAX // 4)),
        f'byte 41 of shard 0: the array length of "a" is {MAX // 4}: expected at most 0, as only 0 bytes follow',
    ),
    "array-length-wraps": (
        one_key("a", ARRAY, array(U64, 2**61 + 1, u64(1))),
        f'byte 41 of shard 0: the array length of "a" is {2**61 + 1}: expected at most 1, as only 8 bytes follow',
    ),
    "string-count-huge": (
        one_key("tokens", ARRAY, array(STRING, 2**32, string("a"))),
        f'byte 46 of shard 0: the array length of "tokens" is {2**32}: expected at most 1, as only 9 bytes follow',
    ),
    "nested-count-huge": (
        one_key("a", ARRAY, array(ARRAY, 2**31, array(U8, 0))),
        f'byte 41 of shard 0: the array length of "a" is {2**31}: expected at most 1, as only 12 bytes follow',
    ),
    # strings
    "key-length-huge": (
        header(0, 1) + u64(MAX) + b"\0" * 32,
        f"byte 24 of shard 0: a metadata key has {MAX} bytes: expected 1 to 65535",
    ),
    "key-empty": (
        header(0, 1) + entry("", U32, u32(1)),
        "byte 24 of shard 0: a metadata key has 0 bytes: expected 1 to 65535",
    ),
    "key-not-utf8": (one_key(b"a\xff", U8, b"\1"), "byte 32 of shard 0: a metadata key is not UTF-8"),
    "string-length-wraps": (
        one_key("a", STRING, u64(MAX - 7) + b"\0" * 8),
        'byte 45 of shard 0: the file ends within the value of "a": '
        f"expected {MAX - 7} more bytes, found 8",
    ),
    "string-not-utf8": (
        one_key("a", STRING, string(b"\xc3(")),
        'byte 45 of shard 0: the value of "a" is not UTF-8',
    ),
    "token-not-utf8": (
        one_key("tokens", ARRAY, array(STRING, 2, string("a") + string(b"\xf0\x9f\xa6"))),
        'byte 71 of shard 0: element 1 of "tokens" is not UTF-8',
    ),
    "token-surrogate": (
        one_key("tokens", ARRAY, array(STRING, 1, string(b"\xed\xa0\x80"))),
        'byte 62 of shard 0: element 0 of "tokens" is not UTF-8',
    ),
    "last-token-cut": (
        one_key("tokens", ARRAY, array(STRING, 2, string("a") + u64(4) + b"abc")),
        'byte 71 of shard 0: the file ends within element 1 of "tokens": expected 4 more bytes, found 3',
    ),
    "key-escapes": (
        one_key("\x1b[2J\n", 99, b"\0"),
        r'byte 37 of shard 0: the value type of "\u{1b}[2J\n" is 99: expected a value type, 0 to 12',
    ),
    "key-long-in-error": (
        one_key("k" * 1000, BOOL, b"\2"),
        f'byte 1036 of shard 0: the value of "{"k" * 80}"… is 2: expected 0 or 1, as it is a boolean',
    ),
    "key-costly-to-quote": (
        one_key("\U0010ffff" * 1000, 99, b"\0"),
        'byte 4032 of shard 0: the value type of "' + r"\u{10ffff}" * 80 + '"… is 99: expected a value type, 0 to 12',
    ),
    "key-twice": (
        header(0, 3) + entry("b", U8, b"\1") + entry("a", U8, b"\1") + entry("b", U32, u32(9)),
        'shard 0: metadata key "b" appears twice',
    ),
    # values
    "value-type-13": (
        one_key("a", 13, b"\0"),
        'byte 33 of shard 0: the value type of "a" is 13: expected a value type, 0 to 12',
    ),
    "element-type-unknown": (
        one_key("a", ARRAY, array(2**32 - 1, 0)),
        f'byte 37 of shard 0: the value type of "a" is {2**32 - 1}: expected a value type, 0 to 12',
    ),
    "boolean-255": (
        one_key("a", BOOL, b"\xff"),
        'byte 37 of shard 0: the value of "a" is 255: expected 0 or 1, as it is a boolean',
    ),
    "boolean-element-2": (
        one_key("a", ARRAY, array(BOOL, 3, b"\0\1\2")),
        'byte 51 of shard 0: element 2 of "a" is 2: expected 0 or 1, as it is a boolean',
    ),
    "arrays-4-deep": (one_key("a", ARRAY, nested(4)), ""),
    "arrays-5-deep": (one_key("a", ARRAY, nested(5)), 'byte 85 of shard 0: element 0 of "a" nests deeper than 4 arrays'),
    "arrays-100-deep": (
        one_key("a", ARRAY, nested(100)),
        'byte 85 of shard 0: element 0 of "a" nests deeper than 4 arrays',
    ),
    "array-empty-of-arrays": (one_key("a", ARRAY, array(ARRAY, 0)), ""),
    # alignment
    **{
        f"alignment-{number}": (
            one_key("general.alignment", U32, u32(number)),
            f"shard 0: general.alignment is {number}: expected a power of two from 8 to 1048576",
        )
        for number in (0, 1, 4, 24, 33, 2**21, 2**31)
    },
    "alignment-8": (one_key("general.alignment", U32, u32(8)), ""),
    "alignment-2-to-40": (
        one_key("general.alignment", U64, u64(2**40)),
        f"shard 0: general.alignment is {2**40}: expected a power of two from 8 to 1048576",
    ),
    "alignment-text": (
        one_key("general.alignment", STRING, string("32")),
        'metadata "general.alignment" is of type string: expected u64',
    ),
    # tensors
    "tensor-fine": (one_tensor("t", [16], F32 - 6, 0), ""),
    "tensor-no-dims": (one_tensor("t", [], 0, 0), 'tensor "t" has 0 dimensions: expected 1 to 4'),
    "tensor-5-dims": (one_tensor("t", [1] * 5, 0, 0), 'tensor "t" has 5 dimensions: expected 1 to 4'),
    "tensor-dims-huge": (
        one_tensor("t", [1], 0, 0, dim_count=2**32 - 1),
        f'tensor "t" has {2**32 - 1} dimensions: expected 1 to 4',
    ),
    "tensor-zero-dim": (
        one_tensor("t", [4, 0, 2], 0, 0),
        'tensor "t" has dimensions [4, 0, 2]: expected none to be zero',
    ),
    "tensor-size-wraps": (
        one_tensor("t", [2**32, 2**32, 1], 0, 0),
        f'tensor "t" of dimensions [{2**32}, {2**32}, 1] and type F32 is too large to address',
    ),
    "tensor-size-wraps-to-16": (
        one_tensor("t", [2**62 + 4], 0, 0),
        f'tensor "t" of dimensions [{2**62 + 4}] and type F32 is too large to address',
    ),
    "tensor-negative-dim": (
        one_tensor("t", [MAX], 24, 0),
        f'tensor "t" needs {MAX} bytes at 0 in the data of shard 0: expected at most 64 bytes of data',
    ),
    "tensor-type-withdrawn": (
        one_tensor("t", [32], 4, 0),
        'tensor "t" has type 4: expected a tensor type GGUF defines',
    ),
    "tensor-type-unknown": (
        one_tensor("t", [32], 4096, 0),
        'tensor "t" has type 4096: expected a tensor type GGUF defines',
    ),
    "tensor-partial-block": (
        one_tensor("t", [48], 8, 0),
        'tensor "t" has rows of 48 weights: expected a multiple of 32, the block of Q8_0',
    ),
    "tensor-rows-share-a-block": (
        one_tensor("t", [128, 2], 12, 0, data=b"\0" * 144),
        'tensor "t" has rows of 128 weights: expected a multiple of 256, the block of Q4_K',
    ),
    "tensor-offset-odd": (
        one_tensor("t", [1], 0, 8),
        'tensor "t" starts at 8 in the data: expected a multiple of 32',
    ),
    "tensor-offset-beyond": (
        one_tensor("t", [1], 0, 96),
        'tensor "t" needs 4 bytes at 96 in the data of shard 0: expected at most 64 bytes of data',
    ),
    "tensor-offset-wraps": (
        one_tensor("t", [16], 0, MAX - 31),
        f'tensor "t" needs 64 bytes at {MAX - 31} in the data of shard 0: expected at most 64 bytes of data',
    ),
    "tensor-cut": (
        one_tensor("t", [16], 0, 0, data=b"\0" * 63),
        'tensor "t" needs 64 bytes at 0 in the data of shard 0: expected at most 63 bytes of data',
    ),
    "tensor-without-data": (
        header(1, 0) + tensor("t", [16], 0, 0),
        'tensor "t" needs 64 bytes at 0 in the data of shard 0: expected at most 0 bytes of data',
    ),
    "tensor-name-empty": (one_tensor("", [1], 0, 0), "byte 24 of shard 0: a tensor name has 0 bytes: expected 1 to 64"),
    "tensor-name-long": (
        one_tensor("n" * 65, [1], 0, 0),
        "byte 24 of shard 0: a tensor name has 65 bytes: expected 1 to 64",
    ),
    "tensor-name-not-utf8": (one_tensor(b"\x80", [1], 0, 0), "byte 32 of shard 0: a tensor name is not UTF-8"),
    "tensor-twice": (
        with_data(header(2, 0) + tensor("t", [1], 0, 0) + tensor("t", [1], 0, 32), b"\0" * 64),
        'tensor "t" appears twice, in shards 0 and 0',
    ),
    "tensors-overlap": (
        with_data(
            header(3, 0) + tensor("c", [8], 0, 64) + tensor("a", [9], 0, 0) + tensor("b", [8], 0, 32), b"\0" * 96
        ),
        'tensors "a" and "b" overlap in shard 0',
    ),
    "tensors-share-their-bytes": (
        with_data(header(2, 0) + tensor("a", [8], 0, 0) + tensor("b", [8], 0, 0), b"\0" * 32),
        'tensors "a" and "b" overlap in shard 0',
    ),
    "tensor-count-eats-keys": (
        header(1, 1) + entry("key", STRING, string("x" * 64)),
        "byte 8 of shard 0: the number of tensors is 1: expected at most 0, as only 0 bytes follow",
    ),
    # splits
    "split-alone": (
        header(0, 1) + entry("split.count", U32, u32(3)),
        "shard 0: split.count is 3: expected 1",
    ),
    "split-merged": (header(0, 1) + entry("split.count", U32, u32(0)), ""),
}

lines = ["# file, tab, what the reader must say; nothing if the file is harmless"]
for name, (data, error) in ATTACKS.items():
    (folder / f"{name}.gguf").write_bytes(data)
    lines.append(f"{name}.gguf\t{error}")
(folder / "expected.tsv").write_text("\n".join(lines) + "\n")
