"""The tests' experiment beside its recipe."""

from pathlib import Path

import yaml
from small_recipe import prepared

GRID = Path(__file__).parent / "experiment" / "grid.yaml"


def experiment(folder: Path, change=lambda values: None) -> Path:
    """Its file, with its values changed in place."""
    prepared(folder)
    values = yaml.safe_load(GRID.read_text())
    change(values)
    path = folder / "grid.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path
