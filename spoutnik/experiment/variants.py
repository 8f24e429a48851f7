"""Variants of a recipe: changes merged into its values, and checked by its own schema."""

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import ValidationError

from spoutnik.errors import UserError
from spoutnik.experiment.schema import Experiment
from spoutnik.recipe.schema import Recipe, recipe_of, text_of
from spoutnik.recipe.shipped import find_recipe
from spoutnik.recipe.yaml_file import read_yaml
from spoutnik.validation import did_you_mean, sentences

AS_IT_IS = "the recipe as it is"


def nested(changes: Mapping, where: str) -> dict:
    """Changes with dotted keys (`stages.base.settings.steps: 5`) as nested mappings. A key that ends in = stays: it replaces.

    Raises:
        UserError: two keys change the same setting, or one is empty.
    """
    result: dict = {}
    for key, value in changes.items():
        parts = key.split(".")
        if not all(parts):
            raise UserError(f"{where}: '{key}' is no key: a part of it is empty. Write stages.NAME.settings.KEY.")
        value = nested(value, f"{where}.{key}") if isinstance(value, Mapping) else value
        for part in reversed(parts):
            value = {part: value}
        _join(result, value, f"{where}: '{key}'")
    return result


def _join(into: dict, more: Mapping, where: str) -> None:
    """Puts one nested mapping into another. Raises UserError where both say something of one key."""
    for key, value in more.items():
        if key not in into:
            into[key] = value
        elif isinstance(into[key], dict) and isinstance(value, dict):
            _join(into[key], value, where)
        else:
            raise UserError(f"{where} changes what another key has changed. Keep one of the two.")


def merged(values: Mapping, changes: Mapping, where: str) -> dict:
    """Values with changes: mappings are merged, unless their key ends in =; all else is replaced; null takes a key away.

    Raises:
        UserError: a key that is taken away is not there.
    """
    result = copy.deepcopy(dict(values))
    for key, value in changes.items():
        name = key.removesuffix("=")
        if name != key:
            result[name] = copy.deepcopy(value)
        elif value is None:
            if key not in result:
                raise UserError(f"{where}.{key} = null: there is nothing to take away.{did_you_mean(key, result)} Correct the "
                                "key.")
            del result[key]
        elif isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merged(result[key], value, f"{where}.{key}")
        else:
            result[key] = copy.deepcopy(value)
    return result


def flat(values: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Dotted key -> value, of everything that is no mapping."""
    if isinstance(values, Mapping) and values:
        for key, value in values.items():
            yield from flat(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, values


def described(base: Mapping, values: Mapping) -> str:
    """The settings in which two recipes differ, in a line."""
    before, after = dict(flat(base)), dict(flat(values))
    parts = []
    for key in dict.fromkeys((*after, *before)):
        if before.get(key) == after.get(key):
            continue
        name = key.removeprefix("stages.").replace(".settings.", ".")
        if key in before and key in after:
            parts.append(f"{name} {_shown(before[key])} → {_shown(after[key])}")
        else:
            parts.append(f"{name} {_shown(after[key])}" if key in after else f"no {name}")
    return "; ".join(parts)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def base_of(experiment: Experiment, path: Path) -> tuple[Path, dict]:
    """The file of the recipe that is varied, and its values with the changes of all variants.

    Raises:
        UserError: there is none, or it is no recipe.
    """
    near = path.parent / Path(experiment.recipe).expanduser()
    try:
        file = near if near.is_file() else find_recipe(Path(experiment.recipe))
        text = text_of(file)
    except UserError as error:
        raise UserError(f"{path}: recipe = {error}") from error
    values = read_yaml(text, str(file))
    if not isinstance(values, dict) or not isinstance(values.get("stages"), dict):
        raise UserError(f"{path}: recipe = {experiment.recipe}: {file} is no recipe, which has stages. Name one.")
    return file, merged(values, nested(experiment.changes, f"{path}: changes"), f"{path}: changes")


def variant_recipes(experiment: Experiment, path: Path) -> tuple[Path, dict[str, tuple[dict, Recipe]], dict[str, str]]:
    """The file of the recipe that is varied; variant -> (values, recipe); variant -> what is varied.

    Raises:
        UserError: with file, variant, key, value and remedy.
    """
    file, base = base_of(experiment, path)
    recipes, varied = {}, {}
    for name, variant in experiment.variants.items():
        where = f"{path}: variants.{name}"
        values = merged(base, nested(variant.changes, f"{where}.changes"), f"{where}.changes")
        values["evaluation"] = experiment.evaluation.model_dump(mode="json")
        recipes[name] = values, _checked(values, file, where)
        varied[name] = variant.varied or described(base, values | {"evaluation": base.get("evaluation", {})}) or \
            AS_IT_IS
    return file, recipes, varied


def _checked(values: dict, file: Path, where: str) -> Recipe:
    try:
        return recipe_of(values, file)
    except ValidationError as error:
        raise UserError(f"{where}: the recipe would be wrong. {sentences(error, Recipe)}") from error
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
