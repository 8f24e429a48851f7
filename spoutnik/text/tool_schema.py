"""The JSON schema of a Python function, for the tools of a chat template.

Types come from signature and type hints, descriptions from a Google-style docstring, in the form of transformers'
`get_json_schema`, which published templates expect (pydantic's differs: `anyOf` with null for `nullable`, `const`, titles).
"""

import inspect
import json
import re
import types
from collections.abc import Callable, Iterable
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from spoutnik.errors import UserError

_TYPES = {int: "integer", float: "number", str: "string", bool: "boolean", type(None): "null", list: "array",
          tuple: "array", dict: "object"}
_SECTION = re.compile(r"^\s*(Args|Returns|Raises):[ \t]*\n?", re.MULTILINE)
_CHOICES = re.compile(r"\(choices:\s*(.*?)\)\s*$", re.IGNORECASE)


def tool_schema(function: Callable) -> dict:
    """{"type": "function", "function": {"name", "description", "parameters", "return"}}.

    Raises:
        UserError: the docstring or a type hint is missing or incomplete; names the function and the argument.
    """
    name = getattr(function, "__name__", repr(function))
    doc = inspect.getdoc(function)
    if not doc:
        raise UserError(f"tool {name}: has no docstring. Describe it and its arguments (Args:), or give its JSON schema.")
    description, *sections = _SECTION.split(doc.strip())
    sections = dict(zip(sections[::2], sections[1::2]))
    texts = _argument_texts(sections.get("Args", ""))
    hints = get_type_hints(function)
    properties, required = {}, []
    for argument, parameter in inspect.signature(function).parameters.items():
        if argument not in hints or argument not in texts:
            missing = "type hint" if argument not in hints else "line under Args: in the docstring"
            raise UserError(f"tool {name}: its argument {argument} has no {missing}. Add it, or give a JSON schema.")
        path = f"tool {name}, argument {argument}"
        properties[argument] = _with_description(_schema(hints[argument], path), texts[argument], path)
        if parameter.default is inspect.Parameter.empty:
            required.append(argument)
    parameters = {"type": "object", "properties": properties} | ({"required": required} if required else {})
    schema = {"name": name, "description": description.strip(), "parameters": parameters}
    if "return" in hints:
        text = {"description": sections["Returns"].strip()} if "Returns" in sections else {}
        schema["return"] = _schema(hints["return"], f"tool {name}, its return value") | text
    return {"type": "function", "function": schema}


def _argument_texts(section: str) -> dict[str, str]:
    """{argument: description in one line}; lines indented deeper than the first continue the line before."""
    texts: dict[str, str] = {}
    level, name = None, ""
    for line in filter(str.strip, section.splitlines()):
        start = re.match(r"(\s*)(\w+):(.*)", line)
        if start and (level is None or len(start[1]) <= level):
            level, name = len(start[1]), start[2]
            texts[name] = start[3].strip()
        elif name:
            texts[name] = f"{texts[name]} {line.strip()}".strip()
    return texts


def _with_description(schema: dict, text: str, path: str) -> dict:
    """A description may end in `(choices: ["a", "b"])`."""
    choices = _CHOICES.search(text)
    if choices is None:
        return schema | {"description": text}
    try:
        return schema | {"enum": json.loads(choices[1]), "description": text[:choices.start()].strip()}
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: the choices {choices[1]} are not a JSON list. Write them as [\"a\", \"b\"].") from error


def _schema(hint: object, path: str) -> dict:
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return {}
    if origin in (Union, types.UnionType):
        return _union([_schema(part, path) for part in parts if part is not type(None)], type(None) in parts)
    if origin is Literal and all(type(value) in _TYPES for value in parts):
        return {"type": _one_or_all(dict.fromkeys(_TYPES[type(value)] for value in parts)), "enum": list(parts)}
    if (origin or hint) not in _TYPES:
        raise UserError(f"{path}: the type {hint!r} has no JSON schema. Use int, float, str, bool, list, tuple, dict, "
                        "Literal or a union of them, or give the tool's JSON schema.")
    schema = {"type": _TYPES[origin or hint]}
    if origin is list:
        schema["items"] = _schema(parts[0], path)
    elif origin is tuple:
        schema["prefixItems"] = [_schema(part, path) for part in parts]
    elif origin is dict:
        schema["additionalProperties"] = _schema(parts[1], path)
    return schema


def _union(schemas: list[dict], nullable: bool) -> dict:
    if len(schemas) == 1:
        union = schemas[0]
    elif all(schema.keys() == {"type"} for schema in schemas):
        union = {"type": _one_or_all(sorted({schema["type"] for schema in schemas}))}
    else:
        union = {"anyOf": schemas}
    return union | ({"nullable": True} if nullable else {})


def _one_or_all(names: Iterable[str]) -> str | list[str]:
    names = list(names)
    return names[0] if len(names) == 1 else names
