"""Answers as Markdown in the terminal, block by block while they come; formulas stay as the model wrote them."""

import io
import re
import time

from markdown_it import MarkdownIt
from rich.console import Console
from rich.live import Live
from rich.markdown import Markdown
from rich.text import Text

_REFRESH_SECONDS = 0.05
_parser = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])  # tags are shown, not lost
# Code comes first: there, dollars and backslashes are no formulas.
_CODE_OR_FORMULA = re.compile(r"""
    (?P<code> ^[ ]*(?P<fence>```+|~~~+) .*? (?: ^[ ]*(?P=fence)[`~]*[ ]*$ | \Z) | (?P<ticks>`+)(?!`).*?(?<!`)(?P=ticks)(?!`) )
    | \$\$ .+? \$\$ | \\\[ .+? \\\] | \\\( .+? \\\)
    | \\begin\{(?P<name>\w+\*?)\} .+? \\end\{(?P=name)\}
    | \$(?=[^\s$]) [^$\n]*? [^\s\\] \$(?!\d)
    """, re.DOTALL | re.MULTILINE | re.VERBOSE)
_PUNCTUATION = re.compile(r"""([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~])""")


def keep_formulas(text: str) -> str:
    """Markdown in which formulas are escaped, so that they are shown as their source: their backslashes, underscores and stars
    mean nothing to Markdown."""
    def escape(match: re.Match) -> str:
        return match[0] if match["code"] else _PUNCTUATION.sub(r"\\\1", match[0])

    return _CODE_OR_FORMULA.sub(escape, text)


class AnswerMarkdown(Markdown):
    """A part of an answer as rich shows it, with formulas, tags and line breaks kept."""

    def __init__(self, text: str):
        super().__init__("", code_theme="ansi_dark", hyperlinks=False)
        self.parsed = _parser.parse(keep_formulas(text))
        for token in self.parsed:
            for child in token.children or ():
                if child.type == "softbreak":  # a model that begins a line means one
                    child.type = "hardbreak"


def split_blocks(text: str) -> tuple[str, str]:
    """What is whole of a text that is still coming, and the rest: its last block (paragraph, list, table, code) may go on."""
    starts = [token.map[0] for token in _parser.parse(text) if token.level == 0 and token.map and token.nesting >= 0]
    if len(starts) < 2:
        return "", text
    lines = io.StringIO(text, newline="").readlines()  # Markdown's lines: splitlines breaks at other characters as well
    whole, rest = "".join(lines[:starts[-1]]), "".join(lines[starts[-1]:])
    formula_is_open = whole.count("$$") % 2 or whole.count("\\[") > whole.count("\\]")
    return ("", text) if formula_is_open else (whole, rest)


class MarkdownStream:
    """Prints an answer while it comes: blocks that are whole as Markdown, and below them the source of the one that is not. On
    a terminal that can move its cursor."""

    def __init__(self, console: Console):
        self._console, self._pending, self._shown, self._any = console, "", 0.0, False
        self._live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False)

    def write(self, text: str) -> None:
        if not self._live.is_started:
            self._live.start()
        self._pending += text
        now = time.monotonic()
        if now - self._shown < _REFRESH_SECONDS:
            return
        self._shown = now
        whole, self._pending = split_blocks(self._pending)
        self._print(whole)
        self._live.update(self._last_lines(), refresh=True)

    def close(self) -> None:
        """Prints what is left, and gives the cursor back."""
        if not self._live.is_started:
            return
        self._live.update(Text(""), refresh=True)
        self._live.stop()
        self._print(self._pending)
        self._pending = ""

    def _print(self, text: str) -> None:
        if not text.strip():
            return
        if self._any:
            self._console.print()
        self._console.print(AnswerMarkdown(text))
        self._any = True

    def _last_lines(self) -> Text:
        """As much of the block that still comes as the screen holds."""
        width, height = self._console.size
        lines = Text(self._pending.strip("\n")).wrap(self._console, width)
        return Text("\n").join(lines[-max(height - 3, 1):])
