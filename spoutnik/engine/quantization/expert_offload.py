"""Routed experts that memory does not hold: they stay on disk, packed, and the most used ones are kept in memory.

A token reads few of a layer's experts, and some of them far more often than others; so a model several times larger than
memory runs at the speed of the disk only for the rest.
"""

import ctypes
import mmap

import torch
from torch import Tensor

from spoutnik.engine.quantization.packed_matrix import Packed, memory

_EVERY = 16  # passes between two looks at who is used
_FORGET = 0.9  # what an old use counts at each look
_MOST = 64  # experts brought in at a look, so that none takes long


class Offload:
    """Which experts are in memory.

    Args:
        mapped: "layer.experts_gate_up" and "layer.experts_down" -> the groups where they lie in the file.
        arrays: the same keys -> the matrices that the forward pass reads; their addresses are changed here.
        uses: (layers, experts) counted by the forward pass, set to zero here.
        budget: bytes for experts in memory.
    """

    def __init__(self, mapped: dict[str, Packed], arrays: dict[str, ctypes.Array], uses: Tensor, budget: int):
        self.mapped, self.arrays, self.uses = mapped, arrays, uses
        self.layers = sorted({int(key.split(".")[0]) for key in mapped})
        pair = self._pair(self.layers[0])
        self.expert_nbytes = sum(group.data.shape[1] for group in pair)
        count = len(self.layers) * len(pair[0])
        self.slots = max(0, min(count, budget // self.expert_nbytes))
        self._memory = [memory(max(self.slots, 1), group.data.shape[1]) for group in pair]
        self.held: dict[tuple[int, int], int] = {}  # (layer, expert) -> slot
        self._worth = torch.zeros(uses.shape, dtype=torch.float64)
        self.found, self.asked = 0, 0  # uses of experts that were in memory, and all of them
        self._passes = 0
        order = [(layer, expert) for expert in range(len(pair[0])) for layer in self.layers]
        for slot, place in enumerate(order[:self.slots]):
            self._bring(place, slot)

    @property
    def held_nbytes(self) -> int:
        return self.slots * self.expert_nbytes

    @property
    def hit_rate(self) -> float:
        """The share of uses that found their expert in memory, so far."""
        return self.found / max(self.asked, 1)

    def predicted_seconds(self, disk_bandwidth: float) -> float:
        """What a token waits for the disk (bytes per second), if uses go on as they were."""
        per_token = len(self.layers) * self._chosen()
        return per_token * (1 - self.hit_rate) * self.expert_nbytes / disk_bandwidth

    def after_pass(self) -> None:
        """Looks, every few passes, who was used, brings in those that deserve it, and gives back the pages of the others."""
        self._passes += 1
        if self._passes % _EVERY:
            return
        for (layer, expert) in self.held:
            self.found += int(self.uses[layer, expert])
        self.asked += int(self.uses[self.layers].sum())
        self._worth.mul_(_FORGET).add_(self.uses)
        self.uses.zero_()
        experts = self._worth[self.layers]
        best = experts.flatten().topk(self.slots).indices.tolist() if self.slots else []
        wanted = {(self.layers[i // experts.shape[1]], i % experts.shape[1]) for i in best}
        coming = sorted(wanted - self.held.keys(), key=lambda place: -self._worth[place])[:_MOST]
        leaving = sorted(self.held.keys() - wanted, key=lambda place: self._worth[place])
        for place, old in zip(coming, leaving):
            if self._worth[place] > self._worth[old]:
                self._bring(place, self._release(old))
        self._forget_pages()

    def _pair(self, layer: int) -> tuple[Packed, Packed]:
        return self.mapped[f"{layer}.experts_gate_up"], self.mapped[f"{layer}.experts_down"]

    def _chosen(self) -> float:
        return self.asked / max(self._passes, 1) / max(len(self.layers), 1)

    def _bring(self, place: tuple[int, int], slot: int) -> None:
        layer, expert = place
        for kind, group, store in zip(("gate_up", "down"), self._pair(layer), self._memory):
            store[slot].copy_(group.data[expert])
            self.arrays[f"{layer}.experts_{kind}"][expert].data = store[slot].data_ptr()
        self.held[place] = slot

    def _release(self, place: tuple[int, int]) -> int:
        layer, expert = place
        for kind, group in zip(("gate_up", "down"), self._pair(layer)):
            self.arrays[f"{layer}.experts_{kind}"][expert].data = group.data[expert].data_ptr()
        return self.held.pop(place)

    def _forget_pages(self) -> None:
        """Pages of the file that were read count as ours until they are given back; the system keeps them while it has room."""
        if not hasattr(mmap, "MADV_DONTNEED"):
            return
        libc = ctypes.CDLL(None, use_errno=True)
        page = mmap.PAGESIZE
        for group in self.mapped.values():
            start = group.data.data_ptr() // page * page
            length = group.data.data_ptr() + group.data.nbytes - start
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), mmap.MADV_DONTNEED)


