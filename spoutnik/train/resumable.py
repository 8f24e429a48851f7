"""Generation that survives its process: what has been generated is written down every few seconds, and gone on from.

A token is a function of (weights, prompt, seed, position), so a completion goes on from any of its tokens to the same end.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from spoutnik.engine.llm import LLM
from spoutnik.engine.outputs import CompletionOutput, RequestOutput
from spoutnik.engine.request import Request
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.files import sha256_json
from spoutnik.model.weights import load_tensors, save_tensors
from spoutnik.train.loop import Checkpoints, Cost, Stopwatch

_REASONS = (None, "stop", "length")  # why a completion ended, by its number in the file


class ResumableLLM:
    """An LLM whose `generate` goes on where the process before was killed, for prompts of token ids.

    One file for each call, named by all that decides its tokens beside the weights: `checkpoints.folder` belongs to one model.
    spent: what earlier processes used, as far as they wrote it down.
    """

    def __init__(self, llm: LLM, checkpoints: Checkpoints):
        self.llm, self.checkpoints = llm, checkpoints
        self.spent = _spent(checkpoints.folder)
        self._watch = Stopwatch()
        self._used = self.spent

    def generate(self, prompts: Sequence[list[int]], params: SamplingParams, *, seed: int,
                 on_progress: Callable[[int, int], None] | None = None) -> list[RequestOutput]:
        """As LLM.generate does. Of what an earlier process had, `on_progress` hears in its first call."""
        assert not params.stop and not params.stop_token_ids, "the file has no place for what ended a completion"
        requests = self.llm.requests_of(list(prompts), params, seed)
        identity = sha256_json([list(prompts), str(params), seed])
        path = self.checkpoints.folder / f"{identity[:32]}.safetensors"
        generated = _read(path, requests) if path.exists() else []
        if generated and on_progress is not None:
            outputs = [output for of_prompt in generated for output in of_prompt]
            on_progress(sum(len(o.token_ids) for o in outputs), sum(o.finish_reason is not None for o in outputs))
        last = time.perf_counter()

        def after_step(tokens: int, ended: int) -> None:
            nonlocal last
            if on_progress is not None:
                on_progress(tokens, ended)
            if time.perf_counter() - last > self.checkpoints.every_seconds:
                self._write(path, requests)
                last = time.perf_counter()

        outputs = self.llm.run(requests, after_step, generated)
        self._write(path, requests)
        return outputs

    def _write(self, path: Path, requests: list[Request]) -> None:
        samples = [sample for request in requests for sample in request.samples]
        tokens, logprobs = [], []
        for sample in samples:
            ids, probabilities = self.llm.core.tokens_of(sample)
            tokens.append(ids)
            logprobs.append(probabilities)
        self._used = self._used + self._watch.lap()
        save_tensors(path, {
            "counts": torch.tensor([len(ids) for ids in tokens]),
            "reasons": torch.tensor([_REASONS.index(s.finish_reason) if s.finish_reason in _REASONS else 0 for s in samples]),
            "token_ids": torch.tensor([i for ids in tokens for i in ids], dtype=torch.int32),
            "logprobs": torch.tensor([p for of_sample in logprobs for p in of_sample], dtype=torch.float32),
            "spent": torch.tensor([self._used.seconds, self._used.core_seconds], dtype=torch.float64)})


def _read(path: Path, requests: list[Request]) -> list[list[CompletionOutput]]:
    """What each request's samples had."""
    tensors = load_tensors(path)
    counts = tensors["counts"].tolist()
    ids, logprobs = (tensors[name].split(counts) for name in ("token_ids", "logprobs"))
    outputs = iter([CompletionOutput(token_ids=i.tolist(), logprobs=p.tolist(), finish_reason=_REASONS[reason])
                    for i, p, reason in zip(ids, logprobs, tensors["reasons"].tolist(), strict=True)])
    return [[next(outputs) for _ in range(request.params.n)] for request in requests]


def _spent(folder: Path) -> Cost:
    """The most that any of the files tells: each counts from the beginning."""
    spent = [load_tensors(path)["spent"].tolist() for path in folder.glob("*.safetensors")]
    return Cost(*max(spent, default=(0.0, 0.0)))
