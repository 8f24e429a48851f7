"""A field that no pretraining knows, learned by LoRA without forgetting the rest: eight invented units, exact answers.

192 rows to learn from, 200 other (pair, quantity) combinations to be asked, greedily; the last number of a reply is its answer.
The stage is a recipe's, with its adapter and its anchor. Forgetting is the rise of the loss on texts that the anchor does not
contain: this project's pages, and the files of --text. Core-seconds are the stage's own, of all threads.

    python benchmarks/field.py MODEL [--seeds 1 2 3] [--text gsm8k=test.jsonl] [--no-anchor]
"""

import argparse
import json
import random
import re
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from common import machine

from spoutnik.commands.progress import SilentDisplay
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.files import write_jsonl
from spoutnik.hardware import peak_memory
from spoutnik.loading import load_tokenizer
from spoutnik.model.transformer import Transformer
from spoutnik.model.weights import load_model
from spoutnik.recipe.run import run_recipe
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.batches import Document
from spoutnik.train.monitor import document_losses
from spoutnik.train.prompt_style import conversation_ids
from spoutnik.train.rollouts import rollout_llm

# One of the first is so many of the second.
UNITS = (("zorp", "blen", 7), ("quill", "draf", 3), ("mib", "tolk", 9), ("harn", "pesk", 4),
         ("vond", "rill", 6), ("glim", "sarn", 8), ("trask", "noop", 5), ("fenk", "wubble", 12))
QUANTITIES = range(2, 51)
TRAINED = 24  # quantities of each pair; of the other 25 all are asked
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Conversion:
    quantity: int
    one: str
    other: str
    factor: int

    @property
    def question(self) -> str:
        return f"How many {self.other}s are {self.quantity} {self.one}s?"

    @property
    def answer(self) -> int:
        return self.quantity * self.factor

    @property
    def reply(self) -> str:
        """With the product worked out as at school, ones, tens, what is carried, in one form for all: rare forms were most of
        the errors, then sums of three digits in one step. "8 x 7 = 56, 2 x 7 = 14, 14 + 5 = 19, so 196 blens" for 28."""
        of_ones, of_tens = self.quantity % 10 * self.factor, self.quantity // 10 * self.factor
        carried = f"{of_tens} + {of_ones // 10} = {of_tens + of_ones // 10}"
        return (f"{self.quantity % 10} x {self.factor} = {of_ones}, {self.quantity // 10} x {self.factor} = {of_tens}, "
                f"{carried}, so {self.answer} {self.other}s")


def conversions() -> tuple[list[Conversion], list[Conversion]]:
    """Rows to learn from and combinations to ask, the same for every seed."""
    rng, train, asked = random.Random("the field"), [], []
    for one, other, factor in UNITS:
        quantities = list(QUANTITIES)
        rng.shuffle(quantities)
        rows = [Conversion(quantity, one, other, factor) for quantity in quantities]
        train, asked = train + rows[:TRAINED], asked + rows[TRAINED:]
    return train, asked


def last_number(text: str) -> int | None:
    numbers = re.findall(r"\d+", text)
    return int(numbers[-1]) if numbers else None


def accuracy(model: Transformer, tokenizer: Tokenizer, asked: list[Conversion]) -> float:
    prompts = [conversation_ids((), each.question, tokenizer) for each in asked]
    outputs = rollout_llm(model, tokenizer).generate(prompts, SamplingParams(temperature=0.0, max_tokens=60))
    replies = [tokenizer.decode(output.outputs[0].reply_ids) for output in outputs]
    return statistics.mean(last_number(reply) == each.answer for each, reply in zip(asked, replies))


