"""From a conversation to the ids of a prompt: through a template that may take less than clients send, and on into a message of
the assistant that is to be continued.

Strict templates refuse a second system message, results of tools, or two messages of one side in a row; some drop a system
message in silence. The conversation is then changed, step by step, until the template takes all of it; each change is told.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TypeVar

from spoutnik.errors import UserError
from spoutnik.generation.tools.formats import convention
from spoutnik.generation.tools.tool_set import ToolSet, in_words
from spoutnik.text.chat_template import Message, TemplateRefusal
from spoutnik.text.thought_format import knows_thoughts, opens_thought
from spoutnik.text.thought_marks import ThoughtMarks
from spoutnik.text.tokenizer import Tokenizer

Prompt = TypeVar("Prompt")


@dataclass(frozen=True)
class Prefill:
    """The beginning of the assistant's message, which is continued: inside its thought where there is no answer yet and the
    thought was not closed."""

    thought: str = ""
    answer: str = ""
    thought_closed: bool = False

    @property
    def in_answer(self) -> bool:
        return bool(self.answer) or self.thought_closed


@dataclass(frozen=True)
class RenderedConversation:
    """notes: sentences on what was changed for the template."""

    ids: list[int]
    notes: tuple[str, ...] = ()
    prefill: Prefill | None = None


@dataclass(frozen=True)
class ConversationRenderer:
    """What a conversation is rendered with. variables: what the template reads besides messages and tools."""

    tokenizer: Tokenizer
    tools: ToolSet
    documents: Sequence[dict] | None
    variables: Mapping[str, object]
    add_generation_prompt: bool = True
    max_tokens: int | None = None

    def render(self, messages: Sequence[Message], continues: bool | None = None) -> RenderedConversation:
        """continues: the last message, which is the assistant's, is continued. None: where it is that and calls no tool.

        Raises:
            UserError: the conversation is wrong, or its template refuses it however it is changed.
        """
        messages, prefill = split_prefill(messages, self.tokenizer.marks, continues)
        if prefill is None:
            return RenderedConversation(*self._fit(messages))
        if not messages:
            raise UserError("messages: holds nothing but the beginning of the assistant's. Put the question before it.")
        renderer = replace(self, add_generation_prompt=True)
        if prefill.in_answer and not prefill.thought:  # the answer has begun: the template must not open a thought
            renderer = replace(renderer, variables={**self.variables, "enable_thinking": False, "thinking": False})
        opened = opens_thought(renderer._fit(messages)[0], self.tokenizer)
        ids, notes = renderer._fit(messages, self._continuation(prefill, opened))
        return RenderedConversation(ids, notes, prefill)

    def _continuation(self, prefill: Prefill, opened: bool) -> list[tuple[str, bool]]:
        """What follows the generation prompt: texts, and whether they belong to the format. opened: it ends in a thought."""
        if prefill.thought and not knows_thoughts(self.tokenizer):
            raise UserError("messages: this model has no thought that could be continued. Leave out reasoning_content.")
        parts, marks = [], self.tokenizer.marks
        if prefill.thought:
            parts += [(f"{marks.start}\n", True)] * (not opened) + [(prefill.thought, False)]
        if prefill.in_answer:
            parts += [(f"\n{marks.end}\n\n", True)] * (opened or bool(prefill.thought)) + [(prefill.answer, False)]
        return parts

    def _fit(self, messages: Sequence[Message],
             continuation: Sequence[tuple[str, bool]] = ()) -> tuple[list[int], tuple[str, ...]]:
        """The prompt's ids, of the conversation as it is, or with as few changes as the template takes it."""
        return self._changed_until_taken(messages, lambda messages, tools: self._ids(messages, tools, continuation))

    def text(self, messages: Sequence[Message]) -> str:
        """The prompt as text, with the same changes. Raises as `render`."""
        return self._changed_until_taken(messages, self._rendered)[0]

    def _changed_until_taken(self, messages: Sequence[Message],
                             attempt: Callable[[Sequence[Message], Sequence[Mapping] | None], Prompt]
                             ) -> tuple[Prompt, tuple[str, ...]]:
        """What an attempt gives for the first form of the conversation that it takes, with notes on what was changed."""
        messages, tools = self.tools.conversation(self.tokenizer, messages)
        try:
            return attempt(messages, tools), ()
        except TemplateRefusal as error:
            refusal = error
        notes = []
        for change, note in _CHANGES:
            changed = change(messages, self.tokenizer)
            if changed == messages:
                continue
            messages = changed
            notes.append(f"messages: {note}; this model's template demands it.")
            with suppress(TemplateRefusal):
                return attempt(messages, tools), tuple(notes)
        raise refusal

    def _ids(self, messages: Sequence[Message], tools: Sequence[Mapping] | None,
             continuation: Sequence[tuple[str, bool]]) -> list[int]:
        """Raises TemplateRefusal, also for a template that passes over a system message in silence."""
        ids = self.tokenizer.chat_ids(messages, tools, self.documents, self.variables, self.add_generation_prompt, continuation,
                                      self.max_tokens)
        if any(_system_texts(messages)):
            self._rendered(messages, tools)
        return ids

    def _rendered(self, messages: Sequence[Message], tools: Sequence[Mapping] | None) -> str:
        """Raises as `_ids`."""
        rendered = self.tokenizer.render(messages, self.add_generation_prompt, tools, self.documents, self.variables)
        if not all(text in rendered for text in _system_texts(messages)):
            raise TemplateRefusal("messages: this model's chat template has no place for a message of the system. Put it "
                                  "into the user's.")
        return rendered


