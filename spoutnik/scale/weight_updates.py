"""Weights to samplers as changed parts, each with a checksum of the tensor that it has to give.

An update names the version that it changes and the one that it makes. Of a tensor in which few numbers changed (reinforcement
learning in bfloat16: a step moves most weights by less than their last bit) it has places and values, else the whole. What is
sent are bits, so that what arrives is the same to the bit; the checksum is SHA-256, compared before anything is sampled:
weights that are silently wrong are the common fault of separate samplers.

Each tensor is copied, compared and hashed at once on one core, while it lies in that core's cache. A tensor of which a sample
of numbers says that most have changed is not compared: it goes whole in any case.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from spoutnik.parallel import on_all_cores

_BITS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}  # by bytes of a number
_PLACE = 4  # bytes of a place; a tensor of 2**32 numbers or more is sent whole
_SAMPLED = 1024  # numbers of a tensor that are looked at before all are compared
_MOST = 0.75  # share of them that differs in a tensor that is sent whole without more; places gain below a half at most

Tensors = Mapping[str, Tensor | Callable[[], Tensor]]  # by name, or what makes each of them


@dataclass(frozen=True)
class Part:
    """A tensor's change. bits: all of its numbers, or those at `places`; digest: SHA-256 of all, afterwards."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    bits: np.ndarray
    places: np.ndarray | None
    digest: str

    @property
    def nbytes(self) -> int:
        return self.bits.nbytes + (0 if self.places is None else self.places.nbytes)


@dataclass(frozen=True)
class WeightUpdate:
    """From one version of the weights to another. base: the version that it changes, None where it is whole."""

    version: int
    base: int | None
    parts: dict[str, Part]

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts.values())


@dataclass(frozen=True)
class Snapshot:
    """The weights of one version and their digests. Never changed."""

    version: int
    tensors: dict[str, Tensor]
    digests: dict[str, str]

    @staticmethod
    def of(version: int, tensors: Tensors) -> "Snapshot":
        made = dict(zip(tensors, on_all_cores(_with_digest, list(tensors.values()))))
        return Snapshot(version, {name: tensor for name, (tensor, _) in made.items()},
                        {name: digest for name, (_, digest) in made.items()})

    def whole(self) -> WeightUpdate:
        parts = {name: Part(tuple(tensor.shape), tensor.dtype, bits_of(tensor), None, self.digests[name])
                 for name, tensor in self.tensors.items()}
        return WeightUpdate(self.version, None, parts)

    def next(self, tensors: Tensors) -> tuple["Snapshot", WeightUpdate]:
        """The next version, in which `tensors` (all that may have changed) have these values, and the update to it."""
        found = dict(zip(tensors, on_all_cores(partial(_changed, self), list(tensors.items()))))
        changed = {name: each for name, each in found.items() if each is not None}
        parts = {name: part for name, (_, part) in changed.items()}
        # What has not changed is kept in one copy for both versions.
        after = Snapshot(self.version + 1, self.tensors | {name: tensor for name, (tensor, _) in changed.items()},
                         self.digests | {name: part.digest for name, part in parts.items()})
        return after, WeightUpdate(after.version, self.version, parts)


def bits_of(tensor: Tensor) -> np.ndarray:
    """Its numbers (N,) as unsigned integers of their size: NumPy has no bfloat16, and what is compared are bits."""
    return tensor.detach().reshape(-1).view(torch.uint8).numpy().view(_BITS[tensor.element_size()])


def digest(tensor: Tensor) -> str:
    return hashlib.sha256(memoryview(bits_of(tensor).view(np.uint8))).hexdigest()


def _with_digest(tensor: Tensor | Callable[[], Tensor]) -> tuple[Tensor, str]:
    tensor = tensor() if callable(tensor) else tensor
    return tensor, digest(tensor)


def _changed(before: Snapshot, named: tuple[str, Tensor | Callable[[], Tensor]]) -> tuple[Tensor, Part] | None:
    """A tensor of now, and how it differs; None where it does not."""
    name, tensor = named
    tensor = tensor() if callable(tensor) else tensor
    old, new = bits_of(before.tensors[name]), bits_of(tensor)
    places = None
    if not most_changed(old, new):
        differs = old != new
        count = int(np.count_nonzero(differs))
        if not count:
            return None
        if count * (_PLACE + new.itemsize) < new.nbytes and new.size < 2 ** (8 * _PLACE):
            places = np.flatnonzero(differs).astype(np.uint32)
    bits = new if places is None else new[places]
    return tensor, Part(tuple(tensor.shape), tensor.dtype, bits, places, digest(tensor))


def most_changed(old: np.ndarray, new: np.ndarray) -> bool:
    """Whether a sample of numbers, evenly spread, says so. Where it errs, bytes are sent in vain, and nothing is wrong."""
    step = -(-new.size // _SAMPLED)
    return step > 1 and np.count_nonzero(old[::step] != new[::step]) > _MOST * len(new[::step])


@dataclass
class ReceivedWeights:
    """A sampler's own copy of the weights. version: None until it has any, and after an update that failed."""

    version: int | None = None
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def apply(self, update: WeightUpdate) -> str | None:
        """Makes the update's version of what is here, in place; says why not, in a sentence, after which only a whole update
        helps."""
        if update.base is not None and update.base != self.version:
            here = "none" if self.version is None else f"version {self.version}"
            return f"an update from version {update.base} of the weights to {update.version} found {here}"
        self.version = None
        wrong = [name for name, good in zip(update.parts, on_all_cores(self._put, list(update.parts.items()))) if not good]
        if wrong:
            return f"the checksum of {wrong[0]} in version {update.version} of the weights is wrong" + (
                f", and of {len(wrong) - 1} other tensors" if len(wrong) > 1 else "")
        if update.base is None:
            self.tensors = {name: self.tensors[name] for name in update.parts}
        self.version = update.version
        return None

    def _put(self, named: tuple[str, Part]) -> bool:
        """Whether the tensor then has its checksum."""
        name, part = named
        here = self.tensors.get(name)
        if here is None or tuple(here.shape) != part.shape or here.dtype != part.dtype:
            if part.places is not None:
                return False
            here = self.tensors[name] = torch.empty(part.shape, dtype=part.dtype)
        bits = bits_of(here)
        if part.places is None:
            bits[:] = part.bits
        else:
            bits[part.places] = part.bits
        return digest(here) == part.digest
