"""Energy counters of the machine: RAPL of the processor packages (Linux), NVML of the GPUs, as far as they can be read.

RAPL counts the whole package, whoever uses it, in microjoules that wrap around; it is readable for root alone and absent in
virtual machines.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch

_POWERCAP = Path("/sys/class/powercap")


@dataclass
class Counter:
    """A counter of joules that may wrap. wraps_at: the value after which it begins at 0; None where it does not."""

    read: Callable[[], float]
    wraps_at: float | None
    last: float = field(init=False)

    def __post_init__(self):
        self.last = self.read()

    def lap(self) -> float:
        """Joules since the last lap. Of a counter that wrapped twice in between, one turn is missed: a turn takes minutes."""
        now = self.read()
        used = now - self.last
        self.last = now
        return used + self.wraps_at if used < 0 and self.wraps_at is not None else max(used, 0.0)


@cache
def readable_counters() -> tuple[Callable[[], Counter], ...]:
    """What makes the counters of this machine, each a new one from now on; none where none can be read."""
    return (*_packages(_POWERCAP), *_gpus())


def _packages(folder: Path) -> list[Callable[[], Counter]]:
    makers = []
    for zone in sorted(folder.glob("*-rapl:*")):
        energy, most = zone / "energy_uj", zone / "max_energy_range_uj"
        if zone.name.count(":") > 1:  # a part of a package (cores, memory), which its package counts already
            continue
        try:
            read, wraps_at = (lambda energy=energy: int(energy.read_text()) / 1e6), int(most.read_text()) / 1e6
            read()
        except (OSError, ValueError):  # of root alone
            continue
        makers.append(lambda read=read, wraps_at=wraps_at: Counter(read, wraps_at))
    return makers


def _gpus() -> list[Callable[[], Counter]]:
    if not torch.cuda.is_available():
        return []
    try:
        import pynvml

        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(torch.cuda.device_count())]
        for handle in handles:
            pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except Exception:  # noqa: BLE001 - not installed, no driver, or a GPU that does not count: energy is unknown then
        return []
    return [lambda handle=handle: Counter(lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3, None)
            for handle in handles]
