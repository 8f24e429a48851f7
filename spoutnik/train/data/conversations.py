"""Conversations as people store them, to the messages that chat templates take.

Roles and keys of other tools become OpenAI's; a thought that stands in an assistant's content goes under `reasoning_content`,
where templates decide what becomes of it in earlier turns (most leave it out, as they do in chat).
"""

import json
import math
from collections.abc import Mapping, Sequence, Set
from typing import Literal

from spoutnik.files import check_text
from spoutnik.text.chat_template import REASONING, Message
from spoutnik.train.data.key_names import with_known_keys
from spoutnik.train.data.thought_text import split_thought

Learn = Literal["last", "all"]
# What a part of the data becomes where it is no trace: counted under that name in the report.
Drop = Literal["incorrect", "no_reply", "tool_call", "differing", "tie", "no_opinion"]

_ROLES = {"system": "system", "developer": "system", "user": "user", "human": "user", "prompter": "user",
          "assistant": "assistant", "ai": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant",
          "model": "assistant", "tool": "tool", "function": "tool", "observation": "tool", "function_response": "tool"}
_CALLS = "function_call"  # ShareGPT's role of a message whose text is a tool call, or a list of them, as JSON
_TEXT_PARTS = ("text", "input_text", "output_text")  # OpenAI's two APIs; Anthropic's has "text" too
_THOUGHT_PARTS = ("thinking", "reasoning")  # of an assistant's content, with the text under the same key, or under text
_KEPT = ("name", "tool_calls", "tool_call_id")  # of a message, beside role, content and thought
_MESSAGE_KEYS = ("role", "from", "content", "value", "weight", "train", "function_call", *_KEPT, *REASONING)


def _listed_messages(key: str, value: object) -> Sequence:
    """A list of anything, also one that is written as JSON. Raises ValueError where there is none."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f"'{key}' is not JSON ({error}). Correct it.") from error
    if is_message(value):
        value = [value]
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise ValueError(f"'{key}' must be a list of messages, each with role and content (or from and value). Correct it.")
    return [with_known_keys(message, _MESSAGE_KEYS)[0] if isinstance(message, Mapping) else message for message in value]


def is_message(value: object) -> bool:
    """Whether a value is one message, as it stands in lists of them."""
    return isinstance(value, Mapping) and bool(with_known_keys(value, _MESSAGE_KEYS)[0].keys() & {"role", "from"})


def is_conversation(value: object) -> bool:
    """Whether a reply, or what stands before it, is a list of messages, or one of them alone."""
    return isinstance(value, list) or is_message(value)


def number_text(value: object) -> str | None:
    """A number as it is written, 4 for 4.0; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return str(int(value)) if value == int(value) else str(value)


def chat_messages(key: str, value: object) -> list[Message]:
    """The messages of a row, checked; also those written as JSON in a cell of a table.

    Raises:
        ValueError: they are none; says which and why.
    """
    return [_message(f"message {number} of '{key}'", message) for number, message in enumerate(_listed_messages(key, value), 1)]


def not_to_learn(key: str, value: object) -> set[int]:
    """The numbers of the messages that the row itself keeps from being learned: OpenAI's `weight: 0`, others' `train: false`.
    They are read. Raises ValueError for a weight that is neither 0 nor 1, since such a share is not computed."""
    numbers = set()
    for number, message in enumerate(_listed_messages(key, value)):
        weight = message.get("weight")
        if weight is not None and weight not in (0, 1):
            raise ValueError(f"message {number + 1} of '{key}': weight = {weight!r}: must be 0 (read, not learned) or 1. "
                             "Correct it.")
        if weight == 0 or message.get("train") is False:
            numbers.add(number)
    return numbers


def _message(where: str, message: object) -> Message:
    if not isinstance(message, Mapping):
        raise ValueError(f"{where} must be an object with role and content (or from and value). Correct it.")
    given = message.get("role", message.get("from"))
    name = given.lower() if isinstance(given, str) else None
    if name == _CALLS:
        calls = _written_calls(where, message.get("value", message.get("content")))
        return {"role": "assistant", "content": "", "tool_calls": calls}
    role = _ROLES.get(name)
    if role is None:
        raise ValueError(f"{where}: its role is {given!r}; known are {', '.join((*_ROLES, _CALLS))}. Correct it.")
    if role == "assistant" and isinstance(message.get("function_call"), Mapping):  # OpenAI's, before tools
        message = {**message, "tool_calls": [{"type": "function", "function": message["function_call"]}]}
    calls_tools = role == "assistant" and bool(message.get("tool_calls"))
    content, thought = message.get("content", message.get("value")), None
    if role == "assistant" and isinstance(content, list):
        content, thought = _without_thoughts(content)
    content = _text(where, content, calls_tools)
    result: Message = {"role": role, "content": content}
    if role == "assistant":
        thought = next((message[key] for key in REASONING if message.get(key) is not None), thought)
        if thought is None:
            thought, result["content"] = split_thought(content)
        check_text("reasoning_content", thought)
        if thought.strip():
            result["reasoning_content"] = thought.strip()
    result |= {key: message[key] for key in _KEPT if message.get(key) is not None}
    if "tool_calls" in result:
        result["tool_calls"] = [_call(where, call) for call in _listed(where, "tool_calls", result["tool_calls"])]
    return result


