"""`spoutnik bench`: how fast a model runs on this machine, how near that is to the speed of its memory, and what quantised
weights cost in exactness. The rates are what a user of `spoutnik.LLM` gets: sampling and scheduling are in them.
"""

import gc
import math
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

from spoutnik.engine.llm import LLM
from spoutnik.engine.runners.native_runner import NativeRunner
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.errors import RunError, UserError
from spoutnik.hardware import machine, peak_memory
from spoutnik.loading import load_tokenizer
from spoutnik.model.accounting import account
from spoutnik.model.config import ModelConfig
from spoutnik.native import describe
from spoutnik.native.bandwidth import read_bandwidth

BATCHES, DTYPES = (1, 8, 32), ("auto", "float32", "bfloat16")
_START = 16  # tokens of the prompts before decoding: 32 of them fit in one step, so that all sequences start together
_SAMPLES, _SAMPLED = 4, 256  # of the text that a model writes itself
_WINDOW, _WINDOWS = 512, 16  # of a text that is given: tokens that are judged together, and how many such pieces at most
_seeds = count()  # no prompt twice: what the engine remembers of it would be measured


@dataclass(frozen=True)
class Exactness:
    """What quantised weights make of a text, against those that they were made from. text: where it is from. perplexity: of
    a token. cost: by how much less likely a token becomes, as the mean difference of its log-probability, with the standard
    error of that mean. Where the model wrote the text itself, cost estimates the Kullback-Leibler divergence."""

    text: str
    tokens: int
    perplexity: float
    quantised_perplexity: float
    cost: float
    cost_error: float


@dataclass(frozen=True)
class Bench:
    """prompt_tokens_per_second: of a prompt of `prompt_tokens`, alone; its first token comes after `first_token_seconds`.
    decode_tokens_per_second: of so many sequences together. weight_bytes: of the model in memory; weight_bytes_per_token: of
    those that one sequence reads for a token. read_bandwidth: bytes per second that this machine reads; share: of it,
    reached with one sequence (None where no batch of 1 was measured). peak_memory: bytes resident at most, loading
    included. kernels: which ones ran, or why none did."""

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

    def as_json(self) -> dict:
        return asdict(self)


