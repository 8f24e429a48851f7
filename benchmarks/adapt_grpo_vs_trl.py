"""GRPO with LoRA (rank 16, all linear maps) of a real checkpoint on a CPU: whole steps of Spoutnik against TRL's GRPOTrainer
with PEFT, and against nothing but the matrix products.

Same base, prompts, group size, longest completion and reward; both sample, judge and take a gradient step, with all cores, in
turns. What counts is true completion tokens per second. TRL is the fastest of SETTINGS by one step each, then measured. The
limit is one forward pass for each sampled token, in the batch of a step, then forward and backward (without gradients of the
base) over prompts and completions. Needs the peers' environment: `make peers`. TRL's six settings take a quarter of an hour on
two cores.

    python benchmarks/adapt_grpo_vs_trl.py MODEL [--prompts 8] [--group 8] [--tokens 128] [--text gsm8k/train.jsonl]
"""

import argparse
import json
import os
import random
import statistics
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "1024")

import torch
from common import ask_peer, machine, matmul_limit, print_result

from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.hardware import compute_dtype, peak_memory
from spoutnik.loading import load_tokenizer
from spoutnik.model.config import ModelConfig
from spoutnik.model.lora import LoraConfig, add_lora
from spoutnik.model.weights import load_model
from spoutnik.parallel import cores
from spoutnik.train.grpo import policy_batches, policy_gradient
from spoutnik.train.grpo_settings import GRPOSettings
from spoutnik.train.prompt_style import conversation_ids
from spoutnik.train.rewards import Rollouts
from spoutnik.train.rollouts import llm_that_ends

RANK, RATE = 16, 1e-5
DTYPE = compute_dtype("auto")
SETTINGS = [{"precision": precision, "micro_batch": micro, "attention": attention}
            for precision in (("bf16_weights", "bf16") if DTYPE == torch.bfloat16 else ("fp32",))
            for micro, attention in ((8, "sdpa"), (16, "sdpa"), (8, "eager"))]


def prompts_of(options: argparse.Namespace, step: int) -> list[list[int]]:
    """Questions of the file in the model's chat, or random ids."""
    rng = random.Random(step)
    if options.text is None:
        return [[rng.randrange(3, 40_000) for _ in range(64)] for _ in range(options.prompts)]
    tokenizer, lines = load_tokenizer(options.model), options.text.read_text().splitlines()
    questions = [json.loads(line)["question"] for line in rng.sample(lines, options.prompts)]
    return [list(conversation_ids((), question, tokenizer)) for question in questions]


def reward(ids: list[int]) -> float:
    """The share of even token ids, the end of sentence included: TRL's side computes the same."""
    return sum(i % 2 == 0 for i in ids) / len(ids)


def run_ours(options: argparse.Namespace, steps: int) -> dict:
    """Per step, after one warm-up: true completion tokens, seconds of the whole, and of sampling."""
    model = load_model(options.model, None, DTYPE, mapped=True)
    add_lora(model, LoraConfig(RANK, 2.0 * RANK), torch.Generator().manual_seed(0))
    settings = GRPOSettings(steps=steps + 1, learning_rate=RATE, optimizer="adamw", prompts_per_step=options.prompts,
                            group_size=options.group, max_tokens=options.tokens, micro_batch_tokens=4096)
    optimizer, measured = settings.make_optimizer(model), {"tokens": [], "seconds": [], "sampling": []}
    params = SamplingParams(n=options.group, temperature=1.0, top_p=1.0, max_tokens=options.tokens)
    for step in range(steps + 1):
        prompts, began = prompts_of(options, step), time.perf_counter()
        llm = llm_that_ends(model, [options.eos])
        groups = [output.outputs for output in llm.generate(prompts, params, seed=step)]
        sampled = time.perf_counter()
        rewards = torch.tensor([[reward(c.token_ids) for c in group] for group in groups])
        batches, _ = policy_batches(Rollouts(prompts, groups, rewards, {}), settings)
        optimizer.step(policy_gradient(model, batches, optimizer.parameters, settings).gradients, 1.0)
        if step:
            measured["tokens"].append(sum(len(c.token_ids) for group in groups for c in group))
            measured["seconds"].append(time.perf_counter() - began)
            measured["sampling"].append(sampled - began)
    return measured | {"peak_bytes": peak_memory()}


