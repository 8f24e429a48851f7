"""Fine-tuning with LoRA (rank 16, all linear maps) on a CPU: Spoutnik against TRL's SFTTrainer with PEFT, and against nothing
but the matrix products.

Both begin with the same base and the same adapter, and train the same rows in the same steps, a thread each, one after the
other: rows of equal length whose every token is learned, and conversations as they come (--rows), of which the replies are.
What counts is rows' tokens per core-second (processor time; padding is none), the peak memory of a process of its own, and the
loss of each step. TRL's micro-batch, and in bfloat16 its precision, is the best of those in MICRO and PRECISIONS; its rows are
sorted by length within a step. The limit is the time of the products alone, each token once. Needs the peers' environment:
`make peers`.

    python benchmarks/adapt_vs_trl.py MODEL [--rows FILE] [--steps 10] [--dtype bfloat16]
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from common import ask_peer, machine, print_result

from spoutnik.hardware import peak_memory
from spoutnik.loading import load_tokenizer
from spoutnik.model.adapter_file import Adapter, attach_adapter, base_hash, read_adapter, write_adapter
from spoutnik.model.config import ModelConfig
from spoutnik.model.lora import LoraConfig, adapters_of, add_lora
from spoutnik.model.weights import load_model
from spoutnik.train.batches import Document
from spoutnik.train.data.loading import load_traces
from spoutnik.train.language_model import language_model_gradient
from spoutnik.train.settings import LanguageModelSettings
from spoutnik.train.sft import trace_document

RATE, MICRO = 5e-4, (1, 2, 4, 8)
PRECISIONS = {torch.float32: ("fp32",), torch.bfloat16: ("bf16_weights", "bf16")}  # the last: autocast over float32 weights
Row = tuple[list[int], int]  # ids, and from where on they are learned


def equal_rows(count: int, length: int, vocabulary: int) -> list[Row]:
    rng = random.Random(0)
    return [([rng.randrange(3, vocabulary) for _ in range(length)], 1) for _ in range(count)]


def own_rows(file: Path, model: Path, count: int, per_step: int) -> list[Row]:
    """The first rows of a file, those of each step sorted by length, as TRL pads them least."""
    tokenizer = load_tokenizer(model)
    documents = [trace_document(row, tokenizer) for row in load_traces(file).rows[:count]]
    steps = [documents[i:i + per_step] for i in range(0, len(documents), per_step)]
    return [(list(d.ids), d.loss_from) for step in steps for d in sorted(step, key=lambda d: len(d.ids))]


def train_ours(options: dict) -> dict:
    """Core-seconds and loss of each step, in this process."""
    model = load_model(Path(options["model"]), None, getattr(torch, options["dtype"]), mapped=True)
    attach_adapter(model, read_adapter(Path(options["adapter"])), Path(options["adapter"]))
    for part in adapters_of(model).values():
        part.requires_grad_(True)
    settings = LanguageModelSettings(learning_rate=options["learning_rate"], optimizer="adamw", weight_decay=0.0,
                                     micro_batch_tokens=options["micro_batch_tokens"])
    optimizer, seconds, losses = settings.make_optimizer(model), [], []
    documents = [Document(ids, loss_from) for ids, loss_from in options["rows"]]
    for start in range(0, len(documents), options["rows_per_step"]):
        began = time.process_time()
        gradient, _ = language_model_gradient(model, documents[start:start + options["rows_per_step"]], optimizer.parameters,
                                              settings)
        optimizer.step(gradient.gradients, 1.0)
        seconds.append(time.process_time() - began)
        losses.append(gradient.metrics["loss"])
    return {"core_seconds": seconds, "losses": losses, "peak_bytes": peak_memory()}


def ask_ours(options: dict) -> dict:
    done = subprocess.run([sys.executable, __file__, "--ours"], input=json.dumps(options), text=True, capture_output=True)
    if done.returncode:
        sys.exit(f"our side failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def product_seconds(config: ModelConfig, tokens: int, learned: int, dtype: torch.dtype, rank: int = 16) -> float:
    """Core-seconds of the products of one step: forward and those for the inputs' gradients (the base is frozen), the adapters'
    three, and the head's two of learned tokens."""
    d, i = config.hidden_size, config.intermediate_size
    width = config.head_dim or d // config.num_attention_heads
    q, kv = config.num_attention_heads * width, config.num_key_value_heads * width
    maps = [(d, q), (d, kv), (d, kv), (q, d), (d, i), (d, i), (i, d)]
    shapes = [shape for a, b in maps for shape in ((tokens, a, b), (tokens, b, a),
              (tokens, a, rank), (tokens, rank, b), (tokens, b, rank), (tokens, rank, a), (rank, tokens, a), (b, tokens, rank))]
    once = {shape: _product(*shape, dtype) for shape in dict.fromkeys(shapes)}
    head = [_product(min(learned, 512), *widths, dtype) * learned / min(learned, 512)
            for widths in ((d, config.vocab_size), (config.vocab_size, d))]
    return config.num_hidden_layers * sum(once[shape] for shape in shapes) + sum(head)


