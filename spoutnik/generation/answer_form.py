"""The form that a whole answer must have (JSON of a schema, one of some texts, a regular expression, a grammar), as a rule of
llguidance's Lark."""

import json
from dataclasses import dataclass
from typing import Literal

from llguidance import regex_to_lark
from llguidance.gbnf_to_lark import any_to_lark

from spoutnik.errors import UserError

Kind = Literal["json", "choice", "regex", "grammar"]
_SHAPE = 'must be {"name": ..., "schema": {...}}, the JSON schema under schema'


@dataclass(frozen=True)
class AnswerForm:
    """value: a JSON schema, texts to choose from, a regular expression, or a grammar in Lark or GBNF. place: the request's
    field, for errors."""

    kind: Kind
    value: object
    place: str

    def __post_init__(self):
        if self.kind == "choice":
            texts = self.value
            if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text.strip() for text in texts):
                raise UserError(f"{self.place}: must be a list of texts, none of them empty.")
        elif self.kind == "json":
            if not isinstance(self.value, dict):
                raise UserError(f"{self.place}: must be a JSON schema, an object.")
        elif not isinstance(self.value, str) or not self.value.strip():
            raise UserError(f"{self.place}: must be a {'regular expression' if self.kind == 'regex' else 'grammar'}, a text.")

    @staticmethod
    def json(schema: object, place: str) -> "AnswerForm":
        """A JSON schema, as an object or as a text that holds one."""
        if isinstance(schema, str):
            try:
                schema = json.loads(schema)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{place}: is not JSON ({error}). Give the schema as an object.") from error
        return AnswerForm("json", schema, place)

    @staticmethod
    def of_response_format(response_format: dict | None) -> "AnswerForm | None":
        """None for free text. Besides OpenAI's forms, those of llama.cpp, Together and Fireworks (a schema in a json_object, a
        grammar) and of TGI (a regular expression)."""
        kind, place = (response_format or {"type": "text"}).get("type"), "response_format"
        keys = _KEYS.get(kind) if isinstance(kind, str) else None
        if keys is None:
            raise UserError(f"response_format.type = {kind!r}: unknown. Choose text, json_object or json_schema.")
        for key in response_format or ():
            if key not in keys and response_format[key] is not None:
                raise UserError(f"response_format.{key}: is not read with the type {kind!r}. Leave it out, or choose another "
                                "type.")
        given = {key: value for key, value in (response_format or {}).items() if value is not None and key != "type"}
        match kind:
            case "text":
                return None
            case "grammar":
                return AnswerForm("grammar", given.get("grammar"), f"{place}.grammar")
            case "regex":
                key = "pattern" if "pattern" in given else "value"
                return AnswerForm("regex", given.get(key), f"{place}.{key}")
        if "schema" in given and "json_schema" in given:
            raise UserError("response_format.schema: json_schema gives one, too. Leave one of them out.")
        if "schema" in given:
            return AnswerForm.json(given["schema"], f"{place}.schema")
        if kind == "json_object" and "json_schema" not in given:
            return AnswerForm("json", {"type": "object"}, place)
        return _of_json_schema(given.get("json_schema"))

    @property
    def rule(self) -> str:
        """The right side of a rule of the grammar; JSON schemas are compiled by grammar.py."""
        match self.kind:
            case "choice":
                return "(" + " | ".join(json.dumps(text, ensure_ascii=False) for text in self.value) + ")"
            case "regex":
                return f"/{regex_to_lark(self.value, 'd')}/"
            case "grammar":
                return f"%lark {{\n{self._lark}\n}}"
        raise AssertionError(self.kind)

    @property
    def _lark(self) -> str:
        try:
            lark = any_to_lark(self.value)
        except Exception as error:  # the library's own kinds
            raise UserError(f"{self.place}: is no grammar in Lark or GBNF ({' '.join(str(error).split())[:200]}).") from error
        return "\n".join(line for line in lark.splitlines() if not line.startswith("%llguidance"))


_KEYS = {"text": {"type"}, "json_object": {"type", "schema", "json_schema"}, "json_schema": {"type", "json_schema", "schema"},
         "grammar": {"type", "grammar"}, "regex": {"type", "value", "pattern"}}


def _of_json_schema(json_schema: object) -> AnswerForm:
    place = "response_format.json_schema"
    if not isinstance(json_schema, dict) or json_schema.get("schema") is None:
        raise UserError(f"{place}: {_SHAPE}.")
    for key in json_schema:
        if key not in ("name", "description", "schema", "strict"):
            raise UserError(f"{place}.{key}: is unknown; json_schema {_SHAPE}.")
    return AnswerForm.json(json_schema["schema"], f"{place}.schema")
