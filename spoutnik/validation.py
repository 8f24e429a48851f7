"""What is wrong with checked values, in sentences: from pydantic's report, with the nearest name where one is misspelled."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

_UNKNOWN_NAME = "unknown_name"  # the type of the errors of `refuse_names`


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. path: the keys that lead to it. suggestion: what was probably meant. misspelled: "key" where the
    last key of the path is unknown, "value" where its value is no known name, else None."""

    path: tuple[str | int, ...]
    message: str
    suggestion: str | None = None
    misspelled: Literal["key", "value"] | None = None


def nearest(word: object, choices: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The choice that was probably meant: nearly the same letters, or what the word abbreviates (lr: learning_rate). cutoff:
    how alike they must be; 1 is the same."""
    choices = list(choices)
    plain = {choice: choice.lower().replace("-", "_") for choice in choices}
    asked = str(word).lower().replace("-", "_")
    for choice, letters in plain.items():
        if asked in (letters, "".join(part[:1] for part in letters.split("_"))):
            return choice
    close = difflib.get_close_matches(asked, plain.values(), 1, cutoff)
    return next((choice for choice in choices if plain[choice] == close[0]), None) if close else None


def did_you_mean(word: object, choices: Iterable[str]) -> str:
    """" Did you mean 'steps'?", or nothing where no choice is near."""
    choice = nearest(word, choices)
    return f" Did you mean '{choice}'?" if choice is not None else ""


def refuse_names(title: str, wrong: Sequence[tuple[tuple[str | int, ...], str, str, Iterable[str]]]) -> None:
    """Raises what a validator raises, for all names at once that are not among those that there are.

    Args:
        wrong: (path, name, the sentence's middle, the choices) of each.
    """
    details = [InitErrorDetails(type=PydanticCustomError(_UNKNOWN_NAME, "{text}", {"text": text, "choices": list(choices)}),
                                loc=path, input=name) for path, name, text, choices in wrong]
    if details:
        raise ValidationError.from_exception_data(title, details)


def problems_of(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """Everything in pydantic's report on `model`, without the keys that are missing because they are misspelled."""
    problems = [_problem(each, model) for each in error.errors()]
    meant = {(*problem.path[:-1], problem.suggestion) for problem in problems if problem.misspelled == "key"}
    return [problem for problem in problems if problem.path not in meant]


def sentences(error: ValidationError, model: type[BaseModel]) -> str:
    """All of `problems_of` as one text."""
    return " ".join(problem.message for problem in problems_of(error, model))


def _problem(error: dict, model: type[BaseModel]) -> Problem:
    path, parent = _resolve(error["loc"], model) if error["type"] != _UNKNOWN_NAME else (error["loc"], None)
    key, context, value = ".".join(map(str, path)), error.get("ctx", {}), error["input"]
    match error["type"]:
        case "extra_forbidden":
            return _unknown_key(path, key, parent)
        case "missing":
            return Problem(path, f"the key '{key}' is missing. Add it.")
        case "union_tag_not_found" | "union_tag_invalid":
            return _wrong_tag(path, context, value)
        case "literal_error" if isinstance(value, str):
            choices = [choice.strip("'") for choice in context["expected"].replace(" or ", ", ").split(", ")]
            return Problem(path, f"{key} = {value!r}: must be {context['expected']}.{did_you_mean(value, choices)}",
                           nearest(value, choices), "value")
        case name if name == _UNKNOWN_NAME:
            key = ".".join(part for part in path if isinstance(part, str))  # of a list: the list
            return Problem(path, f"{key}: {context['text']}.{did_you_mean(value, context['choices'])}",
                           nearest(value, context["choices"]), "value")
    message = error["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(value, dict) or not key else f" = {value!r}"
    return Problem(path, f"{key}{shown}{': ' if key else ''}{message[0].lower() + message[1:]}. Correct this value.")


def _unknown_key(path: tuple, key: str, parent: type[BaseModel] | None) -> Problem:
    known = _keys(parent) if parent is not None else {}
    suggestion = nearest(path[-1], known)
    if suggestion is not None:
        return Problem(path, f"unknown key '{key}'. Did you mean '{suggestion}'?", suggestion, "key")
    for name, annotation in known.items():
        if any(path[-1] in _keys(inner) for inner in _models(annotation)):
            return Problem(path, f"unknown key '{key}'. It belongs under '{name}'.", None, "key")
    return Problem(path, f"unknown key '{key}'. Remove it or correct its spelling; the keys here are {', '.join(known)}.", None,
                   "key")


def _wrong_tag(path: tuple, context: dict, value: object) -> Problem:
    """A mapping whose kind is missing or unknown."""
    name = context["discriminator"].strip("'")
    path, tag = (*path, name), context.get("tag")
    key = ".".join(map(str, path))
    if tag is None:
        near = next((each for each in value if nearest(each, [name])), None) if isinstance(value, dict) else None
        if near is not None:
            path = (*path[:-1], near)
            return Problem(path, f"unknown key '{'.'.join(map(str, path))}'. Did you mean '{name}'?", name, "key")
        return Problem(path, f"the key '{key}' is missing. Add it.")
    choices = [choice.strip("'") for choice in context["expected_tags"].split(", ")]
    return Problem(path, f"{key} = {tag!r}: must be one of {', '.join(choices)}.{did_you_mean(tag, choices)}",
                   nearest(tag, choices), "value")


def _resolve(location: tuple, model: type[BaseModel]) -> tuple[tuple, type[BaseModel] | None]:
    """The keys of a location in pydantic's report, which also names the branches of unions; and the model that the last key
    belongs to."""
    path, annotation, parent = [], model, None
    for part in location:
        models, container = _models(annotation), _container(annotation)
        if len(models) > 1:
            annotation, parent = next((one for one in models if _has_tag(one, part)), None), None
        elif models:
            parent = models[0]
            annotation = _keys(parent).get(part)
            path.append(part)
        elif container is not None and (get_origin(container) is dict or isinstance(part, int)):
            annotation, parent = (get_args(container) or (Any,))[-1], None
            path.append(part)
        elif annotation in (None, Any):
            path.append(part)
    return tuple(path), parent


def _keys(model: type[BaseModel]) -> dict[str, Any]:
    """The keys that a file may hold, with the types of their values."""
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (dict, list, tuple, Literal):
        return []
    inner = get_args(annotation)[:1] if get_origin(annotation) is Annotated else get_args(annotation)
    return [model for each in inner for model in _models(each)]


def _container(annotation: Any) -> Any:
    """The dict or list in a type that may be one."""
    if annotation in (dict, list) or get_origin(annotation) in (dict, list, tuple):
        return dict[str, Any] if annotation is dict else list[Any] if annotation is list else annotation
    return next((container for each in get_args(annotation) if (container := _container(each)) is not None), None)


def _has_tag(model: type[BaseModel], tag: str) -> bool:
    return any(get_origin(field.annotation) is Literal and tag in get_args(field.annotation)
               for field in model.model_fields.values())
