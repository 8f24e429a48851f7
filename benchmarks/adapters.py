"""What adapters beside the base cost: decoding steps of a batch of the base alone, of one adapter, and of several mixed, in
turns on the same engine, so that what else the machine does meets all of them. And that they say what the merged models say.

    python benchmarks/adapters.py MODEL-FOLDER [--quantize int8|int4] [--rows 16] [--adapters 4] [--rank 16] [--threads 1]

Adapters are of all linear maps, with random numbers. Times are of the process (all threads) and of the clock, medians. Texts
are greedy and compared in float32 alone, with as many merged models as there are adapters.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from spoutnik import LLM, SamplingParams
from spoutnik.engine.adapters import shapes_of
from spoutnik.engine.runners.base import ForwardBatch
from spoutnik.model.adapter_file import Adapter, write_adapter
from spoutnik.model.lora import LowRank

CONTEXT, TOKENS = 64, 24
GREEDY = SamplingParams(temperature=0, max_tokens=TOKENS, ignore_eos=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--quantize", choices=["int8", "int4"])
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--adapters", type=int, default=4)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--steps", type=int, default=30, help="of each kind")
    parser.add_argument("--no-texts", action="store_true", help="Do not read the merged models.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        llm = LLM(options.model, quantize=options.quantize, dtype=options.dtype, max_num_seqs=options.rows, memory="8GB")
        folders = write_adapters(Path(temporary), llm, options.adapters, options.rank)
        for name, folder in folders.items():
            llm.load_adapter(name, folder)
        result = measure(llm, options)
        if not options.no_texts and options.quantize is None and llm.core.runner.dtype == torch.float32:
            result["texts"], result["texts_equal"] = compare_texts(llm, options.model, folders)
    print(json.dumps(result))


def write_adapters(root: Path, llm: LLM, count: int, rank: int) -> dict[str, Path]:
    """Large enough to change what is said."""
    generator, folders = torch.Generator().manual_seed(0), {}
    for number in range(count):
        parts = {name: LowRank(torch.randn(rank, inputs, generator=generator) * inputs ** -0.5,
                               0.02 * torch.randn(outputs, rank, generator=generator), 2.0)
                 for name, (outputs, inputs) in shapes_of(llm.config).items()}
        folders[f"adapter-{number}"] = root / f"adapter-{number}"
        write_adapter(folders[f"adapter-{number}"], Adapter(parts))
    return folders


@torch.no_grad()
def measure(llm: LLM, options: argparse.Namespace) -> dict:
    """Steps of `rows` tokens, one each, behind a context."""
    runner, rows = llm.core.runner, options.rows
    if options.threads:
        runner.threads = options.threads
    for adapter in llm.core.adapters.values():
        llm.core.adapters.acquire(adapter)
    blocks = -(-(CONTEXT + 1) // 16)
    each, tables = torch.arange(rows), torch.arange(rows * blocks).view(rows, blocks)
    tokens = torch.randint(5, llm.config.vocab_size, (rows * CONTEXT,), generator=torch.Generator().manual_seed(1))
    runner.forward(ForwardBatch(tokens, torch.full_like(each, CONTEXT), 0 * each, tables, each[:0], each >= 0))
    kinds = {"base": None, "one adapter": 0 * each, f"{options.adapters} mixed": each % options.adapters}
    seconds = {kind: [] for kind in kinds}
    for _ in range(options.steps + 1):
        for kind, adapters in kinds.items():
            batch = ForwardBatch(tokens[:rows], torch.ones_like(each), each * 0 + CONTEXT, tables, each, each < 0, adapters)
            process, clock = time.process_time(), time.perf_counter()
            runner.forward(batch)
            seconds[kind].append((time.process_time() - process, time.perf_counter() - clock))
    result = {"rows": rows, "rank": options.rank, "weights": options.quantize or str(runner.dtype), "threads": runner.threads,
              "adapter_mb": round(sum(a.packed.nbytes for a in llm.core.adapters.values()) / 1e6, 1)}
    for kind, times in seconds.items():
        for what, column in (("core-s", 0), ("s", 1)):
            median = statistics.median(one[column] for one in times[1:])
            result[f"{kind}: tokens per {what}"] = round(rows / median, 1)
            result[f"{kind}: speed of the base, by {what}"] = round(
                statistics.median(one[column] for one in seconds["base"][1:]) / median, 3)
        print({name: value for name, value in result.items() if name.startswith(kind)})
    return result


def compare_texts(llm: LLM, model: Path, folders: dict[str, Path]) -> tuple[int, int]:
    """How many greedy texts there are, and how many of them are the merged models'."""
    generator, names = torch.Generator().manual_seed(2), [*folders, None]
    prompts = [torch.randint(5, llm.config.vocab_size, (CONTEXT,), generator=generator).tolist() for _ in range(4 * len(names))]
    chosen = [names[i % len(names)] for i in range(len(prompts))]
    mixed = [output.outputs[0].token_ids for output in llm.generate(prompts, GREEDY, adapter=chosen)]
    equal = 0
    for name in names:
        merged = LLM(model, adapter=folders.get(name), dtype="float32", max_num_seqs=16, memory="8GB")
        mine = [(prompt, said) for prompt, said, one in zip(prompts, mixed, chosen) if one == name]
        outputs = merged.generate([prompt for prompt, _ in mine], GREEDY)
        equal += sum(output.outputs[0].token_ids == said for output, (_, said) in zip(outputs, mine))
    return len(prompts), equal


if __name__ == "__main__":
    main()
