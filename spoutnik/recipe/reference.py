"""Every key of a recipe as a page of documentation, made from the schema: `make docs` writes docs/recipes.md."""

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from pydantic import BaseModel

from spoutnik.files import write_text
from spoutnik.model.config import ModelConfig, RopeScaling
from spoutnik.recipe.scale_settings import ScaleSettings
from spoutnik.recipe.schema import Recipe
from spoutnik.recipe.stage_kinds import Stage
from spoutnik.tasks import FAMILIES

_INTRODUCTION = """\
# The keys of a recipe

<!-- Made from the schema by `make docs`. Change the texts below the fields in spoutnik/, not this page. -->

A recipe is a YAML file: what a run makes, stage by stage. `spoutnik run FILE` runs it, `spoutnik run FILE --dry-run` says what
it would take. Unknown keys are refused, with the line and the nearest key that there is.
[recipes/nano.yaml](../recipes/nano.yaml) is a whole one.

In the tables, a key without a default must be there.
"""
_MODEL_INTRODUCTION = """\
A mapping of names to configurations, with the keys of the published `config.json`. `vocab_size` is set by the recipe's own key
and left out here. A pretrain stage makes such a model.

In place of all other keys, `checkpoint` names a published model: a folder in Hugging Face layout or of a run, relative to the
recipe's folder, or a name on the hub (`org/model`). Other stages start `from` it: [checkpoints.md](checkpoints.md).
Beside it may stand `thought: {start: TEXT, end: TEXT}`, the marks of its thoughts where they are to be others than its own, and
`template: r1-zero`, which has it asked as R1-Zero was; nothing else.
"""


def reference() -> str:
    """The page, as Markdown."""
    return "\n".join(_page()).rstrip("\n") + "\n"


def _page() -> Iterator[str]:
    yield _INTRODUCTION
    yield from _section("The file", Recipe)
    yield "## families\n"
    yield ("The families of problems, what their levels are, and what the problems of one structure have in common. With "
           "`held_out: structure`, one structure in eight is kept for evaluation.\n")
    yield "| family | levels | structure |\n|---|---|---|"
    for name, family in FAMILIES.items():
        yield f"| `{name}` | {_cell(inspect.getdoc(type(family)) or '')} | {_cell(family.structure)} |"
    yield ""
    yield "## models\n"
    yield _MODEL_INTRODUCTION
    yield from _table(ModelConfig, leave_out=("vocab_size", "quantization_config"))
    for model in _models_in(RopeScaling):
        yield from _section(f"rope_scaling of type {_choices(model, 'type')}", model, level=3)
    for key in ("evaluation", "validation", "bill", "hygiene"):
        yield from _section(key, type(Recipe.model_fields[key].default))
    yield from _section("scale", ScaleSettings)
    yield "## stages\n"
    yield ("A mapping of names to stages. `kind` says what a stage does. A stage that reads another one's model or traces "
           "names it, and stands below it.\n")
    for stage in _models_in(Stage):
        yield from _stage(stage)


def _stage(stage: type[BaseModel]) -> Iterator[str]:
    kind = _choices(stage, "kind")
    yield from _section(f"kind: {kind}", stage, level=3)
    for name, inner in _mappings(stage):
        yield from _section(f"{name} (kind: {kind})", inner, level=4)
        for deeper, innermost in _mappings(inner):
            yield from _section(f"{name}.{deeper} (kind: {kind})", innermost, level=4)


def _section(title: str, model: type[BaseModel], level: int = 2) -> Iterator[str]:
    yield f"{'#' * level} {title}\n"
    yield " ".join(inspect.getdoc(model).split()) + "\n"
    yield from _table(model)


def _table(model: type[BaseModel], leave_out: tuple[str, ...] = ()) -> Iterator[str]:
    schema = model.model_json_schema()
    required = schema.get("required", [])
    yield "| key | value | default | meaning |\n|---|---|---|---|"
    for name in _own_keys_first(model):
        if name in leave_out:
            continue
        key = schema["properties"][name]
        default = "" if name in required else f"`{_yaml(key.get('default', {}))}`"
        yield f"| `{name}` | {_value(key, schema)} | {default} | {_cell(key.get('description', ''))} |"
    yield ""


def _own_keys_first(model: type[BaseModel]) -> list[str]:
    """The keys as a file spells them: those of the class itself before those that it shares with others."""
    fields = model.model_fields
    names = dict.fromkeys(name for each in model.__mro__ for name in vars(each).get("__annotations__", {}) if name in fields)
    return [fields[name].alias or name for name in names]


def _value(key: dict, schema: dict) -> str:
    """The type and the limits of a key's value."""
    if "anyOf" in key:
        return " or ".join(_value(choice, schema) for choice in key["anyOf"])
    if key.keys() & {"oneOf", "$ref"} or key.get("type") == "object":
        return "mapping"
    if "enum" in key or "const" in key:
        return " or ".join(f"`{_yaml(choice)}`" for choice in key.get("enum") or [key["const"]])
    match key.get("type"):
        case "array":
            return f"list of {_value(key['items'], schema)}s" + (", not empty" if key.get("minItems") else "")
        case "string":
            return "path" if key.get("format") == "path" else f"text `{key['pattern']}`" if "pattern" in key else "text"
        case "null":
            return "`null`"
        case "boolean":
            return "`true` or `false`"
    return ", ".join([key.get("type", "any"), *_limits(key)])


def _limits(key: dict) -> list[str]:
    words = (("exclusiveMinimum", "above"), ("minimum", "at least"), ("exclusiveMaximum", "below"), ("maximum", "at most"))
    return [f"{word} {key[name]:.12g}" for name, word in words if name in key]


def _mappings(model: type[BaseModel]) -> list[tuple[str, type[BaseModel]]]:
    """The keys whose values are mappings with keys of their own."""
    return [(name, inner) for name, field in model.model_fields.items() for inner in _models_in(field.annotation)]


def _models_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for each in get_args(annotation) for model in _models_in(each)]


def _choices(model: type[BaseModel], name: str) -> str:
    return " or ".join(get_args(model.model_fields[name].annotation))


def _yaml(value: object) -> str:
    """A default as a recipe would write it."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, float):
        return f"{value:g}"
    return "{}" if isinstance(value, dict) else str(value) or '""'


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    write_text(Path(sys.argv[1]), reference())
