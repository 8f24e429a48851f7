"""Versions of messages: a retry or an edit adds a sibling instead of replacing anything, so a conversation is a tree."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar


class TreeMessage(Protocol):
    """parent: the id of the message before it; None where it is a first one."""

    id: int
    parent: int | None
    role: str


M = TypeVar("M", bound=TreeMessage)


class MessageTree(Generic[M]):
    """All messages of a conversation. path: those that are shown, from a first message to a last one.

    Args:
        messages: in the order of their ids. A parent that is not among them counts as none.
        head: the id of the last message shown; None, or one that is not there: the newest.
    """

    def __init__(self, messages: Iterable[M] = (), head: int | None = None):
        self.messages: dict[int, M] = {}
        self.path: list[M] = []
        self._children: dict[int | None, list[M]] = defaultdict(list)
        for message in messages:
            self._link(message)
        if self.messages:
            self.path = self.path_to(self.messages.get(head, next(reversed(self.messages.values()))))

    @property
    def head(self) -> int | None:
        return self.path[-1].id if self.path else None

    def add(self, message: M) -> None:
        """Appends a message to the path."""
        assert message.parent == self.head
        self._link(message)
        self.path.append(message)

    def versions(self, message: M) -> list[M]:
        """The message and those that stand in its place in other versions, the oldest first."""
        return [sibling for sibling in self._children[self._parent_id(message)] if sibling.role == message.role]

    def show(self, message: M) -> None:
        """Makes the path lead through a message, and on to the newest message after it."""
        self.path = self.path_to(message)
        while following := self._children[self.head]:
            self.path.append(following[-1])

    def end_at(self, message: M | None) -> None:
        """Ends the path at a message; None empties it."""
        self.path = [] if message is None else self.path_to(message)

    def parent(self, message: M) -> M | None:
        return self.messages.get(message.parent)

    def path_to(self, message: M) -> list[M]:
        """From a first message to this one."""
        path = [message]
        while (parent := self._parent_id(path[-1])) is not None:
            path.append(self.messages[parent])
        return path[::-1]

    def branches(self) -> list[list[M]]:
        """The path, then what it leaves out: each branch from its first message that no earlier branch has."""
        branches, seen = [self.path], {message.id for message in self.path}
        for message in self.messages.values():
            if message.id not in seen:
                branch = [message]
                while following := [child for child in self._children[branch[-1].id] if child.id not in seen]:
                    branch.append(following[-1])
                seen.update(one.id for one in branch)
                branches.append(branch)
        return branches

    def _link(self, message: M) -> None:
        self.messages[message.id] = message
        self._children[self._parent_id(message)].append(message)

    def _parent_id(self, message: M) -> int | None:
        return message.parent if message.parent in self.messages else None
