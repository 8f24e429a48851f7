"""The border between what is typed and what the format means: a user who types `<think>` types seven characters.

A tokenizer finds its added tokens anywhere in a text. Texts that people wrote are therefore cut inside each spelling of one,
after its first character, and the pieces encoded apart. In a conversation the cuts must survive the chat template, which may
trim, split or quote what it is given: there they are marked by a character that nothing else in the conversation holds.
"""

import json
import re
from collections.abc import Iterable
from itertools import pairwise

from spoutnik.errors import UserError
from spoutnik.text.chat_template import Conversation, Message, map_strings

THINK, END_THINK = "<think>", "</think>"


class Controls:
    """The tokens of one vocabulary that mean something to a format."""

    def __init__(self, tokens: Iterable[str]):
        # Added tokens of one character, or of white space alone, are how some vocabularies write these; they mean nothing.
        tokens = [token for token in tokens if len(token) > 1 and not token.isspace()]
        self._spelled = _first_character(tokens)
        # One that a text only begins at its end may be completed by what a template puts after it.
        self._begun = _first_character(tokens, or_begun_at_the_end=True)
        self._begun_but_thoughts = _first_character(set(tokens) - {THINK, END_THINK}, or_begun_at_the_end=True)

    def pieces(self, text: str) -> list[str]:
        """`text` cut so that no piece spells a token."""
        cuts = [0, *(match.end() for match in self._spelled.finditer(text)), len(text)]
        return [text[start:end] for start, end in pairwise(cuts) if start < end]

    def marked(self, conversation: Conversation, mark: str) -> Conversation:
        """The conversation with `mark` at every cut, in all of its texts."""
        def typed(text: str) -> str:
            return self._begun.sub(lambda match: match[0] + mark, text)

        def written(text: str) -> str:
            """An assistant's content: templates look for the end of its thought, so the marks of that stay whole."""
            thought, end, answer = text.rpartition(END_THINK)
            return self._begun_but_thoughts.sub(lambda match: match[0] + mark, thought) + end + typed(answer)

        def message(given: Message) -> Message:
            changed = map_strings(given, typed)
            if given["role"] == "assistant" and "content" in given:
                changed["content"] = map_strings(given["content"], written)
            return changed

        return Conversation([message(given) for given in conversation.messages], map_strings(conversation.tools, typed),
                            map_strings(conversation.documents, typed), map_strings(conversation.variables, typed),
                            conversation.add_generation_prompt)


def unused_mark(conversation: Conversation, template: str) -> str:
    """A private character that neither conversation nor template holds, as itself or in JSON's spelling (`\\ue000`)."""
    taken = template + json.dumps([conversation.messages, conversation.tools, conversation.documents,
                                   conversation.variables], ensure_ascii=False)
    for mark in map(chr, range(0xE000, 0xF900)):
        if mark not in taken and _in_json(mark) not in taken:
            return mark
    raise UserError("conversation: holds all 6400 characters of Unicode's private area. Remove some.")


def cut_at(mark: str, rendered: str) -> list[str]:
    """The pieces of a rendered conversation; a template may have written the mark in JSON's spelling."""
    return [piece for piece in re.split(f"{mark}|{re.escape(_in_json(mark))}", rendered) if piece]


def _in_json(mark: str) -> str:
    return json.dumps(mark)[1:-1]


def _first_character(tokens: Iterable[str], or_begun_at_the_end: bool = False) -> re.Pattern:
    """Matches the first character of each token spelled in a text, of overlapping ones too."""
    rests: dict[str, set[str]] = {}
    begun: dict[str, set[str]] = {}
    for token in tokens:
        rests.setdefault(token[0], set()).add(token[1:])
        begun.setdefault(token[0], set()).update(token[1:end] for end in range(1, len(token)))
    branches = []
    for first in sorted(rests):
        ahead = _any_of(rests[first])
        if or_begun_at_the_end:
            ahead += rf"|(?:{_any_of(begun[first])})\s*\Z"
        branches.append(f"{re.escape(first)}(?={ahead})")
    return re.compile("|".join(branches) or "(?!)")


def _any_of(texts: Iterable[str]) -> str:
    return "|".join(re.escape(text) for text in sorted(texts))
