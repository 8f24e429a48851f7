"""What gpu.sh runs: each part in a process of its own, so that one that fails or runs out of memory leaves the others alone.

Limits are measured in the same minute: a large product in bfloat16, and a copy within the GPU's memory. Speeds are of wall
time, with the GPU drained before and after. --cpu: the same on the processor at toy sizes.

    python benchmarks/gpu.py [--cpu] [--seconds 470] [--out gpu.json] [--only decode sft]
"""

import argparse
import gc
import importlib.util
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import machine
from random_model import write_checkpoint

from spoutnik.engine.llm import LLM
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.hardware import peak_memory
from spoutnik.model.accounting import account
from spoutnik.model.config import ModelConfig
from spoutnik.model.lora import LoraConfig, adapters_of, add_lora
from spoutnik.model.weights import load_model
from spoutnik.train.batches import Document
from spoutnik.train.grpo import GRPOSettings, Rollouts, policy_batches, policy_gradient
from spoutnik.train.language_model import language_model_gradient
from spoutnik.train.settings import LanguageModelSettings

HERE = Path(__file__).parent
EOS_ID = 1
QWEN2 = {"model_type": "qwen2", "tie_word_embeddings": True, "max_position_embeddings": 8192, "eos_token_id": EOS_ID}
SHAPES = {  # of published models, all as Qwen2, which TRL's side makes too
    "135M": {"vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
             "num_attention_heads": 9, "num_key_value_heads": 3},
    "1.5B": {"vocab_size": 151936, "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
             "num_attention_heads": 12, "num_key_value_heads": 2},
    "toy": {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2},
}


