"""Requests of `/v1/chat/completions`, and the generation plan that each becomes."""

import re
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

from pydantic import ConfigDict, Field

from spoutnik.generation.grammar import structured_output
from spoutnik.generation.options import GenerationOptions, GenerationPlan, applied, plan_chat
from spoutnik.generation.service import ServedModel
from spoutnik.generation.tools.tool_set import ToolSet
from spoutnik.serve.api.answer_form import FormFields
from spoutnik.serve.api.chat_messages import Message
from spoutnik.serve.api.common import Sampling, unknown_note
from spoutnik.serve.api.fields import CHAT_REFUSED, unknown_fields
from spoutnik.serve.api.thinking import FIELD_VARIABLES, ThoughtFields, ThoughtSwitches
from spoutnik.serve.errors import ApiError
from spoutnik.text import chat_template

MAX_THOUGHTS = 64
FORMATS = {"auto": None, "parsed": "deepseek", "hidden": "deepseek", "raw": "none"}  # Groq's words, in llama.cpp's
SHORT_PROMPT = 2000  # characters; each message counts as 100 more


class ChatRequest(ThoughtFields, FormFields, Sampling):
    model_config = ConfigDict(extra="allow")  # to see unsupported fields

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=-2, description="The same as max_tokens, of thought and answer.")
    logprobs: bool | None = Field(None, description="Of the answer's tokens.")
    top_logprobs: int | None = Field(None, ge=0, le=20)
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    modalities: list[Literal["text"]] | None = None
    documents: list[dict[str, Any]] | None = None
    continue_final_message: bool | None = Field(None, description="The last message is continued; by default where it is the "
                                                "assistant's.")
    add_generation_prompt: bool | None = Field(None, description="false: the model goes on with the conversation as it is.")
    detect_loops: bool | None = Field(None, description="A thought that goes in circles is closed; true by default.")
    reasoning_format: Literal["auto", "deepseek", "deepseek-legacy", "none", "parsed", "raw", "hidden"] | None = Field(
        None, description="Where the thought goes: beside the content (deepseek, parsed), into it (none, raw), both "
        "(deepseek-legacy), or nowhere (hidden).")
    separate_reasoning: bool | None = Field(None, description="false: reasoning_format = none.")
    n_thoughts: int | None = Field(None, ge=1, le=MAX_THOUGHTS, description="Thinks so many times; the answers vote.")

    @property
    def shown_format(self) -> str:
        stated = FORMATS.get(self.reasoning_format, self.reasoning_format)
        return stated or ("none" if self.separate_reasoning is False else "deepseek")

    @cached_property
    def thought_switches(self) -> ThoughtSwitches:
        switches = ThoughtSwitches.of(self)
        switches.shown = switches.shown and self.reasoning_format != "hidden"
        return switches

    @cached_property
    def tool_set(self) -> ToolSet:
        return ToolSet.parse(self.tools, self.tool_choice)

    @property
    def template_messages(self) -> list[chat_template.Message]:
        return [message.for_template for message in self.messages]

    @property
    def brief(self) -> bool:
        """Whether planning it takes less time than waking a thread."""
        if any(getattr(self, name) for name in (*FormFields.model_fields, "tools", "documents", "chat_template_kwargs")):
            return False
        return sum(100 + message.length for message in self.messages) < SHORT_PROMPT

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What there is to say of this request. Raises ApiError for fields that would change the answer and are not served."""
        notes = unknown_note(unknown_fields(self.model_extra, CHAT_REFUSED))
        if self.max_tokens_as_given == 0:
            notes += ("max_tokens = 0: an answer has one token at least; one was taken.",)
        return notes

    @property
    def continues(self) -> bool | None:
        """Whether the last message is continued; None leaves it to its role."""
        continued = [number for number, message in enumerate(self.messages) if message.continued]
        if continued and (continued != [len(self.messages) - 1] or self.messages[-1].role != "assistant"):
            raise ApiError(400, f"messages[{continued[0]}].prefix: only of the last message, the assistant's.",
                           f"messages[{continued[0]}].prefix")
        return True if continued else self.continue_final_message

    def check_supported(self) -> None:
        super().check_supported()
        _ = self.notes
        if self.separate_reasoning is not None and self.reasoning_format not in (None, "auto"):
            if self.separate_reasoning != (self.shown_format == "deepseek"):
                raise ApiError(400, "separate_reasoning: reasoning_format says otherwise. Give one of them.",
                               "separate_reasoning")
        if self.top_logprobs is not None and not self.logprobs:
            raise ApiError(400, "top_logprobs: only with logprobs = true.", "top_logprobs")
        for name, value in (("n", (self.n or 1) > 1), ("logprobs", self.logprobs), ("tools", self.tools),
                            ("prompt_logprobs", self.prompt_logprobs is not None)):
            if (self.n_thoughts or 1) > 1 and value:
                raise ApiError(400, f"n_thoughts = {self.n_thoughts}: the votes are over answers in words. Leave out {name}.",
                               "n_thoughts")


def options_of(request: ChatRequest, served: ServedModel) -> GenerationOptions:
    """Raises ApiError or UserError for what cannot be honored."""
    thought = request.thought_switches
    logprobs = (request.top_logprobs or 0) if request.logprobs else None
    make_logits_processor, form = None, request.form
    if request.tool_set.callable or form is not None:
        thinks = thought.enabled is not False and thought.effort != "none" and thought.budget != 0
        make_logits_processor = structured_output(served.llm, form, request.tool_set, request.parallel_tool_calls is not False,
                                                  after_thought=thinks)
    max_tokens = request.stated_max_tokens
    return GenerationOptions(params=request.params(served, logprobs=logprobs),
                             max_tokens=None if max_tokens is None else max(max_tokens, 1),
                             max_thinking_tokens=thought.budget, reasoning_effort=thought.effort,
                             enable_thinking=thought.enabled, tools=request.tool_set, documents=request.documents,
                             variables=thought.variables, detect_loops=request.detect_loops is not False,
                             make_logits_processor=make_logits_processor, continue_final_message=request.continues,
                             add_generation_prompt=request.add_generation_prompt,
                             truncate_prompt_tokens=request.truncate_prompt_tokens)


def plan_of(request: ChatRequest, served: ServedModel) -> tuple[GenerationPlan, GenerationOptions]:
    """Raises ApiError or UserError. Takes too long for the event loop unless the request is `brief`."""
    request.check_supported()
    options = options_of(request, served)
    notes = _unread_notes(request, served, options)
    plan = plan_chat(served.llm, request.template_messages, options)
    return replace(plan, notes=(*request.notes, *notes, *plan.notes)), options


def _unread_notes(request: ChatRequest, served: ServedModel, options: GenerationOptions) -> tuple[str, ...]:
    """What there is to say of what the model's template does not read. Raises ApiError for documents."""
    if not options.documents and not options.variables or served.tokenizer is None:
        return ()
    source = served.tokenizer.templates.choose(bool(request.tools))
    if options.documents and not re.search(r"\bdocuments\b", source):
        raise ApiError(400, "documents: this model's template has no place for them. Put them into a message.", "documents")
    unread = [name for name in options.variables
              if name not in FIELD_VARIABLES and not re.search(rf"\b{re.escape(name)}\b", source)]
    return tuple(f"chat_template_kwargs.{name}: this model's template does not read it." for name in unread)


def applied_of(request: ChatRequest, served: ServedModel, plan: GenerationPlan) -> dict:
    """Every parameter in force."""
    return applied(plan) | {"model": served.id, "stream": bool(request.stream), "n_thoughts": request.n_thoughts or 1,
                            "reasoning_format": request.shown_format, "resumable": bool(request.resumable),
                            "include_reasoning": request.thought_switches.shown,
                            "tool_choice": request.tool_choice or ("auto" if request.tools else "none"),
                            "parallel_tool_calls": request.parallel_tool_calls is not False}