def _product(m: int, k: int, n: int, dtype: torch.dtype) -> float:
    left, right, out = torch.randn(m, k).to(dtype), torch.randn(n, k).to(dtype).t(), torch.empty(m, n, dtype=dtype)
    samples = []
    for _ in range(6):
        began = time.process_time()
        torch.mm(left, right, out=out)
        samples.append(time.process_time() - began)
    return statistics.median(samples[1:])


def best_settings(options: dict, per_step: int) -> dict:
    """TRL's fastest, by the second of two steps."""
    able = [{"micro_batch": micro, "precision": precision} for precision in PRECISIONS[getattr(torch, options["dtype"])]
            for micro in MICRO if per_step % micro == 0]
    short = options | {"rows": options["rows"][:2 * per_step]}
    return min(able, key=lambda choice: ask_peer("trl_sft.py", short | choice)["core_seconds"][1])


def compare(name: str, rows: list[Row], per_step: int, folder: Path, given: argparse.Namespace) -> dict:
    options = {"model": str(given.model), "adapter": str(folder), "rows": rows, "rows_per_step": per_step, "threads": 1,
               "learning_rate": RATE, "dtype": given.dtype, "attention": "sdpa", "micro_batch_tokens": given.micro_batch_tokens}
    ours = ask_ours(options)
    best = best_settings(options, per_step)
    peer = ask_peer("trl_sft.py", options | best)
    tokens = [sum(len(ids) for ids, _ in rows[i:i + per_step]) for i in range(0, len(rows), per_step)]
    learned = [sum(len(ids) - start for ids, start in rows[i:i + per_step]) for i in range(0, len(rows), per_step)]
    limit = product_seconds(ModelConfig.load(given.model), round(statistics.mean(tokens)), round(statistics.mean(learned)),
                            getattr(torch, given.dtype))

    def rate(result: dict) -> float:
        return statistics.median(count / seconds for count, seconds in list(zip(tokens, result["core_seconds"]))[1:])

    differences = [abs(a - b) for a, b in zip(ours["losses"], peer["losses"])]
    return {"name": name, "ours": rate(ours), "peer": rate(peer), "limit": statistics.mean(tokens) / limit,
            "unit": "tokens/core-second", "dtype": given.dtype, "memory_ours": ours["peak_bytes"],
            "memory_peer": peer["peak_bytes"], "memory_ratio": ours["peak_bytes"] / peer["peak_bytes"], "steps": len(tokens),
            "tokens_per_step": tokens[0], "micro_batch_tokens": given.micro_batch_tokens,
            "peer_settings": best, "first_loss": ours["losses"][0], "last_loss": ours["losses"][-1],
            "largest_loss_difference": max(differences), "last_loss_difference": differences[-1],
            "versions": peer["versions"], "machine": machine()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--rows", type=Path, help="conversations in any shape of docs/data.md")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rows-per-step", type=int, default=8)
    parser.add_argument("--row-tokens", type=int, default=256, help="of the rows of equal length, two a step")
    parser.add_argument("--micro-batch-tokens", type=int, default=4096, help="of ours")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--no-equal", dest="equal", action="store_false", help="leave out the rows of equal length")
    parser.add_argument("--ours", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ours:
        print(json.dumps(train_ours(json.load(sys.stdin))))
        return
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        base = load_model(options.model, None, torch.float32, mapped=True)
        add_lora(base, LoraConfig(16, 32.0), torch.Generator().manual_seed(0))
        parts = adapters_of(base)
        write_adapter(folder, Adapter(parts, str(options.model), base_hash(base, parts)))
        count = options.steps * options.rows_per_step
        if options.equal:
            equal = equal_rows(options.steps * 2, options.row_tokens, base.config.vocab_size)
            results.append(compare(f"sft, rows of {options.row_tokens} tokens", equal, 2, folder, options))
        if options.rows is not None:
            rows = own_rows(options.rows, options.model, count, options.rows_per_step)
            results.append(compare("sft, conversations as they come", rows, options.rows_per_step, folder, options))
    print_result(results)


if __name__ == "__main__":
    main()
