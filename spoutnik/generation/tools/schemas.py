"""The schemas of tools, as far as a grammar can keep them: one unusual schema must not refuse a whole request."""

from collections.abc import Callable

ANY_OBJECT = {"type": "object"}
DEFINITIONS = ("$defs", "definitions")
MAX_CHECKS = 200  # of parts of one schema; beyond, its arguments are any object
# Where a schema holds others: by name, alone, in lists.
MAPS, PARTS = ("properties", "patternProperties"), ("items", "additionalProperties")
LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
# What may be left out of a part that cannot be kept, one after the other; then all but its type; then that, too.
_LIMITS = ("pattern", "format", "patternProperties", "multipleOf", "$ref", "required", "enum", "const")

Problem = Callable[[dict, bool], str]  # why a schema cannot be kept, "" if it can; true: but for what is left out silently


def keepable(schema: dict, strict: bool, problem: Problem) -> tuple[dict, bool, str]:
    """(a schema that can be kept, whether unknown words in it are left out, why the given one cannot be kept).

    As much of it as possible: first with definitions where references look for them, then without the words that are not
    known, then with the parts that have a problem loosened, at last any object.
    """
    why = problem(schema, False)
    if not why:
        return schema, not strict, ""
    try:
        lifted = _with_definitions_at_top(schema)
    except RecursionError:
        return ANY_OBJECT, True, why
    if lifted != schema and not problem(lifted, False):
        return lifted, not strict, ""
    for candidate in (schema, lifted):
        if not problem(candidate, True):
            return candidate, True, why
    loosened = _Loosener(problem).loosen(lifted)
    return (ANY_OBJECT if problem(loosened, True) else loosened), True, why


def _with_definitions_at_top(schema: dict) -> dict:
    """Schemas that were put together of others have definitions within, where references (`#/$defs/...`) do not find them."""
    definitions = {key: dict(schema[key]) for key in DEFINITIONS if isinstance(schema.get(key), dict)}

    def collect(part: object) -> None:
        if isinstance(part, dict):
            for key in DEFINITIONS:
                if isinstance(part.get(key), dict):
                    definitions[key] = part[key] | definitions.get(key, {})
            for value in part.values():
                collect(value)
        elif isinstance(part, list):
            for value in part:
                collect(value)

    collect(schema)
    return schema | definitions


class _Loosener:
    """Replaces the parts of one schema that cannot be kept by themselves, the innermost first."""

    def __init__(self, problem: Problem):
        self._problem, self._checks_left, self._context = problem, MAX_CHECKS, {}

    def loosen(self, schema: dict) -> dict:
        named = {key: schema[key] for key in DEFINITIONS if isinstance(schema.get(key), dict)}
        self._context = {key: {name: {} for name in parts} for key, parts in named.items()}  # one's problem is not another's
        loosened = {key: {name: self._part(part) for name, part in parts.items()} for key, parts in named.items()}
        return self._part({key: value for key, value in schema.items() if key not in named}) | loosened

    def _can_keep(self, part: dict) -> bool:
        self._checks_left -= 1
        return self._checks_left >= 0 and not self._problem(part | self._context, True)

    def _part(self, part: object) -> object:
        if not isinstance(part, dict):
            return part if isinstance(part, bool) else {}
        if self._can_keep(part):
            return part
        part = dict(part)
        for key in MAPS:
            if isinstance(part.get(key), dict):
                part[key] = {name: self._part(inner) for name, inner in part[key].items()}
        for key in PARTS:
            if key in part:
                part[key] = self._part(part[key])
        for key in LISTS:
            if isinstance(part.get(key), list):
                part[key] = [self._part(inner) for inner in part[key]]
        for key in (None, *_LIMITS):
            part.pop(key, None)
            if self._can_keep(part):
                return part
        typed = {"type": part["type"]} if "type" in part else {}
        return typed if self._can_keep(typed) else {}
