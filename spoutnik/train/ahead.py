"""Rollouts by weights that are some steps older than the policy, so that sampling and training can go on at the same time.

Which weights sample a step is a rule and no race: with staleness k, step t is sampled by the weights that step t - k begins
with (by the first ones, where there are none so old). So a run repeats to the byte, on any number of workers, and after a
restart: what was sampled for steps to come is part of a checkpoint.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from spoutnik.engine.outputs import CompletionOutput
from spoutnik.model.weights import load_tensors, save_tensors
from spoutnik.train.rollouts import DoneRollouts, PendingRollouts

_FILE = "ahead.safetensors"
_REASONS = ("stop", "length", "error", "abort")  # why a completion ended, by its number in the file

Groups = list[list[CompletionOutput]]


class RolloutsAhead:
    """begin: begins to sample a step's prompts by the weights of now. staleness: 0 samples each step when it is taken. steps:
    of the stage."""

    def __init__(self, begin: Callable[[int], PendingRollouts], staleness: int, steps: int):
        self.begin, self.staleness, self.steps = begin, staleness, steps
        self._begun: dict[int, tuple[int, PendingRollouts]] = {}  # step -> the step whose weights sample it, rollouts

    def take(self, step: int) -> tuple[Groups, int]:
        """The completions of a step, whose weights are those of now, and by how many steps those that sampled it are older."""
        for later in range(step, min(step + self.staleness, self.steps - 1) + 1):
            if later not in self._begun:
                self._begun[later] = step, self.begin(later)
        sampled_at, pending = self._begun.pop(step)
        return pending.result(), step - sampled_at

    def save(self, folder: Path) -> None:
        """Waits for what has begun."""
        steps = sorted(self._begun)
        tensors = {"steps": torch.tensor(steps, dtype=torch.long),
                   "sampled_at": torch.tensor([self._begun[step][0] for step in steps], dtype=torch.long)}
        for step in steps:
            tensors |= {f"{step}.{name}": tensor for name, tensor in _packed(self._begun[step][1].result()).items()}
        save_tensors(folder / _FILE, tensors)

    def load(self, folder: Path) -> None:
        tensors = load_tensors(folder / _FILE)
        for step, sampled_at in zip(tensors["steps"].tolist(), tensors["sampled_at"].tolist()):
            own = {name.partition(".")[2]: tensor for name, tensor in tensors.items() if name.startswith(f"{step}.")}
            self._begun[step] = sampled_at, DoneRollouts(_unpacked(own))


def _packed(groups: Groups) -> dict[str, Tensor]:
    flat = [completion for group in groups for completion in group]
    return {"groups": torch.tensor([len(group) for group in groups]),
            "lengths": torch.tensor([len(completion.token_ids) for completion in flat]),
            "reasons": torch.tensor([_REASONS.index(completion.finish_reason) for completion in flat]),
            "token_ids": torch.tensor([i for completion in flat for i in completion.token_ids], dtype=torch.int32),
            "logprobs": torch.tensor([p for completion in flat for p in completion.logprobs], dtype=torch.float32)}


def _unpacked(tensors: dict[str, Tensor]) -> Groups:
    lengths = tensors["lengths"].tolist()
    rows = zip(tensors["token_ids"].split(lengths), tensors["logprobs"].split(lengths), tensors["reasons"].tolist())
    return [[CompletionOutput(index, "", ids.tolist(), logprobs.tolist(), finish_reason=_REASONS[reason])
             for index, (ids, logprobs, reason) in zip(range(count), rows)] for count in tensors["groups"].tolist()]
