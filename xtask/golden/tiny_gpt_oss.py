"""gpt-oss among the tiny models: its variants, its weights, and how clear its router's choices are."""

import math

import torch
from transformers import GptOssConfig, GptOssForCausalLM

# A choice of experts closer than this proves nothing: keys and values in half precision may turn it.
CLEAR_CHOICE = 0.002


def gpt_oss(seed, **shape):
    shape = {"tie_word_embeddings": False, "experts_implementation": "eager", **shape}
    return "gpt-oss", GptOssForCausalLM, GptOssConfig, seed, shape


def yarn(base, **scaling):
    return {"rope_type": "yarn", "rope_theta": base, "truncate": False, **scaling}


VARIANTS = {
    # The proportions of gpt-oss-20b: eight queries to a key head, its YaRN on a short context.
    "gpt-oss-yarn": gpt_oss(
        3108, hidden_size=48, intermediate_size=32, num_hidden_layers=3, num_attention_heads=8,
        num_key_value_heads=1, head_dim=16, num_local_experts=8, num_experts_per_tok=4,
        sliding_window=12, rms_norm_eps=1e-5,
        rope_parameters=yarn(
            150000.0, factor=32.0, beta_fast=32.0, beta_slow=1.0, original_max_position_embeddings=4096,
        ),
    ),
    # An odd number of heads with keys of their own, few experts, rotations stretched at all speeds.
    "gpt-oss-odd": gpt_oss(
        3221, hidden_size=42, intermediate_size=50, num_hidden_layers=3, num_attention_heads=3,
        num_key_value_heads=3, head_dim=20, num_local_experts=5, num_experts_per_tok=2,
        sliding_window=7, rms_norm_eps=1e-6,
        rope_parameters=yarn(
            500.0, factor=4.0, beta_fast=8.0, beta_slow=0.5, original_max_position_embeddings=96,
        ),
    ),
    # No YaRN, every expert but one for every token, five queries to a key head.
    "gpt-oss-plain": gpt_oss(
        3310, hidden_size=36, intermediate_size=64, num_hidden_layers=3, num_attention_heads=10,
        num_key_value_heads=2, head_dim=8, num_local_experts=4, num_experts_per_tok=3,
        sliding_window=21, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    ),
}


def fill(name, weight, noise):
    """Sets a weight that only this architecture has; whether it was one."""
    if name.endswith(".sinks"):
        weight.copy_(1.5 * noise)
    elif name.endswith("experts.gate_up_proj"):
        # So large that gates and ups are clamped now and then.
        weight.copy_(2.5 * noise / math.sqrt(weight.shape[1]))
    elif name.endswith("experts.down_proj"):
        weight.copy_(0.5 * noise / math.sqrt(weight.shape[1]))
    elif name.endswith(("proj_bias", "router.bias")):
        weight.copy_(0.3 * noise)
    else:
        return False
    return True


@torch.no_grad()
def check_choices(name, model, tokens):
    """Asserts that every token's last expert is well ahead of the first that it leaves; by how much."""
    lead = math.inf

    def hook(module, _inputs, output):
        nonlocal lead
        best = torch.topk(output[0], module.top_k + 1, dim=-1).values
        lead = min(lead, (best[:, -2] - best[:, -1]).min().item())

    hooks = [layer.mlp.router.register_forward_hook(hook) for layer in model.model.layers]
    model(input_ids=tokens[None], use_cache=False)
    for hook in hooks:
        hook.remove()
    assert lead >= CLEAR_CHOICE, f"{name}: choice {lead:.5f}: choose another seed"
    return lead
