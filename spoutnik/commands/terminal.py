"""`spoutnik chat`: a conversation in the terminal, with commands, several lines at a time, and a memory for questions."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from spoutnik.errors import RunError, UserError
from spoutnik.files import disk_errors, read_json, write_json
from spoutnik.generation.chat import Chat
from spoutnik.generation.options import EFFORTS, ContextOverflow

try:
    import readline
except ImportError:  # a Python without it: no editing, no memory
    readline = None

HELP = '''/effort LEVEL   how much of a reply the thought may take: none, minimal, low, medium, high, xhigh, max
/think on|off   think before answering, or answer at once
/system TEXT    what the model is told before everything (nothing: no more)
/retry          another answer to the last question
/edit           change the last question
/save FILE      write the conversation to a file (JSON)
/load FILE      go on with one
/stats          what the last reply cost, and how full the model's memory is
/new            start over
"""             begins and ends a message of several lines; so does \\ at a line's end
Ctrl-C          while it thinks: answer now; while it answers: stop. Empty line or Ctrl-D: leave'''
REMEMBERED = 1000  # questions


def converse(talk: Chat, console: Console, folder: Path, remembered: Path | None,
             read: Callable[[str], str] = input) -> None:
    """Until an empty line or the end of input. remembered: a file of what was typed, for the arrow keys; None for none."""
    terminal = Terminal(talk, console, folder, read)
    terminal.note(f"{folder}. {about(talk, folder)} /help for commands, empty line or Ctrl-D to leave.")
    with _memory(remembered if sys.stdin.isatty() else None):
        while terminal.turn():
            pass


def about(talk: Chat, folder: Path) -> str:
    manifest = Path(folder) / "manifest.json"
    if manifest.exists() and "stage" in read_json(manifest):
        return ("It was taught the problem families of its recipe and small talk, nothing else. "
                "Try: Use 3, 5, 8 once each to make 16.")
    return f"A {talk.llm.config.model_type} model."


class Terminal:
    """read: asks for a line, with a prompt."""

    def __init__(self, talk: Chat, console: Console, folder: Path, read: Callable[[str], str]):
        self.talk, self.console, self.folder, self.read = talk, console, folder, read

    def note(self, text: str) -> None:
        self.console.print(Text(text, "dim"), soft_wrap=True)

    def turn(self) -> bool:
        """One message or command; False to leave."""
        try:
            text = self.message()
        except EOFError:
            self.console.print()
            return False
        except KeyboardInterrupt:
            self.note("\n(Ctrl-D, or an empty line, leaves.)")
            return True
        if not text.strip():
            return False
        try:
            self.obey(*text[1:].partition(" ")[::2]) if text.startswith("/") else self.ask(text)
        except (UserError, RunError) as error:
            self.note(str(error))
        return True

    def message(self) -> str:
        """A line, or several."""
        line = self.read("> ")
        if line.startswith('"""'):
            lines = [line[3:]]
            while not (lines[-1].endswith('"""')):
                lines.append(self.read(". "))
            return "\n".join(lines).removesuffix('"""').strip("\n")
        while line.endswith("\\"):
            line = f"{line[:-1]}\n{self.read('. ')}"
        return line.rstrip()

    def ask(self, text: str) -> None:
        try:
            self.talk.ask(text.strip(), self.console)
        except ContextOverflow as error:  # the conversation has grown too long: say so and go on
            self.talk.messages.clear()
            self.note(f"{error} The conversation starts over.")

    def obey(self, command: str, rest: str) -> None:
        talk, rest = self.talk, rest.strip()
        match command:
            case "help":
                self.note(HELP)
            case "new":
                talk.messages.clear()
            case "effort":
                self.effort(rest)
            case "think":
                self.think(rest)
            case "system":
                talk.system = rest or None
            case "retry" | "edit":
                self.again(change=command == "edit")
            case "save":
                self.save(_path(command, rest))
            case "load":
                self.load(_path(command, rest))
            case "stats":
                self.note(self.stats())
            case _:
                raise UserError(f"/{command}: is no command; /help shows them. To say it to the model, begin with a space.")

    def effort(self, level: str) -> None:
        if level and level not in EFFORTS:
            raise UserError(f"/effort {level}: unknown. Choose {', '.join(EFFORTS)}.")
        if level:
            self.talk.options = replace(self.talk.options, reasoning_effort=level, enable_thinking=None)
        self.note(f"effort: {self.talk.options.reasoning_effort or 'as the model is used to'}")

    def think(self, switch: str) -> None:
        if switch not in ("on", "off"):
            raise UserError(f"/think {switch}: must be on or off.")
        options = self.talk.options
        effort = None if options.reasoning_effort == "none" else options.reasoning_effort
        most = None if options.max_thinking_tokens == 0 else options.max_thinking_tokens
        self.talk.options = replace(options, enable_thinking=switch == "on", reasoning_effort=effort, max_thinking_tokens=most)

    def again(self, change: bool) -> None:
        question = self.talk.take_back()
        if question is None:
            raise UserError("there is no question yet.")
        if change:
            with _typed(question):
                question = self.message() or question
        self.talk.seed += 1  # other random numbers
        self.ask(question)

    def save(self, path: Path) -> None:
        write_json(path, {"model": str(self.folder), "system": self.talk.system, "messages": self.talk.messages})
        self.note(f"{len(self.talk.messages)} messages in {path}")

    def load(self, path: Path) -> None:
        found = read_json(path)
        messages = found.get("messages") if isinstance(found, dict) else None
        if not isinstance(messages, list) or not all(
                isinstance(one, dict) and isinstance(one.get("role"), str) and isinstance(one.get("content"), str)
                for one in messages):
            raise UserError(f"{path}: is no conversation: it must hold messages, each with role and content.")
        self.talk.messages, self.talk.system = messages, found.get("system")
        for one in messages:
            self.console.print(Text(f"{'> ' if one['role'] == 'user' else ''}{one['content']}"), soft_wrap=True)

    def stats(self) -> str:
        last, first = self.talk.stats, self.talk.stats.first_token_seconds
        speed = (last.tokens - 1) / (last.seconds - first) if last.seconds > first else 0.0
        limit = self.talk.llm.max_model_len
        return (f"last reply: {last.tokens} tokens ({last.thought_tokens} of thought) in {last.seconds:.1f} s, first after "
                f"{first:.1f} s, then {speed:.1f} a second; {last.cached_tokens} of {last.prompt_tokens} tokens before it "
                f"were in the cache\nmemory: {last.prompt_tokens + last.tokens} of {limit} tokens, "
                f"{len(self.talk.messages)} messages")


def _path(command: str, rest: str) -> Path:
    if not rest:
        raise UserError(f"/{command}: needs a file, as /{command} talk.json")
    return Path(rest).expanduser()


@contextlib.contextmanager
def _typed(text: str) -> Iterator[None]:
    """The next line begins with this text, to be changed."""
    if readline is None:
        yield
        return
    readline.set_pre_input_hook(lambda: (readline.insert_text(text), readline.redisplay()))
    try:
        yield
    finally:
        readline.set_pre_input_hook()


@contextlib.contextmanager
def _memory(path: Path | None) -> Iterator[None]:
    """What was typed before is there on the arrow keys, and what is typed now is there the next time."""
    if readline is None or path is None:
        yield
        return
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(REMEMBERED)
    try:
        yield
    finally:
        with disk_errors(path, "--data"):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
            readline.write_history_file(path)
