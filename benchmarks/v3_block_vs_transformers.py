"""Two layers of DeepSeek-V3's mixture in bfloat16, ours against transformers' module: a training step (forward, loss,
backward) and a prefill (forward, cache filled, the last position's logits), tokens per second, on the same random weights.

    python benchmarks/v3_block_vs_transformers.py [--hidden 1024]

At V2-Lite's proportions (64 experts, top 6) and at nano's (hidden 128, 16 experts, top 4). transformers runs in each of its
ways to compute experts, and the fastest counts. Each contestant has a process of its own; they take turns. The limit is the
matrix products alone. Five minutes.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

import torch
from common import machine, matmul_limit, print_result
from torch import Tensor

from spoutnik.engine.runners.base import BLOCK_SIZE, ForwardBatch
from spoutnik.engine.runners.select import make_runner
from spoutnik.model.config import ModelConfig
from spoutnik.model.weights import load_model
from spoutnik.parallel import cores
from spoutnik.train.batches import Document, micro_batches, pack_documents
from spoutnik.train.loop import accumulate
from spoutnik.train.losses import token_log_probs

# What our command line sets; transformers runs without.
SETTINGS = {"OMP_WAIT_POLICY": "PASSIVE", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "1024", "LRU_CACHE_CAPACITY": "256"}
TURN = 0.5  # seconds that a contestant works at a stretch, at least
WARM_UP = 4  # turns: the first ones compile and fault memory in
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

    def __init__(self, folder: str, experts: str):
        from transformers import DeepseekV3ForCausalLM
        torch.set_num_threads(cores())
        self.model = DeepseekV3ForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, experts_implementation=experts)

    def __call__(self, ids: Tensor, train: bool) -> None:
        if not train:
            with torch.no_grad():
                self.model(ids, use_cache=True, logits_to_keep=1)
            return
        logits = self.model(ids).logits
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())
        loss.backward()
        self.model.zero_grad()


class Ours:
    """Our network as the trainer runs it, documents packed, a part of them on each core; and as the engine does."""

    def __init__(self, folder: str):
        self.model = load_model(folder, torch.bfloat16)
        self.parameters = list(self.model.parameters())
        self.runner = make_runner(self.model)

    def __call__(self, ids: Tensor, train: bool) -> None:
        if not train:
            self._prefill(ids)
            return
        documents = [Document(row) for row in ids.tolist()]
        lengths = [len(d.ids) for d in documents]
        parts = micro_batches(lengths, -(-sum(lengths) // cores()), cores())
        tokens = sum(d.predicted for d in documents)

        def loss_of(batch, trace):
            hidden = self.model.hidden(batch.input_ids, batch.sequences, trace)
            log_probs, _ = token_log_probs(hidden[batch.positions], self.model.lm_head.weight, batch.targets)
            return -log_probs.sum() / tokens, {}

        accumulate(self.parameters, [pack_documents(documents, rows) for rows in parts], loss_of)

    def _prefill(self, ids: Tensor) -> None:
        rows, length = ids.shape
        blocks = -(-length // BLOCK_SIZE)
        self.runner.allocate(rows * blocks)
        counts = torch.full((rows,), length)
        self.runner.forward(ForwardBatch(ids.flatten(), counts, torch.zeros_like(counts),
                                         torch.arange(rows * blocks).view(rows, -1),
                                         counts.cumsum(0) - 1, torch.ones(rows, dtype=torch.bool)))


def work(contestant: str, folder: str, vocab_size: int, rows: int, length: int) -> None:
    """A contestant's process: does what each line of its input says ("train" or "prefill"), and prints the seconds."""
    torch.manual_seed(0)
    ids = torch.randint(0, vocab_size, (rows, length))
    run = Ours(folder) if contestant == "ours" else Theirs(folder, contestant)
    for line in sys.stdin:
        began, calls = time.perf_counter(), 0
        while not calls or time.perf_counter() - began < TURN:
            run(ids, line.strip() == "train")
            calls += 1
        print(f"seconds {(time.perf_counter() - began) / calls}", flush=True)


class Contestant:
    """A process of its own, so that nobody's memory and thread settings weigh on anybody else's."""

    def __init__(self, name: str, *arguments: object):
        command = [sys.executable, __file__, "--work", name, *map(str, arguments)]
        environment = os.environ | (SETTINGS if name == "ours" else {})
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def seconds(self, what: str) -> float:
        print(what, file=self.process.stdin, flush=True)
        for line in self.process.stdout:
            if line.startswith("seconds "):
                return float(line.split()[1])
        raise RuntimeError("a contestant died")

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def compare(name: str, values: dict, rows: int, length: int, rounds: int) -> list[dict]:
    from transformers import DeepseekV3Config, DeepseekV3ForCausalLM
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        theirs = DeepseekV3ForCausalLM(DeepseekV3Config(**values, initializer_range=0.05)).to(torch.bfloat16)
        theirs.save_pretrained(folder)
        ids = torch.randint(0, values["vocab_size"], (1, length))
        with torch.no_grad():
            ours, expected = load_model(folder, torch.bfloat16), theirs(ids).logits.float()
            print(f"{name}: logits differ by {float((ours(ids) - expected).abs().mean() / expected.std()):.4f} of their "
                  f"spread, {sum(p.numel() for p in theirs.parameters()) / 1e6:.0f}M parameters", flush=True)
        config = ours.config
        del theirs, ours
        contestants = {who: Contestant(who, folder, values["vocab_size"], rows, length) for who in ("ours", *EXPERTS)}
        seconds = {what: duel(contestants, what, rounds) for what in ("train", "prefill")}
        for contestant in contestants.values():
            contestant.close()
    return [result(f"{name}, {what}", times, rows * length, limit(config, rows * length, what == "train"))
            for what, times in seconds.items()]


def duel(contestants: dict[str, Contestant], what: str, rounds: int) -> dict[str, float]:
    """Median seconds of each, in turns."""
    seconds: dict[str, list[float]] = {who: [] for who in contestants}
    for turn in range(rounds + WARM_UP):
        for who, contestant in contestants.items():
            if turn > WARM_UP and statistics.median(seconds[who]) > 4 * min(map(statistics.median, seconds.values())):
                continue  # far behind: its time is known well enough
            took = contestant.seconds(what)
            if turn >= WARM_UP:
                seconds[who].append(took)
    return {who: statistics.median(times) for who, times in seconds.items()}


def result(name: str, seconds: dict[str, float], tokens: int, limit_seconds: float) -> dict:
    best = min(EXPERTS, key=seconds.get)
    return {"name": name, "ours": tokens / seconds["ours"], "peer": tokens / seconds[best],
            "limit": tokens / limit_seconds, "unit": "tokens/s", "peers_way": best,
            "peers_share_of_limit": limit_seconds / seconds[best]}


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
    parser.add_argument("--work", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    import transformers
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if options.work:
        contestant, folder, *numbers = options.work
        work(contestant, folder, *map(int, numbers))
        return
    print(machine())
    results = compare("nano's shapes", NANO, rows=64, length=128, rounds=options.rounds * 3)  # the recipe's 8,192 tokens
    results += compare(f"V2-Lite's shapes at {options.hidden}", v2_lite_like(options.hidden), rows=8, length=512,
                       rounds=options.rounds)
    print_result(results)


if __name__ == "__main__":
    main()
