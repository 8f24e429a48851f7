"""What drafts by the MTP module are worth: the tokens per second of LLM(speculate="mtp") over those without, one sequence at a
time and 32 at once.

    python benchmarks/speculation.py [--model runs/nano] [--drafts 1] [--rounds 5] [--width 1024]

First the nano model on problems of its own tasks (a run of `make demo`; any folder of a model with a module and a tokenizer).
It lies in the processor's caches, where a second token in a step is not free and a step is short: there the engine drafts
nothing by itself, and for the record it is also made to. Then a model that does not: random weights, wide
enough for memory to be the limit, so that nothing it drafts is right; what is measured there is by how much a step with a draft
is dearer than one without, and from that, what the drafts that the nano model gets right would be worth.
The peer is our own decoding without drafts; the limit, that a step with drafts cost no more than one without.
"""

import argparse
import random
import statistics
import sys
import time
from pathlib import Path

import torch
from common import machine, print_result

from spoutnik.engine.bench import decode_rate
from spoutnik.engine.llm import LLM
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.loading import load_tokenizer
from spoutnik.locate import locate
from spoutnik.model.presets import preset
from spoutnik.model.transformer import Transformer
from spoutnik.tasks import FAMILIES
from spoutnik.train.prompt_style import prompt_ids
from spoutnik.train.rollouts import sample_problems

ALONE, TOGETHER = 12, 32  # problems asked one after the other, and all at once
DECODED = 64


def rate(model: LLM, prompts: list[list[int]], together: bool, seed: int) -> float:
    """Generated tokens per second."""
    params = SamplingParams(temperature=0.6, top_p=0.95, max_tokens=200)
    began, generated = time.perf_counter(), 0
    for number, asked in enumerate([prompts] if together else [[prompt] for prompt in prompts]):
        for output in model.generate(asked, params, seed=seed + number):
            generated += len(output.outputs[0].token_ids)
    return generated / (time.perf_counter() - began)


def on_its_tasks(folder: Path, drafts: int, rounds: int) -> tuple[list[dict], float]:
    """Results, and the share of drafts that were right."""
    tokenizer = load_tokenizer(folder)
    problems = sample_problems(random.Random(0), list(FAMILIES.values())[:6], TOGETHER, "train")
    prompts = prompt_ids(problems, tokenizer)
    models = {name: LLM(folder, tokenizer, max_num_seqs=TOGETHER, speculate=speculate, num_speculative_tokens=drafts,
                        speculate_up_to=up_to)
              for name, speculate, up_to in (("plain", None, None), ("mtp", "mtp", None), ("made to", "mtp", 8))}
    results = []
    for together in (False, True):
        asked = prompts if together else prompts[:ALONE]
        found = {name: [] for name in models}
        for turn in range(rounds + 1):
            for name, model in models.items():
                found[name].append(rate(model, asked, together, turn))
        plain, *drafted = (statistics.median(rates[1:]) for rates in found.values())
        counts = models["made to"].core.stats
        if not together:
            acceptance = counts.accepted / max(counts.drafted, 1)
        for name, rate_of in zip(("mtp", "mtp, made to draft"), drafted):
            results.append({"name": f"{name}, {TOGETHER if together else 1} at a time", "ours": rate_of, "peer": plain,
                            "limit": plain * (1 + (0 if together else acceptance * drafts)), "unit": "tokens/s",
                            "drafts": drafts, "acceptance": acceptance})
    return results, acceptance


def from_memory(width: int, drafts: int, rounds: int, acceptance: float) -> dict:
    """Random weights of a dense model with a module, larger than the caches; one sequence. The first draft alone counts."""
    config = preset("nano").config.model_copy(update={
        "hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": 16, "first_k_dense_replace": 16,
        "num_attention_heads": width // 64, "num_key_value_heads": width // 64, "q_lora_rank": width // 2,
        "kv_lora_rank": 256, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32, "v_head_dim": 64, "vocab_size": 32768})
    model = Transformer(config, compute_dtype=torch.bfloat16).requires_grad_(False)
    model.init_weights(torch.Generator().manual_seed(0))
    models = [LLM(model, max_num_seqs=1, eos_token_ids=[], speculate=speculate, num_speculative_tokens=drafts)
              for speculate in (None, "mtp")]
    found = [[], []]
    for turn in range(rounds + 1):
        for rates, llm in zip(found, models):
            if turn:
                rates.append(decode_rate(llm, 1, DECODED))
            else:
                decode_rate(llm, 1, 8)
    plain, mtp = map(statistics.median, found)
    counts = models[1].core.stats
    steps_per_token = 1 / (1 + counts.accepted / max(counts.drafted, 1))
    cost = plain / mtp / steps_per_token  # of a step with drafts, in steps without
    expected = sum(acceptance ** number for number in range(drafts + 1))  # tokens of a step
    return {"name": "mtp, read from memory", "ours": plain * expected / cost, "peer": plain, "limit": plain * expected,
            "unit": "tokens/s", "drafts": drafts, "cost_of_a_step": cost, "acceptance_assumed": acceptance,
            "weights_gb": models[0].core.runner.weights_nbytes / 1e9}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="runs/nano")
    parser.add_argument("--drafts", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width", type=int, default=1024, help="of the model with random weights")
    options = parser.parse_args()
    if not Path(options.model).exists():
        sys.exit(f"{options.model}: is not there. Make it with `make demo`, or name another model with --model.")
    print(machine())
    results, acceptance = on_its_tasks(locate(options.model), options.drafts, options.rounds)
    print_result([*results, from_memory(options.width, options.drafts, options.rounds, acceptance)])


if __name__ == "__main__":
    main()
