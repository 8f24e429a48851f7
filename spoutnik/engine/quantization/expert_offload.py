"""Routed experts larger than memory: they stay on disk, packed, and the most used ones are kept in memory.

A token uses few of the experts of a layer, and some of them far more often than others; so a model several times larger than
memory waits for the disk only for the rest.
"""

import ctypes
import mmap

import torch
from torch import Tensor

from spoutnik.engine.quantization.packed_matrix import PackedMatrices, empty_in_huge_pages

_INTERVAL = 16  # passes between two updates
_DECAY = 0.9  # of the weight of earlier uses, at each update
_MAX_LOADS = 64  # experts loaded in one update, so that none takes long


class ExpertOffload:
    """Keeps the most used experts in memory.

    Args:
        mapped: "layer.experts_gate_up" and "layer.experts_down" -> the groups, mapped from the file.
        arrays: the same keys -> the matrices that the forward pass reads; their addresses change here.
        uses: (layers, experts), counted by the forward pass and reset here.
        budget: bytes for experts in memory.
    """

    def __init__(self, mapped: dict[str, PackedMatrices], arrays: dict[str, ctypes.Array], uses: Tensor, budget: int):
        self.mapped, self.arrays, self.uses = mapped, arrays, uses
        self.layers = sorted({int(key.split(".")[0]) for key in mapped})
        pair = self._pair(self.layers[0])
        self.expert_nbytes = sum(group.data.shape[1] for group in pair)
        count = len(self.layers) * len(pair[0])
        self.slots = max(0, min(count, budget // self.expert_nbytes))
        self._memory = [empty_in_huge_pages(max(self.slots, 1), group.data.shape[1]) for group in pair]
        self.held: dict[tuple[int, int], int] = {}  # (layer, expert) -> slot
        self._use_rates = torch.zeros(uses.shape, dtype=torch.float64)
        self._hits, self._lookups = 0, 0  # uses of experts that were in memory, and of all
        self._passes = 0
        order = [(layer, expert) for expert in range(len(pair[0])) for layer in self.layers]
        for slot, place in enumerate(order[:self.slots]):
            self._load(place, slot)

    @property
    def held_nbytes(self) -> int:
        return self.slots * self.expert_nbytes

    @property
    def hit_rate(self) -> float:
        """The share of uses whose expert was in memory, so far."""
        return self._hits / max(self._lookups, 1)

    def predicted_seconds(self, disk_bandwidth: float) -> float:
        """What a token waits for the disk (bytes per second), if usage stays as it was."""
        per_token = self._lookups / max(self._passes, 1)
        return per_token * (1 - self.hit_rate) * self.expert_nbytes / disk_bandwidth

    def after_pass(self) -> None:
        """Every few passes: loads the experts used most, and gives back the pages of the file."""
        self._passes += 1
        if self._passes % _INTERVAL:
            return
        self._hits += sum(int(self.uses[place]) for place in self.held)
        self._lookups += int(self.uses[self.layers].sum())
        self._use_rates.mul_(_DECAY).add_(self.uses)
        self.uses.zero_()
        experts = self._use_rates[self.layers]
        best = experts.flatten().topk(self.slots).indices.tolist() if self.slots else []
        target = {(self.layers[i // experts.shape[1]], i % experts.shape[1]) for i in best}
        loads = sorted(target - self.held.keys(), key=lambda place: -self._use_rates[place])[:_MAX_LOADS]
        evictions = sorted(self.held.keys() - target, key=lambda place: self._use_rates[place])
        for place, victim in zip(loads, evictions):
            if self._use_rates[place] > self._use_rates[victim]:
                self._load(place, self._evict(victim))
        self._release_pages()

    def _pair(self, layer: int) -> tuple[PackedMatrices, PackedMatrices]:
        return self.mapped[f"{layer}.experts_gate_up"], self.mapped[f"{layer}.experts_down"]

    def _load(self, place: tuple[int, int], slot: int) -> None:
        layer, expert = place
        for kind, group, store in zip(("gate_up", "down"), self._pair(layer), self._memory):
            store[slot].copy_(group.data[expert])
            self.arrays[f"{layer}.experts_{kind}"][expert].data = store[slot].data_ptr()
        self.held[place] = slot

    def _evict(self, place: tuple[int, int]) -> int:
        layer, expert = place
        for kind, group in zip(("gate_up", "down"), self._pair(layer)):
            self.arrays[f"{layer}.experts_{kind}"][expert].data = group.data[expert].data_ptr()
        return self.held.pop(place)

    def _release_pages(self) -> None:
        """Pages of the file that were read count as memory of this process until then; the system may still cache them."""
        if not hasattr(mmap, "MADV_DONTNEED"):
            return
        libc = ctypes.CDLL(None, use_errno=True)
        page = mmap.PAGESIZE
        for group in self.mapped.values():
            start = group.data.data_ptr() // page * page
            length = group.data.data_ptr() + group.data.nbytes - start
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), mmap.MADV_DONTNEED)