class Machine:
    """The device, its limits, and how much is asked of it."""

    def __init__(self, name: str):
        self.device, self.toy = torch.device(name), name == "cpu"

    @property
    def shapes(self) -> list[str]:
        return ["toy"] if self.toy else ["135M", "1.5B"]

    def seconds(self, work: Callable[[], object], times: int = 3) -> float:
        """Median of several, after one for what is done once."""
        samples = []
        for _ in range(times + 1):
            self.drain()
            began = time.perf_counter()
            work()
            self.drain()
            samples.append(time.perf_counter() - began)
        return statistics.median(samples[1:])

    def drain(self) -> None:
        if not self.toy:
            torch.cuda.synchronize(self.device)

    def fresh(self) -> None:
        """Before another measurement, or another program's: what the last one held goes back, and its peak is forgotten."""
        gc.collect()
        if not self.toy:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak(self) -> int:
        """Bytes, since it was fresh (of the processor, since the process began)."""
        return peak_memory() if self.toy else torch.cuda.max_memory_allocated(self.device)

    def bandwidth(self) -> float:
        """Bytes per second, read and written, of a copy within the memory."""
        source = torch.ones((1 << 24) if self.toy else (1 << 31), dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        return 2 * source.nbytes / self.seconds(lambda: target.copy_(source), 5)

    def products(self) -> float:
        """Operations per second of a square product in bfloat16."""
        side = 512 if self.toy else 8192
        a, b = (torch.ones(side, side, dtype=torch.bfloat16, device=self.device) for _ in range(2))
        return 2 * side ** 3 / self.seconds(lambda: a @ b, 5)


def limits(on: Machine) -> list[dict]:
    return [{"name": "memory bandwidth", "ours": on.bandwidth(), "unit": "B/s"},
            {"name": "bfloat16 products", "ours": on.products(), "unit": "FLOP/s"}]


def checkpoint(shape: str, folder: Path) -> ModelConfig:
    config = ModelConfig.parse(QWEN2 | SHAPES[shape], shape)
    write_checkpoint(folder, config)
    return config


def decode(on: Machine) -> list[dict]:
    """Tokens per second of LLM.generate, sampling and scheduling included; the limit reads weights and cache once a step."""
    results, bandwidth = [], on.bandwidth()
    length, prompt = (16, 8) if on.toy else (256, 128)
    batches = {batch: [[3 + (i * 7 + j) % 400 for j in range(prompt)] for i in range(batch)]
               for batch in ((1, 8) if on.toy else (1, 16, 128))}
    for shape in on.shapes:
        with tempfile.TemporaryDirectory() as name:
            counts = account(checkpoint(shape, Path(name)))
            for batch, (rate, peak) in decode_rates(on, Path(name), batches, length).items():
                on.fresh()  # vLLM wants nine tenths of the memory
                read = 2 * counts.total_parameters + batch * (prompt + length / 2) * counts.cache_bytes_per_token
                results.append({"name": f"decode {shape}, {batch} sequences", "ours": rate,
                                "peer": vllm_decode(Path(name), batches[batch], length) if vllm() else None,
                                "limit": batch * bandwidth / read, "unit": "tokens/s", "peak_bytes": peak})
    return results


def decode_rates(on: Machine, folder: Path, batches: dict[int, list], length: int) -> dict[int, tuple[float, int]]:
    """Sequences -> tokens per second, peak bytes. Its engine, which takes most of the memory, goes when it returns."""
    on.fresh()
    llm = LLM(str(folder), dtype="bfloat16", device=str(on.device), eos_token_ids=[], max_num_seqs=128)
    rates = {}
    for batch, prompts in batches.items():
        def run(tokens: int, prompts=prompts) -> None:
            llm.generate(prompts, SamplingParams(temperature=0.0, max_tokens=tokens), seed=0)

        seconds = on.seconds(lambda run=run: run(length)) - on.seconds(lambda run=run: run(1))
        rates[batch] = batch * (length - 1) / seconds, on.peak()
    return rates


def prefill(on: Machine) -> list[dict]:
    """Prompt tokens per second; the limit multiplies as fast as the large product."""
    results, rate = [], on.products()
    length, batch = (64, 2) if on.toy else (2048, 8)
    for shape in on.shapes:
        with tempfile.TemporaryDirectory() as name:
            config = checkpoint(shape, Path(name))
            seconds, peak = prefill_seconds(on, Path(name), length, batch)
            head = 2 * config.vocab_size * config.hidden_size  # one position of each prompt has logits
            work = batch * length * (account(config).flops_per_token - head) + batch * head
            results.append({"name": f"prefill {shape}, {batch} x {length} tokens", "ours": batch * length / seconds,
                            "limit": rate * batch * length / work, "unit": "tokens/s", "peak_bytes": peak})
    return results


def prefill_seconds(on: Machine, folder: Path, length: int, batch: int) -> tuple[float, int]:
    """And peak bytes."""
    on.fresh()
    llm = LLM(str(folder), dtype="bfloat16", device=str(on.device), eos_token_ids=[], max_num_seqs=batch,
              max_num_batched_tokens=batch * length, enable_prefix_caching=False)
    prompts = [[3 + (i * 7 + j) % 400 for j in range(length)] for i in range(batch)]
    return on.seconds(lambda: llm.generate(prompts, SamplingParams(max_tokens=1), seed=0)), on.peak()


def sft(on: Machine) -> list[dict]:
    """Tokens per second of whole steps, of all weights and of LoRA (rank 16); the limit is three products a weight, or two
    with LoRA."""
    results, rate = [], on.products()
    rows, length = (4, 32) if on.toy else (32, 512)
    documents = [Document([3 + (i * 7 + j) % 400 for j in range(length)]) for i in range(rows)]
    for shape in on.shapes:
        for method in ("full", "lora"):
            with tempfile.TemporaryDirectory() as name:
                flops = account(checkpoint(shape, Path(name))).flops_per_token
                seconds, trained, peak = sft_seconds(on, Path(name), method, documents)
                on.fresh()
                work = 3 * flops if method == "full" else 2 * flops + 6 * trained
                results.append({"name": f"sft {shape}, {method}, {rows} x {length} tokens", "ours": rows * length / seconds,
                                "peer": trl_sft(Path(name), method, documents, on) if trl() else None, "limit": rate / work,
                                "unit": "tokens/s", "peak_bytes": peak})
    return results


def sft_seconds(on: Machine, folder: Path, method: str, documents: list[Document]) -> tuple[float, int, int]:
    """Of a step, with the numbers of its adapters and peak bytes."""
    on.fresh()
    model = load_model(folder, torch.float32 if method == "full" else None, torch.bfloat16)
    if method == "lora":
        add_lora(model, LoraConfig(16, 32.0), torch.Generator().manual_seed(0))
    model.to(on.device)
    settings = LanguageModelSettings(learning_rate=1e-5, optimizer="adamw", micro_batch_tokens=16384)
    optimizer = settings.make_optimizer(model)

    def step() -> None:
        gradient, _ = language_model_gradient(model, documents, optimizer.parameters, settings)
        optimizer.step(gradient.gradients, 1.0)

    return on.seconds(step), sum(p.numel() for p in adapters_of_parameters(model)), on.peak()


def adapters_of_parameters(model) -> list:
    return [parameter for part in adapters_of(model).values() for parameter in part.parameters()]


def grpo(on: Machine) -> list[dict]:
    """Completion tokens per second of whole steps: sampling, and the gradient step. TRL's side writes the weights, where it is
    there, so that both sample texts of the same lengths."""
    results = []
    prompts_per_step, group, length = (4, 4, 16) if on.toy else (32, 8, 256)
    prompts = [[3 + (i * 7 + j) % 400 for j in range(16)] for i in range(prompts_per_step)]
    settings = GRPOSettings(steps=9, learning_rate=1e-6, optimizer="adamw", prompts_per_step=prompts_per_step,
                            group_size=group, max_tokens=length, micro_batch_tokens=16384)
    for shape in on.shapes:
        with tempfile.TemporaryDirectory() as name:
            folder, peer = Path(name), None
            on.fresh()
            if trl():
                peer = trl_grpo(folder, shape, prompts, group, length, on)
            else:
                checkpoint(shape, folder)
            rate, peak = grpo_rate(on, folder, prompts, settings)
            results.append({"name": f"grpo {shape}, {prompts_per_step} x {group} x {length}", "ours": rate, "peer": peer,
                            "unit": "tokens/s", "peak_bytes": peak})
    return results


def grpo_rate(on: Machine, folder: Path, prompts: list, settings: GRPOSettings) -> tuple[float, int]:
    """Tokens per second, and peak bytes."""
    model, group = load_model(folder, torch.float32, torch.bfloat16).to(on.device), settings.group_size
    optimizer, tokens = settings.make_optimizer(model), []

    def step() -> None:
        llm = LLM(model, eos_token_ids=[EOS_ID], max_num_seqs=len(prompts) * group, max_num_batched_tokens=8192)
        params = SamplingParams(n=group, temperature=1.0, top_p=1.0, max_tokens=settings.max_tokens)
        groups = [output.outputs for output in llm.generate(prompts, params, seed=len(tokens))]
        rewards = torch.tensor([[sum(i % 2 == 0 for i in c.token_ids) / len(c.token_ids) for c in g] for g in groups])
        batches, _ = policy_batches(Rollouts(prompts, groups, rewards, {}), settings, device=on.device)
        optimizer.step(policy_gradient(model, batches, optimizer.parameters, settings).gradients, 1.0)
        tokens.append(sum(len(c.token_ids) for g in groups for c in g))

    seconds = on.seconds(step, 2)
    return statistics.mean(tokens) / seconds, on.peak()


def tests(on: Machine) -> list[dict]:
    """Those marked cuda, which run on the processor too."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "pytest", "-m", "cuda", "--gpu-device", str(on.device), "tests"], text=True,
                          capture_output=True, cwd=HERE.parent)
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr[-300:]
    passed = re.search(r"(\d+) passed", last)
    return [{"name": "tests marked cuda", "ours": int(passed[1]) if passed else 0, "unit": "passed", "summary": last,
             "failed": done.returncode != 0, "seconds": time.perf_counter() - began}]


def trl() -> bool:
    return all(importlib.util.find_spec(name) for name in ("trl", "peft", "datasets", "transformers"))


def vllm() -> bool:
    return importlib.util.find_spec("vllm") is not None


def ask(script: str, request: dict) -> dict:
    done = subprocess.run([sys.executable, HERE / "peers" / script], input=json.dumps(request), text=True, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"peers/{script}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def trl_sft(folder: Path, method: str, documents: list[Document], on: Machine) -> float:
    """Tokens per second."""
    rows = [[list(d.ids), 1] for d in documents]
    result = ask("trl_sft.py", {"model": str(folder), "rows": rows * 3, "rows_per_step": len(rows), "micro_batch": len(rows),
                                "learning_rate": 1e-5, "threads": 2, "attention": "sdpa", "device": on.device.type,
                                "precision": "bf16_weights" if method == "lora" else "bf16",
                                "rank": 16 if method == "lora" else None})
    return sum(len(ids) for ids, _ in rows) / statistics.median(result["seconds"][1:])


def trl_grpo(folder: Path, shape: str, prompts: list, group: int, length: int, on: Machine) -> float:
    """Completion tokens per second."""
    return ask("trl_grpo.py", {"model": SHAPES[shape] | {"tie_word_embeddings": True}, "prompts": prompts, "group_size": group,
                               "prompts_per_step": len(prompts), "max_completion_length": length, "steps": 2, "threads": 2,
                               "eos_probability": 1 / 120, "save_model_dir": str(folder), "device": on.device.type,
                               "attention": "sdpa"})["tokens_per_second"]


def vllm_decode(folder: Path, prompts: list, length: int) -> float:
    """Tokens per second, prompts included in the time."""
    requests = [{"prompt": prompt, "tokens": length} for prompt in prompts]
    result = ask("vllm_throughput.py", {"model": str(folder), "requests": requests, "rounds": 2, "threads": 2,
                                           "engine": {"max_num_seqs": 128}})
    return result["generated"] / statistics.median(result["seconds"])


PARTS = {part.__name__: part for part in (limits, tests, decode, prefill, sft, grpo)}


def run_part(name: str, device: str, seconds: float) -> list[dict]:
    """Its results, or a row that says why there are none."""
    command = [sys.executable, __file__, "--part", name, *(["--cpu"] if device == "cpu" else [])]
    try:
        done = subprocess.run(command, text=True, capture_output=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return [{"name": name, "failed": f"not done in {seconds:.0f} s"}]
    if done.returncode:
        return [{"name": name, "failed": (done.stderr.strip() or "no message").splitlines()[-1]}]
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--seconds", type=float, default=470)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--only", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    device = "cpu" if options.cpu else "cuda"
    if options.part:
        print(json.dumps(PARTS[options.part](Machine(device))))
        return
    began, results = time.perf_counter(), []
    for name in options.only:
        left = options.seconds - (time.perf_counter() - began)
        rows = run_part(name, device, left) if left > 5 else [{"name": name, "failed": "no time was left"}]
        for row in rows:
            numbers = ", ".join(f"{key} {row[key]:.4g}" for key in ("ours", "peer", "limit") if row.get(key) is not None)
            print(row["name"], numbers, row.get("unit", ""), row.get("failed") or "", flush=True)
        results += rows
    gpu = None if options.cpu else torch.cuda.get_device_name()
    report = {"device": device, "gpu": gpu, "machine": machine(), "seconds": time.perf_counter() - began, "results": results,
              "peers": {"trl": trl(), "vllm": vllm()}}
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report))
    sys.exit(any(row.get("failed") for row in results))


if __name__ == "__main__":
    main()
