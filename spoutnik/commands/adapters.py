"""`--adapter` of commands that compute: NAME=PATH stands beside the base, a path alone is merged into it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from spoutnik.errors import UserError


@dataclass(frozen=True)
class Adapters:
    """named: folders by name, unmerged. merged: the folder of one that is summed with the base at load."""

    named: dict[str, Path] = field(default_factory=dict)
    merged: Path | None = None

    @staticmethod
    def parse(texts: Sequence[str]) -> "Adapters":
        """Raises UserError: two are merged, some are merged and some are not, or two have one name."""
        named: dict[str, Path] = {}
        merged = []
        for text in texts:
            name, equals, path = text.partition("=")
            if not equals or "/" in name or Path(text).exists():
                merged.append(Path(text))
            elif not name.strip() or not path:
                raise UserError(f"--adapter {text}: must be NAME=PATH, or a path.")
            elif name in named:
                raise UserError(f"--adapter {text}: another adapter has the name {name}. Choose another.")
            else:
                named[name] = Path(path)
        if len(merged) > 1 or merged and named:
            raise UserError(f"--adapter {merged[0]}: is merged into the base, which leaves none for others. Give each a name "
                            "(--adapter NAME=PATH).")
        return Adapters(named, merged[0] if merged else None)
