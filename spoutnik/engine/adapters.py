"""Adapters in the engine, unmerged: the base is read once for a batch whose requests have several adapters, or none.

Which request has which adapter is the engine's business; a runner knows those in use by number. An adapter that is unloaded
stays for the requests that have it. Its cache entries are its own: a name that is loaded again shares none with what it was.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from spoutnik.engine.runners.base import Runner
from spoutnik.errors import UserError
from spoutnik.locate import path_of
from spoutnik.model.adapter_file import Adapter, base_hash, check_fits, read_adapter
from spoutnik.model.config import ModelConfig
from spoutnik.model.layout import published_shapes
from spoutnik.model.lora import LowRank
from spoutnik.model.transformer import Transformer
from spoutnik.validation import did_you_mean

MERGE = "Merge it at load: LLM(base, adapter=...), or --adapter PATH without a name."
_numbers = count(1)  # of all adapters of this process


@dataclass(eq=False)
class LoadedAdapter:
    """An adapter that requests can name. packed: what the runner computes with. cache_salt: of its sequences' blocks.

    number: the runner's while requests use it, else -1. users: how many do."""

    name: str
    packed: object
    cache_salt: bytes
    number: int = -1
    users: int = 0


class AdapterStore(Mapping[str, LoadedAdapter]):
    """The adapters of an engine by name, and which of them its runner has. Not thread-safe, but for `pack`."""

    def __init__(self, runner: Runner):
        self.runner = runner
        self._loaded: dict[str, LoadedAdapter] = {}
        self._in_use: dict[int, LoadedAdapter] = {}  # by number

    def __getitem__(self, name: str) -> LoadedAdapter:
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._loaded)

    def __len__(self) -> int:
        return len(self._loaded)

    def find(self, name: str | None) -> LoadedAdapter | None:
        """Raises UserError: no adapter has this name. None: the base."""
        if name is None:
            return None
        if name not in self._loaded:
            loaded = ", ".join(self._loaded) or "none"
            raise UserError(f"adapter = {name!r}: no adapter of this name is loaded.{did_you_mean(name, self._loaded)} Loaded: "
                            f"{loaded}. Leave it out for the base.")
        return self._loaded[name]

    def check_name(self, name: str) -> None:
        """Raises UserError: the name is none, or taken."""
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise UserError(f"adapter {name!r}: must have a name.")
        if name in self._loaded:
            raise UserError(f"adapter {name!r}: one of this name is loaded already. Unload it first, or take another name.")

    def pack(self, name: str, parts: Mapping[str, LowRank]) -> LoadedAdapter:
        """Ready for `add`; checked parts (`check_adapter`). May run in another thread."""
        return LoadedAdapter(name, self.runner.pack_adapter(trimmed(parts)), next(_numbers).to_bytes(8, "little"))

    def add(self, adapter: LoadedAdapter) -> None:
        """Raises UserError: its name is taken."""
        self.check_name(adapter.name)
        self._loaded[adapter.name] = adapter

    def remove(self, name: str) -> None:
        """Requests that have it end with it; new ones cannot name it. Raises UserError: there is none of this name."""
        self.find(name)
        del self._loaded[name]

    def acquire(self, adapter: LoadedAdapter | None) -> None:
        """For one more request."""
        if adapter is None:
            return
        adapter.users += 1
        if adapter.users == 1:
            adapter.number = next(number for number in count() if number not in self._in_use)
            self._in_use[adapter.number] = adapter
            self.runner.set_adapter(adapter.number, adapter.packed)

    def release(self, adapter: LoadedAdapter | None) -> None:
        """When a request has ended."""
        if adapter is None:
            return
        adapter.users -= 1
        if not adapter.users:
            self.runner.set_adapter(adapter.number, None)
            del self._in_use[adapter.number]
            adapter.number = -1


def computed_unmerged(parts: Mapping[str, LowRank]) -> bool:
    """Whether an adapter can stand beside its base: no DoRA, no routed experts."""
    return all(part.magnitude is None and ".experts" not in name for name, part in parts.items())


def read_for(config: ModelConfig, path: str | Path, load_base: Callable[[], Transformer] | None = None) -> Adapter:
    """An adapter's folder, checked for this base. load_base: reads the base, where its weights have to be compared.

    Raises:
        UserError, RunError: it cannot be read, belongs to another base, or cannot be computed beside it.
    """
    folder = path_of(path)
    adapter = read_adapter(folder)
    check_adapter(adapter, config, folder)
    if (warning := adapter.other_base(folder)) is not None:
        print(warning, file=sys.stderr)
    if adapter.base_hash is not None and load_base is not None:
        check_fits(adapter, shapes_of(config), folder, base_hash(load_base(), adapter.parts))
    return adapter


def check_adapter(adapter: Adapter, config: ModelConfig, source: str | Path) -> None:
    """Raises UserError where an adapter does not fit a base of this configuration, or is not computed unmerged."""
    shapes = shapes_of(config)
    experts = next((name for name in adapter.parts if ".experts" in name), None)
    if experts is not None:
        raise UserError(f"{source}: adapts {experts}: the routed experts' adapters are not computed beside the base. {MERGE}")
    check_fits(adapter, shapes, source)
    for name, part in trimmed(adapter.parts).items():
        if part.magnitude is not None:
            raise UserError(f"{source}: {name} has DoRA's magnitudes, which are not computed beside the base. {MERGE}")
        if part.rank > min(shapes[name]):
            raise UserError(f"{source}: {name} has rank {part.rank}, which is more than the layer has, "
                            f"{shapes[name][0]} x {shapes[name][1]}. {MERGE}")


def shapes_of(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """The linear maps that may have an adapter beside them, by name: (out, in)."""
    shapes = {}
    for name, shape in published_shapes(config).items():
        parts = name.split(".")
        inside = parts[:2] == ["model", "layers"] and int(parts[2]) < config.num_hidden_layers
        if inside and name.endswith("_proj.weight") | name.endswith("_proj_with_mqa.weight") and "experts" not in parts:
            shapes[name.removeprefix("model.").removesuffix(".weight")] = shape
    return shapes


def trimmed(parts: Mapping[str, LowRank]) -> dict[str, LowRank]:
    """The same adapters without the zeros that fill thinner ones to a common rank, and without those that are zero."""
    kept = {}
    for name, part in parts.items():
        used = (part.lora_A.detach() != 0).any(1) & (part.lora_B.detach() != 0).any(0)
        rank = int(used.nonzero()[-1]) + 1 if bool(used.any()) else 0
        if rank or part.magnitude is not None:
            a, b = part.lora_A.detach()[:rank], part.lora_B.detach()[:, :rank]
            kept[name] = part if rank == part.rank else LowRank(a, b, part.scale, part.magnitude, part.dropout)
    return kept
