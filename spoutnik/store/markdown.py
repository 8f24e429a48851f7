"""Conversations as Markdown, for people: the versions that are shown first, then the others."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from spoutnik.store.history import Conversation, Message
from spoutnik.store.versions import MessageTree


@dataclass(frozen=True)
class Labels:
    """The words around the texts, in English by default."""

    roles: dict[str, str] = field(default_factory=lambda: {"user": "You", "assistant": "Answer"})
    thought: str = "Thought"
    interrupted: str = "(interrupted)"
    other_version: str = "Another version of message {}"
    date: Callable[[float], str] = lambda seconds: time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def conversation_markdown(conversation: Conversation, messages: list[Message], labels: Labels = Labels()) -> str:
    """One conversation; the messages shown are numbered, and the other versions say which of them they replace."""
    tree = MessageTree(messages, conversation.head)
    numbers: dict[int, int] = {}
    parts = [f"# {' '.join(conversation.title.split())}\n\n{labels.date(conversation.created)}"]
    for branch in tree.branches():
        if branch is not tree.path:
            parts.append(f"---\n\n*{labels.other_version.format(numbers.get(branch[0].parent, 0) + 1)}*")
        for message in branch:
            number = numbers[message.id] = numbers.get(message.parent, 0) + 1
            parts.append(_message_markdown(number, message, labels))
    return "\n\n".join(parts) + "\n"


def _message_markdown(number: int, message: Message, labels: Labels) -> str:
    role = labels.roles.get(message.role, message.role)
    heading = f"## {number}. {role}" + (f" ({message.model})" if message.model else "")
    thought = [f"> **{labels.thought}**\n>\n" + "\n".join(f"> {line}".rstrip() for line in message.thought.strip().split("\n"))]
    ending = [f"*{labels.interrupted}*"] * (not message.finished)
    return "\n\n".join([heading, *(thought if message.thought.strip() else []), message.content, *ending]).rstrip()
