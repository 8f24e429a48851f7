"""Everything that is wrong with a recipe, each with its line: one look should be enough to mend it all."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import yaml
from pydantic import BaseModel, ValidationError

from spoutnik.errors import UserError
from spoutnik.model.config import ModelConfig
from spoutnik.validation import Problem, nearest, problems_of

_ROUNDS = 8
Names = dict[tuple, str]  # path of a key whose spelling was corrected -> how the file spells it


def describe_problems(path: Path, text: str, values: dict, schema: type[BaseModel]) -> str | None:
    """Sentences on all that is wrong with a recipe's values; None where nothing is. text: of the file, for the lines."""
    problems, original = _find(values, schema)
    if not problems:
        return None
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    lines = sorted({(_line(node, problem.path, original), problem.message): None for problem in problems})
    if len(lines) == 1:
        return f"{path}, line {lines[0][0]}: {lines[0][1]}"
    return f"{path}: {len(lines)} things are wrong.\n" + "\n".join(f"  line {line}: {message}" for line, message in lines)


def _find(values: dict, schema: type[BaseModel]) -> tuple[list[Problem], Names]:
    """The problems, and those that show only when misspelled names are put right: a stage of an unknown kind is not looked
    into, stages are not connected as long as a setting is wrong."""
    values, found, original, guessed = copy.deepcopy(values), {}, {}, set()
    for _ in range(_ROUNDS):
        problems = [problem for problem in _problems(values, schema)
                    if problem not in found and not any(problem.path[:len(path)] == path for path in guessed)]
        found |= dict.fromkeys(problems)
        misspelled = [problem for problem in problems if problem.misspelled == "key" or problem.suggestion is not None]
        if not misspelled:
            break
        for problem in misspelled:
            _correct(values, problem, original)
            if problem.misspelled == "key" and _is_far(problem):
                guessed.add((*problem.path[:-1], problem.suggestion))
    return list(found), original


def _is_far(problem: Problem) -> bool:
    """Whether a suggestion is so unlike the key (families: file) that what its value lacks there is likely no mistake of the
    user's."""
    return problem.suggestion is not None and nearest(problem.path[-1], [problem.suggestion], cutoff=0.8) is None


def _problems(values: dict, schema: type[BaseModel]) -> Iterator[Problem]:
    try:
        schema.model_validate(values)
    except ValidationError as error:
        yield from problems_of(error, schema)
    models = values.get("models")
    for name, config in (models if isinstance(models, dict) else {}).items():
        if not isinstance(config, dict) or "checkpoint" in config or "vocab_size" in config:
            continue
        misspelled = next((key for key in config if nearest(key, ["checkpoint"])), None)
        if misspelled is not None and "model_type" not in config:
            yield Problem(("models", name, misspelled), f"unknown key 'models.{name}.{misspelled}'. Did you mean 'checkpoint'?",
                          "checkpoint", "key")
        else:
            yield from _model_problems(name, config)


def _model_problems(name: str, config: dict) -> Iterator[Problem]:
    place = ("models", name)
    try:
        ModelConfig.parse(config | {"vocab_size": 1024}, f"models.{name}")  # the recipe's own is checked with its other keys
    except UserError as error:
        if not isinstance(error.__cause__, ValidationError):
            yield Problem(place, str(error))
            return
        for problem in problems_of(error.__cause__, ModelConfig):
            yield replace(problem, path=(*place, *problem.path), message=f"models.{name}: {problem.message}")


def _correct(values: dict, problem: Problem, original: Names) -> None:
    """Puts the suggestion in the place of what is misspelled; removes a key that has none."""
    *way, last = problem.path
    holder = values
    for part in way:
        holder = holder[part]
    if problem.misspelled == "value":
        holder[last] = problem.suggestion
        return
    value = holder.pop(last)
    if problem.suggestion is not None and problem.suggestion not in holder:
        holder[problem.suggestion] = value
        original[(*way, problem.suggestion)] = last


def _line(node: yaml.Node, path: tuple, original: Names) -> int:
    """The line of the key at the end of a path, or of the last one on the way that the file has."""
    mark = node.start_mark
    for depth, part in enumerate(path, start=1):
        spelled = str(original.get(path[:depth], part))
        if isinstance(node, yaml.MappingNode):
            entry = next(((key, value) for key, value in node.value if key.value == spelled), None)
        elif isinstance(node, yaml.SequenceNode):
            entry = (node.value[part], node.value[part])
        else:
            entry = None
        if entry is None:
            break
        mark, node = entry[0].start_mark, entry[1]
    return mark.line + 1
