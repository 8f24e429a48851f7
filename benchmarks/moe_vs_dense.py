"""Training throughput of the nano MoE against a dense model with the same active parameters, in tokens per second.

Same attention, depth, width and vocabulary; the dense twin's feed-forward blocks are as wide as what one token passes in
the MoE (shared plus routed experts). Both train on the same batches of the nano corpus, in turns. The limit is the MoE's
matrix products alone. About two minutes.

    python benchmarks/moe_vs_dense.py
"""

import os
import random
import statistics
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "1024")

import torch
from common import machine, matmul_limit, print_result

from spoutnik.model.accounting import account
from spoutnik.model.transformer import Transformer
from spoutnik.parallel import cores
from spoutnik.recipe.schema import load_recipe
from spoutnik.train.language_model import language_model_gradient, take_tokens
from spoutnik.train.pretrain import PretrainSettings, corpus_documents, train_tokenizer

RECIPE = Path(__file__).parent.parent / "recipes" / "nano.yaml"
STEPS, TOKENS = 8, 16384


def main() -> None:
    print(machine())
    recipe = load_recipe(RECIPE)
    moe = recipe.model_config_of("nano", str(RECIPE)).model_copy(update={"num_nextn_predict_layers": 0})
    width = (moe.num_experts_per_tok + moe.n_shared_experts) * moe.moe_intermediate_size
    dense = moe.model_copy(update={"n_routed_experts": 0, "n_shared_experts": 0, "num_experts_per_tok": 0, "n_group": 1,
                                   "topk_group": 1, "intermediate_size": width})
    tokenizer = train_tokenizer(0, recipe.vocab_size, 4000)
    settings = PretrainSettings(steps=STEPS, tokens_per_step=TOKENS, learning_rate=1e-3)
    contestants = {}
    for name, config in (("moe", moe), ("dense", dense)):
        model = Transformer(config, torch.bfloat16)
        model.init_weights(torch.Generator().manual_seed(0))
        contestants[name] = (model, settings.make_optimizer(model))
    rates: dict[str, list[float]] = {"moe": [], "dense": []}
    for step in range(STEPS + 2):
        documents = take_tokens(corpus_documents(tokenizer, random.Random(step), recipe.tasks_of()), TOKENS, 512)
        for name, (model, optimizer) in contestants.items():
            began = time.perf_counter()
            gradient, bill = language_model_gradient(model, documents, optimizer.parameters, settings)
            optimizer.step(gradient.gradients, 0.1)
            if step >= 2:  # the first steps compile oneDNN's kernels
                rates[name].append(bill.tokens_trained / (time.perf_counter() - began))
    counts = {name: account(config) for name, config in (("moe", moe), ("dense", dense))}
    print({name: f"{c.total_parameters:,} parameters, {c.active_parameters:,} active" for name, c in counts.items()})
    print_result({"name": "moe_vs_dense", "ours": statistics.median(rates["moe"]),
                  "peer": statistics.median(rates["dense"]), "limit": limit(moe), "unit": "tokens/s"})


def limit(config) -> float:
    """Tokens per second of the MoE's products alone, forward and backward, in bfloat16 over all cores."""
    torch.set_num_threads(1)
    rows, d, m = 4096, config.hidden_size, config.moe_intermediate_size
    per_expert = rows * config.num_experts_per_tok // config.n_routed_experts
    attention = [(d, config.q_lora_rank), (config.q_lora_rank, config.num_attention_heads * config.qk_head_dim),
                 (d, config.cache_width),
                 (config.kv_lora_rank, config.num_attention_heads * (config.qk_nope_head_dim + config.v_head_dim)),
                 (config.num_attention_heads * config.v_head_dim, d)]
    shared = [(d, config.n_shared_experts * m)] * 2 + [(config.n_shared_experts * m, d)]
    first = [(d, config.intermediate_size)] * 2 + [(config.intermediate_size, d)]
    moe_layers = config.num_hidden_layers - config.first_k_dense_replace
    full = attention * config.num_hidden_layers + shared * moe_layers + first * config.first_k_dense_replace
    full += [(d, config.vocab_size)]
    routed = [(d, 2 * m), (m, d)] * config.n_routed_experts * moe_layers
    shapes = [s for n, pairs in ((rows, full), (per_expert, routed)) for a, b in pairs
              for s in ((n, a, b), (n, b, a), (a, n, b))]
    return rows / matmul_limit(shapes, torch.bfloat16) * cores()


if __name__ == "__main__":
    main()
