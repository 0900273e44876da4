"""Tiny random models and what Hugging Face transformers computes with them.

    python tiny_models.py OUT [VARIANT...]

For every variant a folder OUT/<variant> with
    weights.safetensors    the state dict, F32, names of transformers
    reference.safetensors  tokens, hidden.*, logits, greedy (see `reference`)
    provenance.json        configuration, seed, versions, arithmetic, this script's hash

Weights are random and every optional part is away from its default: norm weights are not 1,
biases are not 0, windows are shorter than the prompt. `cargo xtask golden` runs this and writes
the GGUF files.
"""

import copy
import hashlib
import json
import math
import sys
from pathlib import Path

import safetensors
import torch
import transformers
from safetensors.torch import save_file
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

VOCABULARY = 131
PROMPT = 64
GREEDY = 16
# A greedy step whose two best logits are closer than this proves nothing about an argmax.
CLEAR_LEAD = 0.02


def rope(base, **scaling):
    return {"rope_type": "default", "rope_theta": base, **scaling}


def llama(seed, **shape):
    return "llama", LlamaForCausalLM, LlamaConfig, seed, shape


def mistral(seed, **shape):
    return "llama", MistralForCausalLM, MistralConfig, seed, shape


def qwen2(seed, **shape):
    return "qwen2", Qwen2ForCausalLM, Qwen2Config, seed, shape


def phi3(seed, **shape):
    return "phi3", Phi3ForCausalLM, Phi3Config, seed, shape


def gemma3(seed, pattern=6, **shape):
    layers = shape["num_hidden_layers"]
    kinds = ["full_attention" if (i + 1) % pattern == 0 else "sliding_attention" for i in range(layers)]
    shape.setdefault("query_pre_attn_scalar", shape["head_dim"])
    return "gemma3", Gemma3ForCausalLM, Gemma3TextConfig, seed, {**shape, "layer_types": kinds}


