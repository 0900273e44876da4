"""What Hugging Face transformers computes in F32 with a GGUF file's dequantised weights.

    python transformers_logits.py MODEL.gguf IDS.json LOGITS.npy

IDS.json is a list of token ids, as `llama_cpp_logits.py` leaves beside its logits. Nothing is
quantised here but the weights, so a comparison shows what an engine's own arithmetic costs.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM


@torch.no_grad()
def main():
    path, ids, out = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()), sys.argv[3]
    model = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager",
    ).eval()
    print(model.config, file=sys.stderr)
    np.save(out, model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].numpy())


if __name__ == "__main__":
    main()