def other_texts(tokenizer: Tokenizer, files: dict[str, Path]) -> dict[str, list[Document]]:
    """Pieces of 256 tokens, 2,048 tokens of each text. Of rows, all their texts one after another."""
    pages = "\n".join((HERE.parent / "docs" / name).read_text() for name in ("adapt.md", "data.md"))
    texts = {"pages": pages}
    for name, file in files.items():
        text = file.read_text()
        texts[name] = "\n\n".join("\n".join(map(str, json.loads(line).values())) for line in text.splitlines()) \
            if file.suffix == ".jsonl" else text
    ids = {name: tokenizer.encode(text[:40_000])[:2048] for name, text in texts.items()}
    return {name: [Document(piece) for i in range(0, len(each), 256) if len(piece := each[i:i + 256]) > 1]
            for name, each in ids.items()}


def text_losses(model: Transformer, texts: dict[str, list[Document]]) -> dict[str, float]:
    return {name: statistics.mean(document_losses(model, documents, 2048)) for name, documents in texts.items()}


def recipe(model: Path, seed: int, options: argparse.Namespace) -> dict:
    stage = {"kind": "sft", "from": "base", "file": "train.jsonl", "adapter": {"rank": 16, "alpha": 32},
             "settings": {"epochs": options.epochs, "learning_rate": options.lr, "optimizer": "adamw", "weight_decay": 0.0,
                          "tokens_per_step": options.tokens_per_step, "warmup": 5}}
    if options.anchor:
        stage["anchor"] = {"snippets": options.snippets, "weight": options.weight}
    return {"name": "field", "seed": seed, "dtype": options.dtype, "checkpoint_seconds": 20,
            "models": {"base": {"checkpoint": str(model.resolve())}}, "stages": {"learned": stage}}


def learned(model: Path, seed: int, options: argparse.Namespace, folder: Path, rows: list[dict]) -> Path:
    """Runs the recipe; the folder of its artifact."""
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / "train.jsonl", rows)
    (folder / "field.yaml").write_text(yaml.safe_dump(recipe(model, seed, options), sort_keys=False))
    return run_recipe(folder / "field.yaml", folder / "run", SilentDisplay(), accept=["learned"]).artifacts[0].folder


def main() -> None:
    options = arguments()
    tokenizer, (train, asked) = load_tokenizer(options.model), conversions()
    texts = other_texts(tokenizer, dict(options.text))
    base = load_model(options.model, torch.float32)
    before = text_losses(base, texts)
    print(f"{len(train)} rows to learn, {len(asked)} asked. The base: {accuracy(base, tokenizer, asked[::10]):.0%} of every "
          f"tenth; loss {before}", flush=True)
    del base  # the stages load their own
    results = []
    for seed in options.seeds:
        rows = [{"prompt": each.question, "thought": "", "answer": each.reply} for each in train]
        with tempfile.TemporaryDirectory() as temporary:
            artifact = learned(options.model, seed, options, (options.keep or Path(temporary)) / str(seed), rows)
            manifest = json.loads((artifact / "manifest.json").read_text())
            model = load_model(artifact, torch.float32)
        after = text_losses(model, texts)
        results.append({"seed": seed, "accuracy": accuracy(model, tokenizer, asked), "loss": manifest["metrics"]["loss"],
                        **{key: manifest["bill"][key] for key in ("core_seconds", "tokens_trained")},
                        **{f"forgotten_{name}": after[name] - before[name] for name in texts}})
        print(json.dumps(results[-1]), flush=True)
    print(json.dumps({"name": "field", "settings": {key: str(value) for key, value in vars(options).items()},
                      "machine": machine(), "peak_bytes": peak_memory(), "runs": results}))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--text", type=lambda text: (text.split("=", 1)[0], Path(text.split("=", 1)[1])), action="append",
                        default=[], metavar="NAME=FILE", help="another text whose loss must not rise")
    parser.add_argument("--epochs", type=float, default=5)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--tokens-per-step", type=int, default=1024)
    parser.add_argument("--snippets", type=int, default=4)
    parser.add_argument("--dtype", choices=["auto", "bfloat16", "float32"], default="auto", help="of the stage's arithmetic")
    parser.add_argument("--weight", type=float, default=1.0)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where runs stay, and go on if they were stopped")
    parser.add_argument("--no-anchor", dest="anchor", action="store_false")
    return parser.parse_args()


if __name__ == "__main__":
    main()