VARIANTS = {
    # Heads narrower than hidden / heads, all queries on one key head, untied head.
    "llama-gqa": llama(
        108, hidden_size=50, intermediate_size=54, num_hidden_layers=3, num_attention_heads=5,
        num_key_value_heads=1, head_dim=8, rms_norm_eps=1e-5, rope_parameters=rope(10000.0),
        tie_word_embeddings=False,
    ),
    # Llama-3 frequency scaling with all three bands inside the head, tied head.
    "llama-rope3": llama(
        212, hidden_size=36, intermediate_size=72, num_hidden_layers=3, num_attention_heads=6,
        num_key_value_heads=3, head_dim=16, rms_norm_eps=1e-6, tie_word_embeddings=True,
        rope_parameters=rope(
            500.0, rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
            original_max_position_embeddings=64,
        ),
    ),
    # Linear position scaling, biases on all four attention projections, an odd number of pairs.
    "llama-linear-bias": llama(
        303, hidden_size=40, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=14, rms_norm_eps=1e-5, attention_bias=True,
        rope_parameters=rope(100000.0, rope_type="linear", factor=4.0), tie_word_embeddings=False,
    ),
    # Mistral: every layer sees a window; an odd number of heads, each with its own key head.
    "llama-window": mistral(
        411, hidden_size=36, intermediate_size=50, num_hidden_layers=4, num_attention_heads=3,
        num_key_value_heads=3, head_dim=20, rms_norm_eps=1e-5, rope_parameters=rope(1000000.0),
        sliding_window=10, tie_word_embeddings=True,
    ),
    # The proportions of Qwen2.5-0.5B: seven queries to a key head, tied head.
    "qwen2-gqa": qwen2(
        512, hidden_size=56, intermediate_size=60, num_hidden_layers=3, num_attention_heads=7,
        num_key_value_heads=1, head_dim=8, rms_norm_eps=1e-6, rope_parameters=rope(1000000.0),
        tie_word_embeddings=True,
    ),
    "qwen2-untied": qwen2(
        606, hidden_size=32, intermediate_size=88, num_hidden_layers=4, num_attention_heads=6,
        num_key_value_heads=2, head_dim=14, rms_norm_eps=1e-5, rope_parameters=rope(10000.0),
        tie_word_embeddings=False,
    ),
    "qwen2-mha": qwen2(
        721, hidden_size=42, intermediate_size=46, num_hidden_layers=4, num_attention_heads=3,
        num_key_value_heads=3, head_dim=14, rms_norm_eps=1e-6, rope_parameters=rope(500000.0),
        tie_word_embeddings=True,
    ),
    # As Phi-3-mini-4k: every layer sees a window, every head has its own keys, untied head.
    "phi3-window": phi3(
        1105, hidden_size=48, intermediate_size=56, num_hidden_layers=4, num_attention_heads=3,
        num_key_value_heads=3, head_dim=16, rms_norm_eps=1e-5, sliding_window=11,
        rope_parameters=rope(10000.0), tie_word_embeddings=False,
    ),
    # As Phi-4-mini: shared keys, three quarters of a head rotated, LongRoPE within the original context.
    "phi3-short": phi3(
        1243, hidden_size=48, intermediate_size=60, num_hidden_layers=3, num_attention_heads=6,
        num_key_value_heads=2, head_dim=8, rms_norm_eps=1e-6, tie_word_embeddings=True,
        original_max_position_embeddings=256,
        rope_parameters=rope(
            10000.0, rope_type="longrope", partial_rotary_factor=0.75,
            short_factor=[1.0, 1.25, 1.75], long_factor=[1.5, 8.0, 40.0],
        ),
    ),
    # As Phi-3.5-mini: LongRoPE beyond the original context.
    "phi3-long": phi3(
        1304, hidden_size=40, intermediate_size=72, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=10, rms_norm_eps=1e-5, tie_word_embeddings=False,
        original_max_position_embeddings=32,
        rope_parameters=rope(
            1000.0, rope_type="longrope", short_factor=[1.0, 1.0, 1.1, 1.2, 1.5],
            long_factor=[1.0, 1.5, 3.0, 9.0, 20.0],
        ),
    ),
    # The proportions of Gemma 3 270M: windows and bases left to the architecture's defaults.
    "gemma3-default": gemma3(
        817, hidden_size=32, intermediate_size=40, num_hidden_layers=7, num_attention_heads=4,
        num_key_value_heads=1, head_dim=16, rms_norm_eps=1e-6, sliding_window=12,
        rope_parameters={
            "full_attention": rope(1000000.0),
            "sliding_attention": rope(10000.0),
        },
        tie_word_embeddings=True,
    ),
    # Global layers stretched eightfold, as in the larger Gemma 3.
    "gemma3-linear": gemma3(
        923, hidden_size=24, intermediate_size=40, num_hidden_layers=7, num_attention_heads=6,
        num_key_value_heads=3, head_dim=12, rms_norm_eps=1e-6, sliding_window=20,
        rope_parameters={
            "full_attention": rope(1000000.0, rope_type="linear", factor=8.0),
            "sliding_attention": rope(10000.0),
        },
        tie_word_embeddings=True,
    ),
    # Another window pattern and local base, an odd number of heads and of pairs, untied head.
    "gemma3-pattern": gemma3(
        1004, pattern=3, hidden_size=30, intermediate_size=42, num_hidden_layers=6,
        num_attention_heads=5, num_key_value_heads=5, head_dim=10, rms_norm_eps=1e-5,
        sliding_window=7, tie_word_embeddings=False,
        rope_parameters={
            "full_attention": rope(250000.0),
            "sliding_attention": rope(3000.0),
        },
    ),
}