def bench(folder: Path, dtype: str = "auto", quantize: str | None = None, memory: str | None = None, text: Path | None = None,
          batches: Sequence[int] = BATCHES, prompt: int = 512, tokens: int = 64, rounds: int = 3,
          progress: Callable[[str], None] = lambda said: None) -> Bench:
    """Loads a model and measures it: medians of `rounds`, after one that does not count. Lengths shrink to the model's.

    text: for the exactness of quantised weights; None lets the unquantised model write one. progress: told what comes next.

    Raises:
        UserError, RunError: a sentence, as the engine's own; or the text cannot be judged.
    """
    if text is not None and quantize is None:
        raise UserError("--text: is for what quantised weights cost. Add --quantize int8 or int4, or leave it out.")
    if dtype not in DTYPES:
        raise UserError(f"--dtype {dtype}: unknown. Choose {' or '.join(DTYPES)}.")
    longest = ModelConfig.load(folder).max_position_embeddings
    prompt, tokens = min(prompt, longest // 2), min(tokens, longest - _START)
    windows = None if text is None else _windows(folder, text, longest)
    progress("loading")
    model = LLM(folder, dtype=dtype, quantize=quantize, memory=memory, max_num_seqs=max(batches))
    found = _measure(model, batches, prompt, tokens, rounds, progress)
    del model
    exactness = _exactness(folder, dtype, quantize, text, windows, longest, progress) if quantize else None
    return Bench(model=str(folder), quantize=quantize, prompt_tokens=prompt, machine=machine(), kernels=str(describe()),
                 exactness=exactness, **found)


def _measure(model: LLM, batches: Sequence[int], prompt: int, tokens: int, rounds: int,
             progress: Callable[[str], None]) -> dict:
    """The fields of Bench that speed and memory fill."""
    progress(f"prompts of {prompt} tokens")
    reading, decoding = _median(lambda: prompt_rate(model, prompt), rounds), {}
    for batch in batches:
        progress(f"decoding {batch} at a time")
        decoding[batch] = _median(lambda batch=batch: decode_rate(model, batch, tokens), rounds)
    peak = peak_memory()  # before a block is read that is larger than many a model
    progress("how fast this machine reads memory")
    bandwidth, (size, per_token) = read_bandwidth(), weight_bytes(model)
    return {"dtype": weight_type(model), "prompt_tokens_per_second": reading, "first_token_seconds": prompt / reading,
            "decode_tokens_per_second": decoding, "weight_bytes": size, "weight_bytes_per_token": per_token,
            "peak_memory": peak, "read_bandwidth": bandwidth,
            "share": decoding[1] * per_token / bandwidth if 1 in decoding else None}


def print_bench(found: Bench, console) -> None:
    """As a table, on a console of rich."""
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for justify in ("left", "right", "left"):
        table.add_column(justify=justify)
    for row in _rows(found):
        table.add_row(*row)
    console.print(table)


def _rows(found: Bench) -> Iterator[tuple[str, str, str]]:
    yield ("prompt", f"{found.prompt_tokens_per_second:,.1f}", f"tokens/s, {found.prompt_tokens} tokens alone; the first "
           f"new token after {found.first_token_seconds * 1000:,.0f} ms")
    for batch, rate in found.decode_tokens_per_second.items():
        yield f"decode {batch} at once", f"{rate:,.1f}", "tokens/s" + (f", {rate / batch:,.1f} each" if batch > 1 else "")
    if found.share is not None:
        yield ("of memory's speed", f"{found.share:.0%}", f"by one sequence, reading "
               f"{found.weight_bytes_per_token / 1e6:,.1f} MB of weights a token; this machine reads "
               f"{found.read_bandwidth / 1e9:.1f} GB/s")
    yield ("memory", f"{found.peak_memory / 1e9:,.2f}", f"GB at most; the weights are {found.weight_bytes / 1e9:,.3f} GB "
           f"({found.quantize or found.dtype})")
    yield "kernels", "", found.kernels
    if found.exactness is not None:
        cost = found.exactness
        yield ("perplexity", f"{cost.quantised_perplexity:,.3f}", f"with {found.quantize}, {cost.perplexity:,.3f} without: "
               f"{cost.cost:+.4f} nats a token (standard error {cost.cost_error:.4f})")
        yield "", "", f"on {cost.tokens:,} tokens; text: {cost.text}"


def prompt_rate(model: LLM, length: int) -> float:
    """Tokens per second of one prompt of random ids, until its first token is there."""
    result = model.generate([_random_ids(model, length)], SamplingParams(max_tokens=1, ignore_eos=True))[0]
    return length / result.metrics.first_token


def decode_rate(model: LLM, batch: int, tokens: int) -> float:
    """Tokens per second of `batch` sequences that decode together: those after the first ones, by the time in between."""
    prompts = [_random_ids(model, _START) for _ in range(batch)]
    results = model.generate(prompts, SamplingParams(temperature=1.0, top_p=1.0, max_tokens=tokens, ignore_eos=True, seed=0))
    times = [result.metrics for result in results]
    seconds = max(m.arrival + m.finish for m in times) - min(m.arrival + m.first_token for m in times)
    return sum(len(result.outputs[0].token_ids) - 1 for result in results) / seconds


def weight_type(model: LLM) -> str:
    """Of weights that are not quantised, and of the cache."""
    runner = model.core.runner
    return str(runner.dtype if isinstance(runner, NativeRunner) else runner.model.compute_dtype).removeprefix("torch.")


def weight_bytes(model: LLM) -> tuple[int, int]:
    """(of the main model's weights in memory, of those that one sequence reads for a token): matrices, and in memory the
    embedding table, of which a token reads one row."""
    config, runner = model.config, model.core.runner
    if not isinstance(runner, NativeRunner):
        counts, each = account(config), runner.model.compute_dtype.itemsize
        return counts.total_parameters * each, counts.flops_per_token // 2 * each
    drafting = ("eh_proj", f"{config.num_hidden_layers}.")  # the MTP module's
    sizes = {key: packed.nbytes for key, packed in runner.packed.items() if not key.startswith(drafting)}
    idle = sum(size * (config.n_routed_experts - config.num_experts_per_tok) // config.n_routed_experts
               for key, size in sizes.items() if ".experts_" in key)
    return sum(sizes.values()) + runner.embedding.nbytes, sum(sizes.values()) - idle


def _random_ids(model: LLM, length: int) -> list[int]:
    draw = random.Random(next(_seeds))
    return [draw.randrange(model.config.vocab_size) for _ in range(length)]


def _median(measure: Callable[[], float], rounds: int) -> float:
    return statistics.median([measure() for _ in range(rounds + 1)][1:])


def _exactness(folder: Path, dtype: str, quantize: str, text: Path | None, windows: list[list[int]] | None,
               longest: int, progress: Callable[[str], None]) -> Exactness:
    """Both models are held in turn, not together. The first token of each window is given, not judged."""
    gc.collect()
    progress("the unquantised weights, for what quantisation costs")
    model = LLM(folder, dtype=dtype, max_num_seqs=_SAMPLES)
    if windows is None:
        progress(f"writing {_SAMPLES} texts")
        windows = _written(model, min(_SAMPLED, longest - 2))
    exact = _log_probabilities(model, windows)
    del model
    gc.collect()
    progress("the quantised weights again")
    quantised = _log_probabilities(LLM(folder, dtype=dtype, quantize=quantize, max_num_seqs=_SAMPLES), windows)
    lost = [a - b for a, b in zip(exact, quantised)]
    perplexities = (math.exp(-statistics.fmean(logs)) for logs in (exact, quantised))
    return Exactness(str(text) if text else "written by the unquantised model", len(lost), *perplexities,
                     statistics.fmean(lost), statistics.stdev(lost) / math.sqrt(len(lost)))


def _written(model: LLM, tokens: int) -> list[list[int]]:
    """What the model writes at temperature 1 after its beginning of sentence (a random token where it has none)."""
    first = model.config.bos_token_id
    prompts = [[random.Random(0).randrange(model.config.vocab_size) if first is None else first]] * _SAMPLES
    asked = [SamplingParams(temperature=1.0, top_p=1.0, max_tokens=tokens, ignore_eos=True, seed=seed)
             for seed in range(_SAMPLES)]
    results = model.generate(prompts, asked)
    return [prompt + result.outputs[0].token_ids for prompt, result in zip(prompts, results)]


def _windows(folder: Path, text: Path, longest: int) -> list[list[int]]:
    """The file's tokens in pieces."""
    try:
        ids = load_tokenizer(folder).encode(text.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--text {text}: cannot be read as text ({error}). Name a text file.") from error
    size = min(_WINDOW, longest - 1)  # a token is generated behind it
    windows = [ids[start:start + size] for start in range(0, min(len(ids), size * _WINDOWS), size)]
    windows = [window for window in windows if len(window) > 1]
    if sum(map(len, windows)) < 3:
        raise UserError(f"--text {text}: has too few tokens to be judged. Name a longer text.")
    return windows


def _log_probabilities(model: LLM, windows: list[list[int]]) -> list[float]:
    """Of each token after the first of its window."""
    asked = SamplingParams(max_tokens=1, ignore_eos=True, prompt_logprobs=0)
    results = model.generate(windows, asked)
    found = [likely[token] for result in results
             for token, likely in zip(result.prompt_token_ids[1:], result.prompt_logprobs[1:])]
    if not all(map(math.isfinite, found)):
        raise RunError("a token of the text has no finite log-probability: the weights are damaged, or overflow. Compute in "
                       "float32, or restore them.")
    return found
