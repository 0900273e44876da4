"""Writes ggml_types.tsv: number, name, weights and bytes per block of every tensor type, as ggml itself tells.

Needs the llama-cpp-python package, for its ggml library. Usage: python ggml_types.py > ggml_types.tsv
"""

import ctypes
import pathlib

import llama_cpp

library = next((pathlib.Path(llama_cpp.__file__).parent / "lib").glob("libggml-base.so"))
ggml = ctypes.CDLL(str(library))
ggml.ggml_version.restype = ctypes.c_char_p
ggml.ggml_type_name.restype = ctypes.c_char_p
ggml.ggml_blck_size.restype = ctypes.c_int64
ggml.ggml_type_size.restype = ctypes.c_size_t

print(f"# ggml {ggml.ggml_version().decode()}, in llama-cpp-python {llama_cpp.__version__}: ggml_types.py")
print("# number\tname\tweights per block\tbytes per block")
TYPE_COUNT = 43  # GGML_TYPE_COUNT of this version; asking for more aborts
for number in range(TYPE_COUNT):
    if ggml.ggml_blck_size(number) == 0:
        continue  # withdrawn
    name = ggml.ggml_type_name(number).decode().upper()
    print(number, name, ggml.ggml_blck_size(number), ggml.ggml_type_size(number), sep="\t")