def build(cls, config_cls, seed, shape):
    config = config_cls(
        vocab_size=VOCABULARY, max_position_embeddings=512, attn_implementation="eager",
        bos_token_id=0, eos_token_id=0, pad_token_id=None, **copy.deepcopy(shape),
    )
    model = cls(config).to(torch.float32).eval()
    generator = torch.Generator().manual_seed(seed)
    gemma = config_cls is Gemma3TextConfig
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            noise = torch.randn(weight.shape, generator=generator)
            if name.endswith("norm.weight"):
                weight.copy_(0.25 * noise if gemma else 1.0 + 0.25 * noise)
            elif name.endswith(".bias"):
                weight.copy_(0.3 * noise)
            elif name == "model.embed_tokens.weight":
                # Weaker than what the layers add, else a tied model repeats its input for ever.
                weight.copy_(noise * (1.1 / math.sqrt(shape["hidden_size"]) if gemma else 0.35))
            elif name == "lm_head.weight":
                weight.copy_(noise * 3.0 / math.sqrt(shape["hidden_size"]))
            else:
                gain = 2.0 if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0
                weight.copy_(noise * gain / math.sqrt(weight.shape[1]))
    return config, model, generator


@torch.no_grad()
def reference(model, tokens):
    """Residual stream around every layer over the whole prompt, logits of every position."""
    seen = {}

    def keep(name):
        def hook(_module, _inputs, output):
            seen[name] = (output[0] if isinstance(output, tuple) else output)[0].clone()
        return hook

    def keep_input(_module, args, kwargs):
        seen["hidden.embedding"] = (args[0] if args else kwargs["hidden_states"])[0].clone()

    inner = model.model
    hooks = [layer.register_forward_hook(keep(f"hidden.{i}")) for i, layer in enumerate(inner.layers)]
    hooks.append(inner.norm.register_forward_hook(keep("hidden.final_norm")))
    hooks.append(inner.layers[0].register_forward_pre_hook(keep_input, with_kwargs=True))
    logits = model(input_ids=tokens[None], use_cache=False).logits[0]
    for hook in hooks:
        hook.remove()
    return {"tokens": tokens.to(torch.int32), **seen, "logits": logits.clone()}


@torch.no_grad()
def greedy(model, tokens):
    """Ids of a greedy continuation (whole prompt again at every step) and the closest race."""
    ids, lead = tokens.tolist(), math.inf
    for _ in range(GREEDY):
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
        best = torch.topk(logits, 2)
        lead = min(lead, (best.values[0] - best.values[1]).item())
        ids.append(best.indices[0].item())
    return torch.tensor(ids[len(tokens):], dtype=torch.int32), lead


def write(folder, name):
    architecture, cls, config_cls, seed, shape = VARIANTS[name]
    config, model, generator = build(cls, config_cls, seed, shape)
    tokens = torch.randint(0, VOCABULARY, (PROMPT,), generator=generator)
    tensors = reference(model, tokens)
    tensors["greedy"], lead = greedy(model, tokens)
    assert lead >= CLEAR_LEAD, f"{name}: greedy lead {lead:.4f}: choose another seed"
    weights = {k: v.contiguous() for k, v in model.state_dict().items()}
    if config.tie_word_embeddings:
        weights.pop("lm_head.weight", None)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "weights.safetensors")
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "reference.safetensors")
    provenance = {
        "architecture": architecture,
        "reference": f"Hugging Face transformers, {cls.__name__}, CPU",
        "arithmetic": "F32 weights, activations and keys/values; eager attention; no cache; one thread",
        "seed": seed,
        "smallest_greedy_lead": round(lead, 4),
        "versions": {
            "python": sys.version.split()[0],
            "torch": torch.__version__.split("+")[0],
            "transformers": transformers.__version__,
            "safetensors": safetensors.__version__,
        },
        "script": "xtask/golden/tiny_models.py",
        "script_sha256": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
        "config": {"model_type": config.model_type, "vocab_size": VOCABULARY,
                   "max_position_embeddings": 512, **shape},
    }
    (folder / "provenance.json").write_text(json.dumps(provenance, indent=2) + "\n")
    spread = tensors["logits"].std().item()
    print(f"{name}: {sum(v.numel() for v in weights.values())} weights, "
          f"logit deviation {spread:.2f}, smallest greedy lead {lead:.3f}", file=sys.stderr)


def main():
    torch.set_num_threads(1)
    out, names = Path(sys.argv[1]), sys.argv[2:] or list(VARIANTS)
    for name in names:
        write(out / name, name)


if __name__ == "__main__":
    main()
