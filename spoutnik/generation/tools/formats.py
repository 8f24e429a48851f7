"""The formats in which models write calls of tools: each as its template taught it, and one whose template knows nothing of
tools as Hermes and Qwen do."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from spoutnik.text.tokenizer import Tokenizer

_MARK = re.compile(r"<[^<>\s]+>")


@dataclass(frozen=True)
class Format:
    """How calls are written: `begin`, each call as `before` NAME `middle` ARGUMENTS `after`, and `end`.

    between: stands between two calls; None where there can be only one.
    at_start: a call begins the answer, or there is none. as_text: templates want the arguments as text, not as an object.
    alone: templates skip the calls of a message that has content, too.
    """

    begin: str
    before: str
    middle: str
    after: str
    end: str
    between: str | None = "\n"
    at_start: bool = False
    as_text: bool = False
    alone: bool = False

    @property
    def marks(self) -> tuple[str, ...]:
        """What may be single tokens of the vocabulary; the first one begins a call."""
        return tuple(dict.fromkeys(_MARK.findall(self.written([("", "")]))))

    def written(self, calls: Sequence[tuple[str, str]]) -> str:
        """Calls, each a name and its arguments in JSON, as the model writes them."""
        each = [f"{self.before}{name}{self.middle}{arguments}{self.after}" for name, arguments in calls]
        return self.begin + (self.between or "").join(each) + self.end


HERMES = Format("", '<tool_call>\n{"name": "', '", "arguments": ', "}\n</tool_call>", "")
LLAMA3 = Format("", '{"name": "', '", "parameters": ', "}", "", between=None, at_start=True)
DEEPSEEK_R1 = Format("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>function<｜tool▁sep｜>", "\n```json\n",
                     "\n```<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>", as_text=True, alone=True)
DEEPSEEK_V31 = Format("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>",
                      "<｜tool▁calls▁end｜>", between="", as_text=True)


@dataclass(frozen=True)
class Convention:
    """What a template does with tools. describes: it tells the model about them. renders: it writes calls and results."""

    format: Format
    describes: bool
    renders: bool


def convention(tokenizer: Tokenizer) -> Convention:
    """Read off the template for conversations with tools.

    Raises:
        UserError: there is no template.
    """
    source = tokenizer.templates.choose(with_tools=True)
    if "<｜tool▁call▁begin｜>" in source:
        format = DEEPSEEK_R1 if "```json" in source else DEEPSEEK_V31
    elif "<tool_call>" in source and "<function=" not in source and "<arg_key>" not in source:
        format = HERMES
    elif "<|start_header_id|>" in source and '"parameters": ' in source:
        format = LLAMA3
    else:
        return Convention(HERMES, False, False)
    return Convention(format, re.search(r"\btools\b", source) is not None, True)


UNFINISHED = -1


def match_prefix(text: str, pattern: str) -> int | None:
    """Where the pattern ends that a text begins with; UNFINISHED where it still may, None where it does not. White space is
    free, but inside of words."""
    at, previous = 0, ""
    for character in pattern:
        if character.isspace():
            continue
        while at < len(text) and text[at].isspace() and not (_in_word(previous) and _in_word(character)):
            at += 1
        if at == len(text):
            return UNFINISHED
        if text[at] != character:
            return None
        at, previous = at + 1, character
    return at


def _in_word(character: str) -> bool:
    return character.isalnum() or character == "_"


class JsonObjectEnd:
    """Finds where a JSON object ends, in pieces of any size. over: it has ended."""

    def __init__(self):
        self.depth, self.quoted, self.escaped, self.over = 0, False, False, False

    def feed(self, text: str) -> int:
        """How many of these characters belong to it."""
        for count, character in enumerate(text, start=1):
            if self.quoted:
                self.quoted = self.escaped or character != '"'
                self.escaped = not self.escaped and character == "\\"
            elif character == '"':
                self.quoted = True
            elif character in "{[":
                self.depth += 1
            elif character in "}]":
                self.depth -= 1
                if not self.depth:
                    self.over = True
                    return count
        return len(text)
