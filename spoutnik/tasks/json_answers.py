"""Answers that are JSON: taken out of an answer, compared with a value, or checked against a JSON schema.

Nothing is fetched: a `$ref` that leads out of the schema is refused when the schema is read. A check ends after a second, also
one whose patterns backtrack or whose parts refer to each other without end; what is not decided by then is wrong.
"""

import json
import re
import time
from collections.abc import Callable, Iterator
from functools import lru_cache

import regex
from jsonschema import validators
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.protocols import Validator
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012, SchemaResource, specification_with

from spoutnik.errors import UserError

SECONDS = 1.0
LONGEST = 1_000_000  # characters of JSON
_FENCED = re.compile(r"^[ \t]*```[ \t]*(?:json|JSON|Json)?[ \t]*\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE)


class _OutOfTime(Exception):
    pass


class Schema:
    """A JSON schema that answers are checked against. Raises UserError for one that is none, or that is not whole.

    Args:
        schema: of the draft that its `$schema` names, 2020-12 without one.
        seconds: for one check.
    """

    def __init__(self, schema: dict | bool, seconds: float = SECONDS):
        draft = schema.get("$schema", "") if isinstance(schema, dict) else ""
        if not isinstance(schema, dict | bool) or not isinstance(draft, str):
            raise UserError("The JSON schema is none: it must be an object, and $schema in it a text. Correct it.")
        kind = validators.validator_for(schema, default=validators.Draft202012Validator)
        try:
            kind.check_schema(schema)
        except SchemaError as error:
            raise UserError(f"The JSON schema is none: {error.message} (at {error.json_path}). Correct it.") from error
        except RecursionError as error:
            raise UserError("The JSON schema is nested too deeply. Simplify it.") from error
        _refuse_references_elsewhere(schema)
        _refuse_wrong_patterns(schema)
        self._schema, self._seconds, self._deadline = schema, seconds, 0.0
        self._kind = validators.extend(kind, {name: self._bounded(check) for name, check in {
            **kind.VALIDATORS, "pattern": self._pattern, "patternProperties": self._pattern_properties,
            "additionalProperties": self._additional_properties, "uniqueItems": _unique_items}.items()})

    def allows(self, value: object) -> bool:
        """Whether a value fits. False where that is not decided in time."""
        self._deadline = time.monotonic() + self._seconds
        try:
            return self._kind(self._schema, registry=Registry()).is_valid(value)
        except (_OutOfTime, RecursionError, OverflowError):
            return False

    def _bounded(self, check: Callable) -> Callable:
        """The check of one keyword, which gives up when the time is over."""
        def bounded(*arguments: object) -> Iterator[ValidationError]:
            if time.monotonic() > self._deadline:
                raise _OutOfTime
            return check(*arguments)

        return bounded

    def _found(self, pattern: str, text: str) -> bool:
        try:
            return regex.search(pattern, text, timeout=max(0.001, self._deadline - time.monotonic())) is not None
        except TimeoutError:
            raise _OutOfTime from None

    def _pattern(self, validator: Validator, pattern: str, instance: object, _) -> Iterator[ValidationError]:
        if isinstance(instance, str) and not self._found(pattern, instance):
            yield ValidationError("does not match")

    def _pattern_properties(self, validator: Validator, patterns: dict, instance: object, _) -> Iterator[ValidationError]:
        if not isinstance(instance, dict):
            return
        for pattern, schema in patterns.items():
            for name, value in instance.items():
                if self._found(pattern, name):
                    yield from validator.descend(value, schema, path=name, schema_path=pattern)

    def _additional_properties(self, validator: Validator, allowed: dict | bool, instance: object,
                               schema: dict) -> Iterator[ValidationError]:
        if not isinstance(instance, dict):
            return
        known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
        for name, value in instance.items():
            if name not in known and not any(self._found(pattern, name) for pattern in patterns):
                yield from validator.descend(value, allowed, path=name)


def read_json(answer: str) -> object:
    """The JSON value of an answer: its last fenced block, or the whole of it. Raises ValueError where that is no JSON, where a
    name occurs twice in an object, and for NaN and Infinity, which JSON does not have."""
    *_, text = [answer, *_FENCED.findall(answer)]
    if len(text) > LONGEST:
        raise ValueError("longer than a million characters")
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def equals(gold: object, answer: str) -> bool:
    """Whether an answer is the JSON value `gold`: 1 and 1.0 are equal, 1 and true are not; the order of names is free."""
    try:
        return _key(read_json(answer)) == _key(gold)
    except (ValueError, RecursionError):
        return False


def fits(schema: Schema, answer: str) -> bool:
    """Whether an answer is JSON that a schema allows."""
    try:
        return schema.allows(read_json(answer))
    except ValueError:
        return False


@lru_cache(maxsize=256)
def schema_of(text: str) -> Schema:
    """The schema that a JSON text states; see Schema."""
    return Schema(json.loads(text))


def _object(pairs: list[tuple[str, object]]) -> dict:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("a name occurs twice")
    return result


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _key(value: object) -> object:
    """What equal JSON values have in common."""
    if isinstance(value, dict):
        return "object", frozenset((name, _key(each)) for name, each in value.items())
    if isinstance(value, list):
        return "array", tuple(map(_key, value))
    return ("boolean", value) if isinstance(value, bool) else (type(None).__name__, None) if value is None else value


def _unique_items(validator: Validator, unique: bool, instance: object, _) -> Iterator[ValidationError]:
    if unique and isinstance(instance, list) and len(set(map(_key, instance))) < len(instance):
        yield ValidationError("has an item twice")


def _parts(schema: object) -> Iterator[dict]:
    """All objects within a schema."""
    if isinstance(schema, dict):
        yield schema
    for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from _parts(part)


def _refuse_references_elsewhere(schema: dict | bool) -> None:
    specification = DRAFT202012
    if isinstance(schema, dict) and "$schema" in schema:
        specification = specification_with(schema["$schema"], default=DRAFT202012)
    resource = SchemaResource(contents=schema, specification=specification)
    registry = Registry().with_resource("", resource).crawl()
    resolver = registry.resolver_with_root(resource)
    for part in _parts(schema):
        for keyword in ("$ref", "$dynamicRef", "$recursiveRef"):
            reference = part.get(keyword)
            if not isinstance(reference, str):
                continue  # a property of this name
            try:
                resolver.lookup(reference)
            except Unresolvable:
                raise UserError(f"The JSON schema refers to {reference!r}, which is not in it; nothing is fetched. Put that "
                                "part under $defs and refer to it there.") from None


def _refuse_wrong_patterns(schema: dict | bool) -> None:
    for part in _parts(schema):
        by_name = part.get("patternProperties")
        for pattern in (part.get("pattern"), *(by_name if isinstance(by_name, dict) else ())):
            if isinstance(pattern, str):
                try:
                    regex.compile(pattern)
                except regex.error as error:
                    raise UserError(f"The JSON schema's pattern {pattern!r}: {error}. Correct it.") from error
        if "unevaluatedProperties" in part and any("patternProperties" in each for each in _parts(schema)):
            raise UserError("The JSON schema has both unevaluatedProperties and patternProperties, whose patterns cannot be "
                            "given a time limit together. Use additionalProperties.")