def _text(where: str, content: object, may_lack: bool) -> str:
    """The text of a content, which may be a list of parts."""
    if content is None and may_lack:
        return ""
    if isinstance(content, list):
        for part in content:
            if not isinstance(part, Mapping) or part.get("type") not in _TEXT_PARTS or not isinstance(part.get("text"), str):
                kind = part.get("type") if isinstance(part, Mapping) else part
                raise ValueError(f"{where} holds a part of type {kind!r}: only text is read. Remove it.")
        content = "".join(part["text"] for part in content)
    content = number_text(content) or content
    try:
        check_text("content", content)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return content


def _without_thoughts(parts: list) -> tuple[list, str | None]:
    """The other parts of a reply, and its thought: the texts of the parts that are thoughts, None where there are none."""
    thoughts, others = [], []
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else None
        text = part.get(kind, part.get("text")) if kind in _THOUGHT_PARTS else None
        (others if text is None else thoughts).append(part if text is None else text)
    for text in thoughts:
        check_text("thinking", text)
    return others, "\n\n".join(thoughts) if thoughts else None


def _written_calls(where: str, text: object) -> list[dict]:
    """The tool calls that the text of a message is (ShareGPT's function_call), in order."""
    try:
        value = json.loads(text) if isinstance(text, str) else text
    except ValueError as error:
        raise ValueError(f"{where}: a {_CALLS} must be a tool call as JSON ({error}). Correct it.") from error
    return [_call(where, call) for call in _listed(where, _CALLS, value if isinstance(value, list) else [value])]


def _call(where: str, call: object) -> dict:
    """A tool call with its arguments as an object, as templates want them; OpenAI's API writes them as JSON text, other data
    name and arguments without a function around them."""
    function = call.get("function") if isinstance(call, Mapping) else None
    if function is None and isinstance(call, Mapping) and "arguments" in call:
        function, call = {key: call[key] for key in ("name", "arguments") if key in call}, {
            "type": "function", **{key: value for key, value in call.items() if key not in ("name", "arguments")}}
    if not isinstance(function, Mapping):
        raise ValueError(f"{where}: a tool call must have a function with name and arguments. Correct it.")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")  # OpenAI's API writes none as an empty text
        except ValueError as error:
            raise ValueError(f"{where}: the arguments of a tool call are not JSON ({error}). Correct them.") from error
    return {**call, "function": {**function, "arguments": arguments}}


def tool_list(row: Mapping) -> list[dict] | None:
    """The tools of a row: a list of schemas, or its JSON text; None where there are none."""
    tools = row.get("tools")
    if isinstance(tools, str) and tools.strip():
        try:
            tools = json.loads(tools)
        except ValueError as error:
            raise ValueError(f"'tools' is not JSON ({error}). Correct it.") from error
    return _listed("the row", "tools", tools) if tools else None


def _listed(where: str, key: str, value: object) -> list[dict]:
    if not isinstance(value, list) or not all(isinstance(entry, Mapping) for entry in value):
        raise ValueError(f"{where}: '{key}' must be a list of objects. Correct it.")
    return value


def conversation_traces(messages: Sequence[Message], tools: list[dict] | None, learn: Learn,
                        unlearned: Set[int] = frozenset()) -> list[dict | Drop]:
    """The traces of a conversation. last: its last reply is learned; all: each reply, with what stands before it, as the model
    will see it when it replies there. A reply that only calls tools is read, and not learned, as are those of the numbers in
    unlearned."""
    replies = [number for number, message in enumerate(messages)
               if message["role"] == "assistant" and number > 0 and number not in unlearned]
    if not replies:
        return ["no_reply"]
    if learn == "last":
        replies = replies[-1:]
    return [_trace_or_drop(messages, number, tools) for number in replies]


def _trace_or_drop(messages: Sequence[Message], number: int, tools: list[dict] | None) -> dict | Drop:
    reply = messages[number]
    if reply.get("tool_calls"):
        return "tool_call"
    return trace_of(messages[:number], reply.get("reasoning_content", ""), reply["content"], tools)


def trace_of(context: Sequence[Message], thought: str, answer: str, tools: list[dict] | None = None) -> dict:
    """A trace. A question alone is its prompt; any other conversation, and one with tools, also stands under `messages`."""
    questions = [message["content"] for message in context if message["role"] == "user"]
    row = {"prompt": questions[-1] if questions else "", "thought": thought, "answer": answer}
    if tools or [message["role"] for message in context] != ["user"]:
        row["messages"] = list(context)
    return row | ({"tools": tools} if tools else {})


def context_of(row: Mapping) -> list[Message]:
    """The messages before a trace's reply."""
    if "messages" in row:
        return row["messages"]
    turns = [{"role": role, "content": text} for question, answer in row.get("history") or ()
             for role, text in (("user", question), ("assistant", answer))]
    return [*turns, {"role": "user", "content": row["prompt"]}]


def questions_of(row: Mapping) -> list[str]:
    """All that users say in a trace."""
    return [message["content"] for message in context_of(row) if message["role"] == "user"] or [row["prompt"]]
