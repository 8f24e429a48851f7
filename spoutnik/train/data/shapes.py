"""The shapes of rows that people have, recognized from their keys, and what a row of each becomes.

A trace is {"prompt", "thought", "answer"}, with "messages" where more than a question stands before the reply, and "tools". Of
preferences the pair becomes {"prompt", ..., "chosen": {"thought", "answer"}, "rejected": {...}}, and a thumb a trace with
"label".
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial

from spoutnik.files import check_row, check_text
from spoutnik.text.chat_template import Message
from spoutnik.train.data.conversations import (
    Drop,
    Learn,
    chat_messages,
    context_of,
    conversation_traces,
    split_final,
    split_thought,
    tool_list,
    trace_of,
)

TRACE = ("prompt", "thought", "answer")
_QUESTIONS = ("prompt", "question", "problem", "query", "input")
_REPLIES = ("answer", "response", "completion", "output", "solution")
_THOUGHTS = ("thought", "reasoning", "reasoning_content", "thinking")
COMMON = ("system", "history", "tools")  # what rows of most shapes may have beside
# Every key that a shape reads: what `columns` may name.
KNOWN_KEYS = (*_QUESTIONS, *_REPLIES, *_THOUGHTS, "messages", "conversations", "instruction", "context", "generations",
              "correctness_math_verify", "chosen", "rejected", "label", *COMMON)


@dataclass(frozen=True)
class Shape:
    """keys: that every row has. optional: that are read where they are there. read: a row to its traces, or to why there is
    none. preferences: whether its rows say which reply is better, or whether one is good."""

    name: str
    keys: tuple[str, ...]
    optional: tuple[str, ...]
    read: Callable[[Mapping, Learn], list[dict | Drop]]
    preferences: bool = False

    def same_as(self, other: "Shape") -> bool:
        return (self.name, self.keys) == (other.name, other.keys)


@lru_cache(maxsize=1024)
def shape_of(keys: frozenset[str]) -> Shape:
    """The shape of rows with these keys.

    Raises:
        ValueError: none has them, or it is unclear which of them is which.
    """
    def has(*names: str) -> bool:
        return keys.issuperset(names)

    if has(*TRACE):
        return Shape("prompt/thought/answer", TRACE, COMMON, _trace)
    if has("chosen", "rejected"):
        return Shape("chosen/rejected (preference pairs)", ("chosen", "rejected"), ("prompt", *COMMON), _pair, True)
    if has("prompt", "completion", "label"):
        return Shape("prompt/completion/label (thumbs up and down)", ("prompt", "completion", "label"), COMMON, _thumb, True)
    if has("generations", "correctness_math_verify"):
        return Shape("open-r1 (generations with correctness_math_verify)", ("generations", "correctness_math_verify"),
                     ("messages", "problem", "prompt", *COMMON), _generations)
    for key, name in (("messages", "messages"), ("conversations", "conversations (ShareGPT)")):
        if has(key):
            return Shape(name, (key,), ("system", "tools"), partial(_conversation, key))
    if has("instruction"):
        reply = _one_of(keys, ("output", "response", "completion", "answer"), "reply")
        return Shape(f"instruction/input/{reply} (Alpaca)", ("instruction", reply), ("input", "context", *COMMON),
                     partial(_instruction, reply))
    return _question_and_reply(keys)


def _question_and_reply(keys: frozenset[str]) -> Shape:
    question, reply = _one_of(keys, _QUESTIONS, "question"), _one_of(keys, _REPLIES, "reply")
    thoughts = [name for name in _THOUGHTS if name in keys]
    if len(thoughts) > 1:
        raise ValueError(_unclear(thoughts, "thought"))
    names = (question, *thoughts, reply)
    return Shape("/".join(names), names, COMMON, partial(_answer, question, *(thoughts or [None]), reply))


def _one_of(keys: frozenset[str], names: tuple[str, ...], what: str) -> str:
    present = [name for name in names if name in keys]
    if len(present) > 1:
        raise ValueError(_unclear(present, what))
    if not present:
        listed = ", ".join(sorted(map(str, keys))[:12]) or "none"
        raise ValueError(f"its keys ({listed}) are of no known shape (docs/data.md lists them): there is no {what}. Say which "
                         "key is which: columns: {prompt: ..., answer: ...}.")
    return present[0]


def _unclear(names: list[str], what: str) -> str:
    target = {"question": "prompt", "reply": "answer", "thought": "thought"}[what]
    return (f"it has {' and '.join(names)}, and either may be the {what}. Say which one is: columns: {{{target}: {names[0]}, "
            "...}.")


def _system(row: Mapping) -> list[Message]:
    text = row.get("system")
    if text is None:
        return []
    check_text("system", text)
    return [{"role": "system", "content": text}] if text.strip() else []


def checked_history(row: Mapping) -> list[list[str]]:
    """Earlier turns as [question, answer]. Raises ValueError where they are none."""
    history = row.get("history", [])
    if not (isinstance(history, list) and all(isinstance(turn, list) and len(turn) == 2
                                              and all(isinstance(text, str) for text in turn) for turn in history)):
        raise ValueError("history must be a list of [question, answer]. Correct it or leave it out.")
    for turn in history:
        for text in turn:
            check_text("history", text)
    return history


def _trace(row: Mapping, learn: Learn) -> list[dict | Drop]:
    """A trace as this package writes them passes as it is, with all its keys but one that would be taken for its context."""
    check_row(row, TRACE, texts=True)
    checked_history(row)
    kept = {key: value for key, value in row.items() if key not in ("messages", "tools")}
    if (system := _system(row)) or tool_list(row):
        return [kept | trace_of([*system, *context_of(kept)], row["thought"], row["answer"], tool_list(row))]
    return [kept]


def _context(row: Mapping, key: str) -> list[Message]:
    """What stands before the reply: messages, or a question with the turns before it."""
    if isinstance(row[key], list):
        messages = chat_messages(key, row[key])
    else:
        check_text(key, row[key])
        messages = context_of({"history": checked_history(row), "prompt": row[key]})
    return messages if messages[0]["role"] == "system" else [*_system(row), *messages]


def _answer(question: str, thought: str | None, reply: str, row: Mapping, learn: Learn) -> list[dict | Drop]:
    context = _context(row, question)
    if isinstance(row[reply], list):
        return conversation_traces([*context, *chat_messages(reply, row[reply])], tool_list(row), "last")
    check_text(reply, row[reply])
    if thought is not None:
        check_text(thought, row[thought])
        return [trace_of(context, row[thought], row[reply], tool_list(row))]
    return [trace_of(context, *split_final(row[reply]), tool_list(row))]


def _instruction(reply: str, row: Mapping, learn: Learn) -> list[dict | Drop]:
    """The instruction, and below it, after a blank line, its input."""
    more = next((row[key] for key in ("input", "context") if row.get(key)), "")
    for key, value in (("instruction", row["instruction"]), ("input", more), (reply, row[reply])):
        check_text(key, value)
    question = f"{row['instruction']}\n\n{more}" if more.strip() else row["instruction"]
    context = [*_system(row), *context_of({"history": checked_history(row), "prompt": question})]
    return [trace_of(context, *split_thought(row[reply]), tool_list(row))]


def _conversation(key: str, row: Mapping, learn: Learn) -> list[dict | Drop]:
    messages = chat_messages(key, row[key])
    if messages[0]["role"] != "system":
        messages = [*_system(row), *messages]
    return conversation_traces(messages, tool_list(row), learn)


def _generations(row: Mapping, learn: Learn) -> list[dict | Drop]:
    """The generations that math-verify found right. The question is the user's message, which holds the prompt that was used,
    else the problem."""
    generations, right = row["generations"], row["correctness_math_verify"]
    if not isinstance(generations, list):
        raise ValueError("'generations' must be a list of texts. Correct it.")
    right = [False] * len(generations) if right is None else right
    if not isinstance(right, list) or len(right) != len(generations):
        raise ValueError("'correctness_math_verify' must have a value for each of the generations. Correct it.")
    context = _system(row)
    if row.get("messages"):
        messages = chat_messages("messages", row["messages"])
        last = max((number for number, message in enumerate(messages) if message["role"] == "user"), default=-1)
        context = messages[:last + 1]
    else:
        key = next((key for key in ("prompt", "problem", "question") if key in row), None)
        if key is None:
            raise ValueError("there is no question: neither messages nor problem. Add one of them.")
        context = _context(row, key)
    for text in generations:
        check_text("generations", text)
    return [trace_of(context, *split_thought(text)) if is_right is True else "incorrect"
            for text, is_right in zip(generations, right)]


def _reply(context: list[Message], key: str, value: object) -> tuple[list[Message], dict]:
    """A reply to compare, and what stands before it: where the value is a whole conversation that is in it."""
    if not isinstance(value, list):
        check_text(key, value)
        thought, answer = split_thought(value)
        return context, {"thought": thought, "answer": answer}
    messages = chat_messages(key, value)
    if messages[-1]["role"] != "assistant":
        raise ValueError(f"the last message of '{key}' must be the assistant's. Correct it.")
    before = messages[:-1]
    if before[:len(context)] != context:
        before = [*context, *before]
    return before, {"thought": messages[-1].get("reasoning_content", ""), "answer": messages[-1]["content"]}


def _pair(row: Mapping, learn: Learn) -> list[dict | Drop]:
    context = _context(row, "prompt") if row.get("prompt") is not None else _system(row)
    before, chosen = _reply(context, "chosen", row["chosen"])
    other, rejected = _reply(context, "rejected", row["rejected"])
    if before != other:
        raise ValueError("'chosen' and 'rejected' answer different conversations. Correct them.")
    if not any(message["role"] == "user" for message in before):
        raise ValueError("there is no question: add prompt, or write chosen and rejected as whole conversations.")
    trace = trace_of(before, "", "", tool_list(row))
    return [{key: value for key, value in trace.items() if key not in ("thought", "answer")}
            | {"chosen": chosen, "rejected": rejected}]


_LABELS = {True: True, False: False, "true": True, "false": False, "1": True, "0": False}


def _thumb(row: Mapping, learn: Learn) -> list[dict | Drop]:
    label = row["label"]
    label = _LABELS.get(label.lower() if isinstance(label, str) else label) if isinstance(label, str | bool | int) else None
    if label is None:
        raise ValueError(f"label = {row['label']!r}: must be true (a good reply) or false. Correct it.")
    return [trace | {"label": label} if isinstance(trace, dict) else trace
            for trace in _answer("prompt", None, "completion", row, learn)]
