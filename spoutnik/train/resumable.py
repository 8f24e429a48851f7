"""Generation that survives its process: what has been generated is written down every few seconds, and gone on from.

A token is a function of (weights, prompt, seed, position), so a completion goes on from any of its tokens to the same end.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from spoutnik.engine.llm import LLM
from spoutnik.engine.outputs import CompletionOutput, RequestOutput
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.files import sha256_json
from spoutnik.model.weights import load_tensors, save_tensors
from spoutnik.train.loop import Checkpoints, Cost, Stopwatch, counted_once, kept_for_all
from spoutnik.train.rollouts import PolicySampler, beating, cost_elsewhere, in_order
from spoutnik.world import main_only, world

_REASONS = (None, "stop", "length")  # why a completion ended, by its number in the file
_SPENT = ("seconds", "core_seconds", "gpu_seconds", "joules", "metered_seconds")  # the numbers of a file's `spent`


class ResumableLLM:
    """An LLM whose `generate` goes on where the process before was killed, for prompts of token ids.

    One file for each call, named by all that decides its tokens beside the weights: `checkpoints.folder` belongs to one model.
    Where several processes work on the run, each writes down its part of a call, and rank 0 the whole one when it has ended.
    spent: what earlier processes used, as far as they wrote it down.
    """

    def __init__(self, llm: LLM, checkpoints: Checkpoints):
        self.llm, self.checkpoints = llm, checkpoints
        self._kept = main_only(lambda: _spent(checkpoints.folder))
        self.spent = counted_once(self._kept)
        self._watch, self._own = Stopwatch(), Cost()

    def generate(self, prompts: Sequence[list[int]], params: SamplingParams, *, seed: int,
                 on_progress: Callable[[int, int], None] | None = None) -> list[RequestOutput]:
        """As LLM.generate does. Of what an earlier process had, `on_progress` hears in its first call."""
        assert not params.stop and not params.stop_token_ids, "the file has no place for what ended a completion"
        here = world()
        numbers = range(here.rank, len(prompts), here.size)
        requests = self.llm.requests_of([prompts[number] for number in numbers], params, seed, numbers=numbers)
        path = _file_of(self.checkpoints.folder, prompts, params, seed)
        own = path if here.size == 1 else path.with_stem(f"{path.stem}-{here.rank}-of-{here.size}")
        whole = main_only(path.exists)
        generated = _read(path, params.n)[here.rank::here.size] if whole else _read(own, params.n) if own.exists() else []
        if generated and on_progress is not None:
            outputs = [output for of_prompt in generated for output in of_prompt]
            on_progress(sum(len(o.token_ids) for o in outputs), sum(o.finish_reason is not None for o in outputs))
        last = time.perf_counter()

        def after_step(tokens: int, ended: int) -> None:
            nonlocal last
            if on_progress is not None:
                on_progress(tokens, ended)
            if time.perf_counter() - last > self.checkpoints.every_seconds:
                self._write(own, [(*self.llm.core.tokens_of(sample), sample.finish_reason)
                                  for request in requests for sample in request.samples])
                last = time.perf_counter()

        outputs = self.llm.run(requests, beating(after_step), generated)
        if here.size > 1:
            outputs = in_order(prompts, here.gather_dealt([output.outputs for output in outputs]))
        if here.is_main:
            self._write(path, [(c.token_ids, c.logprobs, c.finish_reason) for output in outputs for c in output.outputs])
        if own != path:
            own.unlink(missing_ok=True)
        return outputs

    def _write(self, path: Path, completions: Sequence[tuple[list[int], list[float], str | None]]) -> None:
        self._own = self._own + self._watch.lap()
        spent = _spent_tensor(kept_for_all(self._kept + self._own, self._own))
        save_tensors(path, completion_tensors(completions) | {"spent": spent})


class KeptCalls:
    """A model that is sampled elsewhere, whose finished calls are kept in the same files: it goes on after the last of them.
    engine: of a model that does not change."""

    def __init__(self, engine: PolicySampler, checkpoints: Checkpoints):
        self.engine, self.folder = engine, checkpoints.folder
        self._kept = main_only(lambda: _spent(checkpoints.folder))
        self.spent = counted_once(self._kept)
        self._watch, self._own = Stopwatch(), Cost()

    def generate(self, prompts: Sequence[list[int]], params: SamplingParams, *, seed: int) -> list[RequestOutput]:
        """As LLM.generate does."""
        path = _file_of(self.folder, prompts, params, seed)
        if main_only(path.exists):
            return in_order(prompts, _read(path, params.n))
        groups = self.engine.begin(prompts, params, seed).result()
        elsewhere = cost_elsewhere(self.engine.take_metrics())
        self.spent = self.spent + elsewhere
        self._kept, self._own = self._kept + elsewhere, self._own + self._watch.lap()
        if world().is_main:
            spent = _spent_tensor(kept_for_all(self._kept + self._own, self._own))
            save_tensors(path, group_tensors(groups) | {"spent": spent})
        return in_order(prompts, groups)


def _file_of(folder: Path, prompts: Sequence[list[int]], params: SamplingParams, seed: int) -> Path:
    return folder / f"{sha256_json([list(prompts), str(params), seed])[:32]}.safetensors"


def completion_tensors(completions: Sequence[tuple[list[int], list[float], str | None]]) -> dict[str, Tensor]:
    """Completions, ended or not, as a file keeps them: token ids, their log-probabilities, why it ended."""
    return {"counts": torch.tensor([len(ids) for ids, _, _ in completions]),
            "reasons": torch.tensor([_REASONS.index(reason) if reason in _REASONS else 0 for _, _, reason in completions]),
            "token_ids": torch.tensor([i for ids, _, _ in completions for i in ids], dtype=torch.int32),
            "logprobs": torch.tensor([p for _, of_sample, _ in completions for p in of_sample], dtype=torch.float32)}


def group_tensors(groups: Sequence[Sequence[CompletionOutput]]) -> dict[str, Tensor]:
    """`completion_tensors` of the completions of several prompts."""
    return completion_tensors([(c.token_ids, c.logprobs, c.finish_reason) for group in groups for c in group])


def _read(path: Path, n: int) -> list[list[CompletionOutput]]:
    """What each prompt's n samples had."""
    return groups_of(load_tensors(path), n)


def groups_of(tensors: Mapping[str, Tensor], n: int) -> list[list[CompletionOutput]]:
    """Of what `completion_tensors` made, n completions of each prompt."""
    counts = tensors["counts"].tolist()
    ids, logprobs = (tensors[name].split(counts) for name in ("token_ids", "logprobs"))
    outputs = [CompletionOutput(number % n, token_ids=i.tolist(), logprobs=p.tolist(), finish_reason=_REASONS[reason])
               for number, (i, p, reason) in enumerate(zip(ids, logprobs, tensors["reasons"].tolist(), strict=True))]
    return [outputs[start:start + n] for start in range(0, len(outputs), n)]


def _spent(folder: Path) -> Cost:
    """The most that any of the files tells: each counts from the beginning. (Older files have the first two numbers.)"""
    spent = [load_tensors(path)["spent"].tolist() for path in folder.glob("*.safetensors")]
    return Cost(**dict(zip(_SPENT, max(spent, default=()))))


def _spent_tensor(cost: Cost) -> Tensor:
    return torch.tensor([getattr(cost, name) for name in _SPENT], dtype=torch.float64)
