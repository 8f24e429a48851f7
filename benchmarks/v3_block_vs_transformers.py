"""Two layers of DeepSeek-V3's mixture in bfloat16, ours against transformers' module: a training step (forward, loss,
backward) and a prefill (forward, cache filled, the last position's logits), tokens per second, on the same random weights.

    python benchmarks/v3_block_vs_transformers.py [--hidden 1024]

At V2-Lite's proportions (64 experts, top 6) and at nano's (hidden 128, 16 experts, top 4). transformers runs in each of its
ways to compute experts and attention, and the fastest counts. The contestants take turns. The limit is the matrix products
alone. Five minutes.
"""

import argparse
import os
import statistics
import tempfile
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "1024")
os.environ.setdefault("LRU_CACHE_CAPACITY", "256")

import torch
import transformers
from common import machine, matmul_limit, print_result
from torch import Tensor
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

from spoutnik.model.cache import Cache
from spoutnik.model.config import ModelConfig
from spoutnik.model.packing import Packing
from spoutnik.model.transformer import Transformer
from spoutnik.model.weights import load_model
from spoutnik.parallel import cores, on_all_cores
from spoutnik.train.batches import Document, micro_batches, pack
from spoutnik.train.loop import accumulate
from spoutnik.train.losses import token_log_probs

EXPERTS = ("eager", "grouped_mm")  # its third way gathers a weight per token: out of memory at this size


def v2_lite_like(hidden: int) -> dict:
    """V2-Lite's proportions at another width (V2-Lite itself: hidden 2048, 16 heads, experts of 1408)."""
    heads = hidden // 128
    return {"vocab_size": 4096, "hidden_size": hidden, "intermediate_size": hidden * 4, "num_hidden_layers": 2,
            "num_attention_heads": heads, "num_key_value_heads": heads, "q_lora_rank": None, "kv_lora_rank": 512,
            "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
            "moe_intermediate_size": hidden * 11 // 16, "n_routed_experts": 64, "n_shared_experts": 2,
            "num_experts_per_tok": 6, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 0}


NANO = {"vocab_size": 1024, "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 4, "q_lora_rank": 64, "kv_lora_rank": 48, "qk_nope_head_dim": 16, "qk_rope_head_dim": 16,
        "v_head_dim": 32, "moe_intermediate_size": 96, "n_routed_experts": 16, "n_shared_experts": 1,
        "num_experts_per_tok": 4, "n_group": 4, "topk_group": 2, "first_k_dense_replace": 0}


class Theirs:
    """transformers' module with one of its ways to compute experts."""

    def __init__(self, model: DeepseekV3ForCausalLM, experts: str):
        self.model, self.experts = model, experts

    def __call__(self, ids: Tensor, train: bool) -> None:
        torch.set_num_threads(cores())
        self.model.set_experts_implementation(self.experts)
        if not train:
            with torch.no_grad():
                self.model(ids, use_cache=True, logits_to_keep=1)
            return
        logits = self.model(ids).logits
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())
        loss.backward()
        self.model.zero_grad()