def _system_texts(messages: Sequence[Message]) -> list[str]:
    return [message["content"].strip() for message in messages
            if message["role"] == "system" and isinstance(message.get("content"), str)]


def split_prefill(messages: Sequence[Message], marks: ThoughtMarks,
                  continues: bool | None = None) -> tuple[Sequence[Message], Prefill | None]:
    """The conversation without the assistant's message that is to be continued, and that."""
    last = messages[-1] if messages else {}
    if last.get("role") != "assistant" or last.get("tool_calls") or continues is False:
        if continues:
            raise UserError("continue_final_message = true: the last message must be the assistant's, and call no tool.")
        return messages, None
    thought, answer = str(last.get("reasoning_content") or ""), str(last.get("content") or "")
    closed = ""
    if not thought and answer.lstrip().startswith(marks.start):  # as clients write it that know no reasoning_content
        thought, closed, answer = answer.lstrip().removeprefix(marks.start).partition(marks.end)
        thought, answer = thought.strip("\n"), answer.lstrip("\n")
    return messages[:-1], Prefill(thought, answer, bool(closed)) if thought or answer or closed else None


def _merge_system_messages(messages: Sequence[Message], tokenizer: Tokenizer) -> Sequence[Message]:
    system = [message for message in messages if message["role"] == "system"]
    if not system or system == list(messages[:1]):
        return messages
    others = [message for message in messages if message["role"] != "system"]
    return [_joined(system), *others]


def _write_empty_contents(messages: Sequence[Message], tokenizer: Tokenizer) -> Sequence[Message]:
    return [message | {"content": ""} if message.get("content") is None else message for message in messages]


def _write_tools_in_words(messages: Sequence[Message], tokenizer: Tokenizer) -> Sequence[Message]:
    if not any(message.get("tool_calls") or message["role"] == "tool" for message in messages):
        return messages
    return in_words(messages, convention(tokenizer).format)


def _merge_neighbors(messages: Sequence[Message], tokenizer: Tokenizer) -> Sequence[Message]:
    merged: list[Message] = []
    for (role, calls), group in groupby(messages, lambda message: (message["role"], bool(message.get("tool_calls")))):
        alike = list(group)
        merged += [_joined(alike)] if role in ("user", "assistant") and not calls else alike
    return merged


def _system_into_user(messages: Sequence[Message], tokenizer: Tokenizer) -> Sequence[Message]:
    if not messages or messages[0]["role"] != "system":
        return messages
    if len(messages) < 2 or messages[1]["role"] != "user":
        return [messages[0] | {"role": "user"}, *messages[1:]]
    return [messages[1] | {"content": _joined(list(messages[:2]))["content"]}, *messages[2:]]


# In this order, one after the other, until the template takes the conversation.
_CHANGES = [(_merge_system_messages, "the system's were merged into one at the beginning"),
            (_write_empty_contents, "those without a content got an empty one"),
            (_write_tools_in_words, "calls and results of tools were written as texts"),
            (_merge_neighbors, "those of one side in a row were merged"),
            (_system_into_user, "the system's was put into the user's first")]


def _joined(messages: list[Message]) -> Message:
    """One message that says what several did."""
    if len(messages) == 1:
        return messages[0]
    texts = {key: "\n\n".join(filter(None, (str(message.get(key) or "") for message in messages)))
             for key in ("content", "reasoning_content")}
    return messages[-1] | {key: text for key, text in texts.items() if text or key == "content"}
