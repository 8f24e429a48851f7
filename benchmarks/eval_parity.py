"""`spoutnik eval` against a plain loop with transformers: the same prompts, greedy, float32, problem by problem.

    python benchmarks/eval_parity.py build/SmolLM2-135M-Instruct --data DATA --limit 100 --max-tokens 256 [--batch 10]

DATA: a folder with gsm8k/test.jsonl. transformers renders the prompts by itself, generates --batch replies at a time (1; of
several, the shorter prompts are padded on the left) and decodes them; the verdict is the benchmark's on both sides. Exits with
status 1 where a verdict differs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from spoutnik.evals.samples import SAMPLES, Sample, read_samples
from spoutnik.tasks import Problem, accuracy_reward
from spoutnik.tasks.benchmarks import read_benchmark


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as out:
        began = time.perf_counter()
        ours = evaluate(arguments, Path(out))
        seconds = time.perf_counter() - began
    problems = read_benchmark("gsm8k", arguments.data).problems()[:arguments.limit]
    began = time.perf_counter()
    theirs = list(plain_loop(arguments.model, problems, arguments.max_tokens, arguments.batch))
    report(ours, problems, theirs, seconds, time.perf_counter() - began)


def evaluate(arguments: argparse.Namespace, out: Path) -> list[Sample]:
    """The samples of the command, in the order of the problems."""
    command = [sys.executable, "-m", "spoutnik", "eval", arguments.model, "--bench", "gsm8k", "--data", arguments.data,
               "--limit", arguments.limit, "--max-tokens", arguments.max_tokens, "--samples", 1, "--temperature", 0,
               "--dtype", "float32", "--out", out, "--json"]
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
    return read_samples(out / "gsm8k" / SAMPLES)


def plain_loop(folder: Path, problems: list[Problem], max_tokens: int, batch: int):
    """(text, whether it ended by itself) of each problem's reply."""
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    eos_ids = model.generation_config.eos_token_id
    eos_ids = set(eos_ids if isinstance(eos_ids, list) else [eos_ids])
    for start in range(0, len(problems), batch):
        chats = [[{"role": "user", "content": problem.prompt}] for problem in problems[start:start + batch]]
        inputs = tokenizer.apply_chat_template(chats, add_generation_prompt=True, padding=True, return_tensors="pt",
                                               return_dict=True)
        with torch.no_grad():
            replies = model.generate(**inputs, do_sample=False, max_new_tokens=max_tokens)[:, inputs["input_ids"].shape[1]:]
        for ids in replies.tolist():
            yield tokenizer.decode(ids, skip_special_tokens=True).strip(), not eos_ids.isdisjoint(ids)


def report(ours: list[Sample], problems: list[Problem], theirs: list[tuple[str, bool]], seconds: float,
           their_seconds: float) -> None:
    verdicts = [accuracy_reward(problem, text) if ended else 0.0 for problem, (text, ended) in zip(problems, theirs)]
    differing = [problem.prompt[:60] for problem, sample, verdict in zip(problems, ours, verdicts, strict=True)
                 if sample.correct != verdict]
    texts = sum(sample.answer == text for sample, (text, _) in zip(ours, theirs))
    cut = sum(sample.finished != ended for sample, (_, ended) in zip(ours, theirs))
    print(f"{len(ours)} problems: {sum(sample.correct for sample in ours):g} right by eval, {sum(verdicts):g} by the loop; "
          f"{len(differing)} verdicts differ; {texts} replies are the same text; {cut} ended otherwise; eval {seconds:.0f} s, "
          f"loop {their_seconds:.0f} s")
    for prompt in differing:
        print(f"differs: {prompt}")
    print(json.dumps({"problems": len(ours), "right": sum(sample.correct for sample in ours), "loop_right": sum(verdicts),
                      "verdicts_differ": len(differing), "same_text": texts, "truncated": sum(not s.finished for s in ours),
                      "eval_seconds": round(seconds), "loop_seconds": round(their_seconds)}))
    sys.exit(bool(differing))


if __name__ == "__main__":
    main()
