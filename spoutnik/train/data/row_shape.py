"""What a shape of rows is, and what rows of several shapes have in common: system text, earlier turns, question."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from spoutnik.files import check_text
from spoutnik.text.chat_template import Message
from spoutnik.train.data.conversations import Drop, Learn, chat_messages, context_of

COMMON = ("system", "history", "tools")  # what rows of most shapes may have beside
QUESTIONS = ("prompt", "question", "problem", "query", "input")


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


def one_of(keys: frozenset[str], names: tuple[str, ...], what: str) -> str:
    """The one of these names that a row has. Raises ValueError where it has none, or several."""
    present = [name for name in names if name in keys]
    if len(present) > 1:
        raise ValueError(unclear(present, what))
    if not present:
        listed = ", ".join(sorted(map(str, keys))[:12]) or "none"
        raise ValueError(f"its keys ({listed}) are of no known shape (docs/data.md lists them): there is no {what}. Say which "
                         "key is which: columns: {prompt: ..., answer: ...}.")
    return present[0]


def unclear(names: list[str], what: str) -> str:
    """Why a row with all these keys is refused."""
    target = {"question": "prompt", "reply": "answer", "thought": "thought"}[what]
    return (f"it has {' and '.join(names)}, and either may be the {what}. Say which one is: columns: {{{target}: {names[0]}, "
            "...}.")


def system_of(row: Mapping) -> list[Message]:
    """The row's system text as a message, where it has one."""
    text = row.get("system")
    if text is None:
        return []
    check_text("system", text)
    return [{"role": "system", "content": text}] if text.strip() else []


def checked_history(row: Mapping) -> list[list[str]]:
    """Earlier turns as [question, answer]. Raises ValueError where they are none."""
    history = row.get("history")
    history = [] if history is None or history == "" else history  # as tables write that there is none
    if not (isinstance(history, list) and all(isinstance(turn, list) and len(turn) == 2
                                              and all(isinstance(text, str) for text in turn) for turn in history)):
        raise ValueError("history must be a list of [question, answer]. Correct it or leave it out.")
    for turn in history:
        for text in turn:
            check_text("history", text)
    return history


def context_at(row: Mapping, key: str) -> list[Message]:
    """What stands before the reply: the messages under `key`, or the question there with the turns before it."""
    if isinstance(row[key], list):
        messages = chat_messages(key, row[key])
    else:
        check_text(key, row[key])
        messages = context_of({"history": checked_history(row), "prompt": row[key]})
    return messages if messages[0]["role"] == "system" else [*system_of(row), *messages]


def instruction_context(row: Mapping) -> list[Message]:
    """Alpaca's question: the instruction, and below it, after a blank line, its input (Dolly's context)."""
    more = next((row[key] for key in ("input", "context") if row.get(key)), "")
    for key, value in (("instruction", row["instruction"]), ("input", more)):
        check_text(key, value)
    question = f"{row['instruction']}\n\n{more}" if more.strip() else row["instruction"]
    return [*system_of(row), *context_of({"history": checked_history(row), "prompt": question})]
