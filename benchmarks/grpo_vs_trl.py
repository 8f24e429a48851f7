"""GRPO on the CPU, whole steps and their generation alone: Spoutnik against TRL's GRPOTrainer, and against nothing but the
matrix products.

Same initial weights (TRL's side writes them), same prompts, group size, completion length and reward; both sides sample,
judge and take a gradient step. What counts is true completion tokens per second: no padding, nothing after the end of
sentence. TRL runs twice: with the settings that were fastest of all we tried (peers/trl_grpo.py lists them), and with
its own defaults for batch size (8) and attention (sdpa), as somebody would first run it. Needs the peers' environment:
`make peers`. About six minutes.

    python benchmarks/grpo_vs_trl.py
"""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "1024")

import torch
from common import machine, matmul_limit, print_result

from spoutnik.engine.llm import LLM
from spoutnik.engine.outputs import CompletionOutput
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.hardware import compute_dtype
from spoutnik.model.config import ModelConfig
from spoutnik.model.weights import load_model
from spoutnik.parallel import cores
from spoutnik.train.grpo import policy_batches, policy_gradient
from spoutnik.train.grpo_settings import GRPOSettings
from spoutnik.train.rewards import Rollouts

HERE = Path(__file__).parent
PEER_PYTHON = Path(os.environ.get("PEERS", HERE.parent / ".venv-peers")) / "bin" / "python"
PROMPTS, GROUP, LENGTH, STEPS, ROUNDS = 32, 8, 64, 4, 2
EOS_ID, EOS_PROBABILITY = 1, 1 / 120
# Both sides multiply what the processor multiplies: emulated, bfloat16 is slower than float32 for both.
DTYPE = compute_dtype("auto")
PRECISION = "bf16" if DTYPE == torch.bfloat16 else "fp32"


def reward(completion: CompletionOutput) -> float:
    """The share of even token ids, the end of sentence included: TRL's side computes the same."""
    ids = completion.token_ids
    return sum(i % 2 == 0 for i in ids) / len(ids)


def prompts_of(step: int) -> list[list[int]]:
    rng = random.Random(step)
    return [[rng.randrange(3, 1024) for _ in range(rng.randint(8, 16))] for _ in range(PROMPTS)]


def run_trl(folder: Path, **choices) -> dict:
    """Per step: true completion tokens, seconds, and of them those of generation. choices: what is TRL's to choose."""
    options = {"prompts": [p for step in range(STEPS + 1) for p in prompts_of(step)], "group_size": GROUP,
               "prompts_per_step": PROMPTS, "max_completion_length": LENGTH, "steps": STEPS, "threads": cores(),
               "eos_probability": EOS_PROBABILITY, "save_model_dir": str(folder), "precision": PRECISION, **choices}
    done = subprocess.run([PEER_PYTHON, HERE / "peers" / "trl_grpo.py"], input=json.dumps(options), text=True,
                          capture_output=True, env={k: v for k, v in os.environ.items() if not k.startswith("OMP")})
    if done.returncode:
        sys.exit(f"TRL's side failed (is the peers' environment there? make peers):\n{done.stderr[-2000:]}")
    result = json.loads(done.stdout.splitlines()[-1])
    return {"tokens": result["completion_tokens"], "sampling": result["generation_seconds"],
            "update": result["update_seconds"]}


def run_ours(folder: Path) -> dict:
    """Per step, after one warm-up: true completion tokens, seconds of sampling, seconds of judging and updating."""
    model = load_model(folder, compute_dtype=DTYPE)
    settings = GRPOSettings(steps=STEPS + 1, learning_rate=1e-6, optimizer="adamw", prompts_per_step=PROMPTS,
                            group_size=GROUP, max_tokens=LENGTH, share_prompts=True)
    optimizer = settings.make_optimizer(model)
    measured = {"tokens": [], "sampling": [], "update": []}
    for step in range(STEPS + 1):
        prompts, began = prompts_of(step), time.perf_counter()
        llm = LLM(model, eos_token_ids=[EOS_ID], max_num_seqs=PROMPTS * GROUP, max_num_batched_tokens=8192)
        params = SamplingParams(n=GROUP, temperature=1.0, top_p=1.0, max_tokens=LENGTH)
        groups = [output.outputs for output in llm.generate(prompts, params, seed=step)]
        sampled = time.perf_counter()
        rewards = torch.tensor([[reward(c) for c in group] for group in groups])
        batches, _ = policy_batches(Rollouts(prompts, groups, rewards, {}), settings)
        optimizer.step(policy_gradient(model, batches, optimizer.parameters, settings).gradients, 1.0)
        ended = time.perf_counter()
        if step:
            measured["tokens"].append(sum(len(c.token_ids) for group in groups for c in group))
            measured["sampling"].append(sampled - began)
            measured["update"].append(ended - sampled)
    return measured


def limit_seconds(folder: Path, completions: int, completion_tokens: float, prompt_tokens: float) -> tuple[float, float]:
    """A step's matrix products alone, in DTYPE, perfectly spread over the cores: one forward per sampled token (in
    batches as large as one core ever has); and forward plus backward over prompts and completions."""
    config = ModelConfig.load(folder)
    d, i, kv = config.hidden_size, config.intermediate_size, config.num_key_value_heads * config.qk_head_dim
    layer = [(d, d), (d, kv), (d, kv), (d, d), (d, i), (d, i), (i, d)]
    matrices = layer * config.num_hidden_layers + [(d, config.vocab_size)]
    torch.set_num_threads(1)
    rows, sequence = completions // cores(), 4096
    sampling = matmul_limit([(rows, a, b) for a, b in matrices], DTYPE) / rows * completion_tokens
    shapes = [s for a, b in matrices for s in ((sequence, a, b), (sequence, b, a), (a, sequence, b))]
    update = matmul_limit(shapes, DTYPE) / sequence * (completion_tokens + prompt_tokens)
    return sampling / cores(), update / cores()


def rates(runs: list[dict]) -> tuple[float, float]:
    """Completion tokens per second: of whole steps, and of their generation alone."""
    steps = [step for run in runs for step in zip(run["tokens"], run["sampling"], run["update"])]
    return (statistics.median(tokens / (sampling + update) for tokens, sampling, update in steps),
            statistics.median(tokens / sampling for tokens, sampling, _ in steps))


def main() -> None:
    print(machine())
    runs = {"ours": [], "at_its_best": [], "defaults": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for _ in range(ROUNDS):  # in turns: the machine's mood is shared
            runs["at_its_best"].append(run_trl(folder))
            runs["defaults"].append(run_trl(folder, micro_batch=8, attention="sdpa"))
            runs["ours"].append(run_ours(folder))
        tokens = statistics.mean(t for run in runs["ours"] for t in run["tokens"])
        sampling, update = limit_seconds(folder, PROMPTS * GROUP, tokens, PROMPTS * GROUP * 12)
    limits = {"grpo": tokens / (sampling + update), "rollouts": tokens / sampling}
    ours, *peers = (dict(zip(limits, rates(result))) for result in runs.values())
    print_result([{"name": f"{what}_vs_trl_{name}", "ours": ours[what], "peer": peer[what], "limit": limits[what],
                   "unit": "tokens/s", "completion_tokens_per_step": tokens, "precision": PRECISION}
                  for name, peer in zip(["at_its_best", "defaults"], peers) for what in limits])


if __name__ == "__main__":
    main()
