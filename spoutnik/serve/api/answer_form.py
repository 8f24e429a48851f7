"""The fields that ask for a form of the answer: OpenAI's, vLLM's, SGLang's, llama.cpp's and ollama's, of which a request may
give one."""

from typing import Any

from pydantic import ConfigDict, Field

from spoutnik.generation.answer_form import AnswerForm
from spoutnik.serve.api.common import Body
from spoutnik.serve.errors import ApiError


class StructuredOutputs(Body):
    """vLLM's."""

    model_config = ConfigDict(extra="forbid", strict=True)

    json_: dict[str, Any] | str | None = Field(None, alias="json")
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None


class FormFields(Body):
    response_format: dict[str, Any] | None = None
    structured_outputs: StructuredOutputs | bool | None = None
    guided_json: dict[str, Any] | str | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = Field(None, description="In Lark or GBNF.")
    json_schema: dict[str, Any] | str | None = None
    regex: str | None = None
    grammar: str | None = Field(None, description="In Lark or GBNF.")
    ebnf: str | None = Field(None, description="The same as grammar.")
    format: dict[str, Any] | str | None = Field(None, description="json, or a JSON schema.")

    @property
    def form(self) -> AnswerForm | None:
        """None for free text. Raises ApiError or UserError for what is malformed, and for two forms at once."""
        forms = [form for form in (AnswerForm.of_response_format(self.response_format), *self._of_vllm(), *self._of_others())
                 if form is not None]
        if len(forms) > 1:
            raise ApiError(400, f"{forms[0].place} and {forms[1].place}: each gives the answer a form. Leave one of them out.",
                           forms[1].place)
        return forms[0] if forms else None

    def _of_vllm(self) -> list[AnswerForm]:
        given = self.structured_outputs if isinstance(self.structured_outputs, StructuredOutputs) else StructuredOutputs()
        forms = []
        for name, kind, inside in (("json", "json", given.json_), ("regex", "regex", given.regex),
                                   ("choice", "choice", given.choice), ("grammar", "grammar", given.grammar)):
            for place, value in ((f"structured_outputs.{name}", inside), (f"guided_{name}", getattr(self, f"guided_{name}"))):
                if value is not None:
                    forms.append(AnswerForm.json(value, place) if kind == "json" else AnswerForm(kind, value, place))
        if given.json_object:
            forms.append(AnswerForm("json", {"type": "object"}, "structured_outputs.json_object"))
        return forms

    def _of_others(self) -> list[AnswerForm]:
        forms = [] if self.json_schema is None else [AnswerForm.json(self.json_schema, "json_schema")]
        for name, kind in (("regex", "regex"), ("grammar", "grammar"), ("ebnf", "grammar")):
            if value := getattr(self, name):
                forms.append(AnswerForm(kind, value, name))
        if self.format == "json":
            forms.append(AnswerForm("json", {"type": "object"}, "format"))
        elif self.format:
            forms.append(AnswerForm.json(self.format, "format"))
        return forms
