"""Measures a model's speed on this machine, its share of the memory's bandwidth, and what quantized weights cost in accuracy.
The rates are those of `spoutnik.LLM`, sampling and scheduling included.
"""

import gc
import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from spoutnik.engine.llm import LLM
from spoutnik.engine.runners.native_runner import NativeRunner
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.errors import RunError, UserError
from spoutnik.hardware import machine, peak_memory
from spoutnik.loading import load_tokenizer
from spoutnik.model.accounting import account
from spoutnik.model.checkpoint import origin
from spoutnik.model.config import ModelConfig
from spoutnik.native import describe
from spoutnik.native.bandwidth import read_bandwidth

BATCHES, DTYPES = (1, 8, 32), ("auto", "float32", "bfloat16")
_DECODE_PROMPT = 16  # tokens: 32 such prompts fit into one step, so that all sequences start to decode together
_SAMPLES, _SAMPLE_TOKENS = 4, 256  # of the text that a model writes itself
_WINDOW, _WINDOWS = 512, 16  # of a text that is given: tokens per window, and how many windows at most
_seeds = count()  # no prompt twice: the prefix cache would be measured


@dataclass(frozen=True)
class Exactness:
    """Quantized weights against the original ones on a text. text: its origin. cost: mean decrease of a token's
    log-probability, in nats, with the standard error of that mean (cost_error). Where the model wrote the text itself, cost
    estimates the Kullback-Leibler divergence."""

    text: str
    tokens: int
    perplexity: float
    quantised_perplexity: float
    cost: float
    cost_error: float


@dataclass(frozen=True)
class Bench:
    """prompt_tokens_per_second: of one prompt of `prompt_tokens`; its first token comes after `first_token_seconds`.
    decode_tokens_per_second: by batch size. weight_bytes: of the model in memory; weight_bytes_per_token: read by one sequence
    for a token. read_bandwidth: of this machine, bytes per second; share: of it that one sequence reaches (None where no batch
    of 1 was measured). peak_memory: resident bytes, loading included. kernels: which ones ran, or why none did."""

    model: str
    dtype: str
    quantize: str | None
    prompt_tokens: int
    prompt_tokens_per_second: float
    first_token_seconds: float
    decode_tokens_per_second: dict[int, float]
    weight_bytes: int
    weight_bytes_per_token: int
    peak_memory: int
    read_bandwidth: float
    share: float | None
    machine: dict
    kernels: str
    exactness: Exactness | None


