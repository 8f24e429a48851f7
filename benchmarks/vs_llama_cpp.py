"""Against llama.cpp on the same 1.5B model (random weights, Qwen2-1.5B's shape) and the same cores: tokens per second of
decoding one sequence and of reading a prompt of 512 tokens, and what quantisation costs: in the exactness of that model's
logits, and in the perplexity of a real one (`make real-model`), printed beside the speed.

    python benchmarks/vs_llama_cpp.py [--model KEEP_IT_HERE] [--rounds 5] [--only bf16 q8_0 q4_0 q4_k_m]
        [--real FOLDER] [--text FILE] [--perplexity]

bfloat16 against bf16, int8 against q8_0, int4 against q4_0 and q4_k_m, in turns, each in a process of its own; llama.cpp is
llama-cpp-python built from its source distribution (`make peers`), its files quantised by llama.cpp itself. Of q4_0 there
are two: every matrix in 4 bits (fewest bytes, so fastest), and llama.cpp's own choice, where the head has 6 or 8 bits, as
ours has. --perplexity: that alone, without speed.
llama.cpp's rate is that of its evaluation alone, by the median step; ours is what a user of `spoutnik.LLM` gets, sampling
included.

The error is that of the logits of 64 places of a random text: root mean square of the difference from the same weights
computed in float32 by the plain model, by the root mean square of those logits (each place's mean taken off, which changes
no probability). The perplexity is that of --text (its first WINDOWS windows of WINDOW tokens, the first of each not counted),
or of texts of WINDOW tokens that the real model itself writes in bfloat16. (llama.cpp cannot use Q4_K where rows are no
multiple of 256, as most of SmolLM2-135M's: it takes 5 bits or more there.)
Wanted: ratio at least 1.05, 1 and 1 in decoding, 1 in prompts, error
and perplexity not above llama.cpp's.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from common import ask_peer, machine, print_result
from random_model import checkpoint, model_argument, write_gguf

from spoutnik.engine.bench import decode_rate, log_probabilities, prompt_rate, sample_texts, text_file_windows
from spoutnik.engine.llm import LLM
from spoutnik.engine.runners.base import BLOCK_SIZE, ForwardBatch
from spoutnik.model.config import ModelConfig
from spoutnik.model.weights import load_model
from spoutnik.parallel import cores

PROMPT, DECODE, TEXT, PLACES = 512, 64, 128, 64
PAIRS = {"bf16": (None, {}), "q8_0": ("int8", {"type": "q8_0", "pure": True}),
         "q4_0": ("int4", {"type": "q4_0", "pure": True}),
         "q4_0 with its own head": ("int4", {"type": "q4_0", "pure": False}),
         "q4_k_m": ("int4", {"type": "q4_k_m", "pure": False})}
WINDOW, WINDOWS = 512, 8


def work(task: dict) -> dict:
    """Our side of one format, in a process of its own: rates of each round, and logits into a file where asked for."""
    model = LLM(Path(task["model"]), dtype="bfloat16", quantize=task["quantize"], max_num_batched_tokens=PROMPT)
    if "windows" in task:
        return {"nats": log_probabilities(model, task["windows"])}
    if "logits" in task:
        np.save(task["logits"], engine_logits(model, task["ids"]).numpy())
        return {}
    decode_rate(model, 1, 8)
    prompt_rate(model, PROMPT)
    return {"decode": [decode_rate(model, 1, DECODE) for _ in range(task["rounds"])],
            "prompt": [prompt_rate(model, PROMPT) for _ in range(task["rounds"])]}


def ask_ours(task: dict) -> dict:
    done = subprocess.run([sys.executable, __file__, "--work"], input=json.dumps(task), text=True, capture_output=True)
    if done.returncode:
        sys.exit(f"our side failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def engine_logits(model: LLM, ids: list[int]) -> torch.Tensor:
    """(PLACES, vocabulary), after the last of the ids; the engine, which has done nothing yet, is left with a used cache."""
    count = torch.tensor([len(ids)])
    blocks = torch.arange(-(-len(ids) // BLOCK_SIZE))[None]
    batch = ForwardBatch(torch.tensor(ids), count, torch.zeros_like(count), blocks, torch.arange(len(ids) - PLACES, len(ids)),
                         torch.ones(1, dtype=torch.bool))
    return model.core.runner.forward(batch)[0]


@torch.no_grad()
def exact_logits(folder: Path, ids: list[int]) -> np.ndarray:
    return load_model(folder, torch.float32)(torch.tensor([ids]))[0, -PLACES:].numpy()


def error(file: Path, exact: np.ndarray) -> float:
    """Relative, of logits (places, vocabulary) whose mean does not count."""
    found = np.load(file)
    found, exact = (x - x.mean(-1, keepdims=True) for x in (found, exact))
    return float(np.sqrt(np.square(found - exact).mean() / np.square(exact).mean()))


def text_windows(real: Path, text: Path | None) -> list[list[int]]:
    """Ids of a text file, or of texts that the real model writes."""
    if text is None:
        return sample_texts(LLM(real, dtype="bfloat16", max_num_seqs=WINDOWS), WINDOW)
    return text_file_windows(real, text, WINDOW + 1)[:WINDOWS]


def perplexities(gguf: Path, name: str, real: Path, windows: list[list[int]]) -> dict:
    """Ours and llama.cpp's of one of PAIRS, on the real model. gguf: it in bfloat16."""
    quantize, kind = PAIRS[name]
    file = gguf
    if kind:
        file = gguf.parent / "real-quantised.gguf"
        ask_peer("llama_speed.py", [{"quantise": str(gguf), "to": str(file), "threads": cores()} | kind])
    ours = ask_ours({"model": str(real), "quantize": quantize, "windows": windows})["nats"]
    theirs = ask_peer("llama_speed.py", [{"file": str(file), "threads": cores(), "windows": windows}])[0]["nats"]
    return {"our_perplexity": float(np.exp(-np.mean(ours))), "peers_perplexity": float(np.exp(-np.mean(theirs))),
            "peers_real_file_mb": file.stat().st_size / 1e6}


