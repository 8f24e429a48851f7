"""Open models that one may fetch and talk to, seen from this machine: what fits its memory, how fast, what is here already."""

from dataclasses import asdict, dataclass
from pathlib import Path

from spoutnik import hub
from spoutnik.hardware import available_memory
from spoutnik.model.accounting import account
from spoutnik.model.fit import Fit, best_fit, estimate
from spoutnik.model.presets import Preset, offered_presets
from spoutnik.native.bandwidth import read_bandwidth


@dataclass(frozen=True)
class OfferedModel:
    """fits: by precision. best: the one to run it at here, None where none fits. folder: None until it is fetched."""

    preset: Preset
    parameters: int
    fits: list[Fit]
    best: Fit | None
    folder: Path | None

    @property
    def name(self) -> str:
        return self.preset.name

    @property
    def quantize(self) -> str | None:
        """The engine's option for `best`."""
        return None if self.best is None or self.best.precision == "bf16" else self.best.precision

    def as_json(self) -> dict:
        offer = self.preset.offer
        return {"name": self.name, "repository": offer.repository, "parameters": self.parameters,
                "download_bytes": offer.download_bytes, "licence": self.preset.licence, "thinks": offer.thinks,
                "about": offer.about, "fits": [asdict(fit) for fit in self.fits], "best": self.best and self.best.precision,
                "folder": None if self.folder is None else str(self.folder)}


@dataclass(frozen=True)
class Machine:
    """memory: bytes free for a model. bandwidth: bytes per second, measured roughly, in a tenth of a second."""

    memory: int
    bandwidth: float

    @classmethod
    def measure(cls) -> "Machine":
        return cls(available_memory(), read_bandwidth(512 << 20, 3))


def offers(machine: Machine) -> list[OfferedModel]:
    """The models of `spoutnik models`, the smallest first. Nothing is asked of the network."""
    offered = []
    for preset in offered_presets():
        fits = estimate(preset.config, machine.bandwidth)
        offered.append(OfferedModel(preset, account(preset.config).total_parameters, fits, best_fit(fits, machine.memory),
                                    hub.cached(preset.offer.repository)))
    return offered