def run_trl(options: argparse.Namespace, steps: int, choice: dict, warmup: int = 1) -> dict:
    result = ask_peer("trl_grpo.py", {
        "model_dir": str(options.model), "rank": RANK, "group_size": options.group, "prompts_per_step": options.prompts,
        "prompts": [prompt for step in range(steps + warmup) for prompt in prompts_of(options, step)], "steps": steps,
        "warmup_steps": warmup,
        "max_completion_length": options.tokens, "threads": cores(), "eos_id": options.eos, "learning_rate": RATE,
        "scale_rewards": "none", **choice})
    return {"tokens": result["completion_tokens"], "seconds": result["seconds"], "sampling": result["generation_seconds"],
            "peak_bytes": result["peak_bytes"]}


def tried(options: argparse.Namespace, choice: dict) -> float:
    """TRL's rate in its first step with these settings; 0 where it does not run, as with more than the memory there is."""
    try:
        run = run_trl(options, 1, choice, warmup=0)
        found = rate(run)
        seconds = f"{run['sampling'][0]:.0f} of {run['seconds'][0]:.0f} s sampling"
        print(f"TRL, {choice}: {found:.1f} completion tokens/s ({seconds})", flush=True)
    except SystemExit as error:
        print(f"TRL, {choice}: does not run: {str(error).strip().splitlines()[-1]}", flush=True)
        found = 0.0
    return found


def limit_seconds(options: argparse.Namespace, tokens: float, prompt_tokens: float) -> float:
    """A step's products alone, spread over the cores."""
    config = ModelConfig.load(options.model)
    d, i = config.hidden_size, config.intermediate_size
    kv = config.num_key_value_heads * (config.head_dim or d // config.num_attention_heads)
    layer = [(d, d), (d, kv), (d, kv), (d, d), (d, i), (d, i), (i, d)]
    maps, rows, sequence = layer * config.num_hidden_layers, options.prompts * options.group // cores(), 512
    torch.set_num_threads(1)
    sampling = matmul_limit([(rows, a, b) for a, b in [*maps, (d, config.vocab_size)]], DTYPE) / rows * tokens
    both = matmul_limit([shape for a, b in maps for shape in ((sequence, a, b), (sequence, b, a))], DTYPE) / sequence
    head = matmul_limit([(256, d, config.vocab_size), (256, config.vocab_size, d)], DTYPE) / 256
    return (sampling + both * (tokens + prompt_tokens) + head * tokens) / cores()


def rate(run: dict) -> float:
    return statistics.median(tokens / seconds for tokens, seconds in zip(run["tokens"], run["seconds"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128, help="of a completion, at most")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--eos", type=int, default=2)
    parser.add_argument("--text", type=Path, help="lines of JSON with a question")
    options = parser.parse_args()
    best = max(SETTINGS, key=lambda choice: tried(options, choice))
    ours, peer = run_ours(options, options.steps), run_trl(options, options.steps, best)
    lengths = [sum(map(len, prompts_of(options, step + 1))) for step in range(options.steps)]
    prompt_tokens = options.group * statistics.mean(lengths)
    limit = limit_seconds(options, statistics.mean(ours["tokens"]), prompt_tokens)
    print_result([{"name": "grpo_lora_vs_trl", "ours": rate(ours), "peer": rate(peer),
                   "limit": statistics.mean(ours["tokens"]) / limit, "unit": "completion tokens/s", "dtype": str(DTYPE),
                   "memory_ours": ours["peak_bytes"], "memory_peer": peer["peak_bytes"],
                   "memory_ratio": ours["peak_bytes"] / peer["peak_bytes"], "peer_settings": best, "runs_ours": ours,
                   "runs_peer": peer, "machine": machine()}])


if __name__ == "__main__":
    main()