class Ours:
    """Our network as the trainer and the engine run it: documents packed, a part of them on each core."""

    def __init__(self, model: Transformer):
        self.model = model
        self.parameters = list(model.parameters())

    def __call__(self, ids: Tensor, train: bool) -> None:
        documents = [Document(row) for row in ids.tolist()]
        lengths = [len(d.ids) for d in documents]
        parts = micro_batches(lengths, -(-sum(lengths) // cores()), cores())
        if not train:
            on_all_cores(lambda rows: self._prefill(ids[rows]), parts)
            return
        tokens = sum(d.predicted for d in documents)

        def loss_of(batch, trace):
            hidden = self.model.hidden(batch.input_ids, batch.packing, trace)
            log_probs, _ = token_log_probs(hidden[batch.positions], self.model.lm_head.weight, batch.targets)
            return -log_probs.sum() / tokens, {}

        accumulate(self.parameters, [pack(documents, rows) for rows in parts], loss_of)

    @torch.no_grad()
    def _prefill(self, ids: Tensor) -> None:
        rows, length = ids.shape
        cache = Cache.empty(self.model.config, rows, length, torch.bfloat16)
        self.model.logits(self.model.prefill(ids.flatten(), Packing.of([length] * rows), cache))


def compare(name: str, values: dict, rows: int, length: int, rounds: int) -> list[dict]:
    torch.manual_seed(0)
    theirs = DeepseekV3ForCausalLM(DeepseekV3Config(**values, initializer_range=0.05)).to(torch.bfloat16)
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours = load_model(folder, torch.bfloat16)
    ids = torch.randint(0, values["vocab_size"], (rows, length))
    with torch.no_grad():
        expected, given = theirs(ids[:1]).logits.float(), ours(ids[:1])
        print(f"{name}: logits differ by {float((given - expected).abs().mean() / expected.std()):.4f} of their spread, "
              f"{sum(p.numel() for p in theirs.parameters()) / 1e6:.0f}M parameters")
    contestants = {"ours": Ours(ours)} | {experts: Theirs(theirs, experts) for experts in EXPERTS}
    return [duel(f"{name}, {what}", contestants, ids, train, rounds, limit(ours.config, rows * length, train))
            for what, train in (("training step", True), ("prefill", False))]


def duel(name: str, contestants: dict, ids: Tensor, train: bool, rounds: int, limit_seconds: float) -> dict:
    seconds: dict[str, list[float]] = {contestant: [] for contestant in contestants}
    for turn in range(rounds + 1):
        for contestant, run in contestants.items():
            if turn > 1 and statistics.median(seconds[contestant]) > 4 * min(map(statistics.median, seconds.values())):
                continue  # far behind: its time is known well enough
            began = time.perf_counter()
            run(ids, train)
            if turn:  # the first turn compiles and faults memory in
                seconds[contestant].append(time.perf_counter() - began)
    rates = {contestant: ids.numel() / statistics.median(times) for contestant, times in seconds.items()}
    best = max(EXPERTS, key=rates.get)
    return {"name": name, "ours": rates["ours"], "peer": rates[best], "limit": ids.numel() / limit_seconds,
            "unit": "tokens/s", "peers_way": best,
            "peers_share_of_limit": rates[best] * limit_seconds / ids.numel()}


def limit(config: ModelConfig, rows: int, train: bool) -> float:
    """Seconds of the products alone, all cores at work (attention's own left out)."""
    torch.set_num_threads(cores())
    d, m, heads = config.hidden_size, config.moe_intermediate_size, config.num_attention_heads
    queries = [(d, heads * config.qk_head_dim)] if config.q_lora_rank is None else [
        (d, config.q_lora_rank), (config.q_lora_rank, heads * config.qk_head_dim)]
    full = queries + [(d, config.cache_width),
                      (config.kv_lora_rank, heads * (config.qk_nope_head_dim + config.v_head_dim)),
                      (heads * config.v_head_dim, d)]
    full += [(d, 2 * config.n_shared_experts * m), (config.n_shared_experts * m, d)]
    per_expert = rows * config.num_experts_per_tok // config.n_routed_experts
    products = [(rows, a, b) for a, b in full * config.num_hidden_layers]
    products += [(rows, d, config.vocab_size)] if train else []
    products += [(per_expert, a, b) for a, b in [(d, 2 * m), (m, d)] * config.n_routed_experts * config.num_hidden_layers]
    if train:
        products = [s for n, a, b in products for s in ((n, a, b), (n, b, a), (a, n, b))]
    return matmul_limit(products, torch.bfloat16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, default=1024, help="width of the V2-Lite-like network, 1024 to 2048")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    print(machine())
    results = compare("nano's shapes", NANO, rows=16, length=128, rounds=options.rounds * 3)
    results += compare(f"V2-Lite's shapes at {options.hidden}", v2_lite_like(options.hidden), rows=8, length=512,
                       rounds=options.rounds)
    print_result(results)


if __name__ == "__main__":
    main()
