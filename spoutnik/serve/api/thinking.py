"""The many switches of the thought: those of OpenAI, OpenRouter, Anthropic, DeepSeek, Qwen, GLM, vLLM, llama.cpp and ollama,
read as one. Where two contradict each other the request is refused."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ConfigDict, Field

from spoutnik.generation.options import EFFORTS
from spoutnik.serve.api.common import Body
from spoutnik.serve.errors import ApiError

Effort = Literal[tuple(EFFORTS)]
BUDGETS = ("max_thinking_tokens", "thinking_token_budget", "thinking_budget", "thinking_budget_tokens", "reasoning_budget",
           "reasoning_budget_tokens")
FIELD_VARIABLES = ("reasoning_effort", "thinking_budget")  # of a template: they count as fields, whether it reads them or not


class StrictBody(Body):
    """Unknown keys are errors: each would change how the model thinks."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Thinking(StrictBody):
    """As DeepSeek, GLM and Anthropic have it."""

    type: Literal["enabled", "disabled", "adaptive", "auto"]
    budget_tokens: int | None = Field(None, ge=0)
    display: Literal["summarized", "omitted"] | None = None
    clear_thinking: Literal[True] | None = Field(None, description="Past thoughts are left to the template.")


class Reasoning(StrictBody):
    """As OpenRouter has it."""

    effort: Effort | None = None
    max_tokens: int | None = Field(None, ge=0)
    enabled: bool | None = None
    exclude: bool | None = Field(None, description="true: the thought is not shown.")
    summary: Literal["auto", "concise", "detailed"] | None = Field(None, description="The thought itself is returned instead.")


@dataclass
class ThoughtSwitches:
    """What they come to. variables: what else the template reads."""

    enabled: bool | None = None
    effort: str | None = None
    budget: int | None = None
    shown: bool = True
    variables: dict[str, object] = field(default_factory=dict)

    @staticmethod
    def of(request: "ThoughtFields") -> "ThoughtSwitches":
        """Raises ApiError for those that contradict each other."""
        variables = dict(request.chat_template_kwargs or {})
        said = list(_statements(request, variables))
        switches = ThoughtSwitches(*(_agreed([(name, value[kind]) for name, value in said if kind in value])
                                     for kind in ("enabled", "effort", "budget")), variables=variables)
        switches.shown = not (request.include_reasoning is False or request.reasoning is not None and request.reasoning.exclude
                              or request.thinking is not None and not isinstance(request.thinking, bool)
                              and request.thinking.display == "omitted")
        _check_contradictions(said)
        if switches.budget == -1:  # as many tokens as there is room for
            switches.budget = None
        return switches


class ThoughtFields(Body):
    """The fields of a request that switch or bound its thought."""

    reasoning_effort: Effort | Literal["default"] | None = None
    max_thinking_tokens: int | None = Field(None, ge=-1, description="-1: as many as there is room for.")
    thinking_token_budget: int | None = Field(None, ge=-1, description="The same as max_thinking_tokens.")
    thinking_budget: int | None = Field(None, ge=-1, description="The same as max_thinking_tokens.")
    thinking_budget_tokens: int | None = Field(None, ge=-1, description="The same as max_thinking_tokens.")
    reasoning_budget: int | None = Field(None, ge=-1, description="The same as max_thinking_tokens.")
    reasoning_budget_tokens: int | None = Field(None, ge=-1, description="The same as max_thinking_tokens.")
    enable_thinking: bool | None = None
    thinking: Thinking | bool | None = Field(None, description="As DeepSeek, GLM and Anthropic have it.")
    think: bool | Effort | None = Field(None, description="As ollama has it: a switch, or an effort.")
    reasoning: Reasoning | None = Field(None, description="As OpenRouter has it.")
    chat_template_kwargs: dict[str, Any] | None = Field(None, description="What else the model's template reads.")
    include_reasoning: bool | None = Field(None, description="false: the thought is not shown.")


def _statements(request: ThoughtFields, variables: dict[str, object]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(field, what it says of enabled, effort and budget). Takes the switches out of the template's variables."""
    for name in ("reasoning_effort", "think", "enable_thinking", "thinking"):
        value = getattr(request, name)
        if isinstance(value, bool):
            yield name, {"enabled": value}
        elif isinstance(value, str) and value != "default":
            yield name, {"effort": value}
    for name in BUDGETS:
        if (value := getattr(request, name)) is not None:
            yield name, {"budget": value}
    if isinstance(request.thinking, Thinking):
        if request.thinking.type in ("enabled", "disabled"):
            yield "thinking.type", {"enabled": request.thinking.type == "enabled"}
        if request.thinking.budget_tokens is not None:
            yield "thinking.budget_tokens", {"budget": request.thinking.budget_tokens}
    if request.reasoning is not None:
        for name, kind in (("effort", "effort"), ("max_tokens", "budget"), ("enabled", "enabled")):
            if (value := getattr(request.reasoning, name)) is not None:
                yield f"reasoning.{name}", {kind: value}
    for name in ("enable_thinking", "thinking"):
        if (value := variables.pop(name, None)) is not None:
            if not isinstance(value, bool):
                place = f"chat_template_kwargs.{name}"
                raise ApiError(400, f"{place} = {value!r}: must be true or false.", place)
            yield f"chat_template_kwargs.{name}", {"enabled": value}
    if variables.get("reasoning_effort") in EFFORTS:
        yield "chat_template_kwargs.reasoning_effort", {"effort": variables["reasoning_effort"]}
    if type(variables.get("thinking_budget")) is int:
        yield "chat_template_kwargs.thinking_budget", {"budget": variables["thinking_budget"]}


def _agreed(values: list[tuple[str, Any]]) -> Any:
    """The one value of a kind that was given, under whatever names."""
    for name, value in values[1:]:
        if value != values[0][1]:
            raise ApiError(400, f"{values[0][0]} and {name}: mean the same but differ. Give one of them.", values[0][0])
    return values[0][1] if values else None


def _check_contradictions(said: list[tuple[str, Mapping[str, Any]]]) -> None:
    """What says that there is a thought, and what says that there is none. (A budget is only the most that may be.)"""
    def says_on(value: Mapping[str, Any]) -> bool:
        return value.get("enabled") is True or value.get("effort") not in (None, "none")

    def says_off(value: Mapping[str, Any]) -> bool:
        return value.get("enabled") is False or value.get("effort") == "none"

    on, off = ([name for name, value in said if says(value)] for says in (says_on, says_off))
    if on and off:
        raise ApiError(400, f"{on[0]}: contradicts {off[0]}, which switches the thought off. Leave one of them out.", on[0])