def compare(folder: Path, gguf: Path, name: str, ids: list[int], exact: np.ndarray, rounds: int) -> list[dict]:
    """One of PAIRS: a result for decoding, one for prompts. gguf: the model in bfloat16, in a folder for temporary files."""
    temporary = gguf.parent
    quantize, kind = PAIRS[name]
    file, size = gguf, gguf.stat().st_size
    if kind:
        file = temporary / "quantised.gguf"
        task = {"quantise": str(gguf), "to": str(file), "threads": cores()} | kind
        size = ask_peer("llama_speed.py", [task])[0]["bytes"]
    ours: dict[str, list[float]] = {"decode": [], "prompt": []}
    theirs: dict[str, list[float]] = {"decode": [], "prompt": []}
    for _ in range(2):  # in turns: the machine's mood is shared
        answers = (ask_ours({"model": str(folder), "quantize": quantize, "rounds": rounds}),
                   ask_peer("llama_speed.py", [{"file": str(file), "threads": cores(), "prompt": PROMPT, "decode": DECODE,
                                                "rounds": rounds}])[0])
        for side, answer in zip((ours, theirs), answers):
            side["decode"] += answer["decode"]
            side["prompt"] += answer["prompt"]
    asked = {"ids": ids, "logits": str(temporary / "logits.npy")}
    ask_ours(asked | {"model": str(folder), "quantize": quantize})
    errors = {"our_error": error(temporary / "logits.npy", exact)}
    ask_peer("llama_speed.py", [asked | {"file": str(file), "threads": cores(), "last": PLACES}])
    errors["peers_error"] = error(temporary / "logits.npy", exact)
    return [{"name": f"{quantize or 'bf16'} against {name}, {what}", "ours": statistics.median(ours[what]),
             "peer": statistics.median(theirs[what]), "unit": "tokens/s", "peers_file_mb": size / 1e6} | errors
            for what in ("decode", "prompt")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    model_argument(parser)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=list(PAIRS), choices=list(PAIRS))
    parser.add_argument("--real", type=Path, metavar="FOLDER", default=Path("build/SmolLM2-135M-Instruct"),
                        help="the model whose perplexity is measured [default: that of `make real-model`]")
    parser.add_argument("--text", type=Path, metavar="FILE", help="on which text [default: the model's own]")
    parser.add_argument("--perplexity", action="store_true", help="measure that alone")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        print(json.dumps(work(json.load(sys.stdin))))
        return
    print(machine())
    if not (options.real / "config.json").exists():
        sys.exit(f"{options.real}: has no model. Make it with `make real-model`, or name a folder with --real.")
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "real.gguf"
        write_gguf(options.real, file)
        windows = text_windows(options.real, options.text)
        costs = {pair: perplexities(file, pair, options.real, windows) for pair in options.only}
    if options.perplexity:
        print_result([{"name": f"{PAIRS[pair][0] or 'bf16'} against {pair}, perplexity", "ours": cost["our_perplexity"],
                       "peer": cost["peers_perplexity"], "unit": "perplexity"} | cost for pair, cost in costs.items()])
        return
    with checkpoint(options.model) as folder, tempfile.TemporaryDirectory() as name:
        temporary = Path(name)
        write_gguf(folder, temporary / "model.gguf")
        draw, vocabulary = random.Random(0), ModelConfig.load(folder).vocab_size
        ids = [draw.randrange(vocabulary) for _ in range(TEXT)]
        exact = exact_logits(folder, ids)
        results = [result | costs[pair] for pair in options.only
                   for result in compare(folder, temporary / "model.gguf", pair, ids, exact, options.rounds)]
    print_result(results)


if __name__ == "__main__":
    main()
