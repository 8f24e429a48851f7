"""What a shape of rows is, and what rows of several shapes have in common: system text, earlier turns, question."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from spoutnik.files import check_text
from spoutnik.text.chat_template import Message
from spoutnik.train.data.conversations import (
    Drop,
    Learn,
    chat_messages,
    context_of,
    conversation_traces,
    is_conversation,
    number_text,
    tool_list,
)

SYSTEM = ("system", "system_prompt")  # keys of a row's system text
COMMON = (*SYSTEM, "history", "tools")  # what rows of most shapes may have beside
QUESTIONS = ("prompt", "question", "problem", "query", "input")
BEFORE = frozenset((*QUESTIONS, *SYSTEM, "instruction", "context", "history", "tools"))  # keys of what is no reply
_CHOICES = frozenset(("choices", "options"))  # of which a number names one
_REPLYING = ("assistant", "tool")  # roles after which a user's message goes on
_ALONE = dict.fromkeys(("chosen", "rejected"), "{chosen: chosen, rejected: rejected}")  # columns of whole conversations


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
    texts = {}
    for key in SYSTEM:
        if row.get(key) is not None:
            check_text(key, row[key])
            texts[row[key].strip()] = row[key]
    texts.pop("", None)
    if len(texts) > 1:
        raise ValueError(f"it has {' and '.join(SYSTEM)}, which differ. Say which one is meant: columns: {{system: ..., ...}}.")
    return [{"role": "system", "content": text} for text in texts.values()]


def reply_text(row: Mapping, key: str) -> str:
    """The reply under `key`: a text, or a number as it is written, beside which no list says what it counts.

    Raises:
        ValueError: it is neither.
    """
    value = row[key]
    if (number := number_text(value)) is not None and not row.keys() & _CHOICES:
        return number
    check_text(key, value)
    return value


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


def joined(context: list[Message], messages: list[Message], key: str) -> list[Message]:
    """What other keys say stands first (`context`), then the messages under `key`. Where these are the whole conversation (a
    prompt beside a list that holds it again, as many sets of preferences have it), nothing stands there twice.

    Raises:
        ValueError: they begin anew with another question, or have another system text.
    """
    if not messages or messages[0]["role"] not in ("system", "user") or context[-1:] and context[-1]["role"] in _REPLYING:
        return [*context, *messages]  # they go on where the context ends
    asked, turns = ([(message["role"], message["content"].strip()) for message in each if message["role"] != "system"]
                    for each in (context, messages))
    if not any(turns[start:start + len(asked)] == asked for start in range(len(turns) - len(asked) + 1)):
        raise ValueError(f"'{key}' is a conversation that does not hold the question that stands beside it. Name the "
                         f"conversations alone: columns: {_ALONE.get(key, f'{{messages: {key}}}')}.")
    systems = [[message for message in each if message["role"] == "system"][:1] for each in (context, messages)]
    if all(systems) and systems[0][0]["content"].strip() != systems[1][0]["content"].strip():
        raise ValueError(f"'{key}' has another system text than the one that stands beside it. Leave one of them out.")
    return messages if systems[1] else [*systems[0], *messages]


def context_at(row: Mapping, key: str) -> list[Message]:
    """What stands before the reply: the messages under `key`, or the question there with the turns before it."""
    if is_conversation(row[key]):
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


def message_traces(context: list[Message], row: Mapping, key: str) -> list[dict | Drop]:
    """The trace of a reply that is written as messages, the last of which is learned: several, or one alone."""
    return conversation_traces(joined(context, chat_messages(key, row[key]), key), tool_list(row), "last")
