"""Muon (Jordan et al. 2024) with Moonshot's scaling (arXiv 2502.16982): momentum, made orthogonal by Newton-Schulz.

torch.optim.Muon multiplies in bfloat16 whatever the processor: where that is not in hardware, one matrix of 128 x 192 takes
40 times as long as in float32 (docs/results.md). This one computes in float32, which at these sizes is as fast even where
bfloat16 is in hardware, and gives all machines the same numbers; stacked experts are one batched product.
"""

import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from spoutnik.model.parts import Part

_A, _B, _C = 3.4445, -4.7750, 2.0315  # the quintic's coefficients, of Jordan
_STEPS, _EPSILON = 5, 1e-7
_MOMENTUM = 0.95


def orthogonalize(matrices: Tensor) -> Tensor:
    """Newton-Schulz: (n, rows, columns) to matrices with the same singular vectors and singular values near 1."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=_EPSILON)
    for _ in range(_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return x.mT if tall else x


Update = tuple[Tensor, Part]  # momentum of the rows of a parameter that are here, and which rows these are


def orthogonalized(updates: Iterator[Update]) -> Iterator[Tensor]:
    """Each of whole matrices, (..., rows, columns)."""
    for update, _ in updates:
        yield orthogonalize(update.reshape(-1, *update.shape[-2:])).view_as(update)


class Muon(torch.optim.Optimizer):
    """Nesterov momentum of 0.95; parameters of two dimensions, or of three for stacked matrices. One learning rate serves Muon
    and AdamW: an update has the root mean square of AdamW's, 0.2.

    Args:
        parts: what is here of each parameter; None where that is all.
        orthogonalized: brings the rows of a divided matrix together (scale/sharding.py).
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float, weight_decay: float, parts: Iterable[Part] | None = None,
                 orthogonalized: Callable[[Iterator[Update]], Iterator[Tensor]] = orthogonalized):
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})
        held = [parameter for group in self.param_groups for parameter in group["params"]]
        self._parts = dict(zip(held, map(Part.whole, held) if parts is None else parts))
        self._orthogonalized = orthogonalized

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            moved = [parameter for parameter in group["params"] if parameter.grad is not None]
            updates = self._orthogonalized((self._momentum(parameter), self._parts[parameter]) for parameter in moved)
            for parameter, update in zip(moved, updates):
                shape = self._parts[parameter].shape
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.sub_(update, alpha=group["lr"] * 0.2 * math.sqrt(max(shape[-2:])))

    def _momentum(self, parameter: Tensor) -> Tensor:
        """The parameter's, after its gradient, Nesterov's step ahead."""
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter.grad)
        momentum = state["momentum_buffer"].lerp_(parameter.grad, 1 - _MOMENTUM)
        return parameter.grad.lerp(momentum, _MOMENTUM)
