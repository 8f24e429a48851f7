"""A reply on its way to a terminal or a pipe."""

import re
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from spoutnik.commands.console import console, say

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # a model must not move the cursor


class ReplyPrinter:
    """Prints replies as they come. On a terminal the thought is dimmed and the answer rendered as Markdown. Into a pipe or a
    file the answer goes alone and as it is; thought and notes go to stderr.

    Args:
        out: for answers. notes: for thoughts and notes; the same on a terminal.
        markdown: render answers, where `out` is a terminal that can move its cursor.
    """

    def __init__(self, out: Console, notes: Console, markdown: bool = True):
        self.out, self.notes, self.markdown = out, notes, markdown
        self._marked = notes.color_system is None  # nothing but a mark tells the thought from the rest
        self._in_thought = self._in_answer = False
        self._stream = None

    @classmethod
    def standard(cls, markdown: bool = True) -> "ReplyPrinter":
        """For the standard streams of this process."""
        out = console()
        return cls(out, out if out.is_terminal else console(stderr=True), markdown)

    @property
    def renders(self) -> bool:
        return self.markdown and self.out.is_terminal and not self.out.is_dumb_terminal

    def show(self, thought: str, answer: str) -> None:
        """Prints what was added to a reply."""
        if thought:
            if not self._in_thought and self._marked:
                self._print(self.notes, "<think>\n")
            self._in_thought = True
            self._print(self.notes, thought, "dim italic")
        if not answer:
            return
        if not self._in_answer:
            self._end_thought()
            self._in_answer = True
        if not self.renders:
            self._print(self.out, answer)
            return
        if self._stream is None:
            from spoutnik.terminal_markdown import MarkdownStream
            self._stream = MarkdownStream(self.out)
        self._stream.write(_printable(answer))

    def close(self, notes: Sequence[str] = ()) -> None:
        """Ends a reply, and prints what there is to say of the whole."""
        if self._stream is not None:
            self._stream.close()
        elif self._in_answer:
            self._print(self.out, "\n")
        self._end_thought()
        for note in notes:
            self.note(f"({note})")
        self._in_answer, self._stream = False, None

    def show_answer(self, answer: str) -> None:
        """An answer of another time, whole."""
        self.show("", answer)
        self.close()

    def note(self, text: str) -> None:
        """Prints a line that is no part of a reply."""
        say(text, self.notes, "dim")

    def _end_thought(self) -> None:
        if self._in_thought:
            self._print(self.notes, "\n</think>\n" if self._marked else "\n\n")
            self._in_thought = False

    def _print(self, console: Console, text: str, style: str = "") -> None:
        if not text:
            return
        if console.is_terminal:
            console.print(Text(_printable(text), style), end="", soft_wrap=True)
        else:
            console.file.write(text)
        console.file.flush()


def _printable(text: str) -> str:
    return _CONTROL.sub("", text)


def as_text(typed: str) -> str:
    """What was typed, with a mark for bytes that are no text: Python hides them in characters that no encoding has."""
    return typed.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def read_line(prompt: str) -> str:
    """A line of standard input; the prompt is for people alone, and never in what is piped on."""
    if sys.stdin.isatty() and sys.stdout.isatty():
        return input(prompt)
    if sys.stdin.isatty():
        print(prompt, end="", file=sys.stderr, flush=True)
    return input()
