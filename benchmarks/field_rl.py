"""A harder field, in two stages: a few epochs of LoRA on conversions of two steps, then GRPO with LoRA on the same problems.

Four chains of invented units: so many of the second are one of the first, so many of the third one of the second. A thought
works out both products as one does at school; a Python file verifies the answer, a number. Both stages are of one recipe, with
adapters and the anchor of field.py. Prints accuracy on 100 held-out combinations (greedy) and what was forgotten after each
stage, and core-seconds.

    python benchmarks/field_rl.py MODEL [--epochs 8] [--steps 60] [--text NAME=FILE]
"""

import argparse
import json
import random
import statistics
import tempfile
from pathlib import Path

import torch
import yaml
from common import machine
from field import other_texts, text_losses

from spoutnik.commands.progress import SilentDisplay
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.files import write_jsonl
from spoutnik.loading import load_tokenizer
from spoutnik.model.transformer import Transformer
from spoutnik.model.weights import load_model
from spoutnik.recipe.run import run_recipe
from spoutnik.text.thought import read_reply
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.prompt_style import conversation_ids
from spoutnik.train.rollouts import rollout_llm

CHAINS = (("zorp", 7, "blen", 3, "draf"), ("mib", 9, "tolk", 2, "pesk"), ("vond", 6, "rill", 4, "sarn"),
          ("trask", 5, "noop", 8, "fenk"))
LENGTH = 160  # tokens of a reply, at most; solved problems take some 110
TRAINED = 24  # quantities of each chain, of 49; the other 25 are asked
VERIFIER = '''def verify(prompt: str, answer: str, gold: str) -> bool:
    return answer.strip() == gold
'''


def product(left: int, right: int) -> str:
    """Digit by digit, with what is carried: "4 x 3 = 12, 8 x 3 = 24, 24 + 1 = 25, so 252" for 84 and 3."""
    parts, carried = [], 0
    for place, digit in enumerate(map(int, reversed(str(left)))):
        parts.append(f"{digit} x {right} = {digit * right}")
        if place:
            parts.append(f"{digit * right} + {carried} = {digit * right + carried}")
        carried = (digit * right + carried) // 10
    return f"{', '.join(parts)}, so {left * right}"


def problems() -> tuple[list[dict], list[dict]]:
    """Rows to learn from and rows to ask: prompt, thought, answer."""
    rng, train, asked = random.Random("the harder field"), [], []
    for one, many, second, few, third in CHAINS:
        quantities = list(range(2, 51))
        rng.shuffle(quantities)
        rows = [{"prompt": f"How many {third}s are {q} {one}s?", "answer": str(q * many * few),
                 "thought": f"{product(q, many)} {second}s. {product(q * many, few)} {third}s"} for q in quantities]
        train, asked = train + rows[:TRAINED], asked + rows[TRAINED:]
    return train, asked


def accuracy(model: Transformer, tokenizer: Tokenizer, asked: list[dict]) -> float:
    prompts = [conversation_ids((), row["prompt"], tokenizer) for row in asked]
    outputs = rollout_llm(model, tokenizer).generate(prompts, SamplingParams(temperature=0.0, max_tokens=LENGTH))
    replies = [read_reply(output.outputs[0].reply_ids, tokenizer, output.outputs[0].finish_reason == "stop")
               for output in outputs]
    return statistics.mean(reply.answer.strip() == row["answer"] for row, reply in zip(asked, replies, strict=True))


def recipe(options: argparse.Namespace) -> dict:
    adapter, anchor = {"rank": 16, "alpha": 32}, {"snippets": 2}
    common = {"optimizer": "adamw", "weight_decay": 0.0}
    return {"name": "field_rl", "seed": options.seed, "dtype": options.dtype, "tasks": ["field_task.py"],
            "validation": {"problems": 0}, "evaluation": {"problems_per_family": 1, "samples": 1, "max_tokens": LENGTH},
            "models": {"base": {"checkpoint": str(options.model.resolve())}},
            "stages": {
                "learned": {"kind": "sft", "from": "base", "file": "train.jsonl", "adapter": adapter, "anchor": anchor,
                            "settings": {**common, "epochs": options.epochs, "learning_rate": options.lr,
                                         "tokens_per_step": 512, "warmup": 5}},
                "reinforced": {"kind": "grpo", "from": "learned", "adapter": adapter, "anchor": anchor,
                               "settings": {**common, "steps": max(options.steps, 1), "prompts_per_step": 8, "group_size": 8,
                                            "max_tokens": LENGTH, "learning_rate": options.rl_lr, "warmup": 5,
                                            "rewards": {"format": 0.0, "language": 0.0}}}}}


def main() -> None:
    options = arguments()
    tokenizer, (train, asked) = load_tokenizer(options.model), problems()
    texts = other_texts(tokenizer, dict(options.text))
    before = text_losses(load_model(options.model, torch.float32), texts)
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_jsonl(folder / "train.jsonl", train)
        (folder / "field_task.py").write_text(VERIFIER)
        write_jsonl(folder / "field_task.jsonl", [{"prompt": row["prompt"], "answer": row["answer"], "split": split}
                                                  for split, rows in (("train", train), ("held_out", asked)) for row in rows])
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe(options), sort_keys=False))
        for stage in ("learned", "reinforced")[:1 if options.steps == 0 else 2]:
            artifact = run_recipe(folder / "recipe.yaml", folder / "run", SilentDisplay(), until=stage,
                                  accept=[stage]).artifacts[-1]
            model = load_model(artifact.folder, torch.float32)
            after = text_losses(model, texts)
            results.append({"stage": stage, "accuracy": accuracy(model, tokenizer, asked),
                            **{key: artifact.manifest["bill"][key] for key in ("core_seconds", "tokens_trained",
                                                                               "tokens_generated")},
                            **{f"forgotten_{name}": after[name] - before[name] for name in texts},
                            "rewards": [row["accuracy"] for row in artifact.log if "accuracy" in row]})
            print(json.dumps(results[-1]), flush=True)
    print(json.dumps({"name": "field_rl", "settings": {key: str(value) for key, value in vars(options).items()},
                      "machine": machine(), "stages": results}))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--text", type=lambda text: (text.split("=", 1)[0], Path(text.split("=", 1)[1])), action="append",
                        default=[], metavar="NAME=FILE")
    parser.add_argument("--dtype", choices=["auto", "bfloat16", "float32"], default="auto", help="of the stages' arithmetic")
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--steps", type=int, default=60, help="of RL; 0: fine-tuning alone")
    parser.add_argument("--rl-lr", type=float, default=1e-4)
    return parser.parse_args()


if __name__ == "__main__":
    main()
