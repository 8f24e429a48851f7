"""Rollouts by weights that are some steps older than the policy, so that sampling and training can go on at the same time.

Which weights sample a step is a rule and no race: with staleness k, step t is sampled by the weights that step t - k begins
with (by the first ones, where there are none so old). So a run repeats to the byte, on any number of workers, and after a
restart: what was sampled for steps to come is part of a checkpoint.
"""

from collections.abc import Callable
from pathlib import Path

import torch

from spoutnik.engine.outputs import CompletionOutput
from spoutnik.model.weights import load_tensors, save_tensors
from spoutnik.train.resumable import group_tensors, groups_of
from spoutnik.train.rollouts import DoneRollouts, PendingRollouts

_FILE = "ahead.safetensors"


class RolloutsAhead:
    """begin: begins to sample a step's prompts by the weights of now. staleness: 0 samples each step when it is taken. steps:
    of the stage."""

    def __init__(self, begin: Callable[[int], PendingRollouts], staleness: int, steps: int):
        self.begin, self.staleness, self.steps = begin, staleness, steps
        self._begun: dict[int, tuple[int, PendingRollouts]] = {}  # step -> the step whose weights sample it, rollouts

    def take(self, step: int) -> tuple[list[list[CompletionOutput]], int]:
        """The completions of a step, whose weights are those of now, and by how many steps those that sampled it are older."""
        for later in range(step, min(step + self.staleness, self.steps - 1) + 1):
            if later not in self._begun:
                self._begun[later] = step, self.begin(later)
        sampled_at, pending = self._begun.pop(step)
        return pending.result(), step - sampled_at

    def save(self, folder: Path) -> None:
        """By the process that writes; waits for what has begun."""
        steps, tensors = sorted(self._begun), {}
        for step in steps:
            groups = self._begun[step][1].result_on_main()
            tensors |= {f"{step}.{name}": tensor for name, tensor in group_tensors(groups).items()}
            tensors[f"{step}.n"] = torch.tensor(len(groups[0]))
        save_tensors(folder / _FILE, tensors | {
            "steps": torch.tensor(steps, dtype=torch.long),
            "sampled_at": torch.tensor([self._begun[step][0] for step in steps], dtype=torch.long)})

    def load(self, folder: Path) -> None:
        tensors = load_tensors(folder / _FILE)
        for step, sampled_at in zip(tensors["steps"].tolist(), tensors["sampled_at"].tolist()):
            own = {name.partition(".")[2]: tensor for name, tensor in tensors.items() if name.startswith(f"{step}.")}
            self._begun[step] = sampled_at, DoneRollouts(groups_of(own, int(own["n"])))
