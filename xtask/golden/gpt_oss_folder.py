"""A tiny gpt-oss as the published ones are kept: its experts in MXFP4, all other weights in BF16.

    python gpt_oss_folder.py OUT

Two folders, committed under crates/model/tests/folders:
    OUT/gpt-oss-mxfp4        config.json and model.safetensors, whose `*_blocks` and `*_scales` have the
                             names, types and dimensions of <https://huggingface.co/openai/gpt-oss-20b>;
                             reference.safetensors: tokens, and the logits that transformers computes of
                             that folder, dequantised, in F32; provenance.json
    OUT/gpt-oss-dequantized  the model that transformers made of it, saved by transformers
"""

import hashlib
import json
import sys
from pathlib import Path

import safetensors
import tiny_gpt_oss
import tiny_models
import torch
import transformers
from safetensors.torch import save_file
from transformers import GptOssForCausalLM, Mxfp4Config

_, CLASS, CONFIG, SEED, SHAPE = tiny_gpt_oss.gpt_oss(
    4502, hidden_size=64, intermediate_size=32, num_hidden_layers=2, num_attention_heads=6,
    num_key_value_heads=2, head_dim=16, num_local_experts=3, num_experts_per_tok=2,
    sliding_window=9, rms_norm_eps=1e-5,
    rope_parameters=tiny_gpt_oss.yarn(
        500.0, factor=4.0, beta_fast=8.0, beta_slow=0.5, original_max_position_embeddings=96,
    ),
)
# E2M1, sign bit first. Source: OCP Microscaling Formats (MX) Specification 1.0.
VALUES = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
VALUES = torch.cat([VALUES, -VALUES])


def mxfp4(weight):
    """`[experts, inputs, outputs]` as blocks `[experts, outputs, inputs/32, 16]` and their scales."""
    rows = weight.transpose(1, 2)
    rows = rows.reshape(*rows.shape[:2], -1, 32)
    exponents = torch.floor(torch.log2(rows.abs().amax(dim=-1))) - 2
    scaled = rows / torch.exp2(exponents)[..., None]
    codes = (scaled[..., None] - VALUES).abs().argmin(dim=-1).to(torch.uint8)
    # Neighbours share a byte, the first in its low half.
    blocks = codes[..., 0::2] | codes[..., 1::2] << 4
    return blocks.contiguous(), (exponents + 127).to(torch.uint8)


def published(model):
    weights = {}
    for name, weight in model.state_dict().items():
        if name.endswith(("gate_up_proj", "down_proj")):
            weights[name + "_blocks"], weights[name + "_scales"] = mxfp4(weight)
        else:
            weights[name] = weight.to(torch.bfloat16).contiguous()
    return weights


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    folder, plain = (Path(sys.argv[1]) / name for name in ("gpt-oss-mxfp4", "gpt-oss-dequantized"))
    config, model, _ = tiny_models.build(CLASS, CONFIG, SEED, SHAPE)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(published(model), folder / "model.safetensors", {"format": "pt"})
    config.save_pretrained(folder)
    said = json.loads((folder / "config.json").read_text())
    said["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": [
        "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head",
    ]}
    (folder / "config.json").write_text(json.dumps(said, indent=2) + "\n")

    loaded = GptOssForCausalLM.from_pretrained(
        folder, dtype=torch.float32, quantization_config=Mxfp4Config(dequantize=True),
        attn_implementation="eager", experts_implementation="eager",
    ).eval()
    random, unpacked = (m.model.layers[0].mlp.experts.down_proj for m in (model, loaded))
    assert 0.0 < (unpacked - random).abs().max() < 0.25 * random.abs().max()
    tokens = torch.tensor([i * 37 % tiny_models.VOCABULARY for i in range(40)])
    lead = tiny_gpt_oss.check_choices("gpt-oss-mxfp4", loaded, tokens)
    logits = loaded(input_ids=tokens[None], use_cache=False).logits[0]
    save_file({"tokens": tokens.to(torch.int32), "logits": logits.contiguous()},
              folder / "reference.safetensors")
    # Saved by itself, transformers 5.23 would call the unpacked weights blocks.
    model.load_state_dict(loaded.state_dict())
    model.save_pretrained(plain)
    (plain / "generation_config.json").unlink(missing_ok=True)
    provenance = {
        "reference": "Hugging Face transformers, GptOssForCausalLM of this folder, Mxfp4Config(dequantize=True), CPU",
        "arithmetic": "F32, eager attention, no cache, one thread",
        "seed": SEED,
        "smallest_lead_of_a_choice": round(lead, 4),
        "versions": {
            "python": sys.version.split()[0],
            "torch": torch.__version__.split("+")[0],
            "transformers": transformers.__version__,
            "safetensors": safetensors.__version__,
        },
        "script": "xtask/golden/gpt_oss_folder.py",
        "script_sha256": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
    }
    (folder / "provenance.json").write_text(json.dumps(provenance, indent=2) + "\n")
    print(f"choices {lead:.4f}, logits' deviation {logits.std():.2f}", file=sys.stderr)


if __name__ == "__main__":
    main()
