"""What it saves to compute common beginnings once: the gradient of a GRPO step of the nano, whose completions share their
prompts, and with --model that of a step of LoRA on a model whose template begins every conversation alike.

    python benchmarks/common_beginnings.py [--model SMOLLM2] [--steps 5]

Three ways in turns, each on all micro-batches of the same step: every document whole (native attention; "peer" in what is
printed), beginnings once with torch's batched products, and beginnings once with native attention. Core-seconds, medians. The
last line is JSON.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from common import machine, print_result

import spoutnik
from spoutnik.hardware import compute_dtype
from spoutnik.loading import load_tokenizer
from spoutnik.model import attention
from spoutnik.model.lora import LoraConfig, add_lora
from spoutnik.model.weights import load_model
from spoutnik.parallel import keep_memory
from spoutnik.tasks import FAMILIES
from spoutnik.train import language_model
from spoutnik.train.batches import Document, pack_documents
from spoutnik.train.grpo import policy_batches, policy_gradient
from spoutnik.train.grpo_settings import GRPOSettings
from spoutnik.train.rollouts import PolicyEngine, sample_problems
from spoutnik.train.sampling import roll_out, step_prompts
from spoutnik.train.settings import LanguageModelSettings
from spoutnik.train.sft import trace_document

NANO = ("countdown", "arithmetic", "equations", "ordering", "liars", "calendar", "operations", "spell")  # of recipes/nano.yaml
SHIPPED = Path(spoutnik.__file__).parent / "prebuilt" / "nano"
WAYS = ("whole", "once, products", "once, native")
Step = Callable[[str], int]  # computes the gradient in one of WAYS; tokens that were computed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a checkpoint, for SFT with an adapter")
    parser.add_argument("--steps", type=int, default=5)
    arguments = parser.parse_args()
    keep_memory()
    torch.set_num_threads(1)
    steps = {"grpo": grpo_steps()} | ({"sft": sft_steps(arguments.model)} if arguments.model else {})
    print_result([result | {"machine": machine()} for name, each in steps.items()
                  for result in measure(name, each, arguments.steps)])


def measure(name: str, steps: Iterator[Step], count: int) -> list[dict]:
    seconds, tokens = ({way: [] for way in WAYS} for _ in range(2))
    for number in range(count + 1):
        step = next(steps)
        for way in WAYS:
            began = time.process_time()
            tokens[way].append(step(way))
            if number:  # the first one warms up
                seconds[way].append(time.process_time() - began)
    medians = {way: statistics.median(values) for way, values in seconds.items()}
    return [{"name": f"{name}, beginnings {way}", "ours": medians[way], "peer": medians["whole"], "unit": "s",
             "tokens": statistics.median(tokens[way][1:])} for way in WAYS]


@contextmanager
def native_attention(native: bool) -> Iterator[None]:
    """Without: attention alone by torch's products; all other kernels stay."""
    supports, attention.operations = attention.operations, attention.operations if native else _NoAttention
    try:
        yield
    finally:
        attention.operations = supports


class _NoAttention:
    @staticmethod
    def supports(x: torch.Tensor) -> bool:
        return False


def grpo_steps() -> Iterator[Step]:
    """The nano's last RL, 64 prompts x 8 completions a step."""
    folder = next(SHIPPED.glob("all_scenarios_rl-*"))
    model, tokenizer = load_model(folder, compute_dtype=compute_dtype("auto")), load_tokenizer(folder)
    settings = GRPOSettings(steps=1, prompts_per_step=64, group_size=8, max_tokens=224, learning_rate=3e-4, optimizer="adamw",
                            dialogue_share=0.25)
    parameters, engine = settings.make_optimizer(model).parameters, PolicyEngine(model, tokenizer)
    tasks, number = [FAMILIES[name] for name in NANO], 0
    while True:
        prompts, number = step_prompts(settings, tasks, 0, "common beginnings", number, False), number + 1
        rollouts = roll_out(engine.current(), tokenizer, prompts, settings, 0, None)

        def step(way: str, rollouts=rollouts) -> int:
            of_way = settings.model_copy(update={"share_prompts": way != "whole"})
            batches, _ = policy_batches(rollouts, of_way)
            with native_attention(way != "once, products"):
                policy_gradient(model, batches, parameters, of_way)
            return sum(len(batch.packed.input_ids) for batch in batches)

        yield step


def sft_steps(folder: Path) -> Iterator[Step]:
    """Worked problems as the model's template renders them, 1,024 tokens a step; LoRA of rank 16 on all linear maps."""
    model, tokenizer = load_model(folder, compute_dtype=compute_dtype("auto")), load_tokenizer(folder)
    model = add_lora(model, LoraConfig(16, 32.0), torch.Generator().manual_seed(0))
    settings, rng = LanguageModelSettings(learning_rate=1e-4, micro_batch_tokens=1024), random.Random(0)
    parameters, tasks = settings.make_optimizer(model).parameters, [FAMILIES[name] for name in NANO]
    pack_sharing = language_model.pack_sharing
    while True:
        documents: list[Document] = []
        while sum(len(each.ids) for each in documents) < 1024:
            problem = sample_problems(rng, [rng.choice(tasks)], 1, "train")[0]
            trace = problem.task.solve(problem, rng, "careful")
            documents.append(trace_document({"history": problem.history, "prompt": problem.prompt, "thought": trace.thought,
                                             "answer": trace.answer}, tokenizer))

        def step(way: str, documents=documents) -> int:
            language_model.pack_sharing = pack_documents if way == "whole" else pack_sharing
            try:
                with native_attention(way != "once, products"):
                    language_model.language_model_gradient(model, documents, parameters, settings)
            finally:
                language_model.pack_sharing = pack_sharing
            pack = pack_documents if way == "whole" else pack_sharing
            return len(pack(documents, range(len(documents))).input_ids)

        yield step


if __name__ == "__main__":
    main()
