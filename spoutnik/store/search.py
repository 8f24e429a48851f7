"""Full-text search of a history, in memory: an index on disk would hold in the open what a passphrase encrypts."""

from __future__ import annotations

import threading
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spoutnik.store.history import Conversation, History

EXCERPT_LENGTH = 90  # characters
_LETTERS = str.maketrans({"œ": "oe", "Œ": "oe", "æ": "ae", "Æ": "ae", "ø": "o", "Ø": "o", "ł": "l", "Ł": "l", "đ": "d",
                          "Đ": "d", "ı": "i", "’": "'", "ʼ": "'"})  # what Unicode does not decompose


def fold(text: str) -> str:
    """The text without case, accents and ligatures, so that "cœur" is found by "COEUR" and "été" by "ete"."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text.translate(_LETTERS))
    return "".join(char for char in decomposed if not unicodedata.combining(char)).casefold()


@dataclass(frozen=True)
class SearchHit:
    """A conversation that holds all words of a query. excerpt: where the first of them is said; "" where the title has it."""

    conversation: Conversation
    excerpt: str


class HistorySearch:
    """Searches titles and messages, of all versions, without their thoughts. What was read once is kept folded in memory."""

    def __init__(self, history: History):
        self.history = history
        self._folded: dict[tuple[str, int], str] = {}  # conversation and message: ids of messages begin anew after a wipe
        self._lock = threading.Lock()

    def search(self, query: str, conversations: list[Conversation]) -> list[SearchHit]:
        """Those of the conversations in which each word of the query occurs, in any message, also as a part of a word."""
        words = fold(query).split()
        if not words:
            return [SearchHit(conversation, "") for conversation in conversations]
        with self._lock:
            unfinished = self._read()
            texts: dict[str, list[int]] = {}
            for conversation, message in self._folded:
                texts.setdefault(conversation, []).append(message)
            found = [(conversation, place) for conversation in conversations
                     if (place := self._find(conversation, texts.get(conversation.id, []), words))]
            for key in unfinished:  # they will have grown
                del self._folded[key]
        contents = self.history.contents([key for _, (key, _) in found if key is not None])
        return [SearchHit(conversation, excerpt(contents.get(key, ""), word)) for conversation, (key, word) in found]

    def _read(self) -> set[tuple[str, int]]:
        """Takes up new messages and forgets deleted ones; returns the unfinished ones."""
        finished = self.history.message_keys()
        self._folded = {key: text for key, text in self._folded.items() if key in finished}
        missing = [key for key in finished if key not in self._folded]
        self._folded.update({key: fold(text) for key, text in self.history.contents(missing).items()})
        return {key for key in missing if not finished[key] and key in self._folded}

    def _find(self, conversation: Conversation, messages: list[int],
              words: list[str]) -> tuple[tuple[str, int] | None, str] | None:
        """The message that says the first word that the title lacks, and the word; (None, "") where it lacks none, and None
        where one of the words is nowhere."""
        title = fold(conversation.title)
        keys = [(conversation.id, message) for message in messages]
        if not all(word in title or any(word in self._folded[key] for key in keys) for word in words):
            return None
        return next(((key, word) for word in words if word not in title for key in keys if word in self._folded[key]),
                    (None, ""))


def excerpt(text: str, word: str) -> str:
    """The text around a folded word, on one line."""
    folded = [fold(char) for char in text]
    place, start = "".join(folded).find(word), 0
    while place > 0 and place >= len(folded[start]):  # from the folded text's place to the text's
        place -= len(folded[start])
        start += 1
    first = max(start - EXCERPT_LENGTH // 3, 0)
    if first:  # not in the middle of a word
        first = text.find(" ", first, start) + 1 or first
    last = first + EXCERPT_LENGTH
    return f"{'…' * (first > 0)}{' '.join(text[first:last].split())}{'…' * (last < len(text))}"
