"""Exports of a run read by llama.cpp: how many greedy tokens are ours, how large the files are, and whether llama.cpp's
tokenizer gives our ids.

    python benchmarks/exports_read_back.py runs/nano

The last RL model and the student, in every type, on held-out problems. A token counts where llama.cpp (with the file) and
our model (with its own weights, in float32) choose the same one after the same beginning, which is llama.cpp's. The folder
that transformers reads is compared with it in the same way.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from common import machine, print_result
from transformers import AutoModelForCausalLM, AutoTokenizer

from spoutnik.evals.protocol import held_out_problems
from spoutnik.export.writer import TYPES, Exported, export
from spoutnik.locate import locate
from spoutnik.model.transformer import Transformer
from spoutnik.model.weights import load_model
from spoutnik.tasks import FAMILIES
from spoutnik.tasks.catalog import find_tasks
from spoutnik.text.tokenizer import Tokenizer

PROMPTS, TOKENS, TEXTS = 12, 60, 200
STAGES = ("all_scenarios_rl", "distilled")
PEER = Path(__file__).parent / "peers" / "llama_greedy.py"


def main() -> None:
    run = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/nano")
    print(machine())
    families = [name for name in FAMILIES if name in (run / "recipe.yaml").read_text()]
    texts = [problem.prompt for problem in held_out_problems(find_tasks(families), -(-TEXTS // len(families)))][:TEXTS]
    with tempfile.TemporaryDirectory() as folder:
        results = [result for stage in STAGES for result in measure(locate(run, stage), stage, texts, Path(folder))]
    print_result(results)


def measure(source: Path, stage: str, texts: list[str], folder: Path) -> Iterator[dict]:
    """One result per type."""
    tokenizer, model = Tokenizer.load(source), load_model(source)
    every = max(1, len(texts) // PROMPTS)
    prompts = [tokenizer.chat_ids([{"role": "user", "content": text}]) for text in texts[::every][:PROMPTS]]
    ids = [tokenizer.encode(text) for text in texts]
    written = export(source, "hf", folder / stage)
    answers = ask_transformers(written.path, prompts, texts)
    yield compared(f"{stage} for transformers", written, model, prompts, answers, ids, texts)
    for dtype in TYPES["gguf"]:
        written = export(source, "gguf", folder / f"{stage}-{dtype}.gguf", dtype)
        answers = ask([{"file": str(written.path), "prompt": prompt, "tokens": TOKENS, "texts": [] if number else texts}
                       for number, prompt in enumerate(prompts)])
        yield compared(f"{stage} as {dtype}", written, model, prompts, answers, ids, texts)


def compared(name: str, written: Exported, model: Transformer, prompts: list[list[int]], answers: list[dict],
             ids: list[list[int]], texts: list[str]) -> dict:
    same, whole, apart = 0, 0, 0.0
    for prompt, answer in zip(prompts, answers, strict=True):
        logits = our_logits(model, prompt, answer["tokens"])
        equal = [ours == theirs for ours, theirs in zip(logits.argmax(-1).tolist(), answer["tokens"], strict=True)]
        same, whole = same + sum(equal), whole + all(equal)
        apart = max(apart, float((logits - torch.tensor(answer["logits"])).abs().max()))
    return {"name": name, "ours": same / (PROMPTS * TOKENS), "unit": "share of greedy tokens equal",
            "replies_equal": f"{whole} of {PROMPTS}", "largest_logit_difference": apart, "megabytes": written.size / 1e6,
            "ids_differ": f"{sum(a != b for a, b in zip(ids, answers[0]['ids'], strict=True))} of {len(texts)}",
            "texts_differ": f"{sum(a != b for a, b in zip(texts, answers[0]['back'], strict=True))} of {len(texts)}"}


@torch.no_grad()
def our_logits(model: Transformer, prompt: list[int], tokens: list[int]) -> torch.Tensor:
    """(tokens, vocabulary): before each of `tokens`, in float32."""
    return model(torch.tensor([prompt + tokens]))[0, len(prompt) - 1:-1]


def ask(requests: list[dict]) -> list[dict]:
    """What llama.cpp answers, in the peers' environment."""
    peers = str(Path(os.environ.get("PEERS", ".venv-peers")) / "bin" / "python")
    shown = subprocess.run([peers, PEER], input=json.dumps(requests), capture_output=True, text=True, check=True)
    return json.loads(shown.stdout)


@torch.no_grad()
def ask_transformers(folder: Path, prompts: list[list[int]], texts: list[str]) -> list[dict]:
    """The same answers from transformers, in float32."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    answers = []
    for prompt in prompts:
        written = model.generate(torch.tensor([prompt]), max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False,
                                 eos_token_id=None, output_logits=True, return_dict_in_generate=True)
        answers.append({"tokens": written.sequences[0, len(prompt):].tolist(), "logits": torch.cat(written.logits).tolist(),
                        "ids": ids, "back": [tokenizer.decode(row) for row in ids]})
    return answers


if __name__ == "__main__":
    main()
