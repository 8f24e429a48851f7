"""The shapes of rows that say which reply is better, or whether one is good, and what a row of each becomes.

A pair is {"prompt", ..., "chosen": {"thought", "answer"}, "rejected": {...}}; a thumb is a trace with "label".
"""

import re
from collections.abc import Mapping
from functools import partial

from spoutnik.files import check_text
from spoutnik.text.chat_template import Message
from spoutnik.train.data.conversations import (
    Drop,
    Learn,
    chat_messages,
    conversation_traces,
    is_conversation,
    is_message,
    tool_list,
    trace_of,
)
from spoutnik.train.data.opinions import opinion_shape
from spoutnik.train.data.row_shape import (
    COMMON,
    QUESTIONS,
    SYSTEM,
    Shape,
    context_at,
    instruction_context,
    joined,
    message_traces,
    one_of,
    reply_text,
    system_of,
)
from spoutnik.train.data.thought_text import split_final, split_thought

_PAIRS = (("chosen", "rejected"), ("chosen_response", "rejected_response"))
_OPENAI = ("preferred_output", "non_preferred_output")  # with "input", an object that has messages
LABELS = frozenset(("label", "kto_tag"))  # TRL's and LLaMA-Factory's name of an opinion
PREFERENCE_KEYS = (*(key for pair in _PAIRS for key in pair), *sorted(LABELS))
_CONVERSATIONS = ("conversations", "messages", "conversation")
_TURN = re.compile(r"(?:\A|\n\n)(Human|Assistant):[ \t]*")  # of a transcript, as Anthropic's HH has them
_LABELS = {True: True, False: False} | {
    word: good for good, words in ((True, "true 1 1.0 yes good up thumbs_up like liked chosen desirable desired positive 👍"),
                                   (False, "false 0 0.0 no bad down thumbs_down dislike disliked rejected undesirable "
                                           "undesired negative 👎"))
    for word in words.split()}


def preference_shape(keys: frozenset[str]) -> Shape | None:
    """The shape of rows with these keys; None where it is one of single replies.

    Raises:
        ValueError: it is unclear which key is the question.
    """
    if shape := opinion_shape(keys):
        return shape
    if keys.issuperset(("input", *_OPENAI)):
        return Shape(f"{'/'.join(_OPENAI)} (preference pairs, as OpenAI has them)", ("input", *_OPENAI), (), _openai_pair, True)
    for pair in _PAIRS:
        if keys.issuperset(pair):
            before = _before(keys)
            name = f"{'/'.join(pair)} (preference pairs)"
            return Shape(name, pair, (*before, *COMMON), partial(_pair, pair, before), True)
    if (label := label_in(keys)) is None:
        return None
    if keys.issuperset(("prompt", "completion")):
        return Shape(f"prompt/completion/{label} (thumbs up and down)", ("prompt", "completion", label), COMMON,
                     partial(_thumb, label), True)
    for key in _CONVERSATIONS:
        if key in keys:
            return Shape(f"{key}/{label} (thumbs up and down)", (key, label), (*SYSTEM, "tools"),
                         partial(_thumbed_conversation, key, label), True)
    return None


def label_in(keys: frozenset[str]) -> str | None:
    """The key that says whether a row's reply is good; None where there is none, or two."""
    return next(iter(keys & LABELS)) if len(keys & LABELS) == 1 else None


def labeled_shape(shape: Shape, label: str) -> Shape:
    """Single replies of any shape, each with an opinion: read without it, those that are bad would be learned as good ones."""
    def read(row: Mapping, learn: Learn) -> list[dict | Drop]:
        return _labeled(shape.read(row, learn), _label(row, label))

    return Shape(f"{shape.name} with {label} (thumbs up and down)", (*shape.keys, label), shape.optional, read, True)


def _before(keys: frozenset[str]) -> tuple[str, ...]:
    """The keys of what stands before both replies of a pair."""
    if "prompt" in keys:
        return ("prompt",)
    if "instruction" in keys:
        return "instruction", "input", "context"
    if not keys & {*QUESTIONS, *_CONVERSATIONS}:
        return ()
    return (one_of(keys, QUESTIONS, "question"),) if keys & {*QUESTIONS} else _CONVERSATIONS


