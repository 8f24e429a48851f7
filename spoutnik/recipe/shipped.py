"""The recipes that come with the package, by name."""

from pathlib import Path

import spoutnik

FOLDER = Path(spoutnik.__file__).parent / "recipes"


def shipped_recipes() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def shipped_experiments() -> list[str]:
    return sorted(path.stem for path in (FOLDER / "experiments").glob("*.yaml"))


def find_experiment(experiment: Path) -> Path:
    """A file as it is; else the package's experiment of this name, as "findings-rl"."""
    shipped = FOLDER / "experiments" / f"{experiment}.yaml"
    return shipped if not experiment.is_file() and str(experiment) in shipped_experiments() else experiment


def experiment_name(path: Path) -> str:
    """What finds the file again: the package's by its name, which is the same on every machine."""
    return path.stem if path.parent == FOLDER / "experiments" else str(path)


def find_recipe(recipe: Path) -> Path:
    """A file as it is; else the package's recipe of this name, as "nano"."""
    shipped = FOLDER / f"{recipe}.yaml"
    return shipped if not recipe.is_file() and str(recipe) in shipped_recipes() else recipe
