"""Muon for the matrices inside the network, AdamW for everything else (embedding, head, router, norms, biases)."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from spoutnik.model.parts import Part
from spoutnik.parallel import on_all_cores
from spoutnik.train.muon import Muon, orthogonalized
from spoutnik.world import world

# Muon's Newton-Schulz products are small and many: they are dealt out to this many optimizers, which the cores share. A
# fixed number, so that a checkpoint does not depend on the machine.
_MUON_PARTS = 8


@dataclass(frozen=True)
class Schedule:
    """Learning rate: linear warm-up, then constant, cosine to `final_share` of the peak, or (wsd) linear at the end."""

    shape: Literal["constant", "cosine", "wsd"]
    steps: int
    warmup: int
    final_share: float = 0.1

    def factor(self, step: int) -> float:
        """The share of the peak learning rate at `step` (0-based)."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        if self.shape == "constant":
            return 1.0
        if self.shape == "cosine":
            progress = (step - self.warmup) / max(self.steps - self.warmup, 1)
            return self.final_share + (1 - self.final_share) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
        left = (self.steps - step) / max(0.2 * self.steps, 1)
        return self.final_share + (1 - self.final_share) * min(left, 1.0)


class Optimizer:
    """One step over AdamW and, where asked for, Muon. One learning rate serves both.

    Of a model that is divided among processes (scale/sharding.py) each moves its rows. Its state has the names and, put
    together, the shapes of one process's.
    """

    def __init__(self, model: nn.Module, name: Literal["adamw", "muon"], learning_rate: float, weight_decay: float,
                 max_grad_norm: float):
        self.division = getattr(model, "division", None)
        if self.division is not None:
            self.division.reshard()
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        self.parameters = [p for _, p in named]
        self.max_grad_norm = max_grad_norm
        self.held = [Part.whole(p) for p in self.parameters] if self.division is None else [
            self.division.part(n, p) for n, p in named]
        matrices = [i for i, (n, _) in enumerate(named) if name == "muon" and len(self.held[i].shape) >= 2
                    and not any(part in n for part in ("embed_tokens", "lm_head", ".gate.", "score"))]
        muon = sorted(matrices, key=lambda i: math.prod(self.held[i].shape), reverse=True)
        rest = [i for i in range(len(named)) if i not in matrices]
        decayed, free = ([i for i in rest if (len(self.held[i].shape) >= 2) == is_matrix] for is_matrix in (True, False))
        self._rows = [part.rows for part in self.held]  # what the optimizers move
        self._owners = {"adamw": [*decayed, *free]}  # part -> numbers of its parameters, in its order
        self.parts: dict[str, torch.optim.Optimizer] = {"adamw": torch.optim.AdamW(
            [{"params": [self._rows[i] for i in decayed], "weight_decay": weight_decay},
             {"params": [self._rows[i] for i in free], "weight_decay": 0.0}],
            lr=learning_rate, betas=(0.9, 0.95), eps=1e-10, foreach=True)}
        together = orthogonalized if self.division is None else self.division.orthogonalized
        for part in range(min(_MUON_PARTS, len(muon))):
            self._owners[f"muon{part}"] = own = muon[part::_MUON_PARTS]
            self.parts[f"muon{part}"] = Muon([self._rows[i] for i in own], learning_rate, weight_decay,
                                             [self.held[i] for i in own], together)
        self.peak = learning_rate

    def step(self, gradients: list[Tensor], factor: float) -> float:
        """Clips to `max_grad_norm`, moves the weights at `factor` of the peak rate; returns the norm before clipping."""
        norm = torch.stack(torch._foreach_norm(gradients)).norm() if self.division is None else self.division.norm(gradients)
        torch._foreach_mul_(gradients, torch.clamp(self.max_grad_norm / (norm + 1e-6), max=1.0))
        for rows, gradient in zip(self._rows, gradients):
            rows.grad = gradient
        for part in self.parts.values():
            for group in part.param_groups:
                group["lr"] = self.peak * factor
        if self.division is None:
            on_all_cores(lambda part: part.step(), list(self.parts.values()), norm.device)
        else:  # one after another, since processes exchange matrices in Muon's
            for part in self.parts.values():
                part.step()
        return float(norm)

    def tensor_parts(self) -> dict[str, Part]:
        """The whole state by name, of which this process has these rows."""
        parts = {}
        for name, tensor in self.tensors().items():
            owner, index, _ = name.split(".")
            of = self.held[self._owners[owner][int(index)]]
            parts[name] = Part(tensor, of.start, of.shape) if tensor.dim() else Part.whole(tensor, not world().is_main)
        return parts

    def tensors(self) -> dict[str, Tensor]:
        """The whole state as named tensors (safetensors holds it; nothing is pickled)."""
        return {f"{part}.{index}.{key}": torch.as_tensor(value)
                for part, optimizer in self.parts.items()
                for index, state in optimizer.state_dict()["state"].items() for key, value in state.items()}

    def parts_of(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, Part]:
        """Room for what this process has of a saved state, by names and whole shapes."""
        parts = {}
        for name, shape in shapes.items():
            owner, index, _ = name.split(".")
            of = self.held[self._owners[owner][int(index)]]
            parts[name] = Part(torch.empty_like(of.rows), of.start, of.shape) if shape else Part.whole(torch.empty(()))
        return parts

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        for part, optimizer in self.parts.items():
            saved = optimizer.state_dict()
            saved["state"] = {}
            for name, tensor in tensors.items():
                owner, index, key = name.split(".")
                if owner == part:
                    saved["state"].setdefault(int(index), {})[key] = tensor
            optimizer.load_state_dict(saved)
