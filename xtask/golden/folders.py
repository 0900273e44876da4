"""Some of the tiny models as transformers itself saves them.

    python folders.py OUT

For every entry of FOLDERS a folder OUT/<variant> with config.json and model.safetensors, or shards and
their index, of the same weights as the golden model of that name. The result is committed as
crates/model/tests/folders.
"""

import sys
from pathlib import Path

import torch
import transformers

import tiny_models

# Variant: type of the weights, size of a shard.
FOLDERS = {
    # Rows change their order; frequency factors; tied head.
    "llama-rope3": (torch.float32, "1GB"),
    # Fused projections, two sets of factors, untied head.
    "phi3-long": (torch.float32, "100KB"),
    "qwen2-gqa": (torch.float16, "1GB"),
    # Norms change; two rotations.
    "gemma3-pattern": (torch.bfloat16, "60KB"),
}


def main():
    out = Path(sys.argv[1])
    for name, (dtype, shard) in FOLDERS.items():
        _, cls, config_cls, seed, shape = tiny_models.VARIANTS[name]
        _, model, _ = tiny_models.build(cls, config_cls, seed, shape)
        model.to(dtype).save_pretrained(out / name, max_shard_size=shard)
        # How it would be sampled from says nothing about the weights.
        (out / name / "generation_config.json").unlink(missing_ok=True)
    print(f"transformers {transformers.__version__}", file=sys.stderr)


if __name__ == "__main__":
    main()
