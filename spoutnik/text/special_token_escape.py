"""Escaping of special tokens in texts: a user who types `<think>` types seven characters.

A tokenizer recognizes its added tokens anywhere in a text. Texts of users are therefore cut after the first character of each
spelled token, and the pieces encoded separately. In a conversation the cuts must survive the chat template, which may trim,
split or quote texts: there a character that occurs nowhere else marks them.
"""

import json
import re
from collections.abc import Iterable
from itertools import groupby, pairwise
from operator import itemgetter

from spoutnik.errors import UserError
from spoutnik.text.chat_template import Conversation, map_strings

THINK, END_THINK = "<think>", "</think>"
WINDOW = 1 << 14  # characters


class SpecialTokens:
    """The added tokens of one vocabulary, and where texts spell them."""

    def __init__(self, tokens: Iterable[str], marks: tuple[str, str] = (THINK, END_THINK)):
        """marks: of thoughts, which templates look for in the assistant's messages."""
        self._end = marks[1]
        # Added tokens of one character, or of white space alone, are ordinary text in some vocabularies.
        tokens = [token for token in tokens if len(token) > 1 and not token.isspace()]
        self._all, self._except_thoughts = _Spelled(tokens), _Spelled(set(tokens) - set(marks))

    def pieces(self, text: str) -> list[str]:
        """`text` cut so that no piece spells a token."""
        return [piece for piece in self._all.cut(text) if piece]

    def first(self, text: str) -> str | None:
        """The first token that a text spells."""
        return self._all.first(text)

    def marked_text(self, text: str, mark: str) -> str:
        """A text with `mark` at every cut, to be put between others."""
        return mark.join(self._all.cut(text, begun_at_end=True))

    def marked(self, conversation: Conversation, mark: str) -> Conversation:
        """The conversation with `mark` at every cut, in all of its texts."""
        def escape(text: str) -> str:
            return self.marked_text(text, mark)

        def escape_assistant(text: str) -> str:
            """Keeps the marks of the thought, which templates look for."""
            thought, end, answer = text.rpartition(self._end)
            return mark.join(self._except_thoughts.cut(thought, begun_at_end=True)) + end + escape(answer)

        messages = [map_strings(message, escape) for message in conversation.messages]
        for escaped, message in zip(messages, conversation.messages):
            if message["role"] == "assistant" and "content" in message:
                escaped["content"] = map_strings(message["content"], escape_assistant)
        return Conversation(messages, map_strings(conversation.tools, escape), map_strings(conversation.documents, escape),
                            map_strings(conversation.variables, escape), conversation.add_generation_prompt)


class _Spelled:
    """Where texts spell certain tokens."""

    def __init__(self, tokens: Iterable[str]):
        tokens = self._tokens = set(tokens)
        self._longest = max(map(len, tokens), default=0)
        self._pattern = _first_character(tokens)
        # A token that begins at a text's end may be completed by what the template puts after it.
        self._begun_pattern = _first_character(tokens, begun_at_end=True)

    def first(self, text: str) -> str | None:
        match = self._pattern.search(text)
        if match is None:
            return None
        return max((token for token in self._tokens if text.startswith(token, match.start())), key=len)

    def cut(self, text: str, begun_at_end: bool = False) -> list[str]:
        """`text` cut after the first character of each token. begun_at_end: also of one that only begins, at the end."""
        end = max(len(text.rstrip()) - self._longest, 0) if begun_at_end else len(text)  # white space may follow what begins
        cuts = [0]
        for start in range(0, end, WINDOW):  # each search ends soon: it would hold the interpreter for a second in megabytes
            stop = min(start + WINDOW, end)
            cuts += [match.end() for match in self._pattern.finditer(text, start, stop + self._longest) if match.start() < stop]
        if begun_at_end:
            cuts += [match.end() for match in self._begun_pattern.finditer(text, end)]
        return [text[start:stop] for start, stop in pairwise([*cuts, len(text)])]


def unused_mark(conversation: Conversation, template: str) -> str:
    """A private-use character that neither conversation nor template contains, literally or JSON-escaped (`\\ue000`)."""
    text = template + json.dumps([conversation.messages, conversation.tools, conversation.documents,
                                   conversation.variables], ensure_ascii=False)
    for mark in map(chr, range(0xE000, 0xF900)):
        if mark not in text and _in_json(mark) not in text:
            return mark
    raise UserError("conversation: holds all 6400 characters of Unicode's private area. Remove some.")


def cut_at(mark: str, rendered: str) -> list[str]:
    """The pieces of a rendered conversation; a template may have JSON-escaped the mark."""
    return [piece for piece in re.split(f"{mark}|{re.escape(_in_json(mark))}", rendered) if piece]


def _in_json(mark: str) -> str:
    return json.dumps(mark)[1:-1]


def _first_character(tokens: Iterable[str], begun_at_end: bool = False) -> re.Pattern:
    """Matches the first character of each token spelled in a text, overlapping ones included. begun_at_end: also of tokens
    that only begin, at the text's end."""
    branches = []
    for first, group in groupby(sorted(set(tokens)), key=itemgetter(0)):
        rests = [token[1:] for token in group]
        ahead = _any_of(rests)
        if begun_at_end:
            ahead += rf"|(?:{_any_of({rest[:end] for rest in rests for end in range(len(rest))})})\s*\Z"
        branches.append(f"{re.escape(first)}(?={ahead})")
    return re.compile("|".join(branches) or "(?!)")


def _any_of(texts: Iterable[str]) -> str:
    return "|".join(re.escape(text) for text in sorted(texts))
