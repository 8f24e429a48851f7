"""Rollouts by workers on Ray against one process with the same cores, and what it takes to keep the workers up to date.

    python benchmarks/ray_rollouts.py build/SmolLM2-135M-Instruct [--workers 2] [--rounds 3] [--prompts 16] [--max-tokens 96]

In turns, so that both meet the same machine: one process samples a step of GRPO with all cores, then the workers do, each
with its share of them; before each turn all weights move, as training moves them. Asked: at least 0.9 of the throughput; the
weights in under a second; under 5 % of a step beside the sampling. Compared as well: every token and every log-probability.

The weights' transfer is measured for all of them (first start, a replaced worker), and for what a step of AdamW at a learning
rate of reinforcement learning changes in the type that engines compute with.
"""

import argparse
import random
import statistics
import time
from pathlib import Path

import torch
from common import machine, median_ratio, print_result

from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.hardware import compute_dtype
from spoutnik.model.weights import load_model
from spoutnik.parallel import cores
from spoutnik.recipe.rollout_settings import RolloutSettings
from spoutnik.scale.policy import policy_tensors
from spoutnik.scale.rollout_workers import RolloutWorkers
from spoutnik.tasks.catalog import find_tasks
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.prompt_style import prompt_ids
from spoutnik.train.rollouts import PolicyEngine, sample_problems
from spoutnik.train.settings import OptimizerSettings

GROUP = 8
RL_LEARNING_RATE = 1e-6  # R1's was 3e-6, of a model 5,000 times as large


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--dtype", default="auto")
    chosen = parser.parse_args()
    model, tokenizer = load_model(chosen.folder, compute_dtype=compute_dtype(chosen.dtype)), Tokenizer.load(chosen.folder)
    prompts = prompt_ids(sample_problems(random.Random(0), find_tasks(["arithmetic"]), chosen.prompts, "train"), tokenizer)
    params = SamplingParams(n=GROUP, temperature=1.0, top_p=1.0, max_tokens=chosen.max_tokens)
    settings = RolloutSettings(rollout_workers=chosen.workers, rollout_cpus=max(1, cores() // chosen.workers))
    said: list[str] = []
    began = time.perf_counter()
    with RolloutWorkers(model, tokenizer, settings, Path("build/ray_rollouts"), said.append) as workers:
        print(f"workers started in {time.perf_counter() - began:.1f} s", flush=True)
        rounds = [one_round(model, PolicyEngine(model, tokenizer), workers, prompts, params, seed)
                  for seed in range(chosen.rounds + 1)][1:]  # the first warms both up
        whole, changed = transfers(model, workers)
    ratio = median_ratio([1 / r["workers"] for r in rounds], [1 / r["here"] for r in rounds])
    overhead = statistics.median(r["workers"] / r["longest"] - 1 for r in rounds)
    print(f"{rounds[0]['tokens']} tokens of {len(prompts)} x {GROUP} completions, median seconds: one process "
          f"{statistics.median(r['here'] for r in rounds):.2f}, {chosen.workers} workers "
          f"{statistics.median(r['workers'] for r in rounds):.2f}: {ratio:.3f} of the throughput (wanted 0.9)")
    print(f"beside the slowest worker's own work: {100 * overhead:.1f} % of it (wanted < 5 %)")
    for name, seen in (("all weights", whole), ("those of a step at 1e-6", changed)):
        print(f"{name}: {seen['megabytes']:.1f} MB to each worker in {seen['seconds']:.2f} s (wanted < 1 s), of them "
              f"{seen['prepared']:.2f} s to copy, compare, hash and hand over here")
    tokens = statistics.median(r["tokens"] for r in rounds)
    rates = {key: tokens / statistics.median(r[key] for r in rounds) for key in ("here", "workers")}
    print_result([
        {"name": f"rollouts by {chosen.workers} workers", "unit": "tokens/s", "ours": rates["workers"], "peer": rates["here"],
         "overhead": overhead, "same_bytes": all(r["same"] for r in rounds), "dtype": str(model.compute_dtype),
         "rounds": rounds, "said": said, "machine": machine()},
        *({"name": f"weights to workers: {name}", "unit": "s", "ours": seen["seconds"], **seen}
          for name, seen in (("all", whole), ("a step at 1e-6", changed)))])


def one_round(model, engine: PolicyEngine, workers: RolloutWorkers, prompts: list[list[int]], params: SamplingParams,
              seed: int) -> dict:
    """Seconds of one process and of the workers, from the moment the weights have moved to the last completion."""
    move(model)
    began = time.perf_counter()
    here = engine.begin(prompts, params, seed).result()
    middle = time.perf_counter()
    pending = workers.begin(prompts, params, seed)
    there = pending.result()
    ended = time.perf_counter()
    return {"here": middle - began, "workers": ended - middle, "longest": pending.seconds,
            "tokens": sum(len(c.token_ids) for group in here for c in group),
            "same": [[(c.token_ids, c.logprobs) for c in group] for group in here]
            == [[(c.token_ids, c.logprobs) for c in group] for group in there]}


@torch.no_grad()
def move(model) -> None:
    """Every weight, by a little: what is sent is all of them."""
    for parameter in model.parameters():
        parameter.mul_(1 + 2 ** -7)


def transfers(model, workers: RolloutWorkers) -> tuple[dict, dict]:
    """All weights at once, and what a step of AdamW changes."""
    move(model)
    whole = sent(workers)
    optimizer = OptimizerSettings(learning_rate=RL_LEARNING_RATE, optimizer="adamw", schedule="constant").make_optimizer(model)
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):  # the first steps of AdamW are all of one length
        optimizer.step([torch.randn(p.shape, generator=generator) * 1e-3 for p in optimizer.parameters], 1.0)
    workers.send_weights()
    optimizer.step([torch.randn(p.shape, generator=generator) * 1e-3 for p in optimizer.parameters], 1.0)
    return whole, sent(workers)


def sent(workers: RolloutWorkers) -> dict:
    workers.take_metrics()
    began = time.perf_counter()
    workers.send_weights()
    seconds, metrics = time.perf_counter() - began, workers.take_metrics()
    return {"seconds": seconds, "prepared": metrics["transfer_seconds"],
            "megabytes": metrics["transfer_megabytes"] / workers.settings.rollout_workers,
            "of": sum(tensor.nbytes for tensor in policy_tensors(workers.model).values()) / 1e6}


if __name__ == "__main__":
    main()