def bench(folder: Path, dtype: str = "auto", quantize: str | None = None, memory: str | None = None, text: Path | None = None,
          batches: Sequence[int] = BATCHES, prompt: int = 512, tokens: int = 64, rounds: int = 3,
          progress: Callable[[str], None] = lambda message: None) -> Bench:
    """Loads and measures a model: medians of `rounds` after a warm-up. Lengths are cut to the model's.

    text: for the accuracy of quantized weights; None lets the original model write one. progress: called with what comes next.

    Raises:
        UserError, RunError: as the engine's; or the text is unfit.
    """
    if text is not None and quantize is None:
        raise UserError("--text: is for what quantised weights cost. Add --quantize int8 or int4, or leave it out.")
    if dtype not in DTYPES:
        raise UserError(f"--dtype {dtype}: unknown. Choose {' or '.join(DTYPES)}.")
    max_model_len = ModelConfig.load(folder).max_position_embeddings
    prompt, tokens = min(prompt, max_model_len // 2), min(tokens, max_model_len - _DECODE_PROMPT)
    windows = None if text is None else text_file_windows(folder, text, max_model_len)
    progress("loading")
    model = LLM(folder, dtype=dtype, quantize=quantize, memory=memory, max_num_seqs=max(batches))
    measured = _measure(model, batches, prompt, tokens, rounds, progress)
    del model
    exactness = _exactness(folder, dtype, quantize, text, windows, max_model_len, progress) if quantize else None
    return Bench(model=str(origin(folder)), quantize=quantize, prompt_tokens=prompt, machine=machine(), kernels=str(describe()),
                 exactness=exactness, **measured)


def _measure(model: LLM, batches: Sequence[int], prompt: int, tokens: int, rounds: int,
             progress: Callable[[str], None]) -> dict:
    """The fields of Bench that speed and memory fill."""
    progress(f"prompts of {prompt} tokens")
    prefill, decoding = _median(lambda: prompt_rate(model, prompt), rounds), {}
    for batch in batches:
        progress(f"decoding {batch} at a time")
        decoding[batch] = _median(lambda batch=batch: decode_rate(model, batch, tokens), rounds)
    peak = peak_memory()  # before the bandwidth is measured on a block larger than many models
    progress("how fast this machine reads memory")
    bandwidth, (size, per_token) = read_bandwidth(), weight_bytes(model)
    return {"dtype": weight_type(model), "prompt_tokens_per_second": prefill, "first_token_seconds": prompt / prefill,
            "decode_tokens_per_second": decoding, "weight_bytes": size, "weight_bytes_per_token": per_token,
            "peak_memory": peak, "read_bandwidth": bandwidth,
            "share": decoding[1] * per_token / bandwidth if 1 in decoding else None}


def prompt_rate(model: LLM, length: int) -> float:
    """Tokens per second of one prompt of random ids, up to its first new token."""
    result = model.generate([_random_ids(model, length)], SamplingParams(max_tokens=1, ignore_eos=True))[0]
    return length / result.metrics.first_token


def decode_rate(model: LLM, batch: int, tokens: int) -> float:
    """Tokens per second of `batch` sequences that decode together, their first tokens not counted."""
    prompts = [_random_ids(model, _DECODE_PROMPT) for _ in range(batch)]
    results = model.generate(prompts, SamplingParams(temperature=1.0, top_p=1.0, max_tokens=tokens, ignore_eos=True, seed=0))
    times = [result.metrics for result in results]
    seconds = max(m.arrival + m.finish for m in times) - min(m.arrival + m.first_token for m in times)
    return sum(len(result.outputs[0].token_ids) - 1 for result in results) / seconds


def weight_type(model: LLM) -> str:
    """The data type of weights that are not quantized, and of the cache."""
    runner = model.core.runner
    return str(runner.dtype if isinstance(runner, NativeRunner) else runner.model.compute_dtype).removeprefix("torch.")


def weight_bytes(model: LLM) -> tuple[int, int]:
    """(bytes of the main model's weights in memory, of those that one sequence reads for a token). The embedding table counts
    for memory only: a token reads one row of it."""
    config, runner = model.config, model.core.runner
    if not isinstance(runner, NativeRunner):
        counts, itemsize = account(config), runner.model.compute_dtype.itemsize
        return counts.total_parameters * itemsize, counts.flops_per_token // 2 * itemsize
    drafting = ("eh_proj", f"{config.num_hidden_layers}.")  # the MTP module's
    sizes = {key: packed.nbytes for key, packed in runner.packed.items() if not key.startswith(drafting)}
    idle = sum(size * (config.n_routed_experts - config.num_experts_per_tok) // config.n_routed_experts
               for key, size in sizes.items() if ".experts_" in key)
    return sum(sizes.values()) + runner.embedding.nbytes, sum(sizes.values()) - idle


def _random_ids(model: LLM, length: int) -> list[int]:
    rng = random.Random(next(_seeds))
    return [rng.randrange(model.config.vocab_size) for _ in range(length)]


def _median(measure: Callable[[], float], rounds: int) -> float:
    return statistics.median([measure() for _ in range(rounds + 1)][1:])


def _exactness(folder: Path, dtype: str, quantize: str, text: Path | None, windows: list[list[int]] | None,
               max_model_len: int, progress: Callable[[str], None]) -> Exactness:
    """Holds one model at a time. The first token of each window is not scored."""
    gc.collect()
    progress("the unquantised weights, for what quantisation costs")
    model = LLM(folder, dtype=dtype, max_num_seqs=_SAMPLES)
    if windows is None:
        progress(f"writing {_SAMPLES} texts")
        windows = sample_texts(model, min(_SAMPLE_TOKENS, max_model_len - 2))
    exact = log_probabilities(model, windows)
    del model
    gc.collect()
    progress("the quantised weights again")
    quantized = log_probabilities(LLM(folder, dtype=dtype, quantize=quantize, max_num_seqs=_SAMPLES), windows)
    costs = [a - b for a, b in zip(exact, quantized)]
    perplexities = (math.exp(-statistics.fmean(logs)) for logs in (exact, quantized))
    return Exactness(str(text) if text else "written by the unquantised model", len(costs), *perplexities,
                     statistics.fmean(costs), statistics.stdev(costs) / math.sqrt(len(costs)))


def sample_texts(model: LLM, tokens: int) -> list[list[int]]:
    """Texts that the model writes at temperature 1 after its beginning of sentence (a random token where it has none)."""
    first = model.config.bos_token_id
    prompts = [[random.Random(0).randrange(model.config.vocab_size) if first is None else first]] * _SAMPLES
    params = [SamplingParams(temperature=1.0, top_p=1.0, max_tokens=tokens, ignore_eos=True, seed=seed)
              for seed in range(_SAMPLES)]
    results = model.generate(prompts, params)
    return [prompt + result.outputs[0].token_ids for prompt, result in zip(prompts, results)]


def text_file_windows(folder: Path, text: Path, max_model_len: int) -> list[list[int]]:
    """The file's tokens in windows, each begun as the model's texts begin."""
    try:
        tokenizer = load_tokenizer(folder)
        ids, start_ids = tokenizer.encode(text.read_text(encoding="utf-8")), tokenizer.start_ids
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--text {text}: cannot be read as text ({error}). Name a text file.") from error
    size = min(_WINDOW, max_model_len - 1 - len(start_ids))  # one token is generated after it
    windows = [start_ids + ids[start:start + size] for start in range(0, min(len(ids), size * _WINDOWS), size)]
    windows = [window for window in windows if len(window) > 1]
    if sum(map(len, windows)) < 3:
        raise UserError(f"--text {text}: has too few tokens to be judged. Name a longer text.")
    return windows


def log_probabilities(model: LLM, windows: list[list[int]]) -> list[float]:
    """Of each token but the first of its window."""
    results = model.generate(windows, SamplingParams(max_tokens=1, ignore_eos=True, prompt_logprobs=0))
    logprobs = [of_place[token] for result in results
                for token, of_place in zip(result.prompt_token_ids[1:], result.prompt_logprobs[1:])]
    if not all(map(math.isfinite, logprobs)):
        raise RunError("a token of the text has no finite log-probability: the weights are damaged, or overflow. Compute in "
                       "float32, or restore them.")
    return logprobs
