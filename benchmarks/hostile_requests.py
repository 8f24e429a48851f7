"""Ten thousand chat requests with hostile budgets, stop texts, biases and formats, over HTTP, and a check of every answer: no
thought in it, and not empty (tests/hostile.py says what is drawn and what must hold).

    python benchmarks/hostile_requests.py [--count 10000] [--seed 0] [--model FOLDER]

The models: two with random weights, which say anything at all, and the nano base that ships with the package (or FOLDER).
"""

import argparse
import asyncio
import logging
import sys
import time
from pathlib import Path

from common import machine, print_result

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import tiny
from hostile import attack
from listening import listening

from spoutnik.engine.llm import LLM
from spoutnik.generation.catalog import list_models
from spoutnik.generation.service import GenerationService, ServedModel
from spoutnik.serve.app import make_app
from spoutnik.serve.settings import Settings

RANDOM = {"random-deepseek": (tiny.DEEPSEEK, 256), "random-qwen": (tiny.QWEN, 512)}


def random_ones() -> list[ServedModel]:
    tokenizer = tiny.tokenizer()
    return [ServedModel(name, Path(), tokenizer, positions) for name, (_, positions) in RANDOM.items()]


def load(served: ServedModel) -> LLM:
    if served.id not in RANDOM:
        return LLM(served.folder, served.tokenizer, max_num_seqs=64, memory="1GB")
    base, positions = RANDOM[served.id]
    model = tiny.model(base, vocab_size=served.tokenizer.vocab_size, max_position_embeddings=positions)
    return LLM(model, served.tokenizer, max_num_seqs=64, memory="64MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", help="a model's or a run's folder [default: the base that ships with the package]")
    options = parser.parse_args()
    print(machine())
    service = GenerationService([*random_ones(), list_models(options.model)[0]], load)
    logging.basicConfig(format="%(message)s")
    began = time.perf_counter()
    with listening(make_app(service, Settings(shutdown_seconds=0.0))) as url:
        outcome = asyncio.run(attack(url, service, options.count, options.seed))
    for body, answer in outcome.failures[:20]:
        print(f"{body}\n    {answer[:1000]}")
    print_result({"name": "hostile_requests", "ours": outcome.requests / (time.perf_counter() - began), "unit": "requests/s",
                  "requests": outcome.requests, "replies": outcome.replies, "failures": len(outcome.failures),
                  "statuses": dict(outcome.statuses), "finished": dict(outcome.finished), "with_warnings": outcome.warnings})
    sys.exit(bool(outcome.failures))


if __name__ == "__main__":
    main()
