"""Tiny random models and what Hugging Face transformers computes with them.

    python tiny_models.py OUT [VARIANT...]

For every variant a folder OUT/<variant> with
    weights.safetensors    the state dict, F32, names of transformers
    reference.safetensors  tokens, hidden.*, logits, greedy, greedy_logits (see `reference`); an
                           encoder's without the last three
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
import tiny_gpt_oss
import torch
import transformers
from safetensors.torch import save_file
from transformers import (
    BertConfig,
    BertModel,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    NomicBertConfig,
    NomicBertModel,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

VOCABULARY = 131
POSITIONS = 512
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


def qwen3(seed, **shape):
    return "qwen3", Qwen3ForCausalLM, Qwen3Config, seed, shape


def gpt2(seed, **shape):
    # A table of few positions: it is a part of the file.
    shape.setdefault("max_position_embeddings", 96)
    return "gpt2", GPT2LMHeadModel, GPT2Config, seed, shape


def bert(seed, **shape):
    shape.setdefault("max_position_embeddings", 96)
    return "bert", BertModel, BertConfig, seed, shape


def nomic_bert(seed, **shape):
    return "nomic-bert", NomicBertModel, NomicBertConfig, seed, shape


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
    # Mistral 7B's ratio of four queries to a key head, a window of a few positions, untied head.
    "llama-window-gqa": mistral(
        2601, hidden_size=32, intermediate_size=36, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=1, head_dim=8, rms_norm_eps=1e-5, rope_parameters=rope(10000.0),
        sliding_window=5, tie_word_embeddings=False,
    ),
    # Six queries on two key heads, a window of half the prompt.
    "llama-window-wide": mistral(
        2701, hidden_size=30, intermediate_size=40, num_hidden_layers=3, num_attention_heads=6,
        num_key_value_heads=2, head_dim=10, rms_norm_eps=1e-6, rope_parameters=rope(10000.0),
        sliding_window=33, tie_word_embeddings=False,
    ),
    # Llama-3 scaling of an odd number of heads, untied head.
    "llama-rope3-odd": llama(
        2801, hidden_size=30, intermediate_size=40, num_hidden_layers=3, num_attention_heads=5,
        num_key_value_heads=5, head_dim=12, rms_norm_eps=1e-5, tie_word_embeddings=False,
        rope_parameters=rope(
            10000.0, rope_type="llama3", factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0,
            original_max_position_embeddings=128,
        ),
    ),
    # Llama-3 scaling with other bands, three queries on one key head, tied head.
    "llama-rope3-mqa": llama(
        2904, hidden_size=33, intermediate_size=44, num_hidden_layers=3, num_attention_heads=3,
        num_key_value_heads=1, head_dim=16, rms_norm_eps=1e-5, tie_word_embeddings=True,
        rope_parameters=rope(
            2000.0, rope_type="llama3", factor=4.0, low_freq_factor=0.5, high_freq_factor=2.0,
            original_max_position_embeddings=32,
        ),
    ),
    # CodeLlama: Llama 2 with a base of a million.
    "llama-code": llama(
        3002, hidden_size=30, intermediate_size=48, num_hidden_layers=3, num_attention_heads=3,
        num_key_value_heads=3, head_dim=10, rms_norm_eps=1e-5, rope_parameters=rope(1000000.0),
        tie_word_embeddings=False,
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
    # The proportions of Qwen3-0.6B: heads wider together than the residual stream, tied head.
    "qwen3-gqa": qwen3(
        1406, hidden_size=40, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=20, rms_norm_eps=1e-6, rope_parameters=rope(1000000.0),
        tie_word_embeddings=True,
    ),
    # An odd number of heads on one key head, untied head.
    "qwen3-untied": qwen3(
        1507, hidden_size=48, intermediate_size=56, num_hidden_layers=3, num_attention_heads=5,
        num_key_value_heads=1, head_dim=8, rms_norm_eps=1e-5, rope_parameters=rope(10000.0),
        tie_word_embeddings=False,
    ),
    # Every head has its own keys, deeper, an odd number of pairs.
    "qwen3-mha": qwen3(
        1602, hidden_size=30, intermediate_size=70, num_hidden_layers=5, num_attention_heads=3,
        num_key_value_heads=3, head_dim=14, rms_norm_eps=1e-6, rope_parameters=rope(500000.0),
        tie_word_embeddings=True,
    ),
    # The proportions of GPT-2 small, and its epsilon.
    "gpt2-tied": gpt2(
        1704, hidden_size=48, n_inner=192, num_hidden_layers=3, num_attention_heads=4,
        layer_norm_epsilon=1e-5, tie_word_embeddings=True,
    ),
    # An odd number of heads, a narrow network, untied head.
    "gpt2-untied": gpt2(
        1808, hidden_size=50, n_inner=54, num_hidden_layers=3, num_attention_heads=5,
        layer_norm_epsilon=1e-6, tie_word_embeddings=False,
    ),
    # Heads of a width that no vector divides, deeper.
    "gpt2-odd": gpt2(
        1918, hidden_size=33, n_inner=70, num_hidden_layers=5, num_attention_heads=3,
        layer_norm_epsilon=1e-5, tie_word_embeddings=True, max_position_embeddings=80,
    ),
    # The proportions of MiniLM.
    "bert-minilm": bert(
        2002, hidden_size=48, intermediate_size=192, num_hidden_layers=3, num_attention_heads=4,
        layer_norm_eps=1e-12, hidden_act="gelu",
    ),
    # An odd number of heads, a narrow network.
    "bert-odd": bert(
        2101, hidden_size=35, intermediate_size=50, num_hidden_layers=2, num_attention_heads=5,
        layer_norm_eps=1e-6, hidden_act="gelu", max_position_embeddings=64,
    ),
    # Wide heads, deeper, more than one type of token.
    "bert-deep": bert(
        2203, hidden_size=32, intermediate_size=40, num_hidden_layers=5, num_attention_heads=1,
        layer_norm_eps=1e-5, hidden_act="gelu", type_vocab_size=3,
    ),
    # The proportions and the base of nomic-embed-text.
    "nomic-bert-base": nomic_bert(
        2302, hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
        layer_norm_eps=1e-12, rope_parameters=rope(1000.0),
    ),
    # An odd number of heads, another base.
    "nomic-bert-odd": nomic_bert(
        2401, hidden_size=42, intermediate_size=50, num_hidden_layers=2, num_attention_heads=3,
        layer_norm_eps=1e-6, rope_parameters=rope(10000.0),
    ),
    # One head, deeper.
    "nomic-bert-deep": nomic_bert(
        2503, hidden_size=20, intermediate_size=64, num_hidden_layers=5, num_attention_heads=1,
        layer_norm_eps=1e-5, rope_parameters=rope(500.0),
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

VARIANTS |= tiny_gpt_oss.VARIANTS


ENCODERS = (BertModel, NomicBertModel)
# Feed other sub-layers' inputs: larger, so that layers do more than pass the stream on.
OUTPUTS = (
    "o_proj.weight", "down_proj.weight", "c_proj.weight", "output.dense.weight",
)


def build(cls, config_cls, seed, shape):
    config = config_cls(**{
        "vocab_size": VOCABULARY, "max_position_embeddings": POSITIONS, "attn_implementation": "eager",
        "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0 if cls in ENCODERS else None,
        **copy.deepcopy(shape),
    })
    encoder = {"add_pooling_layer": False} if cls in ENCODERS else {}
    model = cls(config, **encoder).to(torch.float32).eval()
    generator = torch.Generator().manual_seed(seed)
    gemma = config_cls is Gemma3TextConfig
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            noise = torch.randn(weight.shape, generator=generator)
            if config_cls is tiny_gpt_oss.GptOssConfig and tiny_gpt_oss.fill(name, weight, noise):
                continue
            if name.lower().endswith("norm.weight") or ".ln_" in name and name.endswith(".weight"):
                weight.copy_(0.25 * noise if gemma else 1.0 + 0.25 * noise)
            elif name.endswith(".bias"):
                # GPT-2 has them everywhere: larger ones, and every position says the same.
                weight.copy_(noise * (0.1 if cls is GPT2LMHeadModel else 0.3))
            elif cls in ENCODERS and "_embeddings.weight" in name:
                weight.copy_(noise)
            elif name == "transformer.wpe.weight":
                weight.copy_(0.5 * noise)
            elif name in ("model.embed_tokens.weight", "transformer.wte.weight"):
                # Weaker than what the layers add, else a tied model repeats its input for ever.
                weight.copy_(noise * (1.1 / math.sqrt(shape["hidden_size"]) if gemma else 0.35))
            elif name == "lm_head.weight":
                weight.copy_(noise * 3.0 / math.sqrt(shape["hidden_size"]))
            else:
                gain = 2.0 if name.endswith(OUTPUTS) else 1.0
                # GPT-2 stores [inputs, outputs].
                inputs = weight.shape[0 if cls is GPT2LMHeadModel else 1]
                weight.copy_(noise * gain / math.sqrt(inputs))
    return config, model, generator


def parts(model):
    """The layers, and the norm after them if there is one."""
    if isinstance(model, BertModel):
        return model.encoder.layer, None
    if isinstance(model, NomicBertModel):
        return model.layers, None
    if isinstance(model, GPT2LMHeadModel):
        return model.transformer.h, model.transformer.ln_f
    return model.model.layers, model.model.norm


def published(cls, weights):
    """Weights as the model's own repository has them, where transformers 5 has them otherwise."""
    if cls is not NomicBertModel:
        return weights
    out = {}
    for name, weight in weights.items():
        if ".self_attn.q_proj." in name:
            rows = [weights[name.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")]
            name, weight = name.replace("self_attn.q_proj", "attn.Wqkv"), torch.cat(rows)
        elif ".self_attn.k_proj." in name or ".self_attn.v_proj." in name:
            continue
        for theirs, there in NOMIC_NAMES:
            name = name.replace(theirs, there)
        out["encoder." + name if name.startswith("layers.") else name] = weight
    return out


# Source: transformers, `conversion_mapping.py`, "nomic_bert".
NOMIC_NAMES = (
    ("embeddings.LayerNorm", "emb_ln"), ("self_attn.o_proj", "attn.out_proj"), ("up_proj", "fc11"),
    ("gate_proj", "fc12"), ("down_proj", "fc2"), ("post_attention_layernorm", "norm1"),
    ("post_mlp_layernorm", "norm2"),
)


@torch.no_grad()
def reference(model, tokens):
    """Residual stream around every layer over the whole prompt, logits of every position (of an
    encoder: the last layer's rows)."""
    seen = {}

    def keep(name):
        def hook(_module, _inputs, output):
            seen[name] = (output[0] if isinstance(output, tuple) else output)[0].clone()
        return hook

    def keep_input(_module, args, kwargs):
        seen["hidden.embedding"] = (args[0] if args else kwargs["hidden_states"])[0].clone()

    layers, norm = parts(model)
    hooks = [layer.register_forward_hook(keep(f"hidden.{i}")) for i, layer in enumerate(layers)]
    hooks.append(layers[0].register_forward_pre_hook(keep_input, with_kwargs=True))
    if norm is None:
        seen["hidden.final_norm"] = model(input_ids=tokens[None]).last_hidden_state[0].clone()
        logits = None
    else:
        hooks.append(norm.register_forward_hook(keep("hidden.final_norm")))
        logits = model(input_ids=tokens[None], use_cache=False).logits[0]
    for hook in hooks:
        hook.remove()
    if logits is None:
        return {"tokens": tokens.to(torch.int32), **seen}
    return {"tokens": tokens.to(torch.int32), **seen, "logits": logits.clone()}


@torch.no_grad()
def greedy(model, tokens):
    """Ids of a greedy continuation (whole prompt again at every step), the logits after each of
    them, and the closest race."""
    ids, lead, rows = tokens.tolist(), math.inf, []
    for _ in range(GREEDY + 1):
        rows.append(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1])
        best = torch.topk(rows[-1], 2)
        ids.append(best.indices[0].item())
        if len(rows) <= GREEDY:
            lead = min(lead, (best.values[0] - best.values[1]).item())
    greedy = torch.tensor(ids[len(tokens):-1], dtype=torch.int32)
    return greedy, torch.stack(rows[1:]), lead


def write(folder, name):
    architecture, cls, config_cls, seed, shape = VARIANTS[name]
    config, model, generator = build(cls, config_cls, seed, shape)
    tokens = torch.randint(0, VOCABULARY, (PROMPT,), generator=generator)
    tensors = reference(model, tokens)
    lead = None
    if cls not in ENCODERS:
        tensors["greedy"], tensors["greedy_logits"], lead = greedy(model, tokens)
        assert lead >= CLEAR_LEAD, f"{name}: greedy lead {lead:.4f}: choose another seed"
    if architecture == "gpt-oss":
        tiny_gpt_oss.check_choices(name, model, torch.cat([tokens, tensors["greedy"].to(tokens.dtype)]))
    weights = published(cls, {k: v.contiguous() for k, v in model.state_dict().items()})
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
        **({} if lead is None else {"smallest_greedy_lead": round(lead, 4)}),
        "versions": {
            "python": sys.version.split()[0],
            "torch": torch.__version__.split("+")[0],
            "transformers": transformers.__version__,
            "safetensors": safetensors.__version__,
        },
        "script": "xtask/golden/tiny_models.py",
        "script_sha256": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
        "config": {"model_type": config.model_type, "vocab_size": VOCABULARY,
                   "max_position_embeddings": POSITIONS, **shape},
    }
    (folder / "provenance.json").write_text(json.dumps(provenance, indent=2) + "\n")
    spread = tensors.get("logits", tensors["hidden.final_norm"]).std().item()
    print(f"{name}: {sum(v.numel() for v in weights.values())} weights, "
          f"deviation of the result {spread:.2f}, smallest greedy lead {lead}", file=sys.stderr)


def main():
    torch.set_num_threads(1)
    out, names = Path(sys.argv[1]), sys.argv[2:] or list(VARIANTS)
    for name in names:
        write(out / name, name)


if __name__ == "__main__":
    main()
