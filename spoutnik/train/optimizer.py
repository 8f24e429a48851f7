"""Muon for the matrices inside the network, AdamW for everything else (embedding, head, router, norms, biases)."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from spoutnik.parallel import on_all_cores
from spoutnik.train.muon import Muon

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
    """One step over AdamW and, where asked for, Muon. One learning rate serves both."""

    def __init__(self, model: nn.Module, name: Literal["adamw", "muon"], learning_rate: float, weight_decay: float,
                 max_grad_norm: float):
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.max_grad_norm = max_grad_norm
        matrices = set()
        if name == "muon":
            matrices = {id(p) for n, p in model.named_parameters()
                        if p.dim() >= 2 and not any(part in n for part in ("embed_tokens", "lm_head", ".gate.", "score"))}
        muon = sorted((p for p in self.parameters if id(p) in matrices), key=torch.numel, reverse=True)
        rest = [p for p in self.parameters if id(p) not in matrices]
        decayed, free = [p for p in rest if p.dim() >= 2], [p for p in rest if p.dim() < 2]
        self.parts: dict[str, torch.optim.Optimizer] = {"adamw": torch.optim.AdamW(
            [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}],
            lr=learning_rate, betas=(0.9, 0.95), eps=1e-10, foreach=True)}
        for part in range(min(_MUON_PARTS, len(muon))):
            self.parts[f"muon{part}"] = Muon(muon[part::_MUON_PARTS], learning_rate, weight_decay)
        self.peak = learning_rate

    def step(self, gradients: list[Tensor], factor: float) -> float:
        """Clips to `max_grad_norm`, moves the weights at `factor` of the peak rate; returns the norm before clipping."""
        norm = torch.stack(torch._foreach_norm(gradients)).norm()
        torch._foreach_mul_(gradients, torch.clamp(self.max_grad_norm / (norm + 1e-6), max=1.0))
        for parameter, gradient in zip(self.parameters, gradients):
            parameter.grad = gradient
        for part in self.parts.values():
            for group in part.param_groups:
                group["lr"] = self.peak * factor
        on_all_cores(lambda part: part.step(), list(self.parts.values()), norm.device)
        return float(norm)

    def tensors(self) -> dict[str, Tensor]:
        """The whole state as named tensors (safetensors holds it; nothing is pickled)."""
        return {f"{part}.{index}.{key}": torch.as_tensor(value)
                for part, optimizer in self.parts.items()
                for index, state in optimizer.state_dict()["state"].items() for key, value in state.items()}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        for part, optimizer in self.parts.items():
            saved = optimizer.state_dict()
            saved["state"] = {}
            for name, tensor in tensors.items():
                owner, index, key = name.split(".")
                if owner == part:
                    saved["state"].setdefault(int(index), {})[key] = tensor
            optimizer.load_state_dict(saved)
