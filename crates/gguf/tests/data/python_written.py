"""Writes python_written.gguf with the `gguf` package, and python_written.json with what that file holds.

Every metadata type, arrays of each, a nested array, an alignment of its own, and one block or row of most
tensor types. Tensor offsets in the JSON come from the package's reader. Deterministic.

Usage: python python_written.py   (package versions used are in the JSON)
"""

import importlib.metadata
import json
import pathlib

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter
from gguf.quants import quantize

folder = pathlib.Path(__file__).parent
path = folder / "python_written.gguf"
T = GGUFValueType

SCALARS = {
    "u8": (T.UINT8, [0, 200, 255]),
    "i8": (T.INT8, [-128, -1, 127]),
    "u16": (T.UINT16, [0, 54321, 65535]),
    "i16": (T.INT16, [-32768, -2, 32767]),
    "u32": (T.UINT32, [0, 3_000_000_000, 2**32 - 1]),
    "i32": (T.INT32, [-(2**31), -3, 2**31 - 1]),
    "f32": (T.FLOAT32, [0.0, -1.5, 3.0000000e38]),
    "bool": (T.BOOL, [False, True, True]),
    "string": (T.STRING, ["", "Ġhello ▁ 世界 🦀", "line\nbreak"]),
    "u64": (T.UINT64, [0, 2**53 + 1, 2**64 - 1]),
    "i64": (T.INT64, [-(2**63), -4, 2**63 - 1]),
    "f64": (T.FLOAT64, [0.0, 0.1, -1e300]),
}

writer = GGUFWriter(path, "llama")
writer.add_custom_alignment(64)
metadata = {"general.architecture": ["string", "llama"], "general.alignment": ["u32", 64]}
for name, (value_type, values) in SCALARS.items():
    writer.add_key_value(f"plain.{name}", values[1], value_type)
    writer.add_key_value(f"array.{name}", values, T.ARRAY, sub_type=value_type)
    metadata[f"plain.{name}"] = [name, values[1]]
    metadata[f"array.{name}"] = ["array", [name, values]]
writer.add_key_value("array.array", [[1, 2, 3], [-4]], T.ARRAY)
metadata["array.array"] = ["array", ["array", [["i32", [1, 2, 3]], ["i32", [-4]]]]]

random = np.random.default_rng(7)
floats = random.standard_normal((3, 64)).astype(np.float32)
writer.add_tensor("floats.weight", floats)
writer.add_tensor("halves.weight", floats[:, :5].astype(np.float16))
writer.add_tensor("scalar", np.array([2.5], dtype=np.float32))
writer.add_tensor("cube", np.arange(2 * 3 * 4 * 5, dtype=np.int8).reshape(2, 3, 4, 5))
for kind in (np.int16, np.int32, np.int64, np.float64):
    writer.add_tensor(f"{np.dtype(kind).name}.values", np.arange(-3, 4).astype(kind))
for tensor_type in ("BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "MXFP4"):
    number = GGMLQuantizationType[tensor_type]
    writer.add_tensor(f"{tensor_type.lower()}.weight", quantize(floats, number), raw_dtype=number)
for tensor_type in ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_K", "IQ4_NL", "IQ4_XS", "TQ1_0", "NVFP4"):
    number = GGMLQuantizationType[tensor_type]
    blocks = random.integers(0, 256, (2, GGML_QUANT_SIZES[number][1]), dtype=np.uint8)
    writer.add_tensor(f"{tensor_type.lower()}.weight", blocks, raw_dtype=number)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

reader = GGUFReader(path)
file = {
    "made_by": "python_written.py",
    "versions": {name: importlib.metadata.version(name) for name in ("gguf", "numpy")},
    "alignment": int(reader.alignment),
    "metadata": metadata,
    "tensors": [
        {
            "name": tensor.name,
            "dims": [int(dim) for dim in tensor.shape],
            "type": tensor.tensor_type.name,
            "offset": int(tensor.data_offset),
            "bytes": int(tensor.n_bytes),
            "head": np.ascontiguousarray(tensor.data).tobytes()[:16].hex(),
        }
        for tensor in reader.tensors
    ],
}
(folder / "python_written.json").write_text(json.dumps(file, ensure_ascii=False) + "\n")