def _pair(names: tuple[str, str], before: tuple[str, ...], row: Mapping, learn: Learn) -> list[dict | Drop]:
    context = _context(row, names, before)
    (first, chosen), (second, rejected) = (_reply(context, name, row[name]) for name in names)
    if first != second and all(isinstance(row[name], str) for name in names):
        return ["differing"]  # transcripts of whole conversations, which are often cut in two places
    if first != second:
        raise ValueError(f"'{names[0]}' and '{names[1]}' answer different conversations. Correct them.")
    if not any(message["role"] == "user" for message in first):
        raise ValueError(f"there is no question: add prompt, or write {names[0]} and {names[1]} as whole conversations.")
    trace = trace_of(first, "", "", tool_list(row))
    return [{key: value for key, value in trace.items() if key not in ("thought", "answer")}
            | {"chosen": chosen, "rejected": rejected}]


def _openai_pair(row: Mapping, learn: Learn) -> list[dict | Drop]:
    before = row["input"]
    if not isinstance(before, Mapping) or not isinstance(before.get("messages"), list):
        raise ValueError("'input' must be an object with messages. Correct it.")
    return _pair(_OPENAI, ("prompt",), {**row, "prompt": before["messages"], "tools": before.get("tools")}, learn)


def _context(row: Mapping, names: tuple[str, str], before: tuple[str, ...]) -> list[Message]:
    """What stands before both replies, as far as other keys than the replies' say it."""
    if before == _CONVERSATIONS:  # beside whole conversations they repeat one of them
        key = next((key for key in before if row.get(key)), None)
        single = is_message(row[names[0]])
        return context_at({**row, key: chat_messages(key, row[key])}, key) if single and key else system_of(row)
    if "instruction" in before:
        return instruction_context(row)
    if not before or row.get(before[0]) is None:
        return system_of(row)
    question = row[before[0]]
    if isinstance(question, str) and (turns := _transcript(question)):
        if turns[-1]["role"] == "assistant" and not turns[-1]["content"]:
            turns.pop()  # a transcript's prompt ends with the name of who replies
        return [*system_of(row), *turns]
    return context_at(row, before[0])


def _transcript(text: str) -> list[Message]:
    """The messages of "Human: ... Assistant: ..."; none where the text is no transcript."""
    parts = _TURN.split(text)
    if len(parts) < 3 or parts[0].strip():
        return []
    roles = {"Human": "user", "Assistant": "assistant"}
    return [{"role": roles[name], "content": said.strip()} for name, said in zip(parts[1::2], parts[2::2])]


def _reply(context: list[Message], key: str, value: object) -> tuple[list[Message], dict]:
    """A reply to compare, and what stands before it: where the value is a whole conversation that is in it."""
    if isinstance(value, str) and not any(message["role"] == "user" for message in context):
        value = _transcript(value) or value
    if not is_conversation(value):
        check_text(key, value)
        thought, answer = split_thought(value)
        return context, {"thought": thought, "answer": answer}
    messages = chat_messages(key, value)
    if messages[-1]["role"] != "assistant":
        raise ValueError(f"the last message of '{key}' must be the assistant's. Correct it.")
    before = joined(context, messages[:-1], key)
    return before, {"thought": messages[-1].get("reasoning_content", ""), "answer": messages[-1]["content"]}


def _thumb(name: str, row: Mapping, learn: Learn) -> list[dict | Drop]:
    label, context = _label(row, name), context_at(row, "prompt")
    if is_conversation(row["completion"]):
        return _labeled(message_traces(context, row, "completion"), label)
    return [trace_of(context, *split_final(reply_text(row, "completion")), tool_list(row)) | {"label": label}]


def _thumbed_conversation(key: str, name: str, row: Mapping, learn: Learn) -> list[dict | Drop]:
    """The label is of the last reply."""
    messages = chat_messages(key, row[key])
    if messages[0]["role"] != "system":
        messages = [*system_of(row), *messages]
    return _labeled(conversation_traces(messages, tool_list(row), "last"), _label(row, name))


def _labeled(traces: list[dict | Drop], label: bool) -> list[dict | Drop]:
    return [trace | {"label": label} if isinstance(trace, dict) else trace for trace in traces]


def _label(row: Mapping, name: str) -> bool:
    given = row[name]
    label = _LABELS.get(given.strip().lower().replace(" ", "_") if isinstance(given, str) else given) \
        if isinstance(given, str | bool | int | float) else None
    if label is None:
        raise ValueError(f"{name} = {given!r}: must be true (a good reply) or false. Correct it, or name the other "
                         "columns alone (columns) where it is no opinion.")
    return label
