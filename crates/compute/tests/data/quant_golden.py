#!/usr/bin/env python3
"""Writes quant_golden.bin: quantisation and dequantisation as the reference implementations do it.

Provenance: dequantisation of all formats, and quantisation to floats and 32-weight formats, from the
Python package `gguf` 0.19.0 (gguf.quants); quantisation to the formats that it does not quantise to,
Q2_K to Q6_K, IQ4_NL and IQ4_XS, from ggml's `quantize_*` without an importance matrix in the
libggml-base (0.25.3, built without FMA) of the Python package `llama-cpp-python` 0.3.36; numpy seed 20.

    python quant_golden.py [OUT]

Layout, little-endian, no padding: VALUES f32 values; then for each format of FORMATS: the values
quantised; RAW weights' worth of arbitrary blocks; those blocks dequantised to f32.
"""

import ctypes
import pathlib
import sys

import gguf
import llama_cpp
import numpy as np
from gguf.quants import dequantize, quantize

BLOCK = 256
FORMATS = [
    "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL", "MXFP4",
    "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS",
]
# Byte offsets of a block's F16 fields.
SCALES = {
    "F16": [0], "BF16": [], "Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2],
    "IQ4_NL": [0], "MXFP4": [], "Q2_K": [80, 82], "Q3_K": [108],
    "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_XS": [0],
}


def values(rng):
    """Blocks of 256 values: one ordinary, the others each extreme in one way."""
    normal = lambda: rng.standard_normal(BLOCK)
    outliers = normal() * 0.02
    outliers[rng.integers(0, BLOCK, 6)] *= 60
    sparse = np.where(rng.random(BLOCK) < 0.9, 0.0, normal())
    sparse[:64] = 0
    return np.concatenate([
        normal() * 0.02,
        outliers,
        sparse,
        np.abs(normal()) + 0.5,  # positive: a minimum above zero
        -np.abs(normal()) - 0.5,  # negative throughout
        normal() * 3e-6,  # scales become F16 subnormals or zero
        rng.uniform(-60000, 60000, BLOCK),  # near the largest F16
        rng.integers(-9, 10, BLOCK) * 0.125,  # ties everywhere
        np.repeat(rng.standard_normal(8), 32),  # constant groups
        np.zeros(BLOCK),
        np.random.default_rng(4).exponential(1, BLOCK),  # Q4_K: the search's last step wins a group
        np.random.default_rng(24).exponential(1, BLOCK),  # Q5_K: likewise
        # Q8_0: ties of both signs, scale exactly 1.
        np.where(np.arange(BLOCK) % 32 == 0, 127, rng.integers(-127, 127, BLOCK) + 0.5),
        below_powers(),  # MXFP4: rounded logarithms just below a power of two are whole
    ]).astype(np.float32)


def below_powers():
    """Groups of 32 whose largest value is a power of two, or so many units in the last place less."""
    rng = np.random.default_rng(7)
    groups = [(8, 0), (8, 1), (8, 20), (8, 60), (2**-10, 1), (2**-10, 7), (1024, 0), (1024, 30)]
    values = [rng.uniform(-power / 2, power / 2, 32) for power, _ in groups]
    for group, (power, units) in zip(values, groups):
        group[rng.integers(0, 32)] = -power * (1 - units * 2.0**-24)
    return np.concatenate(values)


def raw_blocks(rng, name, count, size):
    """Random bytes; the F16 fields are random finite, subnormal, zero, negative and largest."""
    raw = rng.integers(0, 256, (count, size), dtype=np.uint8)
    special = np.array([0x7BFF, 0xFBFF, 0x0001, 0x83FF, 0x0000, 0x8000], dtype="<u2")
    for offset in SCALES[name]:
        half = rng.integers(0, 0x7C00, count).astype("<u2") | (rng.integers(0, 2, count) << 15).astype("<u2")
        half[: min(count, 6)] = special[: min(count, 6)]
        raw[:, offset : offset + 2] = half.view(np.uint8).reshape(count, 2)
    if name == "MXFP4":
        raw[:6, 0] = [0, 1, 2, 127, 254, 255]  # two subnormal scales; the largest
    if name == "BF16":
        raw[:, 1] &= 0xBF  # exponents below the largest: finite
    return raw


def quantized(name, data):
    kind = gguf.GGMLQuantizationType[name]
    if not name.endswith("_K") and not name.startswith("IQ"):
        return np.ascontiguousarray(quantize(data.reshape(-1, BLOCK), kind)).tobytes()
    weights, size = gguf.GGML_QUANT_SIZES[kind]
    folder = pathlib.Path(llama_cpp.__file__).parent / "lib"
    ggml = ctypes.CDLL(str(folder / "libggml-base.so"))
    out = ctypes.create_string_buffer(data.size // weights * size)
    reference = getattr(ggml, f"quantize_{name.lower() if 'I' in name else name.replace('Q', 'q')}")
    rows, columns = ctypes.c_int64(data.size // BLOCK), ctypes.c_int64(BLOCK)
    reference(data.ctypes.data_as(ctypes.c_void_p), out, rows, columns, None)
    return out.raw


def main(path):
    rng = np.random.default_rng(20)
    data = values(rng)
    parts = [data.tobytes()]
    for name in FORMATS:
        kind = gguf.GGMLQuantizationType[name]
        weights, size = gguf.GGML_QUANT_SIZES[kind]
        raw = raw_blocks(rng, name, 6 * BLOCK // weights if weights < BLOCK else 6, size)
        back = dequantize(raw, kind).astype(np.float32)
        # The largest MXFP4 scales reach infinity.
        assert not np.isnan(back).any() and (name == "MXFP4" or np.isfinite(back).all()), name
        parts += [quantized(name, data), raw.tobytes(), back.tobytes()]
    pathlib.Path(path).write_bytes(b"".join(parts))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).with_suffix(".bin"))
