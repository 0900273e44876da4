"""What Hugging Face transformers computes in F32 with a GGUF file's dequantised weights.

    python transformers_logits.py MODEL.gguf IDS.json LOGITS.npy

IDS.json is a list of token ids, as `llama_cpp_logits.py` leaves beside its logits. Nothing is
quantised here but the weights, so a comparison shows what an engine's own arithmetic costs.
"""

import json
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM


@lru_cache
def model_of(path):
    model = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager",
    ).eval()
    print(model.config, file=sys.stderr)
    return model


@torch.no_grad()
def exact_logits(path, ids, stride=1):
    """[positions / stride, vocabulary]: of every `stride` positions, the last one's."""
    model = model_of(path)
    hidden = model.model(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state[0]
    return model.lm_head(hidden[stride - 1 :: stride]).numpy()


def main():
    path, ids, out = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()), sys.argv[3]
    np.save(out, exact_logits(path, ids))


if __name__ == "__main__":
    main()
