"""The DeepSeek architecture once more, token by token and head by head, written from the papers' equations in float64: an
oracle that shares no line with the network and none with transformers, whose routers and YaRN were wrong at times (masked
groups at 0 instead of -inf, V2 without YaRN's temperature, biased weights).
"""

import math

import pytest
import tiny
import torch

CASES = {
    "V3": (tiny.DEEPSEEK, {}),
    "V3, one query projection": (tiny.DEEPSEEK, {"q_lora_rank": None}),
    "V3, unequal mscales": (tiny.DEEPSEEK, {"rope_scaling": tiny.YARN | {"mscale": 0.7, "mscale_all_dim": 0.9}}),
    "V3, all biases negative": (tiny.DEEPSEEK, {}),
    "V2": (tiny.V2, {}),
    "V2-Lite": (tiny.V2, {"topk_method": "greedy", "n_group": 1, "topk_group": 1, "routed_scaling_factor": 1.0,
                          "q_lora_rank": None}),
}


class Reference:
    """Logits of one document from a state_dict, nothing else."""

    def __init__(self, model):
        self.c, self.w = model.config, {name: t.detach().double() for name, t in model.state_dict().items()}
        self.v3 = self.c.model_type == "deepseek_v3"

    def norm(self, x, name, eps):
        return x / torch.sqrt((x * x).mean() + eps) * self.w[name]

    def angles(self, position):
        """YaRN (arXiv 2309.00071, eq. 16-23): interpolate slow pairs, keep fast ones, blend between."""
        width, s = self.c.qk_rope_head_dim, self.c.rope_scaling
        result = []
        for i in range(width // 2):
            frequency = self.c.rope_theta ** (-2 * i / width)
            dim = [width * math.log(s.original_max_position_embeddings / (turns * 2 * math.pi))
                   / (2 * math.log(self.c.rope_theta)) for turns in (s.beta_fast, s.beta_slow)]
            low, high = max(math.floor(dim[0]), 0), min(math.ceil(dim[1]), width - 1)
            gamma = 1 - min(max((i - low) / max(high - low, 0.001), 0), 1)
            result.append(position * (gamma * frequency + (1 - gamma) * frequency / s.factor))
        return result

    def mscale(self, m):
        return 0.1 * m * math.log(self.c.rope_scaling.factor) + 1

    def rotate(self, x, position):
        magnitude = self.mscale(self.c.rope_scaling.mscale) / self.mscale(self.c.rope_scaling.mscale_all_dim)
        out = x.clone()
        for i, angle in enumerate(self.angles(position)):  # neighbours turn together
            a, b = x[2 * i], x[2 * i + 1]
            out[2 * i] = (a * math.cos(angle) - b * math.sin(angle)) * magnitude
            out[2 * i + 1] = (a * math.sin(angle) + b * math.cos(angle)) * magnitude
        return out

    def attention(self, layer, x):
        c, p, length = self.c, f"layers.{layer}.self_attn.", len(x)
        scale = c.qk_head_dim ** -0.5 * self.mscale(c.rope_scaling.mscale_all_dim) ** 2
        queries, keys, values = [], [], []
        for t in range(length):
            if c.q_lora_rank is None:
                q = self.w[p + "q_proj.weight"] @ x[t]
            else:
                q = self.w[p + "q_b_proj.weight"] @ self.norm(self.w[p + "q_a_proj.weight"] @ x[t],
                                                              p + "q_a_layernorm.weight", 1e-6)
            down = self.w[p + "kv_a_proj_with_mqa.weight"] @ x[t]
            latent = self.norm(down[:c.kv_lora_rank], p + "kv_a_layernorm.weight", 1e-6)
            shared = self.rotate(down[c.kv_lora_rank:], t)
            up = (self.w[p + "kv_b_proj.weight"] @ latent).view(c.num_attention_heads, -1)
            q = q.view(c.num_attention_heads, -1)
            queries.append([torch.cat([head[:c.qk_nope_head_dim], self.rotate(head[c.qk_nope_head_dim:], t)]) for head in q])
            keys.append([torch.cat([head[:c.qk_nope_head_dim], shared]) for head in up])
            values.append([head[c.qk_nope_head_dim:] for head in up])
        out = []
        for t in range(length):
            heads = []
            for h in range(c.num_attention_heads):
                scores = torch.stack([queries[t][h] @ keys[s][h] for s in range(t + 1)]) * scale
                share = (scores - scores.max()).exp()
                heads.append(sum(a * values[s][h] for s, a in enumerate(share / share.sum())))
            out.append(self.w[p + "o_proj.weight"] @ torch.cat(heads))
        return torch.stack(out)

    def swiglu(self, x, gate, up, down):
        g = gate @ x
        return down @ (g / (1 + (-g).exp()) * (up @ x))

    def mixture(self, layer, x):
        c, p = self.c, f"layers.{layer}.mlp."
        logits = self.w[p + "gate.weight"] @ x
        scores = 1 / (1 + (-logits).exp()) if self.v3 else logits.exp() / logits.exp().sum()
        bias = self.w[p + "gate.e_score_correction_bias"] if self.v3 else torch.zeros_like(scores)
        ranked = [(float(scores[e] + bias[e]), e) for e in range(c.n_routed_experts)]
        if c.topk_method != "greedy":
            size = c.n_routed_experts // c.n_group
            groups = [ranked[g * size:(g + 1) * size] for g in range(c.n_group)]
            groups.sort(key=lambda group: -sum(sorted((v for v, _ in group), reverse=True)[:2 if self.v3 else 1]))
            ranked = [pair for group in groups[:c.topk_group] for pair in group]  # the others cannot be chosen at all
        chosen = [e for _, e in sorted(ranked, reverse=True)[:c.num_experts_per_tok]]
        total = sum(scores[e] for e in chosen) if c.norm_topk_prob else 1
        out = self.swiglu(x, *(self.w[f"{p}shared_experts.{m}_proj.weight"] for m in ("gate", "up", "down")))
        for e in chosen:
            gate, up = self.w[p + "experts.gate_up_proj"][e].chunk(2)
            out = out + c.routed_scaling_factor * scores[e] / total * self.swiglu(x, gate, up,
                                                                                  self.w[p + "experts.down_proj"][e])
        return out

    def logits(self, ids):
        c, eps = self.c, self.c.rms_norm_eps
        x = self.w["embed_tokens.weight"][ids]
        for layer in range(c.num_hidden_layers):
            p = f"layers.{layer}."
            x = x + self.attention(layer, torch.stack([self.norm(t, p + "input_layernorm.weight", eps) for t in x]))
            normed = [self.norm(t, p + "post_attention_layernorm.weight", eps) for t in x]
            if layer < c.first_k_dense_replace:
                dense = [self.w[f"{p}mlp.{m}_proj.weight"] for m in ("gate", "up", "down")]
                x = x + torch.stack([self.swiglu(t, *dense) for t in normed])
            else:
                x = x + torch.stack([self.mixture(layer, t) for t in normed])
        return torch.stack([self.w["lm_head.weight"] @ self.norm(t, "norm.weight", eps) for t in x])


@pytest.mark.parametrize("case", CASES)
def test_the_network_is_the_papers(case):
    base, changes = CASES[case]
    model = tiny.model(base, **changes)
    if case.endswith("negative"):  # at 0, masked groups would win over all others
        for router in model.routers.values():
            router.e_score_correction_bias.copy_(-1.0 - router.e_score_correction_bias.abs())
    ids = tiny.tokens(44)  # beyond the 32 positions that YaRN starts from
    expected = Reference(model).logits(ids)
    assert expected.std() > 0.5
    with torch.no_grad():
        assert (model(ids[None])[0] - expected).abs().max() < 1e-4 * max(1.0, float(expected.std()))
